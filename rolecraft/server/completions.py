"""The completions API, OpenAI's oldest: goes on with a text as it stands, without messages or a chat format.

Not covered: several prompts in one request, prompts of token ids, and a `suffix`; each is an error that names it.
"""

from __future__ import annotations

import bisect
import secrets
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field

from rolecraft.renderers import Renderer
from rolecraft.server.bodies import bad, read_object, validated, without_inert
from rolecraft.server.errors import Refused
from rolecraft.server.models import ServedModel
from rolecraft.server.requests import ChatRequest, Penalty, Stop, StreamOptions
from rolecraft.server.responses import DONE, usage
from rolecraft.server.turns import FinishedChoice, TextDelta, ToolCallDelta
from rolecraft.types import Json, Sampling

_MOST_LOGPROBS = 5
_INERT: Mapping[str, tuple[Json, ...]] = {"best_of": (1,), "suffix": ("",), "logit_bias": ({},)}


class CompletionBody(BaseModel):
    """The keys of a request that are read; the same names as in the chat API mean the same."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)

    model: str
    prompt: Annotated[str, Field(min_length=1)]
    max_tokens: int = Field(default=16, ge=1)
    n: int = Field(default=1, ge=1)
    echo: bool = False
    logprobs: int | None = Field(default=None, ge=0, le=_MOST_LOGPROBS)
    seed: int | None = Field(default=None, ge=-(2**63), lt=2**63)
    stop: list[Stop] = Field(default=[], max_length=4)
    temperature: float | None = Field(default=None, ge=0, le=2)
    top_p: float = Field(default=1.0, ge=0, le=1)
    top_k: int = Field(default=0, ge=-1)
    min_p: float = Field(default=0.0, ge=0, le=1)
    presence_penalty: Penalty = 0.0
    frequency_penalty: Penalty = 0.0
    stream: bool = False
    stream_options: StreamOptions = StreamOptions()
    prompt_cache_key: str = ""
    user: str = ""
    metadata: dict[str, Any] = {}


def read(body: bytes, find: Callable[[str], ServedModel]) -> tuple[ChatRequest, CompletionAnswer]:
    """Return the request in a body and what writes its answer; raises Refused that names what is wrong."""
    fields = without_inert(read_object(body), _INERT, {})
    if isinstance(fields.get("stop"), str):
        fields["stop"] = [fields["stop"]]
    match fields.get("prompt"):
        case [str(only)]:
            fields["prompt"] = only
        case list():
            raise bad("'prompt' must be one text; send each in a request of its own", "prompt")
    asked = validated(CompletionBody, fields, _INERT)
    if asked.echo and asked.logprobs is not None:
        raise bad("'logprobs' with 'echo' is not supported: the prompt's are not known", "echo")
    if asked.stream_options != StreamOptions() and not asked.stream:
        raise bad("'stream_options' needs 'stream': true", "stream_options")
    sampling = Sampling(
        top_p=asked.top_p,
        top_k=max(0, asked.top_k),
        min_p=asked.min_p,
        presence_penalty=asked.presence_penalty,
        frequency_penalty=asked.frequency_penalty,
        top_logprobs=asked.logprobs or 0,
    )
    request = ChatRequest(
        asked.model,
        (),
        n=asked.n,
        seed=asked.seed,
        stop=tuple(asked.stop),
        temperature=asked.temperature,
        sampling=sampling,
        max_tokens=asked.max_tokens,
        logprobs=asked.logprobs is not None,
        stream=asked.stream,
        include_usage=asked.stream_options.include_usage,
        cache_key=asked.prompt_cache_key,
        text=asked.prompt,
    )
    return request, CompletionAnswer(
        f"cmpl-{secrets.token_hex(12)}",
        int(time.time()),
        find(asked.model),
        request,
        asked.prompt if asked.echo else "",
    )


@dataclass(frozen=True, slots=True)
class CompletionAnswer:
    """Writes the parts of one answer, which share an id; each choice begins with `echo`."""

    done: ClassVar[bytes] = DONE

    id: str
    created: int
    model: ServedModel
    request: ChatRequest
    echo: str = ""

    def told(self, refused: Refused) -> Refused:
        """Return an error as it is."""
        return refused

    def completion(self, choices: Sequence[FinishedChoice]) -> dict[str, Json]:
        """Return the answer that is sent at once."""
        listed = [self._choice(index, self.echo + one.content, one) for index, one in enumerate(choices)]
        return self._body(listed) | {"usage": usage(self.model, choices)}

    def first_chunks(self) -> Iterator[dict[str, Json]]:
        """Yield the prompt of each choice, if it is to be told."""
        for index in range(self.request.n if self.echo else 0):
            yield self._body([self._choice(index, self.echo)])

    def event_chunks(self, event: TextDelta | ToolCallDelta) -> Iterator[dict[str, Json]]:
        """Yield new text."""
        if isinstance(event, TextDelta):
            yield self._body([self._choice(event.choice, event.text)])

    def last_chunks(self, choices: Sequence[FinishedChoice]) -> Iterator[dict[str, Json]]:
        """Yield what ends each choice, and the usage if it was asked for."""
        for index, finished in enumerate(choices):
            yield self._body([self._choice(index, "", finished)])
        if self.request.include_usage:
            yield self._body([]) | {"usage": usage(self.model, choices)}

    def error_chunk(self, refused: Refused) -> dict[str, Json]:
        """Return what tells why a stream breaks off."""
        return refused.to_json()

    def _body(self, choices: list[dict[str, Json]]) -> dict[str, Json]:
        return {
            "id": self.id,
            "object": "text_completion",
            "created": self.created,
            "model": self.model.id,
            "system_fingerprint": self.model.loaded.fingerprint,
            "choices": choices,
        }

    def _choice(self, index: int, text: str, finished: FinishedChoice | None = None) -> dict[str, Json]:
        return {
            "index": index,
            "text": text,
            "logprobs": self._logprobs(finished) if finished and self.request.logprobs else None,
            "finish_reason": finished.finish if finished else None,
        }

    def _logprobs(self, finished: FinishedChoice) -> Json:
        renderer, (turn,) = self.model.loaded.renderer, finished.turns
        if renderer is None:
            return None
        ended = next((n for n, token in enumerate(turn.token_ids) if token in renderer.stop_ids), len(turn.token_ids))
        count = _within(renderer, turn.token_ids[:ended], finished.content)
        tokens = [renderer.text((token,)) for token in turn.token_ids[:count]]
        likeliest = [{renderer.text((i,)): chance for i, chance in one} for one in turn.likeliest[:count]]
        offsets = [sum(map(len, tokens[:place])) for place in range(count)]
        return {
            "tokens": tokens,
            "token_logprobs": [max(one, -9999.0) for one in turn.logprobs[:count]],
            "top_logprobs": likeliest or None,
            "text_offset": offsets,
        }


def _within(renderer: Renderer, ids: Sequence[int], text: str) -> int:
    """Return how many of the tokens `text` needs: where a stop string cut it they have written on."""
    return bisect.bisect_left(range(len(ids)), len(text), key=lambda count: len(renderer.text(ids[:count])))
