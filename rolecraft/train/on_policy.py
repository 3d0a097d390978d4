"""On-policy distillation: the student plays, the teacher scores what it played, and the student moves towards it.

GKD (arXiv 2306.13649) with the trajectories of a tool-calling agent; steps weighed as in SOD (arXiv 2605.07725), depth
grown as in TCOD (arXiv 2604.24005). A step is: rollouts, targets of their tokens, a loss, one move of the optimizer;
the first and the last are `policy_loop`'s. Not covered: teachers with another tokenizer.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

import rolecraft.train.policy_loop as policy_loop
import rolecraft.train.policy_state as policy_state
import rolecraft.train.rollouts as rollouts
from rolecraft import adapters, divergences, objectives, policy_losses
from rolecraft.adapters import Adapter
from rolecraft.engine import LocalEngine
from rolecraft.errors import DataError, RolecraftError, SettingsError
from rolecraft.model import Loaded
from rolecraft.on_policy import OnPolicySettings
from rolecraft.recipe import Recipe
from rolecraft.team import Team
from rolecraft.train.collecting import World, collect
from rolecraft.train.policy_state import Progress
from rolecraft.train.processes import ALONE, Processes
from rolecraft.train.rollouts import Row
from rolecraft.train.tally import Tally
from rolecraft.train.trainer import StopOnSignal
from rolecraft.types import Trajectory

_SHOWN = ("play/score", "play/calls", "play/over_calls", "gap", "gate")


@dataclass(frozen=True, slots=True)
class Work:
    """All that a run needs: `student` has the adapter that is tuned on it, `accompany` writes what lies beside it."""

    recipe: Recipe
    student: Loaded
    teacher: Loaded
    players: Team
    run: Path
    accompany: policy_state.Accompany
    processes: Processes = ALONE

    @property
    def told(self) -> OnPolicySettings:
        """What the recipe tells of on-policy distillation."""
        return check(self.recipe)

    @property
    def per_step(self) -> int:
        """How many different tasks a step plays."""
        return self.told.rollouts

    @property
    def in_all(self) -> int:
        """How many different tasks the steps take together, where the recipe does not say."""
        return self.recipe.training.max_steps * self.told.rollouts

    @property
    def at_once(self) -> int:
        """How many episodes a process plays at once."""
        return self.processes.most(self.told.rollouts)

    @property
    def adapter(self) -> Adapter:
        """The student's adapter."""
        return adapters.find(self.recipe.adapter.name)

    @property
    def packs(self) -> bool:
        """Whether one row may hold several replies of an episode."""
        return all(one.gate is None or one.gate.packs for one in (self.student, self.teacher))


def check(recipe: Recipe) -> OnPolicySettings:
    """Return what the recipe tells of on-policy distillation; raises SettingsError for what the loop cannot do."""
    told = recipe.on_policy
    if told is None:
        raise SettingsError("the recipe has no section on_policy")
    policy_loop.check(recipe, told, "on_policy")
    return told


def require_pair(student: Loaded, teacher: Loaded) -> None:
    """Raise DataError unless the teacher reads the student's tokens as the student does."""
    if teacher.virtual:
        raise DataError(
            f"the adapter of teacher {teacher.name!r} has virtual tokens, which are not in the student's prompts; take "
            "a teacher without"
        )
    ours, theirs = student.tokenizer.get_vocab(), teacher.tokenizer.get_vocab()
    if ours != theirs:
        apart = sorted(set(ours.items()) ^ set(theirs.items()))[0]
        raise DataError(
            f"teacher {teacher.name!r} has another tokenizer than student {student.name!r} (token {apart[0]!r}): it "
            "cannot score the student's tokens; take a teacher of the same family, or let it write trajectories and "
            "tune on them"
        )
    if student.renderer.format != teacher.renderer.format:
        raise DataError(
            f"teacher {teacher.name!r} has another chat format than student {student.name!r}: prompts that the student "
            "plays on would be strange to it; name model.renderer, or take a teacher that was tuned on the same format"
        )


def run(work: Work, checkpoint: tuple[Path, Mapping[str, Any]] | None, signals: StopOnSignal) -> Progress:
    """Distil to the recipe's last step; see `policy_loop.run`.

    Raises SettingsError for dropout in several processes, whose dice are not those of one.
    """
    dropout = any(isinstance(one, torch.nn.Dropout) and one.p > 0 for one in work.student.model.modules())
    if dropout and work.processes.count > 1:
        raise SettingsError(
            f"adapter.lora_dropout is above 0 and training.processes is {work.processes.count}: they would not learn "
            "what one process does; set adapter.lora_dropout=0, or training.processes=1"
        )
    progress = policy_state.begin(work.student.model, work.recipe.training)
    with policy_loop.engine(work.teacher, work) as teacher:
        return policy_loop.run(work, progress, partial(_step, work, teacher), _SHOWN, checkpoint, signals)


def _step(
    work: Work, teacher: LocalEngine, progress: Progress, tasks: World, student: LocalEngine, tally: Tally
) -> None:
    """Play, score and learn once."""
    told, step = work.told, progress.step + 1
    playing = policy_loop.playing(told, told.depth(step), told.temperature)
    player = student if told.player == "student" else teacher
    seed = work.recipe.training.seed * policy_loop.SEED + step
    episodes = collect(tasks, tasks.of_step(step, told.rollouts), player, work.players, playing, seed, work.processes)
    rows = _rows(work, episodes)
    loss = learn(work, progress, rows, targets(work, rows, teacher), tally)
    progress.step = step
    student.forget()
    policy_loop.count_play(progress, tally, episodes, rows)
    tally.add("loss", loss)
    tally.add("depth", float(playing.max_turns))


