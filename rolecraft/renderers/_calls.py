"""Tool calls as text: writes them, and reads hostile ones within bounds, saying what is wrong with each.

Not covered: whether a tool of that name exists and its schema is met; the toolbox checks that.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from rolecraft.errors import DataError
from rolecraft.renderers._format import CallSyntax
from rolecraft.renderers._json import balanced_end, brief, kind, load
from rolecraft.renderers._text import reasoning_end
from rolecraft.renderers._values import load_value
from rolecraft.types import Json, ToolCall

_BETWEEN = re.compile(r"[\s;,]*")
_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")
_PYTHON_NAME = re.compile(r"[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*")
_PYTHON_ESCAPES = {"\0": "\\x00", "\\": "\\\\", "'": "\\'", "\n": "\\n", "\r": "\\r"}


@dataclass(frozen=True, slots=True)
class Reply:
    """A reply taken apart: its text, the calls that parse, and the others verbatim."""

    content: str
    calls: tuple[ToolCall, ...]
    unparsed: str | None


def write_call(call: ToolCall, syntax: CallSyntax) -> str:
    """Return the text of one call, without its tags; raises DataError for what cannot be written (see `call_parts`)."""
    return "".join(text for text, _ in call_parts(call, syntax))


def call_parts(call: ToolCall, syntax: CallSyntax) -> list[tuple[str, bool]]:
    """Return the text of one call in parts, each with whether it is one of the syntax's own marks.

    Raises DataError for arguments that JSON cannot hold, or names that cannot stand in Python.
    """
    if syntax.style == "python":
        return [(_as_python(call), False)]
    if syntax.style == "named":
        before, slot, after = syntax.mark.partition("{id}")
        middle = [(before, True), *([(call.id, False), (after, True)] if slot else [])]
        return [(call.name, False), *middle, (_as_json(dict(call.arguments), call, syntax.compact), False)]
    data = {syntax.name_key: call.name, syntax.arguments_key: dict(call.arguments)}
    if syntax.id_key and call.id:
        data[syntax.id_key] = call.id
    return [(_as_json(data, call, syntax.compact), False)]


def _as_json(data: Json, call: ToolCall, compact: bool = False) -> str:
    separators = (",", ":") if compact else (", ", ": ")
    try:
        return json.dumps(data, ensure_ascii=False, allow_nan=False, separators=separators)
    except (TypeError, ValueError, RecursionError) as error:
        raise DataError(f"call of {call.name!r}: arguments that JSON cannot hold ({error}); mend or drop it") from error


def _as_python(call: ToolCall) -> str:
    """Return `name(key='text', other=[1, "in JSON"])`."""
    odd = next((key for key in (call.name.replace("-", "."), *call.arguments) if not _in_python(key)), None)
    if odd is not None:
        raise DataError(f"call of {call.name!r}: {odd!r} cannot be a name in Python; rename it")
    given = ", ".join(f"{key}={_python_value(value, call)}" for key, value in call.arguments.items())
    return f"{call.name}({given})"


def _in_python(name: str) -> bool:
    """Tell whether a name comes back as it is from Python's parser, which normalises names."""
    return _PYTHON_NAME.fullmatch(name) is not None and unicodedata.normalize("NFKC", name) == name


def _python_value(value: Json, call: ToolCall) -> str:
    if isinstance(value, str):
        return "'" + "".join(_PYTHON_ESCAPES.get(character, character) for character in value) + "'"
    if isinstance(value, dict | list | tuple):
        return _as_json(value, call)
    _as_json(value, call)
    return str(value)


def read_call(text: str, syntax: CallSyntax) -> ToolCall | str:
    """Return the call that the JSON `text` makes, or a short reason why it makes none; never raises."""
    try:
        data = load(text)
    except ValueError as error:
        return str(error)
    except RecursionError:
        return "not JSON: nested too deeply"
    return call_of(data, (syntax.arguments_key,), syntax)


def read_calls(text: str, syntax: CallSyntax) -> tuple[ToolCall, ...] | str:
    """Return the calls between an opening and a closing tag, one or a list, or why the text makes none."""
    if syntax.style == "named":
        answer = _read_named(text, syntax)
        return answer if isinstance(answer, str) else (answer,)
    if not syntax.listed:
        answer = read_call(text, syntax)
        return answer if isinstance(answer, str) else (answer,)
    try:
        items = load_value(text) if syntax.style == "python" else load(text)
    except (ValueError, RecursionError) as error:
        return str(error) or "nested too deeply"
    made = [call_of(item, (syntax.arguments_key,), syntax) for item in (items if isinstance(items, list) else [items])]
    calls = tuple(one for one in made if isinstance(one, ToolCall))
    return calls if len(calls) == len(made) else next(one for one in made if isinstance(one, str))


def _read_named(text: str, syntax: CallSyntax) -> ToolCall | str:
    """Return the call in a name, a mark and an object."""
    before, slot, after = syntax.mark.partition("{id}")
    name, mark, arguments = text.partition(before)
    identity, apart, arguments = arguments.partition(after) if slot else ("", mark, arguments)
    if not mark or not apart:
        return f"a call is a name, {syntax.mark}, and an object"
    try:
        data = load(arguments.strip())
    except ValueError as error:
        return str(error)
    except RecursionError:
        return "not JSON: nested too deeply"
    made = call_of({syntax.name_key: name.strip(), syntax.arguments_key: data}, (syntax.arguments_key,), syntax)
    return made if isinstance(made, str) else ToolCall(made.name, made.arguments, _identity(identity.strip()))


