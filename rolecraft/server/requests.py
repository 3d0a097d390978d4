"""Reads a chat request in OpenAI's format, strictly: what is not supported is refused by name.

Not covered: pictures, audio, structured output, several likeliest tokens per token, and the endpoints of other APIs;
each is an error that names it. What changes nothing here (`user`, `metadata`, `store` and such) is read and ignored.
"""

from __future__ import annotations

import difflib
import re
import reprlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from rolecraft import wire
from rolecraft.errors import DataError
from rolecraft.server.errors import Refused
from rolecraft.types import Choice, Json, Message, ToolSpec

MAX_DEPTH = 64
MAX_TOOLS = 128
_MAX_BITS = 1024  # of a whole number anywhere in a request
_TOOL_NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}")
_REASONING = ("reasoning_content", "reasoning")
_NOTES = frozenset(("provider_specific_fields", "reasoning_details", "thinking_blocks", "parsed", "parsed_arguments"))
"""What client libraries note on an answer, its calls and their functions, and send back with it."""

_INERT: Mapping[str, tuple[Json, ...]] = {
    "frequency_penalty": (0,),
    "presence_penalty": (0,),
    "logit_bias": ({},),
    "top_logprobs": (0,),
    "modalities": (["text"],),
    "response_format": ({"type": "text"},),
    "function_call": (),
    "functions": (),
    "audio": (),
    "prediction": (),
    "reasoning_effort": (),
    "verbosity": (),
    "web_search_options": (),
    "top_k": (-1, 0),
    "min_p": (0,),
    "repetition_penalty": (1,),
}
"""Keys of OpenAI and of other servers that are not supported, with the values that ask for nothing."""

_REMEDIES = {
    "function_call": "use 'tool_choice'",
    "functions": "use 'tools'",
    "response_format": "only text is written; ask for JSON with a tool and tool_choice 'required'",
    "top_logprobs": "only the written tokens' own log-probabilities are known; use 'logprobs'",
}


class StreamOptions(BaseModel):
    """What a stream tells beside the reply; obfuscation, padding against eavesdroppers, is read and not done."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)

    include_usage: bool = False
    include_obfuscation: bool = False


_Stop = Annotated[str, Field(min_length=1, max_length=256)]


class RequestBody(BaseModel):
    """The keys of a request that are read; `messages` and `tools` are read further by `wire`."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)

    model: str
    messages: list[dict[str, Any]] = Field(min_length=1)
    tools: list[Any] = Field(default=[], max_length=MAX_TOOLS)
    tool_choice: str | dict[str, Any] = "auto"
    parallel_tool_calls: bool = True
    n: int = Field(default=1, ge=1)
    seed: int | None = Field(default=None, ge=-(2**63), lt=2**63)
    stop: list[_Stop] = Field(default=[], max_length=4)
    temperature: float | None = Field(default=None, ge=0, le=2)
    top_p: float = Field(default=1.0, ge=0, le=1)
    max_tokens: int | None = Field(default=None, ge=1)
    max_completion_tokens: int | None = Field(default=None, ge=1)
    logprobs: bool = False
    stream: bool = False
    stream_options: StreamOptions = StreamOptions()
    prompt_cache_key: str = ""
    # Ignored: they change nothing in what is written here.
    user: str = ""
    metadata: dict[str, str] = {}
    store: bool = False
    service_tier: str = ""
    safety_identifier: str = ""


@dataclass(frozen=True, slots=True)
class SentMessage:
    """One message as a client sent it; `reasoning` is what stood beside an assistant's content."""

    message: Message
    reasoning: str = ""


@dataclass(frozen=True, slots=True)
class ChatRequest:
    """A request that makes sense; None where the server's own setting holds."""

    model: str
    messages: tuple[SentMessage, ...]
    tools: tuple[ToolSpec, ...] = ()
    choice: Choice = "auto"
    parallel: bool = True
    n: int = 1
    seed: int | None = None
    stop: tuple[str, ...] = ()
    temperature: float | None = None
    top_p: float = 1.0
    max_tokens: int | None = None
    logprobs: bool = False
    stream: bool = False
    include_usage: bool = False
    cache_key: str = ""