def _rows(work: Work, episodes: Sequence[Trajectory]) -> list[Row]:
    """Return the rows that fit, the shortest first: those of a batch are padded alike."""
    return sorted(policy_loop.rows(work, episodes), key=lambda row: len(row.ids))


def targets(work: Work, rows: Sequence[Row], teacher: LocalEngine) -> list[tuple[float, ...]] | None:
    """Return the teacher's log-probability of each token of each row, 0 on context; None where its logits are used.

    Forward KL's sample needs no teacher beside the tokens that it played.
    """
    if work.told.estimate == "full":
        return None
    own = work.processes.dealt([len(row.ids) for row in rows])
    scored = asyncio.run(_scored([rows[place] for place in own], teacher))
    return work.processes.merged(dict(zip(own, scored, strict=True)))


async def _scored(rows: Sequence[Row], teacher: LocalEngine) -> list[tuple[float, ...]]:
    gate = teacher.loaded.gate
    starts = [row.chosen.index(True) for row in rows]
    asked = (teacher.score(row.ids, start, row.roles(gate)) for row, start in zip(rows, starts, strict=True))
    scored = await asyncio.gather(*asked)
    return [(0.0,) * start + one.logprobs for start, one in zip(starts, scored, strict=True)]


def learn(
    work: Work, progress: Progress, rows: Sequence[Row], scores: list[tuple[float, ...]] | None, tally: Tally
) -> float:
    """Move the policy once by the rows' tokens; return the loss, a mean over the step's tokens."""
    training = work.recipe.training
    total = sum(work.told.weights.get(str(who), 1.0) for row in rows for who in policy_loop.chosen_speakers(row))
    work.student.model.train()
    size = work.processes.batch_size(training.per_device_train_batch_size, len(rows))
    batches = [slice(first, first + size) for first in range(0, len(rows), size)]

    def learned(some: slice) -> tuple[float, Tally]:
        noted = Tally()
        part = _loss(work, rows[some], None if scores is None else scores[some], noted) / max(total, 1e-9)
        part = part + work.adapter.penalty(work.student.model) * len(rows[some]) / len(rows)
        part.backward()  # type: ignore[no-untyped-call]
        return float(part.detach()), noted

    costs = [sum(len(row.ids) for row in rows[some]) for some in batches]
    loss = 0.0
    for part, noted in work.processes.each(batches, costs, learned):
        loss += part
        tally.include(noted)
    work.processes.sum_gradients(progress.trained.values())
    if not math.isfinite(loss):
        raise RolecraftError(
            f"the loss is {loss} at step {progress.step + 1}; lower training.learning_rate, or set on_policy.gate"
        )
    policy_loop.move(work.recipe, progress, tally)
    progress.scheduler.step()
    return loss


def _loss(work: Work, rows: Sequence[Row], scores: Sequence[Sequence[float]] | None, tally: Tally) -> torch.Tensor:
    """Return the sum of some rows' token losses, each times the weight of its step and its role."""
    told, device = work.told, work.student.device
    values: dict[str, list[Sequence[float]]] = {} if scores is None else {"teacher": list(scores)}
    values["weights"] = [[told.weights.get(str(who), 1.0) for who in row.speakers] for row in rows]
    batch = rollouts.batch(rows, work.student.tokenizer.pad_token_id or 0, values, device)
    student_NV, targets_N = policy_loop.logits(work.student, batch, rows, work.adapter, work.recipe)
    new_N = -objectives.token_losses(student_NV, targets_N)
    if scores is None:
        with torch.no_grad():
            teacher_NV, _ = policy_loop.logits(work.teacher, batch, rows, None, work.recipe)
        width = min(student_NV.shape[-1], teacher_NV.shape[-1])  # what lies beyond the tokenizer is padding
        student_NV, teacher_NV = student_NV[:, :width], teacher_NV[:, :width]
        known_N = -objectives.token_losses(teacher_NV, targets_N)
        kind = divergences.reverse_kl if told.divergence == "reverse" else divergences.forward_kl
        losses_N = kind(student_NV, teacher_NV)
    else:
        known_N = batch.of_targets("teacher")
        losses_N = _sampled(told, new_N, known_N)
    gaps_N = (new_N.detach() - known_N).abs()
    weights_N = batch.of_targets("weights")
    if told.gate is not None:
        gates_N = divergences.step_gates(gaps_N, batch.of_targets("steps"), told.gate)
        weights_N = weights_N * gates_N
        tally.add("gate", float(gates_N.sum()), len(gates_N))
    policy_loop.count_losses(tally, rows, losses_N.detach())
    tally.add("gap", float(gaps_N.sum()), len(gaps_N))
    if told.player == "student":  # the engine's numbers and the trainer's must be the same
        drift_N = (new_N.detach() - batch.of_targets("logprobs")).abs()
        tally.add("drift", float(drift_N.sum()), len(drift_N))
    return (losses_N * weights_N).sum()


def _sampled(told: OnPolicySettings, new_N: torch.Tensor, teacher_N: torch.Tensor) -> torch.Tensor:
    """Return the token losses of the estimate from the tokens that were played.

    The gradient of reverse KL is that of a policy whose tokens' advantage is how much likelier the teacher finds them
    (MiniLLM, arXiv 2306.08543, section 2.2, one step ahead); forward KL's, under the teacher's play, is cross-entropy.
    """
    if told.divergence == "forward":
        return -new_N
    old_N = new_N.detach()
    ratios_N = policy_losses.ratios(new_N[None], old_N[None], torch.ones_like(new_N[None], dtype=torch.bool))
    return policy_losses.clipped(ratios_N, (teacher_N - old_N)[None])[0]
