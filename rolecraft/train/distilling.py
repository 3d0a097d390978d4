"""Loads a student and its teacher for on-policy distillation, and writes what came of it.

Not covered: the loop between (`on_policy`).
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

import rolecraft.train.on_policy as on_policy
import rolecraft.train.policies as policies
from rolecraft import model
from rolecraft.model import Loaded
from rolecraft.recipe import Recipe
from rolecraft.team import Team


def load(recipe: Recipe) -> tuple[Loaded, Loaded, Team]:
    """Return the student with a fresh adapter, its teacher, and the team; raises DataError if they do not fit."""
    told = on_policy.check(recipe)
    players = policies.players(recipe)
    for name in told.weights:
        players.role(name)
    student = policies.load(recipe)
    tuned = Path(told.teacher_adapter) if told.teacher_adapter else None
    merge = tuned is not None and model.merges(tuned)
    teacher = model.load(
        told.teacher, dtype=recipe.model.dtype, adapter=tuned, renderer=recipe.model.renderer, merge=merge
    )
    on_policy.require_pair(student, teacher)
    if teacher.gate is not None:
        teacher.gate.check(players)
    return policies.attach(recipe, student), teacher, players


def check(recipe: Recipe) -> None:
    """Raise SettingsError for what the loop cannot do."""
    on_policy.check(recipe)


def prepare(recipe: Recipe) -> tuple[Loaded, Team, policies.Learn]:
    """Return the student, the team, and what lets the student learn; see `on_policy.run` for what that raises."""
    student, teacher, players = load(recipe)
    make = partial(on_policy.Work, recipe, student, teacher, players)
    return student, players, policies.learning(make, on_policy.run, on_policy.check(recipe).rollouts)
