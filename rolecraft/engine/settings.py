"""The local engine's settings, and whether what they let it hold fits into memory."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any, Literal, get_args

from rolecraft.engine.matcher import Settings as GrammarSettings
from rolecraft.engine.precision import PrefillDtype
from rolecraft.engine.weights import Weights
from rolecraft.errors import SettingsError
from rolecraft.grammar import OnUnsupported

Constrain = Literal["off", "asked", "always"]
"""Which replies a grammar holds: none, those whose prompt asks for it, or all that may call tools."""

_MIB = 2**20


@dataclass(frozen=True, slots=True)
class Settings:
    """How much the engine holds and computes at once.

    `max_requests`: how many replies are decoded together, and how many conversations stay cached; so play at most as
    many episodes at once. `max_context`: tokens of a prompt with its reply; the model's own limit caps it. None: that
    limit, at most 8192, and no more than `memory_mb`, or else half of the machine's memory, holds for all requests.
    `prefill_tokens`: how many prompt tokens are computed between two decoding steps. `seed` varies all sampling.
    `constrain`: which replies a grammar holds; `fast_forward`: tokens it leaves no choice for are computed at once.
    `fused`: Llama-like models run by calls of our own, which are fewer, and others by transformers' as ever.
    `prefill_dtype`: what prompts are multiplied in by the fused calls; bfloat16 is faster where the processor has it,
    and then a reply is no longer the same whatever part of its prompt was cached, or was computed beside others.
    `weights`: the form in which the base's matrices are held and multiplied by; adapters stay in float32. In any but
    float32 prompts are multiplied in bfloat16 where that is faster, and `prefill_dtype` says nothing.
    `memory_mb`: the most MiB of keys and values; what could come to more is refused at the start. None: no bound.
    """

    max_requests: int = 16
    max_context: int | None = 1024
    prefill_tokens: int = 1024
    seed: int = 0
    constrain: Constrain = "asked"
    fast_forward: bool = True
    fused: bool = True
    prefill_dtype: PrefillDtype = "float32"
    weights: Weights = "float32"
    memory_mb: int | None = None
    grammar: GrammarSettings = field(default_factory=GrammarSettings)


def check(settings: Settings) -> None:
    """Raise SettingsError for a number below 1, or a word that is not one of the choices."""
    limits = settings.grammar.limits
    numbers = {name: getattr(settings, name) for name in ("max_requests", "max_context", "prefill_tokens", "memory_mb")}
    numbers |= {f"grammar.limits.{each.name}": getattr(limits, each.name) for each in fields(limits)}
    for name, value in numbers.items():
        if value is not None and value < 1:
            raise SettingsError(f"engine.{name} is {value!r}; it must be at least 1")
    _check_word("constrain", settings.constrain, Constrain)
    _check_word("prefill_dtype", settings.prefill_dtype, PrefillDtype)
    _check_word("weights", settings.weights, Weights)
    _check_word("grammar.on_unsupported", settings.grammar.on_unsupported, OnUnsupported)


def _check_word(name: str, value: str, kind: Any) -> None:
    if value not in get_args(kind):
        raise SettingsError(f"engine.{name} is {value!r}; it must be one of {', '.join(get_args(kind))}")


def check_memory(settings: Settings, most: int, context: int) -> None:
    """Raise SettingsError if `most` bytes, for all rows of `context` tokens, are more than the settings allow."""
    if settings.memory_mb is None or most <= settings.memory_mb * _MIB:
        return
    each = most // (settings.max_requests * context)
    fit = settings.memory_mb * _MIB * settings.max_requests // most
    fewer = f"set engine.max_requests (--concurrency) to at most {fit}, " if fit else ""
    raise SettingsError(
        f"engine.memory_mb is {settings.memory_mb}, and the keys and values of {settings.max_requests} x {context} "
        f"tokens come to {-(-most // _MIB)} MiB ({each:,} bytes a token); {fewer}lower "
        "engine.max_context (--max-context), or raise engine.memory_mb (--memory-mb)"
    )
