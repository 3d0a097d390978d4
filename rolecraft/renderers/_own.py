"""Writes conversations as a model's own template does, what it adds to them kept apart from what they say.

A template that tells no tools is told them in the system text, as Hermes has them; calls and results are then text too.
Not covered: speakers other than the assistant.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from rolecraft.errors import DataError
from rolecraft.renderers._format import Format, Template
from rolecraft.renderers._jinja import TemplateFailed, templates
from rolecraft.renderers._plain import reply_as_text, result_as_text, tools_as_text
from rolecraft.renderers._rendered import Tape
from rolecraft.renderers._text import REASONING_TAGS, Codec, Piece
from rolecraft.types import Json, Message, ToolCall, ToolSpec

_SAID = "x"  # stands for what earlier replies say: no template can drop a thought from it
_ID = re.compile(r"[A-Za-z0-9]{9}")
_SHOWN = 24
_Row = dict[str, Any]


class OwnTemplate:
    """One template with one tokenizer."""

    def __init__(self, format: Format, template: Template, codec: Codec) -> None:
        self._format, self._template, self._codec = format, template, codec
        self._render = functools.lru_cache(maxsize=256)(self._render_now)
        self.header = codec.encode(codec.template(format.header))

    def write(self, messages: Sequence[Message], tools: Sequence[ToolSpec], replies: Sequence[tuple[int, ...]]) -> Tape:
        """Return a conversation that is over; `replies` are the ids of the assistant's messages."""
        return self._write(messages, tools, list(replies), asked=False)

    def open(self, messages: Sequence[Message], tools: Sequence[ToolSpec], replies: Sequence[tuple[int, ...]]) -> Tape:
        """Return a conversation up to where the assistant's next reply begins."""
        return self._write(messages, tools, list(replies), asked=True)

    def body(self, message: Message) -> tuple[Piece, ...]:
        """Return what the template writes for a reply, without its end."""
        asked: list[_Row] = [{"role": "user", "content": "?"}]
        before = self._text(asked, None, asked=True)
        after = self._text([*asked, self._reply_row(_with_ids(message))], None, asked=False)
        pieces = self._codec.unguarded(self._after(after, before).partition(self._format.end)[0])
        if message.unparsed is None:
            return pieces
        syntax = self._format.calls
        gap = syntax.between if message.tool_calls else syntax.after_text if message.content else ""
        return (*pieces, *self._codec.template(gap + message.unparsed, only=syntax.marks))

    def text(self, messages: Sequence[Message], tools: Sequence[ToolSpec]) -> str:
        """Return what the template itself makes of a conversation without marks in its texts."""
        rows, _ = self._rows(messages, tools, real=True)
        pieces = self._codec.unguarded(self._text(rows, self._listed(tools), asked=False))
        return self._codec.text(self._codec.encode(pieces))

    def _write(
        self, messages: Sequence[Message], tools: Sequence[ToolSpec], replies: list[tuple[int, ...]], *, asked: bool
    ) -> Tape:
        rows, places = self._rows(messages, tools, real=False)
        listed = self._listed(tools)
        whole = self._text(rows, listed, asked=asked)
        tape, at = Tape(), 0
        for message, place in zip(messages, places, strict=True):
            if message.role != "assistant":
                tape.starts.append(len(tape.ids))
                continue
            before = self._text(rows[:place], listed, asked=True)
            self._context(tape, before[at:], asked=True)
            if self._format.end not in self._after(whole, before):
                raise DataError(f"the model's own template leaves out {self._format.end!r} after a reply")
            tape.starts.append(len(tape.ids))
            ids = replies.pop(0)
            tape.add(ids, "assistant", 1.0 if message.weight is None else message.weight)
            end = self._codec.control[self._format.end]
            tape.add(() if ids and ids[-1] == end else (end,), "assistant")
            at = whole.index(self._format.end, len(before)) + len(self._format.end)
        self._context(tape, whole[at:], asked=asked)
        return tape

    def _context(self, tape: Tape, text: str, *, asked: bool) -> None:
        """Write what lies between two replies; its end announces the next one if that is `asked` for."""
        ids, header = self._codec.encode(self._codec.unguarded(text)), self.header
        own = len(header) if asked and header and ids[-len(header) :] == header else 0
        tape.add(ids[: len(ids) - own])
        tape.add(ids[len(ids) - own :], "assistant")

    def _after(self, whole: str, before: str) -> str:
        """Return what follows a beginning; raises DataError where the template has rewritten that."""
        if whole.startswith(before):
            return whole[len(before) :]
        place = alike(whole, before)
        raise DataError(
            f"the model's own template rewrites what came before: after {before[max(0, place - _SHOWN) : place]!r} it "
            f"wrote {before[place : place + _SHOWN]!r}, and then {whole[place : place + _SHOWN]!r}"
        )

    def _listed(self, tools: Sequence[ToolSpec]) -> Any:
        return self._guard([tool_row(tool) for tool in tools]) if tools and self._template.tells_tools else None

    def _rows(
        self, messages: Sequence[Message], tools: Sequence[ToolSpec], *, real: bool
    ) -> tuple[list[_Row], list[int]]:
        """Return the messages as the template takes them, and for each the place of its row.

        Replies are `real`, or say a word in their place, since they are written apart.
        """
        rows: list[_Row] = []
        places: list[int] = []
        head = "" if self._template.tells_tools or not tools else self._told(tools)
        if head and (not messages or messages[0].role != "system"):
            rows.append({"role": "system", "content": head})
            head = ""
        left = 0  # calls whose answer is yet to come
        for message in _identified(messages):
            follows = bool(places) and messages[len(places) - 1].role == "tool"
            if message.role == "assistant":
                rows.append(self._reply_row(message) if real else self._reply_row(replace(message, content=_SAID)))
                left = len(message.tool_calls)
            elif message.role == "tool" and not (self._template.tells_tools and left):
                rows.append(self._remark(message, rows.pop() if follows else {"role": "user", "content": ""}))
            else:
                left -= message.role == "tool"
                rows.append(self._guard(row(message)))
                if head:
                    rows[-1]["content"] = "\n\n".join(part for part in (rows[-1]["content"], head) if part)
                    head = ""
            places.append(len(rows) - 1)
        return self._without_system(rows, places)

    def _remark(self, message: Message, before: _Row) -> _Row:
        """Return the row of an answer that is text, or of what is said beside the answers to calls."""
        text = self._guard(message.content)
        answer = text if self._template.tells_tools else result_as_text(text, self._format)
        return {**before, "content": f"{before['content']}\n{answer}".removeprefix("\n")}

    def _told(self, tools: Sequence[ToolSpec]) -> str:
        """Return how tools are told in a text; the marks in it are the format's own, none is a tool's."""
        guarded = (self._guard([tool.name, tool.description, tool.parameters]) for tool in tools)
        return tools_as_text([ToolSpec(*parts) for parts in guarded], self._format).strip()

    def _reply_row(self, message: Message) -> _Row:
        """Return a reply as the template takes it; a thought's tags count in it, and those of its calls."""
        if self._template.tells_tools:
            return dict(self._guard(row(message), REASONING_TAGS))
        calls = (self._guard([call.name, call.arguments, call.id]) for call in message.tool_calls)
        said = Message(
            "assistant", self._guard(message.content, REASONING_TAGS), tool_calls=tuple(ToolCall(*one) for one in calls)
        )
        return {"role": "assistant", "content": reply_as_text(said, self._format)}

    def _without_system(self, rows: list[_Row], places: list[int]) -> tuple[list[_Row], list[int]]:
        """Return rows whose system text opens the first question, where the template takes none of its own."""
        if self._template.takes_system or not rows or rows[0]["role"] != "system":
            return rows, places
        first, *rest = rows
        if not rest or rest[0]["role"] != "user":
            rest, lost = [{"role": "user", "content": ""}, *rest], 0
        else:
            lost = 1
        rest[0] = {**rest[0], "content": f"{first['content']}\n\n{rest[0]['content']}".strip()}
        return rest, [max(0, place - lost) for place in places]

    def _guard(self, value: Json, allowed: Sequence[str] = ()) -> Any:
        """Return JSON without a control token in any of its texts, but those allowed."""
        if isinstance(value, str):
            return self._codec.guarded(value, allowed)
        if isinstance(value, dict):
            return {self._guard(key, allowed): self._guard(item, allowed) for key, item in value.items()}
        return [self._guard(item, allowed) for item in value] if isinstance(value, list | tuple) else value

    def _text(self, rows: Sequence[_Row], tools: Any, *, asked: bool) -> str:
        try:
            return self._render(json.dumps([rows, tools], allow_nan=False), asked)
        except TemplateFailed as error:
            raise DataError(f"the model's own template takes no such conversation: {error}") from error
        except (TypeError, ValueError, RecursionError) as error:
            raise DataError(f"the conversation holds what JSON cannot ({error}); mend or drop it") from error

    def _render_now(self, conversation: str, asked: bool) -> str:
        rows, tools = json.loads(conversation)
        names = dict(self._template.names)
        return templates(os.getpid()).render(
            self._template.text, rows, tools=tools, add_generation_prompt=asked, date_string="26 Jul 2024", **names
        )