def _identity(given: Json) -> str:
    """Return the id that a model gave its call, '' if it is none."""
    return given if isinstance(given, str) and _ID.fullmatch(given) else ""


def parse(segments: Iterable[tuple[str, bool]], syntax: CallSyntax, *, tags_are_tokens: bool) -> Reply:
    """Take a reply apart; `segments` are runs of (text, whether it is one control token). Never raises.

    Where the tokenizer has the tags as tokens only those open a call, so quoted tags stay text. What a reply considers
    in the reasoning that it opens with is text too.
    """
    segments = list(segments)
    text = "".join(part for part, _ in segments)
    end = reasoning_end(text)
    if end is None:
        return Reply(text, (), None)
    if not syntax.open:
        return _parse_lines(text, syntax, end)
    if tags_are_tokens:
        return _parse_tagged(_from(segments, end), syntax, text[:end])
    parts = re.split("(" + "|".join(map(re.escape, syntax.tags)) + ")", text[end:])
    return _parse_tagged([(part, part in syntax.tags) for part in parts if part], syntax, text[:end])


def _from(segments: Iterable[tuple[str, bool]], start: int) -> Iterator[tuple[str, bool]]:
    """Yield the segments of a text from place `start` on."""
    for text, control in segments:
        cut = min(start, len(text))
        start -= cut
        if cut < len(text):
            yield text[cut:], control and not cut


def call_of(data: Json, argument_keys: Sequence[str], syntax: CallSyntax) -> ToolCall | str:
    """Return the call in a JSON value, its arguments under the first of `argument_keys`, or why it is none."""
    if isinstance(data, ToolCall):
        return data
    if not isinstance(data, dict):
        return f"a call must be an object, got {kind(data)}"
    name = data.get(syntax.name_key)
    if not isinstance(name, str) or not name.strip():
        return f'no "{syntax.name_key}"' if name is None else f'"{syntax.name_key}" must be the name of a tool'
    known = (syntax.name_key, syntax.id_key or syntax.name_key, *argument_keys, *syntax.ignored)
    strange = next((key for key in data if key not in known), None)
    if strange is not None:
        return f'no such key {brief(strange)}; a call has "{syntax.name_key}" and "{argument_keys[0]}"'
    # A call of a tool without parameters may leave them out.
    arguments = data.get(argument_keys[0], {})
    if not isinstance(arguments, dict):
        return f'"{argument_keys[0]}" must be an object, got {kind(arguments)}'
    return ToolCall(name, arguments, _identity(data.get(syntax.id_key)) if syntax.id_key else "")


def _parse_tagged(segments: Iterable[tuple[str, bool]], syntax: CallSyntax, lead: str = "") -> Reply:
    """Take apart what follows `lead`, text that is not looked at."""
    opening, closing = syntax.tags[0], syntax.close.strip()
    texts, calls, bad = [lead], list[ToolCall](), list[str]()
    inner: str | None = None

    def finish(raw_end: str) -> None:
        assert inner is not None
        # Where calls have no closing tag, one whose JSON is whole is whole.
        answer = read_calls(inner.strip(), syntax) if raw_end or not closing else ""
        if isinstance(answer, str):
            bad.append((opening + inner + raw_end).rstrip("\n"))
        else:
            calls.extend(answer)
        texts.append("")

    for text, control in segments:
        if control and text == opening:
            if inner is not None:
                finish("")
            inner = ""
        elif control and closing and text == closing and inner is not None:
            finish(closing)
            inner = None
        elif inner is not None:
            inner += text
        else:
            texts[-1] += text
    if inner is not None:
        finish("")
    return _reply(texts, calls, bad, syntax.after_text)


def _parse_lines(text: str, syntax: CallSyntax, start: int) -> Reply:
    """Take apart a reply of whose text nothing before `start` is looked at."""
    here = re.compile(rf"[ \t]*(?={syntax.begins})")
    # The lines that begin a call, each with where the next one does; found once, to stay linear.
    begins = re.compile(rf"^[ \t]*(?={syntax.begins})", re.MULTILINE)
    places = [match.start() for match in begins.finditer(text, start)]
    if not places:
        return Reply(text, (), None)
    texts, calls, bad = [text[: places[0]]], list[ToolCall](), list[str]()
    for place, limit in zip(places, [*places[1:], len(text)], strict=True):
        at = here.match(text, place, limit)
        while at is not None:
            end = balanced_end(text, at.end(), limit)
            answer = read_call(text[at.end() : end].strip(), syntax)
            if isinstance(answer, ToolCall):
                calls.append(answer)
            else:
                bad.append(text[at.start() : end].rstrip("\n"))
            gap = _BETWEEN.match(text, end, limit)
            place = gap.end() if gap else end
            at = here.match(text, place, limit)
        texts.append(text[place:limit])
    return _reply(texts, calls, bad)


def _reply(texts: list[str], calls: list[ToolCall], bad: list[str], after_text: str = "\n") -> Reply:
    """Join what is left; the first text is exact, later ones are kept where they say something."""
    lead = texts[0].removesuffix(after_text) if calls or bad else texts[0]
    later = [text.strip() for text in texts[1:] if text.strip()]
    content = "\n".join([lead, *later]) if lead else "\n".join(later)
    return Reply(content, tuple(calls), "\n".join(bad) if bad else None)
