"""One request of the local engine: from a prompt to tokens, the reply in the making, and the completion it comes to."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Literal

import torch

from rolecraft.engine.decoder import draw, keyed
from rolecraft.engine.matcher import Matcher
from rolecraft.engine.reply import parse
from rolecraft.errors import ContextFull, EngineError
from rolecraft.grammar import Wanted
from rolecraft.model import Loaded
from rolecraft.renderers import Rendered
from rolecraft.types import Completion, Prompt, Sampling, StopReason, Turn, Usage

Constrain = Literal["off", "asked", "always"]
"""Which replies a grammar holds: none, those whose prompt asks for it, or all that may call tools."""


@dataclass(frozen=True, slots=True)
class Written:
    """What a sequence came to."""

    ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    forced: tuple[bool, ...]
    stop: StopReason
    cached: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Choice:
    """What a reply may go on with: `allowed` tokens, (V,) booleans (None: any); `forced` if it is but one."""

    allowed: torch.Tensor | None = None
    forced: bool = False


@dataclass(eq=False, slots=True)
class Writing:
    """One reply in the making; once submitted, only the engine's thread touches it.

    `prompt` is the decoder's tokens, `ids` the tokenizer's; `role` is the id of the role that writes, -1 without roles.
    Forced tokens are in `ids` before they are computed, and their log-probabilities follow. `stop` comes with the last.
    """

    prompt: list[int]
    role: int
    sampling: Sampling
    limit: int
    random: random.Random
    scopes: tuple[str, ...]
    listen: Callable[[int], None] | None = None
    matcher: Matcher | None = None
    future: Future[Written] = field(default_factory=Future)
    began: float = field(default_factory=time.perf_counter)
    row: int = -1
    cached: int = 0
    ids: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    forced: list[bool] = field(default_factory=list)
    stop: StopReason | None = None

    @property
    def left(self) -> int:
        """How many tokens the reply may still have."""
        return self.limit - len(self.ids)

    @property
    def known(self) -> bool:
        """Whether every token's log-probability is."""
        return len(self.logprobs) == len(self.ids)

    def sharing(self, others: Iterable[Writing]) -> Iterator[tuple[int, list[int]]]:
        """Yield the rows and prompts of those whose computation this one may use."""
        return ((other.row, other.prompt) for other in others if other.scopes[0] in self.scopes)

    def ahead(self, computed: int) -> list[int]:
        """Return the decoder's tokens after the first `computed`, but for a last one that nothing follows."""
        ids = self.ids[max(0, computed - len(self.prompt)) : len(self.ids) - bool(self.stop)]
        return [*self.prompt[computed:], *keyed(ids, (self.role,) * len(ids))]

    def add(self, token: int, forced: bool) -> None:
        """Take a token; raises EngineError for one that does not fit the grammar."""
        if self.matcher is not None:
            self.matcher.accept(token)
        self.ids.append(token)
        self.forced.append(forced)
        if self.listen is not None:
            self.listen(token)

    def written(self, stop: StopReason) -> Written:
        """Return what it came to."""
        seconds = time.perf_counter() - self.began
        return Written(tuple(self.ids), tuple(self.logprobs), tuple(self.forced), stop, self.cached, seconds)

    def choice(self, vocabulary: int, ahead: bool) -> Choice:
        """Return what may come next; raises EngineError if nothing may.

        `ahead`: what is forced has been taken already, so there is a choice, or one token for more than one reason.
        """
        if self.matcher is None:
            return Choice()
        forced = [] if ahead else self.matcher.forced(self.left)[:1]
        if forced:
            return Choice(torch.zeros(vocabulary, dtype=torch.bool).index_fill_(0, torch.tensor(forced), True), True)
        allowed = self.matcher.allowed(self.left)
        return Choice(allowed, forced=int(allowed.count_nonzero()) == 1)

    def heeded(self, new: int, computed: int) -> int:
        """Return after how many of the last `new` of `computed` tokens the model's word is wanted."""
        return min(new, max(0, computed - (len(self.prompt) - 1 + len(self.logprobs))))

    def learn(self, logits_KV: torch.Tensor) -> None:
        """Take the log-probabilities of forced tokens from the logits before each of them, one row for each or more."""
        missing = self.ids[len(self.logprobs) :][: len(logits_KV)]
        if missing:
            chosen = torch.tensor(missing, device=logits_KV.device)[:, None]
            self.logprobs += logits_KV[: len(missing)].log_softmax(-1).gather(-1, chosen)[:, 0].tolist()


