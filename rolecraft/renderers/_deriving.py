"""Makes a chat format of a model's own template, where probes show that it only ever appends and nothing is lost.

Its calls must be an object with name and arguments, alone or in a list, a name with a mark and an object, or Python's
syntax, each between fixed texts; else, and where it tells no tools, they are told and read as Hermes has them.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from rolecraft.errors import ContractError, DataError
from rolecraft.renderers._format import CallSyntax, Format, Template
from rolecraft.renderers._jinja import TemplateFailed, templates
from rolecraft.renderers._own import OwnTemplate, alike, row, tool_row
from rolecraft.renderers._renderer import Renderer
from rolecraft.renderers._text import Codec
from rolecraft.renderers.hermes import FORMAT as HERMES
from rolecraft.types import Message, ToolCall, ToolSpec

_SCHEMA = {"type": "object", "properties": {"city": {"type": "string", "description": "where"}}, "required": ["city"]}
_TOOLS = (ToolSpec("weather", "Weather of a city", _SCHEMA), ToolSpec("now", "The time"))
_ASK, _SAID, _MORE = Message("user", "What is 2 + 3?"), Message("assistant", "Five."), Message("user", "And 2 + 4?")
_SYSTEM = Message("system", "Be brief.")
_ID, _OTHER = "call00001", "call00002"
_CALL, _SECOND = ToolCall("weather", {"city": "Ulm"}, _ID), ToolCall("now", {}, _OTHER)
_RESULT = Message("tool", "sunny", tool_call_id=_ID, name="weather")
_ACT, _BOTH = Message("assistant", tool_calls=(_CALL,)), Message("assistant", "Both.", tool_calls=(_CALL, _SECOND))

CHAT = (_ASK, _SAID, _MORE, Message("assistant", "Six."), Message("user", "Thanks."))
ACTING = (
    (_ASK, _ACT, _RESULT, _SAID, _MORE),
    (_SYSTEM, _ASK, _BOTH, _RESULT, Message("tool", "noon", tool_call_id=_OTHER, name="now"), _ACT, _RESULT, _SAID),
)
_SHOWN = 24


class _Unfit(Exception):
    """Why a template cannot be a format, in words."""


@dataclass(frozen=True, slots=True)
class Derived:
    """A template's format, None where it can be none; and why it is none, or why its own calls are not used."""

    format: Format | None
    why: str = ""

    @property
    def native(self) -> bool:
        """Tell whether tools are told and called as the template has it."""
        return self.format is not None and self.format.template is not None and self.format.template.tells_tools


def derive(tokenizer: Any, think: bool | None = None) -> Derived:
    """Return the tokenizer's own template as a format, if it can be one; `think` is its switch, if it has one."""
    try:
        probe = _Probe(tokenizer, _template(tokenizer, tokenizer.get_chat_template(None, []), think))
        plain = probe.plain()
        try:
            made = Derived(probe.with_tools(plain))
            _check(made, tokenizer, ACTING, _TOOLS)
        except (_Unfit, DataError) as error:
            made = Derived(probe.in_text(plain), str(error))
            _check(made, tokenizer, ACTING, _TOOLS)
        _check(made, tokenizer, (CHAT, (_SYSTEM, *CHAT)), ())
    except (_Unfit, DataError, ContractError, ValueError) as error:
        return Derived(None, str(error))
    return made


def _template(tokenizer: Any, text: str, think: bool | None) -> Template:
    given = [(name, token) for name, token in tokenizer.special_tokens_map.items() if isinstance(token, str)]
    return Template(text, tuple(given) if think is None else (*given, ("enable_thinking", think)))


class _Probe:
    """What a template writes for a few messages."""

    def __init__(self, tokenizer: Any, template: Template) -> None:
        self._codec, self._template = Codec(tokenizer), template
        self._eos = tokenizer.special_tokens_map.get("eos_token")

    def plain(self) -> Format:
        """Return the format of conversations without tools."""
        prompt, before = self._text((_ASK,), asked=True), self._text((_ASK,))
        reply = _after(self._text((_ASK, _SAID)), prompt)
        said, _, rest = reply.partition(_SAID.content)
        if said == reply or said.strip():
            raise _Unfit(f"its prompt does not announce the reply, which begins with {reply[:_SHOWN]!r}")
        end = self._codec.first_control(rest)
        if end is None or rest.partition(end)[0].strip():
            raise _Unfit(f"no token ends a reply: it writes {rest[:_SHOWN]!r} after it")
        header = prompt[len(before) :] if prompt.startswith(before) else ""
        begins = self._codec.first_control(header)
        return Format(
            header=header if begins and header.startswith(begins) else "",
            end=end,
            calls=HERMES.calls,
            tools=HERMES.tools,
            results=HERMES.results,
            stops=(self._eos,) if isinstance(self._eos, str) else (),
            template=replace(self._template, takes_system=self._takes_system()),
        )

    def _takes_system(self) -> bool:
        try:
            return _SYSTEM.content in self._text((_SYSTEM, _ASK))
        except _Unfit:
            return False

    def with_tools(self, plain: Format) -> Format:
        """Return the format with tools, calls and results as the template writes them."""
        told = self._text((_ASK, _ACT, _RESULT), tools=True, asked=True)
        lost = next(
            (word for word in ("weather", "Weather of a city", "now", "Ulm", "sunny") if word not in told), None
        )
        if lost is not None:
            raise _Unfit(f"its template tells no tools: {lost!r} of a tool, call or result is missing")
        one, both = (self._body(plain, message) for message in (_ACT, _BOTH))
        syntax = call_syntax(one)
        if syntax is None:
            raise _Unfit(f"its calls are written in a way that is not read: {one[:60]!r}")
        said, _, rest = both.partition(_BOTH.content)
        head = one[: one.index("weather")]
        gap = rest.partition(head)[0] if not said.strip() and head and head in rest else syntax.after_text
        after = rest.partition(one)[2]
        between = after.partition(syntax.open)[0] if syntax.open and after and not syntax.listed else syntax.between
        return replace(plain, calls=replace(syntax, after_text=gap, between=between))

    def in_text(self, plain: Format) -> Format:
        """Return the format with tools told in the system text."""
        assert plain.template is not None
        return replace(plain, template=replace(plain.template, tells_tools=False))

    def _body(self, plain: Format, message: Message) -> str:
        whole = self._text((_ASK, message), tools=True)
        return _after(whole, self._text((_ASK,), tools=True, asked=True)).partition(plain.end)[0]

    def _text(self, messages: Sequence[Message], *, tools: bool = False, asked: bool = False) -> str:
        rows = [row(message) for message in messages]
        listed = [tool_row(tool) for tool in _TOOLS] if tools else None
        names = dict(self._template.names)
        try:
            return templates(os.getpid()).render(
                self._template.text, rows, tools=listed, add_generation_prompt=asked, date_string="26 Jul 2024", **names
            )
        except TemplateFailed as error:
            raise _Unfit(f"it fails: {error}") from error


