"""Weighs the thought and the action of a reply apart (Structured Agent Distillation, arXiv 2505.13820).

A plain loss counts every token alike, so that long thoughts outweigh short actions. A reply's action is its call, or
its block of code; a reply that calls nothing is all action, since it is an answer. Not covered: a thought that a role
of its own writes, whose messages have a weight already.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

from rolecraft.errors import SettingsError
from rolecraft.renderers import Renderer
from rolecraft.team import Role
from rolecraft.types import Message


@dataclass(frozen=True, slots=True)
class Shares:
    """What a token of a thought and one of an action count in the loss."""

    thought: float = 1.0
    action: float = 1.0

    def __post_init__(self) -> None:
        """Raise SettingsError for weights that train half a reply, or none."""
        for name in ("thought", "action"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value > 0):
                raise SettingsError(
                    f"team.{name}_weight is {value!r}; give a number above 0: a model must learn to write whole replies"
                )


ALIKE = Shares()


def weights(message: Message, ids: Sequence[int], role: Role, renderer: Renderer, shares: Shares) -> tuple[float, ...]:
    """Return what each token of a reply counts, (T,); `message` is the reply in the record, `ids` its tokens."""
    if shares == ALIKE:
        return (1.0,) * len(ids)
    begins = _begins(message, role, renderer.text(ids))
    # A token that holds the last of the thought and the first of the action is the action's.
    thought = bisect_right(range(len(ids)), begins, key=lambda place: len(renderer.text(ids[: place + 1])))
    return (shares.thought,) * thought + (shares.action,) * (len(ids) - thought)


def _begins(message: Message, role: Role, text: str) -> int:
    """Return where the action begins in the text of a reply."""
    if role.form is not None:
        return role.form.begins(text)
    if not message.tool_calls or not message.content:
        return 0
    place = text.find(message.content)
    return 0 if place < 0 else place + len(message.content)
