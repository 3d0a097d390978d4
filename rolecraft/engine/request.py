"""One request of the local engine while it runs: what is still to be computed, and the tokens sampled so far."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field

import torch

from rolecraft.engine.drawn import tell
from rolecraft.engine.ending import Merged
from rolecraft.engine.matcher import Matcher
from rolecraft.engine.model_runner import cache_keys
from rolecraft.engine.opening import Doubt
from rolecraft.engine.reply import has_stop
from rolecraft.engine.sampling import Draw, chances, likeliest, sample
from rolecraft.renderers import Renderer
from rolecraft.types import Drawn, Sampling, StopReason


@dataclass(frozen=True, slots=True)
class Output:
    """What a request came to; `cached` counts the prompt's cached tokens.

    `logprobs` and `forced` align with `ids`, and so do `likeliest` and `drawn` unless they are empty. `doubted`: it was
    ended as its model would have called a tool that is not offered.
    """

    ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    forced: tuple[bool, ...]
    stop: StopReason
    cached: int
    seconds: float
    likeliest: tuple[tuple[tuple[int, float], ...], ...] = ()
    doubted: bool = False
    drawn: tuple[Drawn | None, ...] = ()


@dataclass(frozen=True, slots=True)
class Scored:
    """The log-probabilities of given tokens, each after those before it, and the likeliest there if asked for."""

    logprobs: tuple[float, ...]
    likeliest: tuple[tuple[tuple[int, float], ...], ...] = ()


@dataclass(frozen=True, slots=True)
class Allowed:
    """Which tokens may come next: `mask`, (V,) booleans (None: any); `forced` if it is but one.

    `merged`: which of all tokens mean one of them. `doubted`: which say that a call is meant.
    """

    mask: torch.Tensor | None = None
    forced: bool = False
    merged: Merged | None = None
    doubted: torch.Tensor | None = None


@dataclass(eq=False, slots=True)
class Request:
    """One reply being generated; once submitted, only the scheduler's thread touches it.

    `prompt` is the KV cache's tokens, `ids` the tokenizer's; `role` is the id of the role that writes, -1 without
    roles. `row` is the request's row of the KV cache, `max_tokens` the most that the reply may have. Forced tokens are
    in `ids` before they are computed, and their log-probabilities follow. `stop` comes with the last token. `roles` are
    those of `ids` where they are given beforehand, to be scored and not written; see `give`.
    """

    prompt: list[int]
    role: int
    sampling: Sampling
    max_tokens: int
    random: random.Random
    scopes: tuple[str, ...]
    renderer: Renderer
    on_token: Callable[[int], None] | None = None
    matcher: Matcher | None = None
    future: Future[Output] = field(default_factory=Future)
    started: float = field(default_factory=time.perf_counter)
    row: int = -1
    cached: int = 0
    ids: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    likeliest: list[tuple[tuple[int, float], ...]] = field(default_factory=list)
    forced: list[bool] = field(default_factory=list)
    drawn: dict[int, Drawn] = field(default_factory=dict)
    stop: StopReason | None = None
    told: int = 0
    doubt: Doubt = field(default_factory=Doubt)
    twins: list[Request] = field(default_factory=list)
    roles: tuple[int, ...] = ()

    def give(self, ids: Sequence[int], roles: Sequence[int]) -> None:
        """Let the reply be `ids`, each computed by its role: nothing is written, and all are scored."""
        self.ids, self.roles = list(ids), tuple(roles)
        self.forced, self.stop = [True] * len(self.ids), "length"

    @property
    def remaining(self) -> int:
        """How many tokens the reply may still have."""
        return self.max_tokens - len(self.ids)

    @property
    def is_finished(self) -> bool:
        """Whether the last token is there, and the log-probability of each."""
        return self.stop is not None and len(self.logprobs) == len(self.ids)

    def sharing(self, others: Iterable[Request]) -> Iterator[tuple[int, list[int]]]:
        """Yield the rows and prompts of those whose computation this one may use."""
        return ((other.row, other.prompt) for other in others if other.scopes[0] in self.scopes)

    def may_join(self, other: Request) -> bool:
        """Whether this reply, of which nothing is written, may be a twin of `other`, whose prompt is being computed.

        A grammar may write tokens of its own, so replies that are held to one stay apart.
        """
        apart = self.matcher or other.matcher or self.ids or other.ids
        return not apart and self.prompt == other.prompt and self.scopes[0] == other.scopes[0]

    @property
    def was_twin(self) -> bool:
        """Whether it has begun, in another's row, and has none yet; one whose tokens are only scored has not."""
        return bool(self.ids) and self.matcher is None and self.stop is None

    def with_twins(self) -> list[Request]:
        """Return all the replies that this one's row is computed for, itself first, and let its twins go."""
        twins, self.twins = self.twins, []
        return [self, *twins]

    def uncomputed(self, computed: int) -> list[int]:
        """Return the KV cache's tokens after the first `computed`, but for a last one that nothing follows."""
        kept = slice(max(0, computed - len(self.prompt)), len(self.ids) - bool(self.stop))
        roles = self.roles or (self.role,) * len(self.ids)
        return [*self.prompt[computed:], *cache_keys(self.ids[kept], roles[kept])]

    def append(self, token: int, forced: bool) -> None:
        """Add a token to the reply; raises EngineError for one that does not fit the grammar."""
        if self.matcher is not None:
            self.matcher.accept(token)
        self.ids.append(token)
        self.forced.append(forced)
        self.stop = self._stop_reason(token)
        self._tell()

    def _tell(self) -> None:
        """Hand out the tokens; those of a call that may be doubted wait until it no longer can be."""
        if self.on_token is None or (self.matcher is not None and self.matcher.is_open and self.stop is None):
            return
        for token in self.ids[self.told :]:
            self.on_token(token)
        self.told = len(self.ids)

    def fast_forward(self) -> None:
        """Append the tokens that the grammar leaves no choice for; they are then computed together."""
        if self.matcher is None or self.stop:
            return
        for token in self.matcher.forced(self.remaining):
            self.append(token, forced=True)
            if self.stop:
                return

    def allowed(self, vocabulary: int, fast_forwarded: bool) -> Allowed:
        """Return which of `vocabulary` tokens may come next; raises EngineError if none may.

        `fast_forwarded`: forced tokens have been appended already, so there is a choice, or one token for more than
        one reason.
        """
        if self.matcher is None:
            return Allowed()
        forced = [] if fast_forwarded else self.matcher.forced(self.remaining)[:1]
        if forced:
            return Allowed(torch.zeros(vocabulary, dtype=torch.bool).index_fill_(0, torch.tensor(forced), True), True)
        mask = self.matcher.allowed(self.remaining)
        forced_here = int(mask.count_nonzero()) == 1
        merged = None if forced_here else self.matcher.merged(mask)
        return Allowed(mask, forced_here, merged, self.matcher.doubted(mask))

    def logits_needed(self, new: int, computed: int) -> int:
        """Return after how many of the last `new` of `computed` tokens the model's logits are needed."""
        return min(new, max(0, computed - (len(self.prompt) - 1 + len(self.logprobs))))

    def record_logprobs(self, logits_KV: torch.Tensor) -> None:
        """Take the log-probabilities of forced tokens from the logits before each of them, one row for each or more."""
        missing = self.ids[len(self.logprobs) :][: len(logits_KV)]
        if missing:
            self.record_likeliest(logits_KV[: len(missing)])
            chosen = torch.tensor(missing, device=logits_KV.device)[:, None]
            self.logprobs += logits_KV[: len(missing)].log_softmax(-1).gather(-1, chosen)[:, 0].tolist()

    def record_likeliest(self, logits_KV: torch.Tensor) -> None:
        """Take the likeliest tokens from the logits of the next places, one row for each, if they were asked for."""
        if self.sampling.top_logprobs:
            self.likeliest += [likeliest(logits_V, self.sampling.top_logprobs) for logits_V in logits_KV]

    def draw(self, forced: bool) -> Draw:
        """Return how the next token is drawn; a number is taken for every token with a temperature."""
        how = self.sampling
        if forced or how.temperature == 0:
            return Draw(
                presence_penalty=how.presence_penalty, frequency_penalty=how.frequency_penalty, written=self.ids
            )
        # A number for every sampled token, whoever else is in the batch: that is what makes a seed repeat.
        return Draw(
            how.temperature,
            how.top_p,
            how.top_k,
            how.min_p,
            how.presence_penalty,
            how.frequency_penalty,
            self.random.random(),
            self.ids,
        )

    def output(self, stop: StopReason, *, doubted: bool = False) -> Output:
        """Return what the request came to."""
        seconds = time.perf_counter() - self.started
        return Output(
            tuple(self.ids),
            tuple(self.logprobs),
            tuple(self.forced),
            stop,
            self.cached,
            seconds,
            tuple(self.likeliest),
            doubted,
            tuple(map(self.drawn.get, range(len(self.ids)))) if self.sampling.tell_drawn else (),
        )

    def _stop_reason(self, token: int) -> StopReason | None:
        if token in self.renderer.stop_ids:
            return "end"
        if self.sampling.stop and has_stop(self.renderer, self.ids, self.sampling.stop):
            return "end"
        return "length" if len(self.ids) >= self.max_tokens else None


