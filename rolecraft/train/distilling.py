"""Loads a student and its teacher for on-policy distillation, and writes what came of it.

Not covered: the loop between (`on_policy`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import peft
import torch
import transformers
from peft import PeftModel

import rolecraft.train.card as card
import rolecraft.train.on_policy as on_policy
import rolecraft.train.policy_state as policy_state
from rolecraft import adapters, model, team
from rolecraft.examples import Budget
from rolecraft.model import Loaded
from rolecraft.recipe import Recipe
from rolecraft.store import Run
from rolecraft.team import Team
from rolecraft.train.policy_state import Progress
from rolecraft.train.trainer import StopOnSignal


def load(recipe: Recipe) -> tuple[Loaded, Loaded, Team]:
    """Return the student with a fresh adapter, its teacher, and the team; raises DataError if they do not fit."""
    told = on_policy.check(recipe)
    players = team.find(recipe.team.preset, instructions=recipe.team.instructions)
    for name in told.weights:
        players.role(name)
    adapter = adapters.find(recipe.adapter.name)
    gate = adapter.gate(recipe.adapter.settings)
    if gate is not None:
        gate.check(players)
    student = model.load(recipe.model.base, dtype=recipe.model.dtype, renderer=recipe.model.renderer)
    tuned = Path(told.teacher_adapter) if told.teacher_adapter else None
    merge = tuned is not None and model.merges(tuned)
    teacher = model.load(
        told.teacher, dtype=recipe.model.dtype, adapter=tuned, renderer=recipe.model.renderer, merge=merge
    )
    on_policy.require_pair(student, teacher)
    if teacher.gate is not None:
        teacher.gate.check(players)
    transformers.set_seed(recipe.training.seed)
    return replace(student, model=adapter.attach(student.model, recipe.adapter.settings), gate=gate), teacher, players


def distil(work: on_policy.Work, checkpoint: tuple[Path, Mapping[str, Any]] | None) -> Path:
    """Distil, going on from a checkpoint if one is given; return a folder with the adapter and its papers.

    Raises DataError if its tasks have changed since the checkpoint, and what the loop raises.
    """
    with StopOnSignal() as signals:
        progress = on_policy.run(work, checkpoint, signals)
    finished = work.run / "finished.partial"
    policy_state.write_model(progress.model, finished, work.accompany, work.run)
    (finished / "README.md").write_text(card.write(work.recipe, _facts(work, progress)), encoding="utf-8")
    return finished


def _facts(work: on_policy.Work, progress: Progress) -> card.Facts:
    logged = [entry for entry in Run(work.run).metrics() if "loss" in entry]
    last, counts = logged[-1] if logged else {}, progress.counts
    return card.Facts(
        folder=str(work.run),
        renderer=model.make_contract(work.student).renderer,
        speakers=work.players.speakers,
        first=work.players.first,
        trajectories=counts["episodes"],
        examples=counts["rows"],
        dropped=0,
        budget={
            who: Budget(counts.get(f"tokens/{who}", 0), counts.get(f"chosen/{who}", 0))
            for who in (None, *work.players.speakers)
        },
        steps=progress.step,
        step_size=work.told.rollouts,
        trainable=adapters.count_trainable(progress.model),
        whole=not isinstance(progress.model, PeftModel),
        losses={key.removeprefix("loss/"): value for key, value in last.items() if key.startswith("loss")},
        versions={"peft": peft.__version__, "torch": str(torch.__version__), "transformers": transformers.__version__},
    )
