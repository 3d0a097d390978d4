"""Watches a policy that learns from rewards, and says when it has collapsed: entropy, divergence, calls and reward."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence

from rolecraft.reinforcement import Collapse

_NAMES = {"entropy": "a token's entropy", "calls": "the calls an episode", "reward": "the reward"}
_UNIT = {"entropy": " nats", "calls": "", "reward": ""}
WATCHED = ("entropy", "calls", "reward", "kl")


def note(history: dict[str, list[float]], seen: Mapping[str, float]) -> None:
    """Add what a step was like."""
    for name in WATCHED:
        if name in seen:
            history.setdefault(name, []).append(seen[name])


def why(history: Mapping[str, Sequence[float]], told: Collapse) -> str:
    """Return what has collapsed, with its numbers and a remedy; '' while nothing has."""
    for name in _NAMES:
        seen = history.get(name, ())
        if len(seen) < 2 * told.window:
            continue
        first, last = statistics.fmean(seen[: told.window]), statistics.fmean(seen[-told.window :])
        least = getattr(told, name) * first
        if last < least:
            return (
                f"{_NAMES[name]} fell from {first:.3g} to {last:.3g}{_UNIT[name]} over the last {told.window} steps, "
                f"below {least:.3g}; {_remedy(name)}"
            )
    apart = history.get("kl", ())[-told.window :]
    if told.kl and len(apart) == told.window and statistics.fmean(apart) > told.kl:
        return (
            f"the policy is {statistics.fmean(apart):.3g} nats a token from where it began, over the last "
            f"{told.window} steps, above {told.kl:g}; {_remedy('kl')}"
        )
    return ""


def _remedy(name: str) -> str:
    return (
        "lower training.learning_rate, raise reinforcement.kl or reinforcement.group, or set "
        f"reinforcement.collapse.{name} otherwise"
    )
