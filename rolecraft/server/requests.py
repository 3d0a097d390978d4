"""Reads a chat request in OpenAI's format, strictly: what is not supported is refused by name.

Not covered: pictures and audio; each is an error that names it. What changes nothing here (`user`, `store` and such) is
read and ignored, and so is all of `metadata` but `episode` and `task`.
"""

from __future__ import annotations

import re
import reprlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

import rolecraft.server.choosing as choosing
from rolecraft import wire
from rolecraft.errors import DataError
from rolecraft.server.bodies import bad, read_object, validated, without_inert
from rolecraft.strategies import Chosen
from rolecraft.types import Choice, Json, Message, Sampling, ToolSpec

MAX_TOOLS = 128
MAX_TOP_LOGPROBS = 20
_TOOL_NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}")
_REASONING = ("reasoning_content", "reasoning")
_NOTES = frozenset(("provider_specific_fields", "reasoning_details", "thinking_blocks", "parsed", "parsed_arguments"))
"""What client libraries note on an answer, its calls and their functions, and send back with it."""

_INERT: Mapping[str, tuple[Json, ...]] = {
    "logit_bias": ({},),
    "modalities": (["text"],),
    "function_call": (),
    "functions": (),
    "audio": (),
    "prediction": (),
    "web_search_options": (),
    "repetition_penalty": (1,),
}
"""Keys of OpenAI and of other servers that are not supported, with the values that ask for nothing."""

_REMEDIES = {
    "function_call": "use 'tool_choice'",
    "functions": "use 'tools'",
}


class StreamOptions(BaseModel):
    """What a stream tells beside the reply; obfuscation, padding against eavesdroppers, is read and not done."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)

    include_usage: bool = False
    include_obfuscation: bool = False


class TemplateOptions(BaseModel):
    """What other servers hand to a model's own template, of which thinking is known."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)

    enable_thinking: bool | None = None


class JsonSchema(BaseModel):
    """The schema of an answer in JSON; it is kept whether or not `strict` is asked for."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)

    name: str = ""
    description: str | None = None
    schema_: dict[str, Any] = Field(default={"type": "object"}, alias="schema")
    strict: bool | None = None


class ResponseFormat(BaseModel):
    """What the answer's text is; `json_schema` says more of the type of its name."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)

    type: Literal["text", "json_object", "json_schema"]
    json_schema: JsonSchema | None = None


Stop = Annotated[str, Field(min_length=1, max_length=256)]
Penalty = Annotated[float, Field(ge=-2, le=2)]


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
    stop: list[Stop] = Field(default=[], max_length=4)
    temperature: float | None = Field(default=None, ge=0, le=2)
    top_p: float = Field(default=1.0, ge=0, le=1)
    top_k: int = Field(default=0, ge=-1)
    min_p: float = Field(default=0.0, ge=0, le=1)
    presence_penalty: Penalty = 0.0
    frequency_penalty: Penalty = 0.0
    max_tokens: int | None = Field(default=None, ge=1)
    max_completion_tokens: int | None = Field(default=None, ge=1)
    logprobs: bool = False
    top_logprobs: int = Field(default=0, ge=0, le=MAX_TOP_LOGPROBS)
    response_format: ResponseFormat = ResponseFormat(type="text")
    stream: bool = False
    stream_options: StreamOptions = StreamOptions()
    prompt_cache_key: str = ""
    chat_template_kwargs: TemplateOptions = TemplateOptions()
    strategy: str = "greedy"
    metadata: dict[str, str] = {}
    # Ignored: they change nothing in what is written here.
    user: str = ""
    store: bool = False
    service_tier: str = ""
    safety_identifier: str = ""
    reasoning_effort: str = ""
    verbosity: str = ""


@dataclass(frozen=True, slots=True)
class SentMessage:
    """One message as a client sent it; `reasoning` is what stood beside an assistant's content."""

    message: Message
    reasoning: str = ""


@dataclass(frozen=True, slots=True)
class ChatRequest:
    """A request that makes sense; None where the server's own setting holds.

    `sampling` says how tokens are drawn but for what stands here by itself, `strategy` how a reply is chosen (None: it
    is taken as it comes). With a `text` there are no messages: it is
    gone on with as it stands. `episode` and `task` are what the client calls what it is about, '' if it does not say.
    """

    model: str
    messages: tuple[SentMessage, ...]
    tools: tuple[ToolSpec, ...] = ()
    choice: Choice = "auto"
    parallel: bool = True
    n: int = 1
    seed: int | None = None
    stop: tuple[str, ...] = ()
    temperature: float | None = None
    sampling: Sampling = Sampling()
    max_tokens: int | None = None
    logprobs: bool = False
    stream: bool = False
    include_usage: bool = False
    cache_key: str = ""
    schema: Mapping[str, Json] | None = None
    text: str | None = None
    think: bool | None = None
    strategy: Chosen | None = None
    episode: str = ""
    task: str = ""


def read(body: bytes, most_messages: int) -> ChatRequest:
    """Return the request in a body; raises Refused (400) that names the parameter and the remedy."""
    return read_fields(read_object(body), most_messages)


