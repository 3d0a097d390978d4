"""Rules that make other trajectories of given ones: seeded, composable, and named in a recipe.

A rule is a function of a trajectory, its settings, a source of draws and a pool of other tools and requests, and
returns the trajectories that take its place. What is drawn depends on the seed, the rule's place and the trajectory's
id alone, so neither on the order of the rows nor on other rules' draws. Calls, schemas and the reference's steps stay
in accord.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from random import Random
from typing import Any

from rolecraft.augment.masks import MaskNames, mask_names
from rolecraft.augment.offers import Distractors, HideTools, distractors, hide_tools
from rolecraft.augment.pool import Pool
from rolecraft.augment.requests import AskFirst, JoinRequests, ask_first, join_requests
from rolecraft.augment.results import with_short_results
from rolecraft.augment.steps import ShortResults, Steps, WithoutThoughts, short_results, steps, without_thoughts
from rolecraft.errors import SettingsError
from rolecraft.settings import from_dict
from rolecraft.types import Trajectory

__all__ = ["RULES", "Pool", "Rule", "apply", "read", "with_short_results"]

RULES: Mapping[str, tuple[type[Any], Callable[[Trajectory, Any, Random, Pool], tuple[Trajectory, ...]]]] = {
    "steps": (Steps, steps),
    "short_results": (ShortResults, short_results),
    "without_thoughts": (WithoutThoughts, without_thoughts),
    "join_requests": (JoinRequests, join_requests),
    "ask_first": (AskFirst, ask_first),
    "hide_tools": (HideTools, hide_tools),
    "distractors": (Distractors, distractors),
    "mask_names": (MaskNames, mask_names),
}
"""The rules by name, with their settings, in an order that serves: names are masked last."""


@dataclass(frozen=True, slots=True)
class Rule:
    """A rule of RULES with its settings."""

    name: str
    settings: Any


def read(told: Sequence[Mapping[str, Any] | str]) -> tuple[Rule, ...]:
    """Return the rules that a recipe lists, each a name or `{name: settings}`; raises SettingsError."""
    found = []
    for one in told:
        named = {one: None} if isinstance(one, str) else dict(one)
        if len(named) != 1:
            raise SettingsError(f"a rule is a name, or one name with its settings; got {list(named)}")
        ((name, settings),) = named.items()
        if name not in RULES:
            near = difflib.get_close_matches(str(name), RULES, n=1, cutoff=0.5)
            hint = f"Did you mean {near[0]!r}?" if near else f"There are {', '.join(RULES)}."
            raise SettingsError(f"no rule {name!r}. {hint}")
        found.append(Rule(name, from_dict(RULES[name][0], settings, name)))
    return tuple(found)


def apply(rules: Sequence[Rule], trajectory: Trajectory, pool: Pool, seed: int | str) -> tuple[Trajectory, ...]:
    """Return what the rules make of a trajectory, one after the other; its lineage names those that changed it."""
    found: tuple[Trajectory, ...] = (trajectory,)
    for place, rule in enumerate(rules):
        _, function = RULES[rule.name]
        found = tuple(
            made if made == before else replace(made, lineage=(*made.lineage, rule.name))
            for before in found
            for made in function(before, rule.settings, Random(f"{seed} {place} {rule.name} {before.id}"), pool)
        )
    return found
