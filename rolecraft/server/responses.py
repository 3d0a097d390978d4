"""Answers in OpenAI's JSON: a whole completion, the chunks of a stream, and what both cost.

A stream's deltas come in the order role, reasoning or content, calls, finish, usage. A call's arguments come whole in
one delta, once the call is parsed, so that joined they are JSON even if the model was cut.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar, Protocol

from rolecraft import wire
from rolecraft.renderers import Renderer
from rolecraft.server.errors import Refused
from rolecraft.server.models import ServedModel
from rolecraft.server.turns import FinishedChoice, TextDelta, ToolCallDelta
from rolecraft.server.written import completion_tokens
from rolecraft.types import Json, ToolCall

DONE = b"data: [DONE]\n\n"


class Answer(Protocol):
    """Writes one answer in an API's JSON: whole, or as the chunks of a stream, which `done` ends."""

    done: ClassVar[bytes]

    @property
    def id(self) -> str:
        """What the client is told that the answer is called."""
        ...

    def told(self, refused: Refused) -> Refused:
        """Return an error in the API's own words, where the request was read as a chat request."""
        ...

    def completion(self, choices: Sequence[FinishedChoice]) -> dict[str, Json]:
        """Return the answer that is sent at once."""
        ...

    def first_chunks(self) -> Iterator[dict[str, Json]]:
        """Yield what begins a stream."""
        ...

    def event_chunks(self, event: TextDelta | ToolCallDelta) -> Iterator[dict[str, Json]]:
        """Yield what tells of new text or of calls."""
        ...

    def last_chunks(self, choices: Sequence[FinishedChoice]) -> Iterator[dict[str, Json]]:
        """Yield what ends a stream."""
        ...

    def error_chunk(self, refused: Refused) -> dict[str, Json]:
        """Return what tells why a stream breaks off."""
        ...


@dataclass(frozen=True, slots=True)
class ChatResponse:
    """Writes the parts of one answer, which share an id and a model; `created` is in seconds since 1970."""

    done: ClassVar[bytes] = DONE

    id: str
    created: int
    model: ServedModel
    logprobs: bool = False
    include_usage: bool = False
    n: int = 1

    def told(self, refused: Refused) -> Refused:
        """Return an error as it is."""
        return refused

    def completion(self, choices: Sequence[FinishedChoice]) -> dict[str, Json]:
        """Return the answer that is sent at once."""
        listed = [
            {
                "index": index,
                "message": _message(finished),
                "logprobs": self._logprobs(finished),
                "finish_reason": finished.finish,
            }
            for index, finished in enumerate(choices)
        ]
        return self._body("chat.completion", listed) | {"usage": usage(self.model, choices)}

    def first_chunks(self) -> Iterator[dict[str, Json]]:
        """Yield each choice's first chunk."""
        for choice in range(self.n):
            yield self._chunk(choice, {"role": "assistant", "content": ""})

    def event_chunks(self, event: TextDelta | ToolCallDelta) -> Iterator[dict[str, Json]]:
        """Yield the chunks of new text, or of calls: each announced and then its arguments."""
        if isinstance(event, TextDelta):
            yield self._chunk(event.choice, _text(event.channel, event.text))
            return
        for number, call in enumerate(event.calls):
            for delta in _call_deltas(number, call):
                yield self._chunk(event.choice, {"tool_calls": [delta]})

    def last_chunks(self, choices: Sequence[FinishedChoice]) -> Iterator[dict[str, Json]]:
        """Yield the chunks that end each choice, and the usage if it was asked for."""
        for index, finished in enumerate(choices):
            yield self._chunk(index, {}, finished)
        if self.include_usage:
            yield self._body("chat.completion.chunk", []) | {"usage": usage(self.model, choices)}

    def error_chunk(self, refused: Refused) -> dict[str, Json]:
        """Return what tells why a stream breaks off."""
        return refused.to_json()

    def _chunk(self, choice: int, delta: dict[str, Json], finished: FinishedChoice | None = None) -> dict[str, Json]:
        listed = {
            "index": choice,
            "delta": delta,
            "logprobs": self._logprobs(finished) if finished else None,
            "finish_reason": finished.finish if finished else None,
        }
        told = {"usage": None} if self.include_usage else {}
        return self._body("chat.completion.chunk", [listed]) | told

    def _body(self, kind: str, choices: list[dict[str, Json]]) -> dict[str, Json]:
        return {
            "id": self.id,
            "object": kind,
            "created": self.created,
            "model": self.model.id,
            "system_fingerprint": self.model.loaded.fingerprint,
            "choices": choices,
        }

    def _logprobs(self, finished: FinishedChoice) -> Json:
        """Return the tokens of the last reply, the one that answers or calls, its end token left out."""
        renderer = self.model.loaded.renderer
        if not self.logprobs or renderer is None or not finished.turns:
            return None
        turn = finished.turns[-1]
        others = turn.likeliest or ((),) * len(turn.token_ids)
        told = zip(turn.token_ids, turn.logprobs, others, strict=True)
        listed = [
            _token(renderer, token, logprob) | {"top_logprobs": [_token(renderer, *one) for one in likeliest]}
            for token, logprob, likeliest in told
            if token not in renderer.stop_ids
        ]
        return {"content": listed, "refusal": None}


