"""Reads calls that a model wrote otherwise than its family does, and keeps the strict reading beside them.

Read as a call is what names an offered tool and gives its arguments as an object: JSON, bare or in a fenced block, or
Python's `f(a=1)`, alone, in a list, or after another family's mark. It must open the reply, after its reasoning, or
close it; in a fenced block or in Python's syntax it must close it, so that code which a user asked to see stays text.
What looks like a call and cannot be read is `unparsed`. Not covered: positional arguments, and what brackets that are
missing would have held.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from rolecraft.renderers._text import reasoning_end
from rolecraft.renderers._values import BETWEEN, VALUE, Found, begins_call, calls_by_name, read_values, value_end
from rolecraft.types import Message, ToolSpec

MARKS = (
    "<|python_tag|>",
    "[TOOL_CALLS]",
    "<tool_call>",
    "<|tool_call|>",
    "<|tool_call_start|>",
    "<tools>",
    "<function_call>",
    "<functioncall>",
)
"""What families, and models that mix them up, write before calls."""

_CLOSERS = ("</tool_call>", "<|/tool_call|>", "<|tool_call_end|>", "</tools>", "</function_call>", "</functioncall>")
_START = re.compile(
    r"(?:^|(?<=</think>))[ \t]*+(?:(?P<fence>`{3,}+)|(?=\{|\[(?!TOOL_CALLS\])|[A-Za-z_][\w.]*+\())"
    r"|(?P<inline>(?<=:)[ \t]*+(?=\{))|(?P<mark>" + "|".join(map(re.escape, MARKS)) + ")",
    re.MULTILINE,
)
_CLOSING = re.compile(r"\s*+(?:" + "|".join(map(re.escape, _CLOSERS)) + ")")
_INFO = re.compile(r"[ \t]*+[\w.+-]*+[ \t]*+\r?\n|[A-Za-z]*+[ \t]*+(?=[\[{])|")
_FENCE_END = re.compile(r"(?<!`)`{3,}+[ \t\r]*+$", re.MULTILINE)
_EMPTY_FENCES = re.compile(r"\s*+(?:`{3,}+[\w.+-]*+\s*+)++")
_REST_OF_LINE = re.compile(r"[ \t\r;,]*+(?:\n|\Z)")
_UNSETTLED = re.compile(r"[ \t\r\])}]*+\Z")
_SPLIT_CALL = re.compile(r"([A-Za-z_][\w.-]*+)(?:\[ARGS\])?(?=\{)")
_SPLIT_BEGINNING = re.compile(r"[\w.-]*+(?:\[[ARGS]*+\]?)?\Z")
_NAME_AT_END = re.compile(r"[A-Za-z_][\w.]*+\Z")  # of which a call may become
_LINE_BEGINNING = re.compile(r"(?:^|(?<=</think>))[ \t]*+(`{1,2}+|[A-Za-z_][\w.]*+)\Z", re.MULTILINE)
_MOST = 500  # so many values are looked at
_TRIES = 4  # so many values that are never closed are passed over; after them nothing more is looked for
_NAME = 300  # characters in which a tool's name is looked for
_CUT = "cut off before its end; write it shorter"


@dataclass(frozen=True, slots=True)
class _Piece:
    """A part of a reply that may be a call: `open` if it may go on, `early` if it is one though text follows."""

    start: int
    end: int
    found: Found
    open: bool = False
    early: bool = False


def reread(message: Message, text: str, tools: Sequence[ToolSpec], *, cut: bool = False) -> Message:
    """Return a reply without calls as its `text` reads leniently, the strict reading beside it; never raises.

    Where that finds nothing the message is returned as it is. `cut`: the reply was ended by its length, so that an
    unfinished call is one.
    """
    if message.tool_calls or not tools:
        # Where a family's calls are bare lines, those in a fenced block leave its fences behind.
        emptied = bool(message.tool_calls) and _EMPTY_FENCES.fullmatch(message.content) is not None
        return replace(message, content="") if emptied else message
    pieces = _counted(text, list(_pieces(text, tools, cut=cut)))
    if not pieces:
        return message
    calls = tuple(call for piece in pieces if isinstance(piece.found, tuple) for call in piece.found)
    bad = [text[piece.start : piece.end].strip() for piece in pieces if isinstance(piece.found, str)]
    unparsed = "\n".join(bad) if bad else None
    strict = replace(message, ids=None)
    return replace(message, content=_rest(text, pieces), tool_calls=calls, unparsed=unparsed, strict=strict)


def why_unread(text: str, tools: Sequence[ToolSpec]) -> str:
    """Return why `text`, the `unparsed` of a reply that was read leniently, is no call of `tools`."""
    reason = next((piece.found for piece in _pieces(text, tools) if isinstance(piece.found, str)), _CUT)
    return f'{reason}; write {{"name": ..., "arguments": {{...}}}}, whole and with nothing beside it'


def settled_length(text: str, tools: Sequence[ToolSpec], start: int = 0) -> int:
    """Return how much of a reply that goes on is sure to begin its content; that `start` is, was known before."""
    pieces = list(_pieces(text, tools, start=start)) if tools else []
    place = _beginning(text, tools) if tools else len(text)
    for piece in reversed(pieces):
        if piece.open or (piece.found is not None and _only_gap(text, piece.end, place)):
            place = piece.start
    place = min([place, *(piece.start for piece in _counted(text, pieces))])
    return max(start, len(text[:place].rstrip())) if tools else place


def _counted(text: str, pieces: Sequence[_Piece]) -> list[_Piece]:
    """Return the pieces that are calls, or were meant as such, by where they stand."""
    first, place = 0, reasoning_end(text) or 0
    while first < len(pieces) and pieces[first].early and pieces[first].found is not None:
        if not _only_gap(text, place, pieces[first].start):
            break
        place, first = pieces[first].end, first + 1
    last, place = len(pieces), len(text)
    while last > first and pieces[last - 1].found is not None and _only_gap(text, pieces[last - 1].end, place):
        place, last = pieces[last - 1].start, last - 1
    return [*pieces[:first], *pieces[last:]]


def _only_gap(text: str, start: int, end: int) -> bool:
    match = BETWEEN.match(text, start, end)
    return match is not None and match.end() == end


def _pieces(text: str, tools: Sequence[ToolSpec], *, start: int = 0, cut: bool = False) -> Iterator[_Piece]:
    """Yield what may be a call, in order; what is no call is among it only where it may go on. Linear."""
    place, after, tries, seen = reasoning_end(text), False, 0, 0
    if place is None:
        return
    place = max(start, place)
    while tries <= _TRIES and seen < _MOST:
        beside = _adjacent(text, place, tools) if after else None
        piece = None if beside is None else _bare(text, beside, tools, cut)
        if piece is None:
            match = _START.search(text, place)
            if match is None:
                return
            piece = _piece(text, match, tools, cut)
            if piece is None:
                after, place = False, match.end() + 1
                continue
        seen += 1
        if piece.open or piece.found is not None:
            yield piece
        after = piece.found is not None
        tries += piece.open and not after
        place = piece.end if after or not piece.open else piece.start + 1


def _adjacent(text: str, place: int, tools: Sequence[ToolSpec]) -> int | None:
    """Return where another value begins after the one that ends at `place`, though on its line."""
    gap = BETWEEN.match(text, place)
    at = gap.end() if gap else place
    return at if text[at : at + 1] in ("[", "{") or calls_by_name(text[at : at + _NAME], tools) else None


def _begins_another(text: str, place: int, tools: Sequence[ToolSpec]) -> bool:
    """Tell whether after the value that ends at `place` the text ends in what may become another call's name."""
    gap = BETWEEN.match(text, place)
    name = _NAME_AT_END.match(text, gap.end() if gap else place)
    return name is not None and any(tool.name.startswith(name[0]) for tool in tools)


