"""Chooses the attention that a run's batches need, or are fastest by."""

from __future__ import annotations

from typing import Any

from transformers import TrainingArguments

from rolecraft import attention
from rolecraft.errors import SettingsError
from rolecraft.recipe import Recipe

_EAGER_LENGTH = 512
"""Up to this many tokens eager attention beats torch's fused one in bf16 on a CPU, whose backward pass is slow."""


def choose(base: Any, recipe: Recipe, arguments: TrainingArguments, longest: int) -> None:
    """Set the base's attention; raises SettingsError where rows are to share a prefix and it attends otherwise."""
    named = recipe.model.attn_implementation
    if recipe.data.group > 1:
        if named or not attention.shares(base):
            raise SettingsError(_cannot_share(recipe))
        base.set_attn_implementation(attention.register_shared())
        return
    slow = arguments.device.type == "cpu" and recipe.training.bf16 and longest <= _EAGER_LENGTH
    if named or slow:
        fast = attention.register() if attention.serves(base) else "eager"
        base.set_attn_implementation(named or fast)


def _cannot_share(recipe: Recipe) -> str:
    named = recipe.model.attn_implementation
    given = f"model.attn_implementation is {named!r}" if named else f"{recipe.model.base!r} attends otherwise"
    return (
        f"data.group is {recipe.data.group}, and rows that share a prefix need attention of our own, plain and causal; "
        f"{given}: {'leave it out' if named else 'take another base'}, or set data.group to 1"
    )
