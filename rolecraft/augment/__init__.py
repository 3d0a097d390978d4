"""Rules that make other trajectories of given ones: seeded, composable, and named in a recipe.

A rule is a function of a trajectory, its settings, a source of draws and a pool of other tools and requests, and
returns the trajectories that take its place. What is drawn depends on the seed, the rule's place and the trajectory's
id alone, so neither on the order of the rows nor on other rules' draws. Calls, schemas and the reference's steps stay
in accord. Rows that tell the same tools may be given the same others in the same order and by the same names.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from random import Random
from typing import Any

from rolecraft.augment.masks import MaskNames, mask_names
from rolecraft.augment.offers import (
    Distractors,
    HideTools,
    asks_for_any,
    distractors,
    hide_tools,
    is_negative,
    needed_by,
)
from rolecraft.augment.pool import Pool
from rolecraft.augment.requests import AskFirst, JoinRequests, ask_first, join_requests
from rolecraft.augment.results import with_short_results
from rolecraft.augment.steps import ShortResults, Steps, WithoutThoughts, short_results, steps, without_thoughts
from rolecraft.augment.together import together
from rolecraft.errors import SettingsError
from rolecraft.settings import from_dict
from rolecraft.types import Trajectory

__all__ = ["RULES", "Pool", "Rule", "apply", "apply_together", "offer", "read", "together", "with_short_results"]

RULES: Mapping[str, tuple[type[Any], Callable[..., tuple[Trajectory, ...]]]] = {
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

_TELLING = ("hide_tools", "distractors", "mask_names")
"""The rules that change which tools a row is told, or how: they draw for a group."""


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
        found = tuple(made for one in found for made in _made(rule, (one,), pool, f"{seed} {place}"))
    return found


def apply_together(
    rules: Sequence[Rule], trajectories: Sequence[Trajectory], pool: Pool, seed: int | str
) -> tuple[Trajectory, ...]:
    """Return the same of a group of rows of equal `offer`: what is drawn for its first row holds for those that it can.

    Rows of which a rule makes something with other tools, and those to which none fits, are groups of their own from
    there on.
    """
    found = tuple(trajectories)
    for place, rule in enumerate(rules):
        groups = _alike(found, rule) if rule.name in _TELLING else [[one] for one in found]
        found = tuple(made for group in groups for made in _made(rule, group, pool, f"{seed} {place}"))
    return found


def offer(rules: Sequence[Rule], trajectory: Trajectory) -> tuple[str, ...]:
    """Return what is equal for rows that the rules may give the same tools: their own, in any order, as they matter."""
    return min((_offer(rule, trajectory) for rule in rules), key=len, default=_all(trajectory))


def _made(rule: Rule, group: Sequence[Trajectory], pool: Pool, seed: str) -> Iterator[Trajectory]:
    _, function = RULES[rule.name]
    together = {"group": group} if rule.name in _TELLING and len(group) > 1 else {}
    for before in group:
        draw = Random(f"{seed} {rule.name} {group[0].id}")
        for made in function(before, rule.settings, draw, pool, **together):
            yield made if made == before else replace(made, lineage=(*made.lineage, rule.name))


def _alike(found: Sequence[Trajectory], rule: Rule) -> list[list[Trajectory]]:
    """Return the rows in groups that a rule may give the same tools."""
    groups: dict[object, list[Trajectory]] = {}
    for one in found:
        calls = any(message.tool_calls for message in one.messages)
        kind = calls if rule.name == "hide_tools" else is_negative(one)
        groups.setdefault((_offer(rule, one), kind), []).append(one)
    return [[_in_order(one, group[0]) for one in group] for group in groups.values()]


def _in_order(trajectory: Trajectory, first: Trajectory) -> Trajectory:
    """Return the trajectory with its tools in the order of the first's, where they are the same."""
    same = trajectory.task.tools == first.task.tools or _all(trajectory) != _all(first)
    return trajectory if same else replace(trajectory, task=replace(trajectory.task, tools=first.task.tools))


def _offer(rule: Rule, trajectory: Trajectory) -> tuple[str, ...]:
    """Return the row's own tools that a rule reads: where uncalled ones are left out, only those that are needed."""
    if isinstance(rule.settings, Distractors) and not rule.settings.own and not asks_for_any(trajectory):
        needed = needed_by(trajectory)
        return tuple(sorted(repr(spec) for spec in trajectory.task.tools if spec.name in needed))
    return _all(trajectory)


def _all(trajectory: Trajectory) -> tuple[str, ...]:
    return tuple(sorted(map(repr, trajectory.task.tools)))