def call_syntax(body: str) -> CallSyntax | None:
    """Return how a reply that is one call of `weather` for Ulm is written, or None."""
    for match in re.finditer(r"[\[{]", body):
        try:
            value, end = json.JSONDecoder().raw_decode(body, match.start())
        except ValueError:
            continue
        before, after = body[: match.start()], body[end:]
        listed = isinstance(value, list) and len(value) == 1
        found = _object_syntax(value[0] if listed else value, before, after)
        if found is not None:
            return replace(found, listed=listed, between=", " if listed else found.between, compact='":"' in body)
    python = re.search(r"\[?weather\(city=(?:'Ulm'|\"Ulm\")\)\]?", body)
    if python is None or not body[: python.start()].strip():
        return None
    opening, closing = body[: python.start()], body[python.end() :]
    return CallSyntax(open=opening, close=closing, between=", ", listed=True, style="python")


def _object_syntax(value: Any, before: str, after: str) -> CallSyntax | None:
    opening, name, mark = before.partition(_CALL.name)
    if value == _CALL.arguments:
        fits = bool(name and opening.strip() and mark.strip())
        return CallSyntax(open=opening, close=after, style="named", mark=mark.strip()) if fits else None
    keys = {key: one for key, one in value.items() if isinstance(one, str | dict)} if isinstance(value, dict) else {}
    names = [key for key, one in keys.items() if one == _CALL.name]
    arguments = [key for key, one in keys.items() if one == _CALL.arguments]
    if not names or not arguments or bool(after.strip()) > bool(before.strip()):
        return None
    ids = [key for key, one in keys.items() if one == _ID]
    ignored = tuple(key for key in value if key not in (names[0], arguments[0], *ids))
    tags = (before, after) if before.strip() else ("", "")
    return CallSyntax(*tags, name_key=names[0], arguments_key=arguments[0], ignored=ignored, id_key="".join(ids[:1]))


def _check(
    made: Derived, tokenizer: Any, conversations: Sequence[Sequence[Message]], tools: Sequence[ToolSpec]
) -> None:
    """Raise _Unfit where a reply is not appended to its prompt, or something of a conversation is lost."""
    assert made.format is not None
    assert made.format.template is not None
    renderer, own = Renderer(made.format, tokenizer), OwnTemplate(made.format, made.format.template, Codec(tokenizer))
    for messages in conversations:
        whole = renderer.render(messages, tools)
        text = renderer.text(whole.ids)
        _after(own.text(messages, tools), text)
        said = [message.content for message in messages if message.role != "assistant"]
        lost = next((part for part in (*said, *(tool.name for tool in tools)) if part not in text), None)
        if lost is not None:
            raise _Unfit(f"it leaves out {lost!r}")
        for place, message in enumerate(messages):
            if message.role == "assistant":
                _check_reply(renderer, message, renderer.prompt(messages[:place], tools, "assistant"), whole.ids)


def _check_reply(renderer: Renderer, message: Message, prompt: tuple[int, ...], whole: tuple[int, ...]) -> None:
    reply = renderer.reply(message)
    if whole[: len(prompt) + len(reply)] != (*prompt, *reply):
        raise _Unfit("it rewrites what came before")
    read = [(call.name, dict(call.arguments)) for call in renderer.parse(reply, "assistant").tool_calls]
    if read != [(call.name, dict(call.arguments)) for call in message.tool_calls]:
        raise _Unfit(f"its calls do not read as they are written: {renderer.text(reply)[:60]!r}")


def _after(whole: str, before: str) -> str:
    if whole.startswith(before):
        return whole[len(before) :]
    place = alike(whole, before)
    raise _Unfit(
        f"it rewrites what came before: after {before[max(0, place - _SHOWN) : place]!r} it wrote "
        f"{before[place : place + _SHOWN]!r}, and then {whole[place : place + _SHOWN]!r}"
    )