def alike(one: str, other: str) -> int:
    """Return how many characters two texts have in common before they differ."""
    pairs = zip(one, other, strict=False)
    return next((place for place, (a, b) in enumerate(pairs) if a != b), min(len(one), len(other)))


def _identified(messages: Sequence[Message]) -> list[Message]:
    """Return messages whose calls, and answers to them, have ids of nine letters and digits, as some templates ask."""
    made: list[Message] = []
    names: dict[str, str] = {}
    waiting: list[str] = []
    for message in messages:
        if message.role == "tool" and waiting:
            name = names.get(message.tool_call_id or "", waiting[0])
            waiting = [one for one in waiting if one != name] if name in waiting else waiting[1:]
            made.append(replace(message, tool_call_id=name))
            continue
        if message.role == "assistant":
            names = {call.id: _nine(call) for call in message.tool_calls if call.id}
            waiting = [_nine(call) for call in message.tool_calls]
        made.append(_with_ids(message))
    return made


def _with_ids(message: Message) -> Message:
    return replace(message, tool_calls=tuple(replace(call, id=_nine(call)) for call in message.tool_calls))


def _nine(call: ToolCall) -> str:
    """Return the call's id, or nine characters that follow from it."""
    if _ID.fullmatch(call.id):
        return call.id
    said = call.id or f"{call.name} {json.dumps(call.arguments, sort_keys=True)}"
    return hashlib.sha256(said.encode("utf-8", "replace")).hexdigest()[:9]


def tool_row(tool: ToolSpec) -> _Row:
    """Return a tool as OpenAI's API has it."""
    function = {"name": tool.name, "description": tool.description, "parameters": tool.parameters}
    return {"type": "function", "function": function}


def row(message: Message) -> _Row:
    """Return a message as OpenAI's API has it."""
    made: _Row = {"role": message.role, "content": message.content}
    if message.tool_calls:
        made["tool_calls"] = [
            {"type": "function", "id": call.id, "function": {"name": call.name, "arguments": call.arguments}}
            for call in message.tool_calls
        ]
    if message.role == "tool":
        made |= {"tool_call_id": message.tool_call_id, "name": message.name}
    return made
