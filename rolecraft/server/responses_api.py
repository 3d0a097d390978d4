"""The responses API: its requests become chat requests, and its answers are items, whole or as named events.

Not covered: what a server would have to keep or run itself (`previous_response_id`, built-in tools, background work);
each is an error that names it. `store` is taken, and the answer says that nothing was stored.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field

import rolecraft.server.requests as requests
from rolecraft import wire
from rolecraft.server.bodies import bad, read_object, validated, without_inert
from rolecraft.server.errors import Refused
from rolecraft.server.models import ServedModel
from rolecraft.server.requests import ChatRequest
from rolecraft.server.responses import usage
from rolecraft.server.responses_input import Conversation, read_input
from rolecraft.server.turns import Channel, FinishedChoice, TextDelta, ToolCallDelta
from rolecraft.types import Json, ToolCall

_INERT: Mapping[str, tuple[Json, ...]] = {
    "previous_response_id": (),
    "conversation": (),
    "background": (False,),
    "truncation": ("disabled",),
    "include": ([], ["reasoning.encrypted_content"]),
    "top_logprobs": (0,),
    "prompt": (),
    "max_tool_calls": (),
}
_KEEPS = "nothing is kept here; send the whole conversation in 'input'"
_REMEDIES = {"previous_response_id": _KEEPS, "conversation": _KEEPS, "prompt": "send its text in 'input'"}


class TextFormat(BaseModel):
    """What the answer's text is, as in the chat API but for its flat form."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)

    type: Literal["text", "json_object", "json_schema"] = "text"
    name: str = ""
    description: str | None = None
    schema_: dict[str, Any] | None = Field(default=None, alias="schema")
    strict: bool | None = None


class TextOptions(BaseModel):
    """The form of the answer's text; its verbosity changes nothing here."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)

    format: TextFormat = TextFormat()
    verbosity: str | None = None


class ResponsesBody(BaseModel):
    """The keys of a request that are read; the chat request made of them is read further."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)

    model: str
    input: str | list[dict[str, Any]]
    instructions: str | None = None
    tools: list[dict[str, Any]] = []
    tool_choice: str | dict[str, Any] = "auto"
    parallel_tool_calls: bool = True
    max_output_tokens: int | None = Field(default=None, ge=1)
    temperature: float | None = None
    top_p: float | None = None
    text: TextOptions = TextOptions()
    stream: bool = False
    stream_options: dict[str, Any] = {}
    prompt_cache_key: str | None = None
    metadata: dict[str, str] = {}
    # Ignored: they change nothing in what is written here.
    reasoning: dict[str, Any] = {}
    store: bool = False
    service_tier: str = ""
    user: str = ""
    safety_identifier: str = ""
    prompt_cache_retention: str = ""


def read(body: bytes, most_messages: int, find: Callable[[str], ServedModel]) -> tuple[ChatRequest, ResponsesAnswer]:
    """Return the request in a body and what writes its answer; raises Refused that names what is wrong."""
    asked = validated(ResponsesBody, without_inert(read_object(body), _INERT, _REMEDIES), _INERT)
    sent = read_input(asked.input, asked.instructions)
    fields: dict[str, Json] = {
        "model": asked.model,
        "messages": sent.messages,
        "tools": [_tool(tool, place) for place, tool in enumerate(asked.tools)],
        "tool_choice": _choice(asked.tool_choice),
        "parallel_tool_calls": asked.parallel_tool_calls,
        "max_completion_tokens": asked.max_output_tokens,
        "temperature": asked.temperature,
        "top_p": asked.top_p,
        "response_format": _format(asked.text.format),
        "stream": asked.stream,
        "prompt_cache_key": asked.prompt_cache_key,
        "metadata": asked.metadata,
    }
    try:
        request = requests.read_fields(fields, most_messages)
    except Refused as refused:
        raise sent.told(refused) from refused
    return request, ResponsesAnswer(find(asked.model), asked, sent)


