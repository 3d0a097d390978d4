"""One request of the local engine: from a prompt to tokens, the reply in the making, and the completion it comes to."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field

from rolecraft.errors import ContextFull, EngineError
from rolecraft.model import Loaded
from rolecraft.renderers import Rendered
from rolecraft.reply import parse
from rolecraft.types import Completion, Prompt, Sampling, StopReason, Turn, Usage


@dataclass(frozen=True, slots=True)
class Written:
    """What a sequence came to."""

    ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    stop: StopReason
    cached: int
    seconds: float


@dataclass(eq=False, slots=True)
class Writing:
    """One reply in the making; once submitted, only the engine's thread touches it.

    `prompt` is the decoder's tokens, `ids` the tokenizer's; `role` is the id of the role that writes, -1 without roles.
    """

    prompt: list[int]
    role: int
    sampling: Sampling
    limit: int
    random: random.Random
    listen: Callable[[int], None] | None = None
    future: Future[Written] = field(default_factory=Future)
    began: float = field(default_factory=time.perf_counter)
    row: int = -1
    cached: int = 0
    ids: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)


def encode(loaded: Loaded, prompt: Prompt, context: int, limit: int | None) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return the prompt's tokens and their role ids, -1 without roles.

    Raises ContextFull if `context` tokens leave no room for a reply, EngineError for what cannot be served; `limit` is
    the model's own, which the remedy names.
    """
    sampling = prompt.sampling
    if prompt.choice != "auto" and (prompt.tools or prompt.choice != "none"):
        raise EngineError(f"choice {prompt.choice!r} needs constrained calls, which this engine has not; use 'auto'")
    if sampling.n < 1 or sampling.max_tokens < 1 or "" in sampling.stop:
        raise EngineError(f"n and max_tokens must be at least 1 and no stop string empty; got {sampling!r}")
    opening = loaded.renderer.opening(prompt.messages, prompt.tools, prompt.speaker, prompt.prefix)
    ids = opening.ids
    if len(ids) >= context:
        raise ContextFull(
            f"the prompt for {prompt.speaker!r} has {len(ids)} tokens and the context holds {context}; "
            f"shorten the conversation, or raise engine.max_context (the model's limit is {limit})"
        )
    return ids, _roles(loaded, prompt, opening)


def _roles(loaded: Loaded, prompt: Prompt, opening: Rendered) -> tuple[int, ...]:
    """Return the role ids of a prompt's tokens, by the rule that the adapter was trained with; -1s without roles."""
    gate, speaker = loaded.gate, prompt.speaker
    if gate is None:
        return (-1,) * len(opening.ids)
    if speaker not in gate.roles:
        raise EngineError(f"speaker {speaker!r} has no LoRAs in this adapter; its roles are {', '.join(gate.roles)}")
    before = len(opening.ids)
    if prompt.prefix:
        before = len(loaded.renderer.prompt(prompt.messages, prompt.tools, speaker))
    return gate.ids(opening.speakers, speaker, before - len(loaded.renderer.header(speaker)))


def complete(loaded: Loaded, prompt: Prompt, ids: tuple[int, ...], role: int, written: Written) -> Completion:
    """Return the completion of `prompt`, whose tokens were `ids`; `role` is whose LoRAs wrote it."""
    message = parse(loaded.renderer, prompt, written.ids)
    count = len(written.ids)
    usage = Usage(len(ids), written.cached, count, written.seconds)
    roles = () if loaded.gate is None else (role,) * count
    turn = Turn(
        message, prompt.speaker, ids, written.ids, written.logprobs, (False,) * count, roles, written.stop, usage
    )  # fmt: skip
    return Completion(message, turn)
