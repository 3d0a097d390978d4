"""A long dialogue as its steps, and replies without their thoughts."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from random import Random
from typing import Literal

from rolecraft.augment.pool import Pool
from rolecraft.augment.results import with_short_results
from rolecraft.errors import SettingsError
from rolecraft.types import Message, Trajectory

_THOUGHT = re.compile(r"<think>.*?</think>\s*", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Steps:
    """How many steps of a dialogue are taken, drawn (0: all), and of which kind."""

    most: int = 0
    kinds: tuple[Literal["call", "ask"], ...] = ("call", "ask")

    def __post_init__(self) -> None:
        """Refuse numbers that cannot be meant."""
        if self.most < 0 or not self.kinds:
            raise SettingsError(f"steps: most is {self.most!r} and kinds {self.kinds!r}; take at least something")


@dataclass(frozen=True, slots=True)
class ShortResults:
    """How many items of a list are kept that a tool answered."""

    most: int = 3

    def __post_init__(self) -> None:
        """Refuse a number that cannot be meant."""
        if self.most < 0:
            raise SettingsError(f"short_results.most is {self.most!r}; keep 0 or more")


@dataclass(frozen=True, slots=True)
class WithoutThoughts:
    """Nothing to set."""


def steps(trajectory: Trajectory, settings: Steps, draw: Random, pool: Pool) -> tuple[Trajectory, ...]:
    """Return for each step of the reference the dialogue up to its reply, which alone is trained."""
    found = [
        step
        for step in trajectory.task.reference.get("steps", ())
        if ("call" if step["calls"] else "ask") in settings.kinds
    ]
    if settings.most and len(found) > settings.most:
        found = [found[place] for place in sorted(draw.sample(range(len(found)), settings.most))]
    return tuple(_until(trajectory, step["at"], step) for step in found)


def _until(trajectory: Trajectory, place: int, step: object) -> Trajectory:
    context = tuple(_untrained(message) for message in trajectory.messages[:place])
    reply = trajectory.messages[place].edited(weight=None)
    identity = f"{trajectory.id}@{place}"
    reference = {**trajectory.task.reference, "steps": [step]}
    opening = len(trajectory.task.messages)
    task = replace(trajectory.task, id=identity, messages=context[:opening], reference=reference)
    return replace(trajectory, id=identity, task=task, messages=(*context, reply))


def _untrained(message: Message) -> Message:
    return message.edited(weight=0.0) if message.role == "assistant" else message


def short_results(trajectory: Trajectory, settings: ShortResults, draw: Random, pool: Pool) -> tuple[Trajectory, ...]:
    """Return the trajectory with shorter lists from its tools."""
    return (replace(trajectory, messages=with_short_results(trajectory.messages, settings.most)),)


def without_thoughts(
    trajectory: Trajectory, settings: WithoutThoughts, draw: Random, pool: Pool
) -> tuple[Trajectory, ...]:
    """Return the trajectory without what stands between `<think>` and `</think>`."""
    messages = tuple(
        message.edited(content=_THOUGHT.sub("", message.content)) if message.role == "assistant" else message
        for message in trajectory.messages
    )
    return (replace(trajectory, messages=messages),)