def draw_each(drawing: Sequence[tuple[Writing, Choice]], logits_BV: torch.Tensor) -> tuple[list[int], list[float]]:
    """Draw a token for each reply from what its choice allows; return the tokens and their log-probabilities."""
    allowed_BV = None
    if any(choice.allowed is not None for _, choice in drawing):
        anything = torch.ones(logits_BV.shape[-1], dtype=torch.bool)
        allowed_BV = torch.stack([anything if choice.allowed is None else choice.allowed for _, choice in drawing])
    temperatures = [0.0 if choice.forced else one.sampling.temperature for one, choice in drawing]
    # A number is drawn for every sampled token, whoever else is in the batch: that is what makes a seed repeat.
    points = [one.random.random() if t > 0 else 0.0 for (one, _), t in zip(drawing, temperatures, strict=True)]
    return draw(logits_BV, temperatures, [one.sampling.top_p for one, _ in drawing], points, allowed_BV)


def encode(loaded: Loaded, prompt: Prompt, context: int, limit: int | None) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return the prompt's tokens and their role ids, -1 without roles.

    Raises ContextFull if `context` tokens leave no room for a reply, EngineError for what cannot be served; `limit` is
    the model's own, which the remedy names.
    """
    sampling = prompt.sampling
    if sampling.n < 1 or sampling.max_tokens < 1 or "" in sampling.stop:
        raise EngineError(f"n and max_tokens must be at least 1 and no stop string empty; got {sampling!r}")
    opening = loaded.renderer.opening(prompt.messages, prompt.tools, prompt.speaker, prompt.prefix)
    ids = opening.ids
    if len(ids) >= context:
        raise ContextFull(
            f"the prompt for {prompt.speaker!r} has {len(ids)} tokens and the context holds {context}; "
            f"shorten the conversation, or raise engine.max_context (--max-context; the model's limit is {limit})"
        )
    return ids, _roles(loaded, prompt, opening)


def wanted(prompt: Prompt, constrain: Constrain) -> Wanted | None:
    """Return what the reply is held to, None if it is free; raises EngineError where that is asked for and off."""
    asked = prompt.choice != "auto" or bool(prompt.next_roles)
    if not prompt.next_roles and not prompt.tools and prompt.choice in ("auto", "none"):
        return None
    if constrain == "off" and asked:
        raise EngineError(
            f"choice {prompt.choice!r} and next_roles {prompt.next_roles!r} need constrained replies, which are "
            "switched off; set engine.constrain to 'asked', or leave out --unconstrained"
        )
    if not asked and constrain != "always":
        return None
    return Wanted(prompt.tools, prompt.choice, prompt.parallel, prompt.next_roles)


def begun(loaded: Loaded, prompt: Prompt, ids: tuple[int, ...]) -> tuple[int, ...]:
    """Return the tokens of the reply that a prompt of `ids` ends in."""
    if not prompt.prefix:
        return ()
    return ids[len(loaded.renderer.prompt(prompt.messages, prompt.tools, prompt.speaker)) :]


def _roles(loaded: Loaded, prompt: Prompt, opening: Rendered) -> tuple[int, ...]:
    """Return the role ids of a prompt's tokens, by the rule that the adapter was trained with; -1s without roles."""
    gate, speaker = loaded.gate, prompt.speaker
    if gate is None:
        return (-1,) * len(opening.ids)
    if speaker not in gate.roles:
        raise EngineError(f"speaker {speaker!r} has no LoRAs in this adapter; its roles are {', '.join(gate.roles)}")
    before = len(opening.ids) - len(begun(loaded, prompt, opening.ids))
    return gate.ids(opening.speakers, speaker, before - len(loaded.renderer.header(speaker)))


def complete(loaded: Loaded, prompt: Prompt, ids: tuple[int, ...], role: int, written: Written) -> Completion:
    """Return the completion of `prompt`, whose tokens were `ids`; `role` is whose LoRAs wrote it."""
    message = parse(loaded.renderer, prompt, written.ids)
    count = len(written.ids)
    usage = Usage(len(ids), written.cached, count, written.seconds)
    roles = () if loaded.gate is None else (role,) * count
    turn = Turn(
        message, prompt.speaker, ids, written.ids, written.logprobs, written.forced, roles, written.stop, usage
    )  # fmt: skip
    return Completion(message, turn)