def read(body: bytes, most_messages: int) -> ChatRequest:
    """Return the request in a body; raises Refused (400) that names the parameter and the remedy."""
    fields = {key: value for key, value in _object(body).items() if value is not None}
    for key in [key for key in fields if key in _INERT]:
        if fields.pop(key) not in _INERT[key]:
            raise _bad(f"{key!r} is not supported; {_REMEDIES.get(key, 'leave it out')}", key, "unsupported_parameter")
    if isinstance(fields.get("stop"), str):
        fields["stop"] = [fields["stop"]]
    try:
        request = RequestBody.model_validate(fields)
    except ValidationError as error:
        raise _misfit(error) from error
    if len(request.messages) > most_messages:
        raise _bad(f"there are {len(request.messages)} messages; at most {most_messages} are read", "messages")
    if None not in (request.max_tokens, request.max_completion_tokens):
        raise _bad("'max_tokens' is the old name of 'max_completion_tokens'; send one of them", "max_tokens")
    if request.stream_options != StreamOptions() and not request.stream:
        raise _bad("'stream_options' needs 'stream': true", "stream_options")
    tools = _tools(request.tools)
    return ChatRequest(
        model=request.model,
        messages=_messages(request.messages),
        tools=tools,
        choice=_choice(request.tool_choice, tools),
        parallel=request.parallel_tool_calls,
        n=request.n,
        seed=request.seed,
        stop=tuple(request.stop),
        temperature=request.temperature,
        top_p=request.top_p,
        max_tokens=request.max_completion_tokens or request.max_tokens,
        logprobs=request.logprobs,
        stream=request.stream,
        include_usage=request.stream_options.include_usage,
        cache_key=request.prompt_cache_key,
    )


def _bad(message: str, param: str | None = None, code: str | None = None) -> Refused:
    return Refused(400, message, param=param, code=code)


