"""Sums over the steps since the last log, to be told as means."""

from __future__ import annotations

import time
from dataclasses import dataclass, field


@dataclass(slots=True)
class Tally:
    """Sums by name with how many things they are over, how many steps and tokens there were, and since when."""

    sums: dict[str, float] = field(default_factory=dict)
    counts: dict[str, float] = field(default_factory=dict)
    started: float = field(default_factory=time.monotonic)
    steps: int = 0
    tokens: int = 0

    def add(self, name: str, total: float, count: float = 1.0) -> None:
        """Add a sum over `count` things."""
        self.sums[name] = self.sums.get(name, 0.0) + total
        self.counts[name] = self.counts.get(name, 0.0) + count

    def include(self, other: Tally) -> None:
        """Add another's sums."""
        for name, total in other.sums.items():
            self.add(name, total, other.counts[name])

    def means(self) -> dict[str, float]:
        """Return the means."""
        return {name: total / self.counts[name] for name, total in self.sums.items() if self.counts[name]}