def _piece(text: str, match: re.Match[str], tools: Sequence[ToolSpec], cut: bool) -> _Piece | None:
    if match["fence"]:
        return _fenced(text, match, tools, cut)
    if match["mark"]:
        return _marked(text, match, tools, cut)
    bare = _bare(text, match.end(), tools, cut)
    return replace(bare, early=False) if bare and match["inline"] is not None else bare


def _fenced(text: str, match: re.Match[str], tools: Sequence[ToolSpec], cut: bool) -> _Piece:
    info = _INFO.match(text, match.end())
    start = info.end() if info else match.end()
    closing = _FENCE_END.search(text, start)
    inner = text[start : closing.start() if closing else len(text)]
    found = read_values(inner, tools)
    if cut and closing is None and not isinstance(found, tuple) and inner.strip() and begins_call(inner, tools):
        found = _CUT
    end = closing.end() if closing else len(text)
    return _Piece(match.start(), end, found, open=closing is None or end == len(text))


def _bare(text: str, start: int, tools: Sequence[ToolSpec], cut: bool) -> _Piece | None:
    python = text[start] not in "[{"
    by_name = calls_by_name(text[start : start + _NAME], tools)
    if python and not by_name:
        return None
    end, closed = value_end(text, start)
    found = read_values(text[start:end], tools)
    goes_on = found is not None and _begins_another(text, end, tools)
    alone = goes_on or _REST_OF_LINE.match(text, end) is not None or _adjacent(text, end, tools) is not None
    if python and closed and not alone:
        return None
    if cut and not closed and not isinstance(found, tuple) and begins_call(text[start:], tools):
        found = _CUT
    unsettled = not closed or goes_on or _UNSETTLED.match(text, end) is not None
    return _Piece(start, end, found, open=unsettled, early=not by_name)