def server_sent_event(data: Json) -> bytes:
    """Return `data` as one server-sent event, under its name if it has one."""
    name = f"event: {data['type']}\n" if "type" in data else ""
    return f"{name}data: {wire.dumps(data)}\n\n".encode()


def _message(finished: FinishedChoice) -> dict[str, Json]:
    content = None if finished.calls and not finished.content else finished.content
    message: dict[str, Json] = {"role": "assistant", "content": content, "refusal": None}
    if finished.reasoning:
        message |= _text("reasoning", finished.reasoning)
    if finished.calls:
        message["tool_calls"] = [wire.call_to_json(call) for call in finished.calls]
    return message


def _text(channel: str, text: str) -> dict[str, Json]:
    """Return text under its key; reasoning under both names that servers give it."""
    return {"content": text} if channel == "content" else {"reasoning_content": text, "reasoning": text}


def _call_deltas(number: int, call: ToolCall) -> Iterator[dict[str, Json]]:
    whole = wire.call_to_json(call)
    arguments = whole["function"]["arguments"]
    yield {"index": number, **whole, "function": {"name": call.name, "arguments": ""}}
    yield {"index": number, "function": {"arguments": arguments}}


def _token(renderer: Renderer, token: int, logprob: float) -> dict[str, Json]:
    text = renderer.text((token,))
    # A token may be part of a character; what its bytes are, text cannot tell.
    known = None if "\ufffd" in text else list(text.encode("utf-8", "surrogatepass"))
    # JSON has no infinity; OpenAI writes -9999 for what is as good as impossible.
    return {"token": text, "logprob": max(logprob, -9999.0), "bytes": known}


def usage(model: ServedModel, choices: Sequence[FinishedChoice]) -> dict[str, Json]:
    """Return the cost: the prompt is what the first role read, once for all choices; the rest was written.

    What a strategy had written and did not choose counts as written.
    """
    first = [finished.turns[0].usage for finished in choices if finished.turns]
    turns = [turn for finished in choices for turn in finished.turns]
    prompt, cached = max((u.prompt for u in first), default=0), min((u.cached for u in first), default=0)
    tried = sum(finished.trials.usage.completion for finished in choices if finished.trials)
    wrote = sum(map(completion_tokens, turns)) + tried
    thought = sum(
        completion_tokens(turn) for turn in turns if turn.speaker not in (model.answering_role, model.calling_role)
    )
    return {
        "prompt_tokens": prompt,
        "completion_tokens": wrote,
        "total_tokens": prompt + wrote,
        "prompt_tokens_details": {"cached_tokens": cached},
        "completion_tokens_details": {"reasoning_tokens": thought},
    }
