"""Adds up what a strategy spends beside the record, and checks what several strategies ask of their settings."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from rolecraft.errors import SettingsError
from rolecraft.types import Trials, Turn, Usage
from rolecraft.voting import Election


@dataclass(slots=True)
class Effort:
    """What was tried and spent so far."""

    strategy: str
    tried: int = 0
    failed: int = 0
    model_calls: int = 0
    tool_calls: int = 0
    usages: list[Usage] = field(default_factory=list)
    agreements: list[float] = field(default_factory=list)

    def vote(self, candidates: Sequence[Sequence[Turn]], election: Election) -> None:
        """Count a vote among candidates, each of some turns, which were written at the same time."""
        self.tried += len(candidates)
        self.failed += election.failed
        if election.agreement is not None:
            self.agreements.append(election.agreement)
        others = [turn for place, turns in enumerate(candidates) if place != election.chosen for turn in turns]
        self.model_calls += len(others)
        self.usages += [Usage(one.usage.prompt, one.usage.cached, one.usage.completion) for one in others]
        seconds = [sum(turn.usage.seconds for turn in turns) for turns in candidates]
        self.usages.append(Usage(seconds=max(seconds) - seconds[election.chosen]))

    def trials(self) -> Trials:
        """Return it all for the record."""
        agreed = sum(self.agreements) / len(self.agreements) if self.agreements else None
        usage = total(self.usages)
        return Trials(self.strategy, self.tried, self.failed, agreed, self.model_calls, self.tool_calls, usage)


def total(usages: Iterable[Usage]) -> Usage:
    """Return the sum of usages that came one after the other."""
    listed = list(usages)
    return Usage(
        sum(one.prompt for one in listed),
        sum(one.cached for one in listed),
        sum(one.completion for one in listed),
        sum(one.seconds for one in listed),
    )


def require(strategy: str, *, least: dict[str, tuple[float, float]]) -> None:
    """Raise SettingsError for a setting of the strategy (its value and the least it may be) that is too small."""
    for name, (value, bound) in least.items():
        if not value >= bound:
            raise SettingsError(f"{strategy}.{name} is {value!r}; it must be at least {bound:g}")
