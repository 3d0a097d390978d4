"""Rules that make other trajectories of given ones, each seeded."""

from __future__ import annotations

from rolecraft.augment.results import with_short_results

__all__ = ["with_short_results"]