def read_fields(given: Mapping[str, Json], most_messages: int) -> ChatRequest:
    """Return the request in a body that has been read as JSON; raises as `read` does."""
    fields = without_inert(given, _INERT, _REMEDIES)
    if isinstance(fields.get("stop"), str):
        fields["stop"] = [fields["stop"]]
    request = validated(RequestBody, fields, _INERT)
    if len(request.messages) > most_messages:
        raise bad(f"there are {len(request.messages)} messages; at most {most_messages} are read", "messages")
    if request.stream_options != StreamOptions() and not request.stream:
        raise bad("'stream_options' needs 'stream': true", "stream_options")
    if request.top_logprobs and not request.logprobs:
        raise bad("'top_logprobs' needs 'logprobs': true", "top_logprobs")
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
        sampling=Sampling(
            top_p=request.top_p,
            top_k=max(0, request.top_k),
            min_p=request.min_p,
            presence_penalty=request.presence_penalty,
            frequency_penalty=request.frequency_penalty,
            top_logprobs=request.top_logprobs,
        ),
        max_tokens=min((most for most in (request.max_completion_tokens, request.max_tokens) if most), default=None),
        logprobs=request.logprobs,
        stream=request.stream,
        include_usage=request.stream_options.include_usage,
        cache_key=request.prompt_cache_key,
        schema=_schema(request.response_format),
        think=request.chat_template_kwargs.enable_thinking,
        strategy=choosing.read(request.strategy),
        episode=request.metadata.get("episode", ""),
        task=request.metadata.get("task", ""),
    )


def _tools(listed: list[Json]) -> tuple[ToolSpec, ...]:
    try:
        tools = wire.tools_from_json(listed)
    except DataError as error:
        raise bad(str(error), _place(error, "tools")) from error
    seen: set[str] = set()
    for number, tool in enumerate(tools):
        if not _TOOL_NAME.fullmatch(tool.name) or tool.name in ("none", "auto", "required"):
            rule = "use up to 64 letters, digits, '_', '-' or '.', and none of a tool_choice's own words"
            raise bad(f"a tool cannot be called {reprlib.repr(tool.name)}; {rule}", f"tools[{number}].function.name")
        if tool.name in seen:
            raise bad(f"two tools are called {tool.name!r}; rename one", f"tools[{number}].function.name")
        seen.add(tool.name)
    return tools


def _schema(format: ResponseFormat) -> Mapping[str, Json] | None:
    """Return what an answer in JSON has to fit; None for text."""
    if format.type == "json_schema":
        if format.json_schema is None:
            raise bad("'response_format' is of type 'json_schema' and has none; send it", "response_format")
        return format.json_schema.schema_
    return {"type": "object"} if format.type == "json_object" else None


def _choice(given: str | Mapping[str, Json], tools: tuple[ToolSpec, ...]) -> Choice:
    if given in ("none", "auto"):
        return str(given)
    if not tools:
        raise bad("'tool_choice' asks for a call and there are no 'tools'; send them", "tool_choice")
    if given == "required":
        return "required"
    match given:
        case {"type": "function", "function": {"name": str(name)}} if len(given) == 2:
            if name in {tool.name for tool in tools}:
                return name
            raise bad(f"'tool_choice' names {reprlib.repr(name)}, which is not among the tools", "tool_choice")
    form = '\'none\', \'auto\', \'required\' or {"type": "function", "function": {"name": ...}}'
    raise bad(f"'tool_choice' is {reprlib.repr(given)}; it must be {form}", "tool_choice")


def _messages(listed: list[dict[str, Json]]) -> tuple[SentMessage, ...]:
    sent: list[SentMessage] = []
    for number, data in enumerate(listed):
        where = f"messages[{number}]"
        reasoning = next((data[key] for key in _REASONING if data.get(key) is not None), "")
        if not isinstance(reasoning, str):
            raise bad(f"{where}: reasoning is {type(reasoning).__name__}; write text", where)
        said = {key: value for key, value in data.items() if key not in _REASONING}
        try:
            message = wire.message_from_json(_without_notes(said) if said.get("role") == "assistant" else said, where)
        except DataError as error:
            raise bad(str(error), _place(error, "messages")) from error
        if message.role != "assistant" and (message.tool_calls or message.unparsed is not None or reasoning):
            raise bad(f"{where}: calls and reasoning belong to role 'assistant'; this is {message.role!r}", where)
        sent.append(SentMessage(message, reasoning))
    try:
        wire.require_owners(one.message for one in sent)
    except DataError as error:
        raise bad(str(error), _place(error, "messages")) from error
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
    the answers. A call whose arguments cannot be read may be answered, and need not be. Raises Refused for an answer to
    no call, and for another call without an answer.
    """
    open_calls: dict[str, bool] = {}  # whether it has to be answered
    answers: dict[str, SentMessage] = {}
    for number, one in enumerate(sent):
        message = one.message
        identity = message.tool_call_id
        if message.role == "tool" and identity is not None:
            if identity not in open_calls or identity in answers:
                what = "is answered twice" if identity in answers else "is no call of the assistant message before it"
                raise bad(f"messages[{number}]: tool_call_id {reprlib.repr(identity)} {what}", f"messages[{number}]")
            answers[identity] = one
            continue
        yield from _in_order(open_calls, answers, number)
        open_calls, answers = (_calls(message, number), {}) if message.role == "assistant" else ({}, {})
        yield one
    yield from _in_order(open_calls, answers, len(sent))


def _calls(message: Message, number: int) -> dict[str, bool]:
    """Return the ids of a message's calls in their order, and whether the arguments of each could be read."""
    readable = [call.id for call in message.tool_calls]
    listed = [call.id for call in wire.all_calls(message) if call.id]
    if len(set(listed)) < len(listed) or "" in readable:
        raise bad(f"messages[{number}]: every call needs an id of its own", f"messages[{number}].tool_calls")
    return {call: call in readable for call in listed}


def _in_order(open_calls: Mapping[str, bool], answers: Mapping[str, SentMessage], number: int) -> Iterator[SentMessage]:
    missing = next((call for call, needed in open_calls.items() if needed and call not in answers), None)
    if missing is not None:
        raise bad(
            f"before messages[{number}] an answer is missing: the call {reprlib.repr(missing)} needs a message with "
            "role 'tool' and its tool_call_id",
            "messages",
        )
    yield from (answers[call] for call in open_calls if call in answers)