def sample_each(requests: Sequence[tuple[Request, Allowed]], logits_BV: torch.Tensor) -> tuple[list[int], list[float]]:
    """Sample a token for each request from what it allows; return the tokens and their log-probabilities."""
    allowed_BV = None
    if any(allowed.mask is not None for _, allowed in requests):
        anything = torch.ones(logits_BV.shape[-1], dtype=torch.bool)
        allowed_BV = torch.stack([anything if allowed.mask is None else allowed.mask for _, allowed in requests])
    for b, (request, _) in enumerate(requests):
        request.record_likeliest(logits_BV[b : b + 1])
    draws = [request.draw(allowed.forced) for request, allowed in requests]
    merged = {b: (one.merged.written, one.merged.meant) for b, (_, one) in enumerate(requests) if one.merged}
    ids, logprobs = sample(logits_BV, draws, allowed_BV, merged)
    if any(request.sampling.tell_drawn for request, _ in requests):
        found = chances(logits_BV, ids, draws, allowed_BV, merged)
        for (request, allowed), logprob, draw in zip(requests, found, draws, strict=True):
            if request.sampling.tell_drawn and not allowed.forced:
                request.drawn[len(request.ids)] = tell(logprob, draw.heat, allowed.mask, allowed.merged)
    return ids, logprobs
