"""Writes the grammar of a reply: calls in a chat format's own syntax, JSON of a schema, or whose turn comes next.

The grammar is in llguidance's dialect of Lark. A reply that follows it to its end parses, and its calls fit their
schemas. Narrower than the format: where calls are lines of JSON, no line of text begins with their first bracket.
Not covered: keys of an object that are all different where the schema leaves them open; `matcher` sees to that.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from rolecraft.errors import DataError
from rolecraft.grammar.fenced import LIST, Block
from rolecraft.grammar.replies import ReplyWriter
from rolecraft.grammar.shapes import Limits
from rolecraft.renderers import Renderer
from rolecraft.types import Choice, Json, ToolSpec

OnUnsupported = Literal["refuse", "ignore"]

_LONGEST_NAME = 256
_LONGEST_GRAMMAR = 2_000_000
_SHOWN = 5


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a reply may be.

    `choice` is `none` (text), `auto` (text, calls or both), `required` (calls, no text) or the name of the one tool to
    be called. `parallel`: several calls are allowed. `next_roles`: the text ends by naming one of them; no calls then.
    `schema`: where a reply may be text, it is JSON that fits, or calls. `lenient`: calls may stand in a fenced `block`
    too, and no text begins as if it were to be a call, nor, where none may come, with a block at all.
    """

    tools: tuple[ToolSpec, ...] = ()
    choice: Choice = "auto"
    parallel: bool = True
    next_roles: tuple[str, ...] = ()
    schema: Mapping[str, Json] | None = None
    lenient: bool = False
    block: Block = LIST


@dataclass(frozen=True, slots=True)
class Grammar:
    """A reply's grammar; `ignored` are the paths of schema keywords it does not keep.

    `open_keys`: some object may hold keys that no schema lists, which have to be kept different.
    """

    text: str
    ignored: tuple[str, ...] = ()
    open_keys: bool = False


def write(
    renderer: Renderer, wanted: Wanted, limits: Limits, on_unsupported: OnUnsupported = "refuse", lead: str = ""
) -> Grammar:
    """Return the grammar of a whole reply, the end token included.

    `lead` is what the tokenizer puts before any text, a space in some families. Raises DataError for tools that cannot
    be written or made a grammar, and for a keyword that is not supported unless those are to be ignored; ContractError
    for a format whose calls have no fixed beginning.
    """
    chosen = _chosen(wanted)
    for role in wanted.next_roles:
        if not re.fullmatch(r"\w+( \w+)*", role):
            raise DataError(
                f"role {role!r} cannot be named as the next one; use letters, digits, '_' and a space between"
            )
    writer = ReplyWriter(renderer, limits, lead)
    if wanted.next_roles:
        reply = writer.thought(wanted.next_roles)
    else:
        reply = writer.reasoned(_calls_or_text(writer, wanted, chosen))
        if writer.unsupported and on_unsupported == "refuse":
            raise DataError(_unsupported(tuple(writer.unsupported)))
    text = writer.finished(reply)
    if len(text) > _LONGEST_GRAMMAR:
        raise DataError(f"the grammar of {len(chosen)} tools has {len(text)} characters; offer fewer, or smaller ones")
    return Grammar(text, tuple(writer.unsupported), writer.open_keys)


def _calls_or_text(writer: ReplyWriter, wanted: Wanted, chosen: Sequence[tuple[int, ToolSpec]]) -> str:
    """Return a rule for calls of the chosen tools, for text or for both, as `wanted.choice` says."""
    calls = writer.calls(chosen, wanted.parallel, apart=wanted.schema is not None) if chosen else ""
    if calls and wanted.parallel:
        calls = writer.broken(calls)
    fenced = ""
    if calls and wanted.lenient and wanted.schema is None:
        fenced = writer.fenced(chosen, wanted.block, wanted.parallel)
    if calls and wanted.choice != "auto":
        return f"({calls} | {fenced})" if fenced else calls
    if wanted.schema is not None:
        content = writer.content(wanted.schema)
        return f"({content} | {calls})" if calls else content
    if not calls:
        return writer.text(lenient=wanted.lenient, fences=False)
    text = writer.text_and(calls, lenient=wanted.lenient)
    return f"({text} | {fenced})" if fenced else text


def _chosen(wanted: Wanted) -> list[tuple[int, ToolSpec]]:
    """Return the tools that may be called, each with its place."""
    tools = list(enumerate(wanted.tools))
    if wanted.choice == "none" or (wanted.choice == "auto" and not tools):
        return []
    if not tools:
        raise DataError(f"choice is {wanted.choice!r} and there are no tools; give tools, or ask for 'none'")
    for place, tool in tools:
        if not tool.name.strip() or len(tool.name) > _LONGEST_NAME or not tool.name.isprintable():
            raise DataError(
                f"tools[{place}].name is {tool.name[:40]!r}; it must be 1 to {_LONGEST_NAME} printable characters"
            )
    if wanted.choice in ("auto", "required"):
        return tools
    named = [pair for pair in tools if pair[1].name == wanted.choice]
    if not named:
        names = [tool.name for tool in wanted.tools]
        near = difflib.get_close_matches(wanted.choice, names, n=1, cutoff=0.5)
        hint = f"Did you mean {near[0]!r}?" if near else f"There are: {', '.join(names[:8])}."
        raise DataError(f"choice is {wanted.choice!r}, which is no tool, nor none, auto or required. {hint}")
    return named


def _unsupported(paths: Sequence[str]) -> str:
    shown = "; ".join(paths[:_SHOWN]) + (f"; and {len(paths) - _SHOWN} more" if len(paths) > _SHOWN else "")
    return f"schema keywords that a grammar cannot keep: {shown}. Drop them, or ignore what is unsupported"