def _marked(text: str, match: re.Match[str], tools: Sequence[ToolSpec], cut: bool) -> _Piece | None:
    """Return the calls after another family's mark; a mark that no value follows is text."""
    gap = BETWEEN.match(text, match.end())
    start = end = gap.end() if gap else match.end()
    closed, found, may_go_on = True, None, False
    if split := _SPLIT_CALL.match(text, start):
        end, closed = value_end(text, split.end())
        whole = f'{{"name": {json.dumps(split[1])}, "arguments": {text[split.end() : end]}}}'
        found = read_values(whole, tools, sure=True)
    elif _SPLIT_BEGINNING.match(text, start):
        return _Piece(match.start(), len(text), _CUT if cut else None, open=True, early=True)
    elif not VALUE.match(text, start):
        return None
    else:
        at = start
        while closed and VALUE.match(text, at):
            end, closed = value_end(text, at)
            gap = BETWEEN.match(text, end)
            at = gap.end() if gap else end
        found = read_values(text[start:end], tools, sure=True)
        may_go_on = _NAME_AT_END.match(text, at) is not None
    if cut and not closed and not isinstance(found, tuple):
        found = _CUT
    closing = _CLOSING.match(text, end)
    end = closing.end() if closing else end
    return _Piece(match.start(), end, found, open=not closed or may_go_on, early=True)


def _beginning(text: str, tools: Sequence[ToolSpec]) -> int:
    """Return where what may begin a call, a mark or its end begins at the end of the text, else its length."""
    line = _LINE_BEGINNING.search(text, text.rfind("\n") + 1)
    if line and (line[1][0] == "`" or any(tool.name.startswith(line[1]) for tool in tools)):
        return line.start()
    longest = max(map(len, (*MARKS, *_CLOSERS)))
    ends = (text[-size:] for size in range(min(longest, len(text)), 0, -1))
    part = next((end for end in ends if any(mark.startswith(end) for mark in (*MARKS, *_CLOSERS))), "")
    return len(text) - len(part)


def _rest(text: str, pieces: Sequence[_Piece]) -> str:
    ends = [0, *(piece.end for piece in pieces)]
    starts = [*(piece.start for piece in pieces), len(text)]
    lead, *later = (text[end:start] for end, start in zip(ends, starts, strict=True))
    parts = (lead.rstrip(), *(part.strip(" \t\r\n;,") for part in later))
    return "\n".join(part for part in parts if part)
