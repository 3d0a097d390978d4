"""Loads the policy that learns from play, and writes what came of it."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import peft
import torch
import transformers
from peft import PeftModel

import rolecraft.train.card as card
import rolecraft.train.policy_loop as policy_loop
import rolecraft.train.policy_state as policy_state
from rolecraft import adapters, fit, model, parsing, team
from rolecraft.errors import SettingsError
from rolecraft.examples import Budget
from rolecraft.model import Loaded
from rolecraft.recipe import Recipe
from rolecraft.settings import to_dict
from rolecraft.store import Run
from rolecraft.team import Team
from rolecraft.train.policy_state import Progress
from rolecraft.train.processes import Processes
from rolecraft.train.trainer import StopOnSignal

Checkpoint = tuple[Path, Mapping[str, Any]]
"""A whole checkpoint, and the facts in its mark."""

Learn = Callable[[Path, policy_state.Accompany, Checkpoint | None, Processes], Path | None]
"""Learns into a run's folder, going on from a checkpoint if one is given, in one or several processes.

The first of them returns a folder with the adapter, the others None.
"""


_Work = TypeVar("_Work", bound=policy_loop.Work)


def learning(
    make: Callable[[Path, policy_state.Accompany, Processes], _Work],
    run: Callable[[_Work, Checkpoint | None, StopOnSignal], Progress],
    step_size: int,
) -> Learn:
    """Return what lets a policy learn: `make` its work in a folder, `run` it, leave the adapter and its papers there.

    `step_size` is how many episodes a step plays. What is returned raises what `run` raises.
    """

    def learn(
        folder: Path, accompany: policy_state.Accompany, started: Checkpoint | None, processes: Processes
    ) -> Path | None:
        work = make(folder, accompany, processes)
        with StopOnSignal() as signals:
            progress = run(work, started, signals)
        return leave(work, progress, step_size) if processes.is_first else None

    return learn


def players(recipe: Recipe) -> Team:
    """Return the team that plays; raises ContractError if the adapter's roles are not its own."""
    found = team.find(recipe.team.preset, instructions=recipe.team.instructions)
    if gate := adapters.find(recipe.adapter.name).gate(recipe.adapter.settings):
        gate.check(found)
    return found


def load(recipe: Recipe) -> Loaded:
    """Return the base, which has no adapter yet."""
    return model.load(recipe.model.base, dtype=recipe.model.dtype, renderer=recipe.model.renderer)


def attach(recipe: Recipe, base: Loaded) -> Loaded:
    """Return the base with a fresh adapter on it, drawn by the recipe's seed."""
    adapter = adapters.find(recipe.adapter.name)
    transformers.set_seed(recipe.training.seed)
    tuned = adapter.attach(base.model, recipe.adapter.settings)
    return replace(base, model=tuned, gate=adapter.gate(recipe.adapter.settings))


def go_on(policy: Loaded, adapter: Path, recipe: Recipe) -> None:
    """Give the policy's fresh adapter the weights of one in a folder.

    Raises SettingsError where the recipe's settings are not those it was tuned with, ContractError where it does not
    fit.
    """
    if not isinstance(policy.model, PeftModel):
        raise SettingsError(
            f"adapter.name is {str(recipe.adapter.name)!r}, which tunes the base itself, and {str(adapter)!r} is put "
            "on a base; tune a LoRA or mor"
        )
    told, given = parsing.read_json(adapter / "adapter_config.json"), to_dict(recipe.adapter.settings)
    for name in sorted(given.keys() & told.keys() - {"target_modules", "lora_dropout"}):
        if given[name] != told[name]:
            raise SettingsError(
                f"adapter.{name} is {given[name]!r}, and the adapter in {str(adapter)!r} has {told[name]!r}; set "
                f"adapter.{name}={json.dumps(told[name])}"
            )
    fit.require_fit(adapter, policy.model, policy.model.peft_config["default"])
    peft.set_peft_model_state_dict(policy.model, peft.load_peft_weights(str(adapter), device=str(policy.device)))


def leave(work: policy_loop.Work, progress: Progress, step_size: int) -> Path:
    """Write the policy and its papers, and return their folder."""
    finished = work.run / "finished.partial"
    policy_state.write_model(progress.model, finished, work.accompany, work.run)
    (finished / "README.md").write_text(card.write(work.recipe, _facts(work, progress, step_size)), encoding="utf-8")
    return finished


def _facts(work: policy_loop.Work, progress: Progress, step_size: int) -> card.Facts:
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
        step_size=step_size,
        trainable=adapters.count_trainable(progress.model),
        whole=not isinstance(progress.model, PeftModel),
        losses={key.removeprefix("loss/"): value for key, value in last.items() if key.startswith("loss")},
        versions={"peft": peft.__version__, "torch": str(torch.__version__), "transformers": transformers.__version__},
    )