def _tool(tool: Mapping[str, Json], place: int) -> dict[str, Json]:
    if tool.get("type") != "function":
        raise bad(f"tools[{place}] is of type {str(tool.get('type'))[:40]!r}; only functions are called", "tools")
    return {"type": "function", "function": {key: value for key, value in tool.items() if key != "type"}}


def _choice(given: str | Mapping[str, Json]) -> Json:
    if isinstance(given, Mapping) and given.get("type") == "function" and set(given) == {"type", "name"}:
        return {"type": "function", "function": {"name": given["name"]}}
    return given


def _format(format: TextFormat) -> dict[str, Json]:
    if format.type != "json_schema":
        return {"type": format.type}
    if format.schema_ is None:
        raise bad("'text.format' is of type 'json_schema' and has no 'schema'; send it", "text.format")
    return {"type": "json_schema", "json_schema": {"name": format.name, "schema": format.schema_}}


@dataclass(slots=True)
class ResponsesAnswer:
    """Writes one answer, item by item: what it tells at the end is what the events before it have told."""

    done: ClassVar[bytes] = b""

    model: ServedModel
    asked: ResponsesBody
    sent: Conversation
    id: str = field(default_factory=lambda: f"resp_{secrets.token_hex(12)}")
    created: int = field(default_factory=lambda: int(time.time()))
    _items: list[dict[str, Json]] = field(default_factory=list)
    _open: Channel | None = None
    _number: int = 0

    def told(self, refused: Refused) -> Refused:
        """Return an error by what was sent: the chat request made of it is ours."""
        return self.sent.told(refused)

    def completion(self, choices: Sequence[FinishedChoice]) -> dict[str, Json]:
        """Return the answer that is sent at once."""
        (finished,) = choices
        texts: tuple[tuple[Channel, str], ...] = (("reasoning", finished.reasoning), ("content", finished.content))
        for channel, text in texts:
            if text:
                list(self.event_chunks(TextDelta(0, channel, text)))
        if finished.calls:
            list(self.event_chunks(ToolCallDelta(0, finished.calls)))
        *_, last = self.last_chunks(choices)
        return dict(last["response"])

    def first_chunks(self) -> Iterator[dict[str, Json]]:
        """Yield the answer as it is before anything is written."""
        yield self._event("response.created", response=self._body("in_progress"))
        yield self._event("response.in_progress", response=self._body("in_progress"))

    def event_chunks(self, event: TextDelta | ToolCallDelta) -> Iterator[dict[str, Json]]:
        """Yield the events of new text, or of calls, which come whole."""
        if isinstance(event, ToolCallDelta):
            yield from self._close()
            for call in event.calls:
                yield from self._call(call)
            return
        if self._open != event.channel:
            yield from self._close()
            yield from self._begin(event.channel)
        self._part["text"] += event.text
        told: dict[str, Json] = {"logprobs": []} if event.channel == "content" else {}
        yield self._of_part(f"response.{self._part['type']}.delta", delta=event.text, **told)

    def last_chunks(self, choices: Sequence[FinishedChoice]) -> Iterator[dict[str, Json]]:
        """Yield what closes the last item, and the whole answer."""
        (finished,) = choices
        if not any(item["type"] in ("message", "function_call") for item in self._items):
            yield from self._close()
            yield from self._begin("content")
        yield from self._close("incomplete" if finished.finish == "length" else "completed")
        status = "incomplete" if finished.finish == "length" else "completed"
        yield self._event(f"response.{status}", response=self._body(status, usage(self.model, choices)))

    def error_chunk(self, refused: Refused) -> dict[str, Json]:
        """Return what tells why a stream breaks off."""
        error = {"code": refused.code or "server_error", "message": str(refused)}
        return self._event("response.failed", response=self._body("failed") | {"error": error})

    @property
    def _part(self) -> dict[str, Json]:
        part: dict[str, Json] = self._items[-1]["content"][0]
        return part

    def _begin(self, channel: Channel) -> Iterator[dict[str, Json]]:
        item: dict[str, Json]
        if channel == "content":
            item = {"id": f"msg_{secrets.token_hex(12)}", "type": "message", "role": "assistant"}
            part: dict[str, Json] = {"type": "output_text", "text": "", "annotations": [], "logprobs": []}
        else:
            item = {"id": f"rs_{secrets.token_hex(12)}", "type": "reasoning", "summary": []}
            part = {"type": "reasoning_text", "text": ""}
        self._open = channel
        self._items.append(item | {"status": "in_progress", "content": []})
        yield self._of_item("response.output_item.added")
        self._items[-1]["content"].append(part)
        yield self._of_part("response.content_part.added", part=dict(part))

    def _close(self, status: str = "completed") -> Iterator[dict[str, Json]]:
        if self._open is None:
            return
        self._open = None
        part = self._part
        told: dict[str, Json] = {"logprobs": []} if part["type"] == "output_text" else {}
        yield self._of_part(f"response.{part['type']}.done", text=part["text"], **told)
        yield self._of_part("response.content_part.done", part=dict(part))
        self._items[-1]["status"] = status
        yield self._of_item("response.output_item.done")

    def _call(self, call: ToolCall) -> Iterator[dict[str, Json]]:
        arguments = wire.call_to_json(call)["function"]["arguments"]
        identity = f"fc_{secrets.token_hex(12)}"
        item = {"id": identity, "type": "function_call", "call_id": call.id, "name": call.name, "arguments": ""}
        self._items.append(item | {"status": "in_progress"})
        yield self._of_item("response.output_item.added")
        where = {"item_id": identity, "output_index": len(self._items) - 1}
        yield self._event("response.function_call_arguments.delta", delta=arguments, **where)
        yield self._event("response.function_call_arguments.done", name=call.name, arguments=arguments, **where)
        self._items[-1] |= {"arguments": arguments, "status": "completed"}
        yield self._of_item("response.output_item.done")

    def _of_item(self, name: str) -> dict[str, Json]:
        item = self._items[-1]
        shown = item | {"content": list(item["content"])} if "content" in item else dict(item)
        return self._event(name, output_index=len(self._items) - 1, item=shown)

    def _of_part(self, name: str, /, **told: Json) -> dict[str, Json]:
        place = {"item_id": self._items[-1]["id"], "output_index": len(self._items) - 1, "content_index": 0}
        return self._event(name, **place, **told)

    def _event(self, name: str, /, **told: Json) -> dict[str, Json]:
        self._number += 1
        return {"type": name, "sequence_number": self._number - 1, **told}

    def _body(self, status: str, cost: dict[str, Json] | None = None) -> dict[str, Json]:
        asked = self.asked
        cut = {"reason": "max_output_tokens"} if status == "incomplete" else None
        return {
            "id": self.id,
            "object": "response",
            "created_at": self.created,
            "status": status,
            "error": None,
            "incomplete_details": cut,
            "model": self.model.id,
            "output": list(self._items),
            "instructions": asked.instructions,
            "max_output_tokens": asked.max_output_tokens,
            "metadata": asked.metadata,
            "parallel_tool_calls": asked.parallel_tool_calls,
            "previous_response_id": None,
            "reasoning": {"effort": None, "summary": None},
            "store": False,
            "temperature": asked.temperature,
            "text": {"format": asked.text.format.model_dump(by_alias=True, exclude_none=True, exclude_unset=True)}
            if "format" in asked.text.model_fields_set
            else {"format": {"type": "text"}},
            "tool_choice": asked.tool_choice,
            "tools": asked.tools,
            "top_p": asked.top_p,
            "truncation": "disabled",
            "usage": None if cost is None else _cost(cost),
        }


def _cost(told: Mapping[str, Json]) -> dict[str, Json]:
    return {
        "input_tokens": told["prompt_tokens"],
        "input_tokens_details": told["prompt_tokens_details"],
        "output_tokens": told["completion_tokens"],
        "output_tokens_details": told["completion_tokens_details"],
        "total_tokens": told["total_tokens"],
    }