def _object(body: bytes) -> dict[str, Json]:
    """Return the JSON object in a body that nothing later can choke on."""
    try:
        value = wire.loads(body.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise _bad(f"the body is not UTF-8: {error}") from error
    except DataError as error:
        raise _bad(f"the body is {error}", code="invalid_json") from error
    if not isinstance(value, dict):
        raise _bad(f"the body is {type(value).__name__}; send a JSON object")
    for key, item in value.items():
        for fault in _faults({key: item}):
            raise _bad(f"{reprlib.repr(key)} {fault}", key if key.isascii() else None)
    return value


def _faults(root: Json) -> Iterator[str]:
    """Yield what makes a value dangerous further on; without recursion, since its depth is the question."""
    waiting: list[tuple[Json, int]] = [(root, 0)]
    while waiting:
        value, depth = waiting.pop()
        if depth > MAX_DEPTH:
            yield f"is nested more than {MAX_DEPTH} deep"
            return
        if isinstance(value, str) and not value.isascii() and _has_surrogate(value):
            yield "holds half of a surrogate pair, which is no text"
        elif isinstance(value, int) and value.bit_length() > _MAX_BITS:
            yield f"holds a whole number of more than {_MAX_BITS} bits"
        elif isinstance(value, dict):
            waiting += [(inner, depth + 1) for pair in value.items() for inner in pair]
        elif isinstance(value, list):
            waiting += [(inner, depth + 1) for inner in value]


def _has_surrogate(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return True
    return False


def _misfit(error: ValidationError) -> Refused:
    """Return the first of pydantic's findings in our words."""
    found = error.errors(include_url=False, include_context=False)[0]
    steps = [step for step in found["loc"] if not (isinstance(step, str) and "[" in step)]
    param = ".".join(map(str, steps[:2] if steps[0] == "stream_options" else steps[:1]))
    if found["type"] == "missing":
        return _bad(f"{param!r} is missing", param, "missing_required_parameter")
    if found["type"] == "extra_forbidden":
        known = [*(RequestBody if len(steps) == 1 else StreamOptions).model_fields, *_INERT]
        near = difflib.get_close_matches(str(steps[-1])[:64], known, n=1)
        remedy = f"did you mean {near[0]!r}?" if near else "leave it out"
        return _bad(f"unknown parameter {reprlib.repr(steps[-1])}; {remedy}", param[:64], "unknown_parameter")
    rule = found["msg"][0].lower() + found["msg"][1:]
    return _bad(f"{param!r} is {reprlib.repr(found['input'])}: {rule}", param, "invalid_value")


def _tools(listed: list[Json]) -> tuple[ToolSpec, ...]:
    try:
        tools = wire.tools_from_json(listed)
    except DataError as error:
        raise _bad(str(error), _place(error, "tools")) from error
    seen: set[str] = set()
    for number, tool in enumerate(tools):
        if not _TOOL_NAME.fullmatch(tool.name) or tool.name in ("none", "auto", "required"):
            rule = "use up to 64 letters, digits, '_', '-' or '.', and none of a tool_choice's own words"
            raise _bad(f"a tool cannot be called {reprlib.repr(tool.name)}; {rule}", f"tools[{number}].function.name")
        if tool.name in seen:
            raise _bad(f"two tools are called {tool.name!r}; rename one", f"tools[{number}].function.name")
        seen.add(tool.name)
    return tools


def _choice(given: str | Mapping[str, Json], tools: tuple[ToolSpec, ...]) -> Choice:
    if given in ("none", "auto"):
        return str(given)
    if not tools:
        raise _bad("'tool_choice' asks for a call and there are no 'tools'; send them", "tool_choice")
    if given == "required":
        return "required"
    match given:
        case {"type": "function", "function": {"name": str(name)}} if len(given) == 2:
            if name in {tool.name for tool in tools}:
                return name
            raise _bad(f"'tool_choice' names {reprlib.repr(name)}, which is not among the tools", "tool_choice")
    form = '\'none\', \'auto\', \'required\' or {"type": "function", "function": {"name": ...}}'
    raise _bad(f"'tool_choice' is {reprlib.repr(given)}; it must be {form}", "tool_choice")


def _messages(listed: list[dict[str, Json]]) -> tuple[SentMessage, ...]:
    sent: list[SentMessage] = []
    for number, data in enumerate(listed):
        where = f"messages[{number}]"
        reasoning = next((data[key] for key in _REASONING if data.get(key) is not None), "")
        if not isinstance(reasoning, str):
            raise _bad(f"{where}: reasoning is {type(reasoning).__name__}; write text", where)
        said = {key: value for key, value in data.items() if key not in _REASONING}
        try:
            message = wire.message_from_json(_without_notes(said) if said.get("role") == "assistant" else said, where)
        except DataError as error:
            raise _bad(str(error), _place(error, "messages")) from error
        if message.role != "assistant" and (message.tool_calls or message.unparsed is not None or reasoning):
            raise _bad(f"{where}: calls and reasoning belong to role 'assistant'; this is {message.role!r}", where)
        sent.append(SentMessage(message, reasoning))
    return tuple(_answered(sent))


def _without_notes(value: Json) -> Json:
    """Return an answer without notes; arguments that are objects keep what they have."""
    if isinstance(value, list):
        return [_without_notes(item) for item in value]
    if not isinstance(value, dict):
        return value
    kept = {key: item for key, item in value.items() if key not in _NOTES}
    return {key: item if key == "arguments" else _without_notes(item) for key, item in kept.items()}


def _place(error: DataError, fallback: str) -> str:
    place = str(error).partition(":")[0]
    return place if place.startswith(fallback) and len(place) < 80 else fallback


def _answered(sent: list[SentMessage]) -> Iterator[SentMessage]:
    """Yield the messages, the answers to several calls in the calls' order: no answer names its call to the model.

    A tool message without an id is a remark to the model, such as what was wrong with a call; it keeps its place after
    the answers. Raises Refused for an answer to no call, and for a call without an answer.
    """
    open_calls: list[str] = []
    answers: dict[str, SentMessage] = {}
    for number, one in enumerate(sent):
        message = one.message
        identity = message.tool_call_id
        if message.role == "tool" and identity is not None:
            if identity not in open_calls or identity in answers:
                what = "is answered twice" if identity in answers else "is no call of the assistant message before it"
                raise _bad(f"messages[{number}]: tool_call_id {reprlib.repr(identity)} {what}", f"messages[{number}]")
            answers[identity] = one
            if len(answers) == len(open_calls):
                yield from (answers[call] for call in open_calls)
                open_calls, answers = [], {}
            continue
        _require_answers(open_calls, answers, number)
        if message.role == "assistant":
            open_calls = [call.id for call in message.tool_calls]
            if len(set(open_calls)) < len(open_calls) or "" in open_calls:
                raise _bad(f"messages[{number}]: every call needs an id of its own", f"messages[{number}].tool_calls")
        yield one
    _require_answers(open_calls, answers, len(sent))


def _require_answers(open_calls: list[str], answers: Mapping[str, SentMessage], number: int) -> None:
    missing = next((call for call in open_calls if call not in answers), None)
    if missing is not None:
        raise _bad(
            f"before messages[{number}] an answer is missing: the call {reprlib.repr(missing)} needs a message with "
            "role 'tool' and its tool_call_id",
            "messages",
        )
