"""Finds out what an endpoint is before anything is played: its models, whether it is our own server, its tools."""

from __future__ import annotations

import asyncio
import dataclasses
import difflib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

from rolecraft.errors import DataError, EngineError, NotFound, SettingsError
from rolecraft.remote.refusals import Misread, Refused
from rolecraft.remote.replies import completions, read_logprobs
from rolecraft.remote.requests import CONTINUE, request_body
from rolecraft.remote.settings import Settings, ToolsForm
from rolecraft.remote.transport import Transport
from rolecraft.types import Json, Message, Prompt, Sampling, ToolCall, ToolSpec

_SHOWN = 12
_PROBE_RETRIES = 2
_TEMPLATES = ("tool", "template", "jinja", "raise_exception")  # words of a chat template that ends in an error
_TOOL = ToolSpec("noop", "does nothing", {"type": "object", "properties": {}})


@dataclass(frozen=True, slots=True)
class Wishes:
    """What the user says of who plays: `NAME` or `ROLE=NAME` each, and how tools are told of (`auto`: find out).

    `continues`: replies will be begun for the endpoint, which is found out to go on with them, or refused.
    """

    models: Sequence[str] = ()
    tools: ToolsForm | Literal["auto"] = "auto"
    continues: bool = False


def resolve(settings: Settings, wishes: Wishes, roles: Sequence[str], key: str | None = None) -> Settings:
    """Return the settings with the model that plays each role, the endpoint's dialect, and how it is told of tools.

    Raises EngineError for an endpoint that does not answer, NotFound for a model or role that is not there, and
    SettingsError where several models are there and none is named.
    """
    named = _named(wishes.models, roles)
    return asyncio.run(_resolve(settings, wishes, named, roles, key))


def require(settings: Settings, needs: Sequence[str], role: str, key: str | None = None) -> Settings:
    """Return the settings with which an endpoint is asked for `n` and `logprobs`, those of them that are needed.

    It is asked for two replies of a token each. Raises SettingsError that names what it lacks.
    """
    asked = dataclasses.replace(settings, logprobs="logprobs" in needs, cache=None)
    n = 2 if "n" in needs else 1
    prompt = dataclasses.replace(_hello(role, ()), sampling=Sampling(n=n, max_tokens=1, temperature=1.0))
    lacking = asyncio.run(_lacking(asked, prompt, key))
    if missing := [word for word in needs if word in lacking]:
        words = {"n": "several replies to one request (n)", "logprobs": "log-probabilities (logprobs)"}
        raise SettingsError(
            f"the endpoint at {settings.url} does not give {' nor '.join(words[word] for word in missing)}, which the "
            "strategy needs; play another one, or a local engine"
        )
    return dataclasses.replace(asked, cache=settings.cache)


async def _lacking(settings: Settings, prompt: Prompt, key: str | None) -> set[str]:
    """Return what an endpoint does not give of what it is asked for."""
    transport = Transport(dataclasses.replace(settings, retries=min(settings.retries, _PROBE_RETRIES)), key)

    def read(answer: Json) -> set[str]:
        choices = answer.get("choices") if isinstance(answer, Mapping) else None
        if not isinstance(choices, list) or not choices:
            raise DataError("it has no 'choices'")
        told = [isinstance(one, Mapping) and read_logprobs(one.get("logprobs")) for one in choices]
        return {
            *([] if len(choices) == prompt.sampling.n else ["n"]),
            *([] if all(told) else ["logprobs"]),
        }

    try:
        return await transport.post(request_body(prompt, settings), read)
    except Refused as error:
        said = error.refusal.said
        lacking = {word for word in ("n", "logprobs") if re.search(rf"(?<![A-Za-z]){word}(?![A-Za-z])", said)}
        if lacking and 400 <= error.refusal.status < 500:
            return lacking
        raise
    finally:
        await transport.aclose()


async def _resolve(
    settings: Settings, wishes: Wishes, named: dict[str, str], roles: Sequence[str], key: str | None
) -> Settings:
    few = dataclasses.replace(settings, retries=min(settings.retries, _PROBE_RETRIES))
    transport = Transport(few, key)
    try:
        listed = await _list(transport)
        ours = bool(listed) and all(owner == "rolecraft" for owner in listed.values())
        found = dataclasses.replace(
            settings,
            models=_models(settings.url, listed, named, roles, ours),
            dialect="rolecraft" if ours else "openai",
        )
        if wishes.continues:
            await _require_continuing(transport, found, roles[0])
            found = dataclasses.replace(found, continues=True)
        if wishes.tools != "auto":
            return dataclasses.replace(found, tools=wishes.tools)
        if ours:
            return found
        form = await _tools_form(transport, found, roles[0])
        texts = form == "native" and await _takes_texts(transport, found, roles[0])
        return dataclasses.replace(found, tools=form, texts=texts)
    finally:
        await transport.aclose()


def _named(given: Sequence[str], roles: Sequence[str]) -> dict[str, str]:
    named: dict[str, str] = {}
    for word in given:
        role, equals, name = word.partition("=")
        role, name = (role, name) if equals else ("", word)
        if role and role not in roles:
            raise NotFound(f"--model {word}: no role {role!r}; the team has {', '.join(roles)}")
        if not name or role in named:
            raise SettingsError(
                f"--model {word}: {'a second one' if name else 'no name'}; give one model for each role"
            )
        named[role] = name
    return named


