"""Full tuning: the base's own parameters are trained, and what is saved is a whole model of transformers'."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rolecraft import matching
from rolecraft.adapters._roleless import gate, inputs, loads, measure, parts, penalty, virtual_tokens
from rolecraft.errors import SettingsError

__all__ = ["Settings", "attach", "gate", "inputs", "loads", "measure", "merge", "parts", "penalty", "virtual_tokens"]


@dataclass(frozen=True, slots=True)
class Settings:
    r"""Which parameters are trained: None for all, else those whose whole name the regular expression matches.

    `model\.layers\.(8|9)\..*` are those of two layers; tied embeddings have one name, that of the first in the model.
    """

    unfrozen_parameters: str | None = None

    def __post_init__(self) -> None:
        """Refuse a pattern that no name matches."""
        if self.unfrozen_parameters == "":
            raise SettingsError("adapter.unfrozen_parameters is ''; write a regular expression, or null for all")


def attach(model: Any, settings: Settings) -> Any:
    """Return `model` itself in float32, the chosen parameters ready to be trained and the others frozen.

    Small steps are lost in bfloat16's eight bits, so the frozen are float32 too: layers do not mix types. Raises
    SettingsError if no parameter is meant, or the weights are quantised.
    """
    if getattr(model.config, "quantization_config", None) is not None:
        raise SettingsError(
            "adapter.name is 'full', and this base's weights are quantised, so they cannot be trained; give the base "
            "that it was made from, or tune a LoRA (adapter.name=lora)"
        )
    names = [name for name, _ in model.named_parameters()]
    chosen = _chosen(settings.unfrozen_parameters, names)
    model.float()
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name in chosen)
    return model


def _chosen(pattern: str | None, names: Sequence[str]) -> frozenset[str]:
    if pattern is None:
        return frozenset(names)
    matching.require_quick({"adapter.unfrozen_parameters": pattern}, names)
    chosen = frozenset(name for name in names if re.fullmatch(pattern, name))
    if not chosen:
        raise SettingsError(
            f"adapter.unfrozen_parameters is {pattern!r}, which matches none of the {len(names)} parameters' whole "
            f"names, such as {names[0]!r} and {names[-1]!r} (of tied embeddings the first has the name)"
        )
    return chosen


def merge(model: Any) -> Any:
    """Return the model itself, which has nothing beside its weights."""
    return model
