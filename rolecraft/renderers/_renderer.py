"""The one renderer: it writes conversations in any format, and reads the replies that models wrote in it."""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Sequence

from rolecraft.errors import ContractError, DataError
from rolecraft.renderers._calls import call_parts, parse
from rolecraft.renderers._format import CallSyntax, Format
from rolecraft.renderers._own import OwnTemplate
from rolecraft.renderers._rendered import Rendered, Tape
from rolecraft.renderers._text import REASONING_TAGS, Codec, Piece, Tokenizer
from rolecraft.renderers._tools import describe_tool
from rolecraft.types import Message, ToolSpec

_SPEAKER = re.compile(r"[A-Za-z][A-Za-z0-9_.-]{0,63}")
_MARKER = re.compile(r"<[^<>\s]+>|\[/?[A-Z_]+\]")


class Renderer:
    """One format with one tokenizer; raises ContractError if the tokenizer lacks the format's control tokens."""

    def __init__(self, format: Format, tokenizer: Tokenizer) -> None:
        self.format = format
        self._codec = Codec(tokenizer)
        self._own = OwnTemplate(format, format.template, self._codec) if format.template else None
        self._require_control_tokens()
        self._end_id = self._codec.control[format.end]
        self._gap_ids = self._codec.encode((self._end_id, *self._codec.template(format.gap)))[1:]
        self.tags_are_tokens = all(mark in self._codec.control for mark in format.calls.marks)
        self._pieces = functools.lru_cache(maxsize=64)(self._codec.template)
        self._header_ids = functools.lru_cache(maxsize=64)(self._make_header_ids)
        stops = (self._codec.control.get(token) for token in format.stops)
        self.stop_ids = frozenset({self._end_id, *(i for i in stops if i is not None)})

    @property
    def end_id(self) -> int:
        """The token that ends every block."""
        return self._end_id

    @property
    def control_ids(self) -> frozenset[int]:
        """The tokens that text never becomes."""
        return frozenset(self._codec.control.values())

    @property
    def reasoning_ids(self) -> tuple[int, int] | None:
        """The tokens around a reply's reasoning; None where there are none, or the family is told not to reason."""
        opening, closing = (self._codec.control.get(tag) for tag in REASONING_TAGS)
        told_not_to = REASONING_TAGS[1] in self.format.reply_lead
        return None if opening is None or closing is None or told_not_to else (opening, closing)

    @property
    def call_syntax(self) -> CallSyntax:
        """How this family writes calls, for a grammar."""
        return self.format.calls

    def render(self, messages: Sequence[Message], tools: Sequence[ToolSpec] = ()) -> Rendered:
        """Return the whole conversation as tokens; raises DataError for a speaker or call that cannot be written."""
        if self._own:
            return self._own.write(messages, tools, self._replies(messages)).done()
        return self._tape(messages, tools).done()

    def opening(
        self, messages: Sequence[Message], tools: Sequence[ToolSpec], speaker: str, prefix: str = ""
    ) -> Rendered:
        """Return everything up to the first token that `speaker` writes, with the speaker of each token."""
        if self._own:
            self._header_ids(speaker)  # which refuses all but one
            tape = self._own.open(messages, tools, self._replies(messages))
        else:
            tape = self._tape(messages, tools)
            tape.add(self._header_ids(speaker), speaker)
        tape.add(self._written(prefix), speaker)
        return tape.done()

    def prompt(
        self, messages: Sequence[Message], tools: Sequence[ToolSpec], speaker: str, prefix: str = ""
    ) -> tuple[int, ...]:
        """Return the ids that end where the reply of `speaker`, or its rest after `prefix`, begins."""
        return self.opening(messages, tools, speaker, prefix).ids

    def header(self, speaker: str) -> tuple[int, ...]:
        """Return the ids that announce a reply of `speaker`."""
        return self._header_ids(speaker)

    def reply(self, message: Message) -> tuple[int, ...]:
        """Return the ids a model writes to say `message`, its end token last unless `message.ids` were cut."""
        if message.ids is not None:
            return message.ids
        body = self._own.body(message) if self._own else self._body(message)
        return (*self._codec.encode(body), self._end_id)

    def reply_text(self, message: Message) -> str:
        """Return the text of a reply, without its end token."""
        if message.ids is not None:
            ids = message.ids
            return self._codec.text(ids[:-1] if ids and ids[-1] in self.stop_ids else ids)
        if self._own:
            return self._codec.text(self.reply(message)[:-1])
        return "".join(text for text, _ in self._body_texts(message))

    def text(self, ids: Sequence[int]) -> str:
        """Return `ids` as text, control tokens spelled out."""
        return self._codec.text(ids)

    def parse(self, ids: Sequence[int], speaker: str, prefix: str = "") -> Message:
        """Return the message in `ids`, the tokens `speaker` wrote after `prefix`; never raises, whatever they are.

        Well-formed calls become `tool_calls`; malformed ones are kept verbatim, but for final line breaks, in
        `unparsed`, a line each. What follows the first stop token is dropped.
        """
        last = next((place for place, i in enumerate(ids) if i in self.stop_ids), len(ids))
        body = (*self._written(prefix), *ids[:last])
        reply = parse(self._codec.segments(body), self.format.calls, tags_are_tokens=self.tags_are_tokens)
        return Message(
            "assistant",
            reply.content,
            tool_calls=reply.calls,
            speaker=speaker,
            unparsed=reply.unparsed,
            ids=(*body, *ids[last : last + 1]),
        )

    def _replies(self, messages: Sequence[Message]) -> list[tuple[int, ...]]:
        """Return the ids of the assistant's messages, whose speaker must be the assistant."""
        replies = [message for message in messages if message.role == "assistant"]
        for message in replies:
            self._header_ids(message.speaker or "assistant")
        return [self.reply(message) for message in replies]

    def _require_control_tokens(self) -> None:
        if self._own:
            return
        roles = (self.format.system.place, "user", self.format.assistant, self.format.results.role)
        blocks = [self.format.block(role) for role in (*roles, self.format.tools.role) if role]
        told = "".join([self.format.begin, *(block.open for block in blocks), *(block.close for block in blocks)])
        needed = dict.fromkeys([*_MARKER.findall(told), self.format.end])
        missing = [token for token in needed if token not in self._codec.control]
        if missing:
            raise ContractError(
                f"the tokenizer has no token {', '.join(map(repr, missing))}, which this chat format needs; "
                "choose a renderer of the tokenizer's own family, or add the tokens and train their embeddings"
            )

    def _tape(self, messages: Sequence[Message], tools: Sequence[ToolSpec]) -> Tape:
        tape = Tape()
        tape.add(self._codec.encode(self._pieces(self.format.begin)))
        messages = tuple(messages)
        start = first = 1 if messages and messages[0].role == "system" else 0
        opens = first < len(messages) and messages[first].role == "user"
        told = self._opening(tape, messages[:first], tools, opens)
        while start < len(messages):
            message = messages[start]
            if message.role == "assistant":
                self._reply(tape, message)
            elif message.role == "tool":
                start = self._results(tape, messages, start)
            else:
                tape.starts.append(len(tape.ids))
                lead = told if opens and start == first else ()
                tape.add(self._block(message.role, (*lead, self._trimmed(message.content))))
            start += 1
        return tape

    def _opening(
        self, tape: Tape, given: Sequence[Message], tools: Sequence[ToolSpec], opens: bool
    ) -> tuple[Piece, ...]:
        """Write the system block; return what is told at the head of the user's message that `opens` instead."""
        style = self.format.system
        tape.starts += [len(tape.ids)] * len(given)
        default = style.default if not tools or style.default_with_tools is None else style.default_with_tools
        content = given[0].content if given else None
        text = self._pieces(default or "") if content is None else (self._trimmed(content),)
        told, place = any(text), self.format.tools.place
        apart = tools if place == "block" else ()
        if style.place == "user" and opens:
            self._apart(tape, apart)
            return (*text, style.gap if told else "", *self._tool_list(() if apart else tools))
        to_user = tools if opens and place == "user" else ()
        here = () if to_user or apart else tools
        if here or content or default is not None:
            gap = self.format.tools.gap if told and here else ""
            lead = self._pieces((style.lead_with_tools if tools else "") + style.lead)
            tape.add(self._block(style.place, (*lead, *text, gap, *self._tool_list(here), *self._pieces(style.tail))))
        self._apart(tape, apart)
        return self._tool_list(to_user)

    def _apart(self, tape: Tape, tools: Sequence[ToolSpec]) -> None:
        """Write the tools' own block, if there are any."""
        if tools:
            tape.add(self._block(self.format.tools.role, self._tool_list(tools)))

    def _tool_list(self, tools: Sequence[ToolSpec]) -> tuple[Piece, ...]:
        if not tools:
            return ()
        style = self.format.tools
        before, _, after = style.item.partition("{tool}")
        items = [before + describe_tool(tool, style.style) + after for tool in tools]
        return (*self._pieces(style.head), style.between.join(items), *self._pieces(style.tail))

    def _results(self, tape: Tape, messages: Sequence[Message], start: int) -> int:
        """Write the block of the tool message at `start` and those merged with it; return the last one's index."""
        last = start
        while self.format.results.merged and last + 1 < len(messages) and messages[last + 1].role == "tool":
            last += 1
        tape.starts += [len(tape.ids)] * (last + 1 - start)
        pieces: list[Piece] = []
        for message in messages[start : last + 1]:
            pieces += [self.format.results.between] if pieces else []
            pieces += self._result(message)
        tape.add(self._block(self.format.results.role, pieces))
        return last

    def _result(self, message: Message) -> list[Piece]:
        item = self.format.results.item
        slot = "{json}" if "{json}" in item else "{content}"
        before, _, after = (self._with_id(part, message) for part in item.partition(slot))
        shown = json.dumps(message.content, ensure_ascii=False) if slot == "{json}" else message.content
        return [*before, shown, *after]

    def _with_id(self, text: str, message: Message) -> list[Piece]:
        """Return a part of a result's item, with the id of the message's call as text."""
        before, slot, after = text.partition("{id}")
        return [*self._pieces(before), *([message.tool_call_id or "", *self._pieces(after)] if slot else [])]

    def _block(self, role: str, pieces: Sequence[Piece]) -> tuple[int, ...]:
        block = self.format.block(role)
        return self._codec.encode((*self._pieces(block.open), *pieces, *self._pieces(block.close)))

    def _reply(self, tape: Tape, message: Message) -> None:
        speaker = message.speaker or "assistant"
        tape.add(self._header_ids(speaker), speaker)
        tape.starts.append(len(tape.ids))
        weight = 1.0 if message.weight is None else message.weight
        ids = self.reply(message)
        tape.add(ids, speaker, weight)
        if not ids or ids[-1] != self._end_id:
            # The model was cut here: the block is closed for what follows, and nobody learns to close it.
            tape.add((self._end_id,), speaker)
        tape.add(self._gap_ids)

    def _make_header_ids(self, speaker: str) -> tuple[int, ...]:
        if self._own:
            if speaker == "assistant":
                return self._own.header
            raise DataError(
                f"speaker {speaker!r}: the model's own template knows no speaker but the assistant; let a single agent "
                "speak (--team single), or name a chat format that is known"
            )
        if speaker == "assistant":
            header = self.format.header.replace("{role}", self.format.assistant)
            return self._codec.encode(self._codec.template(header + self.format.reply_lead))
        taken = {"system", "user", "tool", self.format.assistant, self.format.results.role}
        if speaker in taken or not _SPEAKER.fullmatch(speaker):
            raise DataError(
                f"speaker {speaker!r} cannot stand in a header; use up to 64 letters, digits, '_', '-' or '.', "
                f"and none of {', '.join(sorted(taken))}"
            )
        header = self.format.speaker_header or self.format.header.replace("{role}", "{speaker}")
        return self._codec.encode(self._codec.template(header.replace("{speaker}", speaker) + self.format.reply_lead))

    def _body_texts(self, message: Message) -> list[tuple[str, Sequence[str]]]:
        """Return the reply's text in parts, each with the markers that count in it."""
        syntax = self.format.calls
        parts: list[tuple[str, Sequence[str]]] = [(message.content, REASONING_TAGS)]
        gap = syntax.after_text if message.content else ""
        opening, closing = ("[", "]") if syntax.listed else ("", "")
        for number, call in enumerate(message.tool_calls):
            begins, ends = number == 0, number == len(message.tool_calls) - 1
            if begins or not syntax.listed:
                parts.append(((gap if begins else syntax.between) + syntax.open, syntax.tags))
            parts.append((opening if begins else syntax.between if syntax.listed else "", ()))
            for text, own in call_parts(call, syntax):
                parts.append((text, syntax.marks) if own else (self.shielded(text), ()))
            parts.append((closing if ends else "", ()))
            if ends or not syntax.listed:
                parts.append((syntax.close, syntax.tags))
        if message.unparsed is not None:
            apart = "\n" if syntax.listed else syntax.between
            parts.append(((apart if message.tool_calls else gap) + message.unparsed, syntax.marks))
        return parts

    def _body(self, message: Message) -> list[Piece]:
        parts = self._body_texts(message)
        return [piece for text, marks in parts for piece in self._codec.template(text, only=marks)]

    def shielded(self, text: str) -> str:
        """Return a call's JSON such that it holds no tag."""
        # Where the tags are mere text, an argument that quotes one must not close the call.
        if self.tags_are_tokens:
            return text
        for tag in self.format.calls.tags:
            text = text.replace(tag, tag.replace("<", "\\u003c"))
        return text

    def written_pieces(self, text: str) -> tuple[Piece, ...]:
        """Return text of a model's reply as pieces: of all control tokens only the calls' own count."""
        return self._codec.template(text, only=self.format.calls.marks)

    def mark_in(self, text: str) -> str | None:
        """Return the first control token or call tag that a reply's text spells out; it would be written in pieces."""
        return self._codec.first_mark(text, self.format.calls.tags)

    def _written(self, text: str) -> tuple[int, ...]:
        return self._codec.encode(self.written_pieces(text)) if text else ()

    def _trimmed(self, text: str) -> str:
        return text.strip() if self.format.trim else text