async def _list(transport: Transport) -> dict[str, str]:
    """Return the owner of each model by its id; nothing where the endpoint has no list."""

    def read(answer: Json) -> dict[str, str]:
        data = answer.get("data") if isinstance(answer, Mapping) else None
        if not isinstance(data, list):
            raise DataError("it has no 'data'")
        models = (one for one in data if isinstance(one, Mapping) and isinstance(one.get("id"), str))
        return {one["id"]: str(one.get("owned_by", "")) for one in models}

    try:
        return await transport.get("/models", read)
    except Refused as error:
        if error.refusal.status in (404, 405, 501):
            return {}
        raise


def _models(
    url: str, listed: Mapping[str, str], named: Mapping[str, str], roles: Sequence[str], ours: bool
) -> dict[str, str]:
    ids = list(listed)
    some = ", ".join(ids[:_SHOWN]) + (", ..." if len(ids) > _SHOWN else "")
    for name in named.values():
        if ids and name not in ids:
            near = difflib.get_close_matches(name[:200], ids, n=1)
            raise NotFound(f"no model {name!r} at {url}; {f'did you mean {near[0]!r}?' if near else f'it has {some}'}")
    default = named.get("") or (ids[0] if len(ids) == 1 or ours else "")
    if ours:  # its ids are the base, the base with each role, and the team
        default = named.get("") or default.partition(":")[0]
        one = len(roles) == 1 and "" in named  # the user says exactly who plays
        own = {role: f"{default}:{role}" for role in roles if f"{default}:{role}" in ids and not one}
        named = {**own, **named}
    if not default and not set(roles) <= set(named):
        there = f"it has {some}" if ids else "it does not list its models"
        raise SettingsError(f"{url}: which model plays? Name it with --model NAME; {there}")
    models = {role: named.get(role) or default for role in roles}
    return {"": default} if set(models.values()) == {default} else models


async def _tools_form(transport: Transport, settings: Settings, role: str) -> ToolsForm:
    """Ask for one token with a tool and one without.

    An endpoint that knows no tools says so; one whose chat template drops them reads as many tokens with it as without.
    """
    with_tool, without = (_hello(role, tools) for tools in ((_TOOL,), ()))
    try:
        told = await _prompt_tokens(transport, settings, with_tool)
    except Refused as error:
        if error.refusal.concerns_tools():
            return "prompt"
        raise
    except EngineError as error:
        if "tool" in str(error):  # llama.cpp without --jinja answers 500
            return "prompt"
        raise
    dropped = 0 < told <= await _prompt_tokens(transport, settings, without)
    return "prompt" if dropped else "native"


async def _takes_texts(transport: Transport, settings: Settings, role: str) -> bool:
    """Ask for one token after a call that is text and its result: OpenAI's own API wants that call as data.

    An endpoint that refuses it says so, or its chat template does; one that drops the result reads as many tokens
    without it.
    """
    call = ToolCall(_TOOL.name, {}, "call00001")
    written = Message("assistant", f'{{"name": "{call.name}", "arguments": {{}}}}')
    called = Message("assistant", tool_calls=(call,), strict=written)
    hello = _hello(role, (_TOOL,))
    result = Message("tool", "It is done.", tool_call_id=call.id, name=call.name)
    as_text = dataclasses.replace(settings, texts=True)
    before, after = (dataclasses.replace(hello, messages=(*hello.messages, called, *more)) for more in ((), (result,)))
    try:
        told = await _prompt_tokens(transport, as_text, after)
    except Refused:
        return False
    except EngineError as error:
        if any(word in str(error) for word in _TEMPLATES):
            return False
        raise
    return not 0 < told <= await _prompt_tokens(transport, as_text, before)


async def _require_continuing(transport: Transport, settings: Settings, role: str) -> None:
    """Raise EngineError for an endpoint that does not go on with a reply that is begun for it.

    One that does reads a prompt that ends in the reply, and so fewer tokens than one that closes it and begins another.
    """
    begun = dataclasses.replace(_hello(role, ()), prefix="Hello. Hello. Hello.")
    able = dataclasses.replace(settings, continues=True)
    body = request_body(begun, able)
    without = {key: value for key, value in body.items() if key not in CONTINUE}
    read = partial(completions, prompt=begun, form="native")
    try:
        (one,), (other,) = await transport.post(body, read), await transport.post(without, read)
    except (Refused, Misread) as error:
        raise _cannot_continue(settings, f"it answers: {str(error)[:200]}") from error
    if not 0 < one.turn.usage.prompt < other.turn.usage.prompt:
        raise _cannot_continue(settings, "it reads as many tokens with continue_final_message as without")


def _cannot_continue(settings: Settings, why: str) -> EngineError:
    return EngineError(
        f"the endpoint at {settings.url} does not go on with a reply that is begun for it ({why}); leave out "
        "--first-thought-prefix, or use a local base, or a server that takes continue_final_message, as vLLM does"
    )


def _hello(role: str, tools: tuple[ToolSpec, ...]) -> Prompt:
    return Prompt((Message("user", "Say hello."),), tools, role, sampling=Sampling(max_tokens=1))


async def _prompt_tokens(transport: Transport, settings: Settings, prompt: Prompt) -> int:
    """Return how many tokens the endpoint read, 0 if it does not tell."""
    body = request_body(prompt, settings)
    try:
        (found,) = await transport.post(body, lambda answer: completions(answer, prompt, "native"))
    except Misread:
        return 0
    return found.turn.usage.prompt
