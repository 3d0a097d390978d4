"""Reinforcement: tasks are tried several times with their real tools, and what earned more becomes likelier.

GRPO (arXiv 2402.03300) and its kin, GSPO (arXiv 2507.18071), PPO (arXiv 1707.06347), GiGPO (arXiv 2505.10978), and
rejection-sampling fine-tuning beside them, all on an episode's own tokens: those of tools, and those that a grammar
forced, are context. Not covered: the steps around a step (`policy_loop`), and what a try is worth (`credit`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel

import rolecraft.train.collapse as collapse
import rolecraft.train.credit as credit
import rolecraft.train.policies as policies
import rolecraft.train.policy_loop as policy_loop
import rolecraft.train.policy_state as policy_state
import rolecraft.train.trying as trying
import rolecraft.train.updating as updating
import rolecraft.train.value_head as value_head
from rolecraft.engine import LocalEngine
from rolecraft.errors import RolecraftError, SettingsError
from rolecraft.judges import layered
from rolecraft.model import Loaded
from rolecraft.recipe import Recipe
from rolecraft.reinforcement import ReinforcementSettings
from rolecraft.team import Team
from rolecraft.train.collecting import World
from rolecraft.train.credit import Try
from rolecraft.train.policy_state import Progress
from rolecraft.train.processes import ALONE, Processes
from rolecraft.train.tally import Tally
from rolecraft.train.trainer import StopOnSignal
from rolecraft.types import Task, Trajectory

_AT_ONCE = 32
_SHOWN = ("reward", "play/score", "play/calls", "entropy", "kl", "flat")


@dataclass(frozen=True, slots=True)
class Work:
    """All that a run needs: `student` has the adapter that is tuned on it, `accompany` writes what lies beside it."""

    recipe: Recipe
    student: Loaded
    players: Team
    run: Path
    accompany: policy_state.Accompany
    processes: Processes = ALONE

    @property
    def told(self) -> ReinforcementSettings:
        """What the recipe tells of reinforcement."""
        return check(self.recipe)

    @property
    def per_step(self) -> int:
        """How many different tasks a step plays."""
        return self.told.tasks

    @property
    def in_all(self) -> int:
        """How many different tasks the steps take together, where the recipe does not say."""
        return self.recipe.training.max_steps * self.told.tasks * (1 + self.told.resample)

    @property
    def at_once(self) -> int:
        """How many episodes a process plays at once; the others wait."""
        return min(_AT_ONCE, self.processes.most(self.told.tasks * self.told.group))

    @property
    def packs(self) -> bool:
        """Whether one row may hold several replies of an episode."""
        return self.student.gate is None or self.student.gate.packs


def check(recipe: Recipe) -> ReinforcementSettings:
    """Return what the recipe tells of reinforcement; raises SettingsError for what the loop cannot do."""
    told = recipe.reinforcement
    if told is None:
        raise SettingsError("the recipe has no section reinforcement")
    policy_loop.check(recipe, told, "reinforcement")
    return told


def load(recipe: Recipe) -> tuple[Loaded, Team]:
    """Return the policy with a fresh adapter, and the team; raises SettingsError for what would learn wrongly."""
    told, players = check(recipe), policies.players(recipe)
    if told.objective == "gigpo" and players.form is not None:
        raise SettingsError(
            f"team.preset {str(recipe.team.preset)!r} acts by code, whose calls tell no states between replies; take "
            "reinforcement.objective=grpo"
        )
    policy = policies.attach(recipe, policies.load(recipe))
    if told.kl and not isinstance(policy.model, PeftModel):
        raise SettingsError(
            f"reinforcement.kl is {told.kl:g}, and adapter.name {str(recipe.adapter.name)!r} changes the base itself: "
            "the policy as it began is gone; set kl to 0, or tune a LoRA"
        )
    if any(isinstance(one, torch.nn.Dropout) and one.p > 0 for one in policy.model.modules()):
        raise SettingsError(
            "adapter.lora_dropout is above 0: what is learned from would not be the policy that played; set it to 0"
        )
    return policy, players


def prepare(recipe: Recipe) -> tuple[Loaded, Team, policies.Learn]:
    """Return the policy, the team, and what lets the policy learn; see `run` for what that raises."""
    policy, players = load(recipe)
    told = check(recipe)
    return policy, players, policies.learning(partial(Work, recipe, policy, players), run, told.tasks * told.group)


def run(work: Work, checkpoint: tuple[Path, Mapping[str, Any]] | None, signals: StopOnSignal) -> Progress:
    """Learn to the recipe's last step, or until the policy collapses; see `policy_loop.run`.

    Raises RolecraftError for a policy that collapsed and has no best checkpoint to fall back on.
    """
    head = None
    if work.told.objective == "ppo":
        head = value_head.make(work.student.model.get_output_embeddings().weight.shape[1], work.student.device)
    progress = policy_state.begin(work.student.model, work.recipe.training, head)
    progress = policy_loop.run(work, progress, partial(_step, work), _SHOWN, checkpoint, signals)
    if progress.collapsed and not progress.best:
        raise RolecraftError(
            f"stopped after step {progress.step}: {progress.collapsed}. Nothing better was kept, for "
            "reinforcement.validation is 0"
        )
    if progress.collapsed and work.processes.is_first:
        print(f"stopped after step {progress.step}: {progress.collapsed}")
        print(f"what is left is the best by the validation tasks, of step {progress.best['step']:.0f}")
    return progress


def _step(work: Work, progress: Progress, tasks: World, player: LocalEngine, tally: Tally) -> None:
    """Try, judge and learn once."""
    told, step = work.told, progress.step + 1
    tries = _tried(work, tasks, player, step, tally)
    rows = policy_loop.rows(work, [one.episode for one in tries])
    policy = updating.Policy(work.recipe, work.student, told, processes=work.processes)
    seen = updating.learn(policy, progress, tries, rows, step, tally)
    progress.scheduler.step()
    progress.step = step
    player.forget()
    # the card and the logs tell the task's own score; the layers stand beside it
    plain = [_scored(one) for one in tries]
    policy_loop.count_play(progress, tally, plain, rows)
    for one in tries:
        for name, value in (one.episode.verdict.parts if one.episode.verdict else {}).items():
            tally.add(f"reward/{name}", value)
        tally.add("reward", one.reward)
    calls = sum(len(message.tool_calls) for one in tries for message in one.episode.messages) / len(tries)
    reward = sum(one.reward for one in tries) / len(tries)
    collapse.note(progress.history, {**seen, "calls": calls, "reward": reward})
    progress.collapsed = collapse.why(progress.history, told.collapse)


def _scored(one: Try) -> Trajectory:
    verdict = one.episode.verdict
    return replace(one.episode, verdict=None if verdict is None else replace(verdict, score=one.score))


def _tried(work: Work, tasks: World, player: LocalEngine, step: int, tally: Tally) -> list[Try]:
    """Return a step's judged tries; groups that teach nothing are given up for others as often as the recipe says."""
    told, most = work.told, work.recipe.training.max_steps
    asked = tasks.of_step(step, told.tasks)
    found, taken = _judged(work, tasks, asked, player, step, 0), {task.id for task in asked}
    for again in range(1, told.resample + 1):
        flat = sorted(credit.flat(found))
        asked = tasks.others(step + again * most, told.tasks, taken)[: len(flat)]
        if not asked:
            break
        fresh = _judged(work, tasks, asked, player, step + again * most, again * told.tasks)
        given_up = flat[: len(asked)]  # of a few tasks all may be in the step already
        found = [one for one in found if one.group not in given_up] + fresh
        taken |= {task.id for task in asked}
        tally.add("resampled", float(len(asked)))
    groups = {one.group for one in found}
    tally.add("flat", float(len(credit.flat(found))), len(groups))
    return found


def _judged(work: Work, tasks: World, asked: Sequence[Task], player: LocalEngine, turn: int, first: int) -> list[Try]:
    """Play the tasks and return the tries with their layered reward; the groups are numbered from `first`."""
    told = work.told
    playing = policy_loop.playing(told, told.max_turns, told.temperature)
    playing = replace(playing, sampling=replace(playing.sampling, tell_drawn=True))
    seed = work.recipe.training.seed * policy_loop.SEED + turn
    watch = told.objective == "gigpo"
    reward = layered.rewarding(told.reward)
    played = trying.play(
        tasks, asked, told.group, player, work.players, playing, seed, first, watch=watch, processes=work.processes
    )
    return [
        Try(
            replace(one.episode, verdict=reward(one.episode)),
            one.group,
            one.episode.verdict.score if one.episode.verdict else 0.0,
            one.states,
        )
        for one in played
    ]
