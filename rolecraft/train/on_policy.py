"""On-policy distillation: the student plays, the teacher scores what it played, and the student moves towards it.

GKD (arXiv 2306.13649) with the trajectories of a tool-calling agent; steps weighed as in SOD (arXiv 2605.07725), depth
grown as in TCOD (arXiv 2604.24005). A step is: rollouts, targets of their tokens, a loss, one move of the optimizer;
the first and the last are the same for any way of learning from play.
Not covered: several processes, teachers with another tokenizer, and updates on rollouts of an older policy.
"""

from __future__ import annotations

import asyncio
import hashlib
import math
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch

import rolecraft.train.policy_state as policy_state
import rolecraft.train.rollouts as rollouts
from rolecraft import adapters, agent, divergences, objectives, policy_losses, store
from rolecraft.adapters import Adapter
from rolecraft.engine import LocalEngine
from rolecraft.engine import Settings as EngineSettings
from rolecraft.errors import DataError, Interrupted, RolecraftError, SettingsError
from rolecraft.model import Loaded
from rolecraft.on_policy import OnPolicySettings
from rolecraft.recipe import Recipe
from rolecraft.store import Run
from rolecraft.team import Team
from rolecraft.train.collecting import World, collect, measure, world
from rolecraft.train.policy_state import Progress
from rolecraft.train.rollouts import Row
from rolecraft.train.tally import Tally
from rolecraft.train.trainer import StopOnSignal
from rolecraft.types import Sampling, Trajectory

_SEED = 1_000_003
"""Steps' seeds are so far apart that no two runs of neighbouring seeds play alike."""


@dataclass(frozen=True, slots=True)
class Work:
    """All that a run needs: `student` has the adapter that is tuned on it, `accompany` writes what lies beside it."""

    recipe: Recipe
    student: Loaded
    teacher: Loaded
    players: Team
    run: Path
    accompany: policy_state.Accompany

    @property
    def told(self) -> OnPolicySettings:
        """What the recipe tells of on-policy distillation."""
        return check(self.recipe)

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
    told, training = recipe.on_policy, recipe.training
    if told is None:
        raise SettingsError("the recipe has no section on_policy")
    if training.max_steps < 1:
        raise SettingsError("training.max_steps is not set; on-policy distillation has no epochs, only steps")
    for name in ("processes", "gradient_accumulation_steps"):
        if getattr(training, name) != 1:
            raise SettingsError(f"training.{name} is {getattr(training, name)}; on-policy distillation takes 1")
    if training.extra:
        raise SettingsError(f"training.extra has {next(iter(training.extra))!r}; on-policy distillation takes none")
    if told.validation and told.validation_seed == recipe.data.seed:
        raise SettingsError(f"on_policy.validation_seed is {told.validation_seed}, data.seed; give another one")
    return told


def require_pair(student: Loaded, teacher: Loaded) -> None:
    """Raise DataError unless the teacher reads the student's tokens as the student does."""
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
    """Distil to the recipe's last step and return the policy, the best one by its validation tasks if there are any.

    `checkpoint`: the whole one to go on from, and the facts in its mark. Raises Interrupted, after saving, when a
    signal came, and DataError if the tasks are not those of the checkpoint.
    """
    training, told = work.recipe.training, work.told
    told_tasks = _tasks(work)
    facts = {"of": training.max_steps, "data": fingerprint(told_tasks)}
    progress = policy_state.begin(work.student.model, training)
    if checkpoint is not None:
        folder, known = checkpoint
        if known["data"] != facts["data"]:
            raise DataError(
                f"the tasks are not those that {folder} was trained on; restore them, or begin anew elsewhere"
            )
        policy_state.restore(progress, folder, known["step"])
    _forget_later_logs(work.run, progress.step)
    with _engine(work.student, told) as student, _engine(work.teacher, told) as teacher:
        tally = Tally()
        while progress.step < training.max_steps:
            _step(work, progress, told_tasks, student, teacher, tally)
            last = progress.step == training.max_steps
            validates = bool(told.validation) and (last or progress.step % told.validate_every == 0)
            if validates:
                _validate(work, progress, student, tally)
            if last or validates or progress.step % training.logging_steps == 0:
                tally = _tell(work, progress, tally)
            if signals.asked or last or (training.save_steps and progress.step % training.save_steps == 0):
                policy_state.save(progress, work.run, work.accompany, facts, training.save_total_limit)
            if signals.asked and not last:
                raise Interrupted(
                    f"stopped after step {progress.step} of {training.max_steps}, which is saved; repeat the command "
                    "with --resume"
                )
    policy_state.take_best(progress, work.run)
    return progress


def _tasks(work: Work) -> World:
    """Return the tasks to play; raises SettingsError if a step would play one twice."""
    told, most = work.told, work.recipe.training.max_steps * work.told.rollouts
    found = world(work.recipe.data, work.recipe.data.size or most)
    if len(found.tasks) < told.rollouts:
        raise SettingsError(
            f"a step plays {told.rollouts} different tasks and there are {len(found.tasks)}; raise data.size, or lower "
            "on_policy.rollouts"
        )
    return found


def fingerprint(told: World) -> str:
    """Return a digest by which a resumed run knows its tasks again."""
    asked = [(task.id, [message.content for message in task.messages]) for task in told.tasks]
    return hashlib.sha256(repr(asked).encode()).hexdigest()[:16]


def _engine(loaded: Loaded, told: OnPolicySettings) -> LocalEngine:
    return LocalEngine(loaded, EngineSettings(max_requests=told.rollouts, max_context=loaded.context))


# ---- a step


def _step(
    work: Work, progress: Progress, tasks: World, student: LocalEngine, teacher: LocalEngine, tally: Tally
) -> None:
    """Play, score and learn once."""
    told, step = work.told, progress.step + 1
    playing = _playing(told, told.depth(step), told.temperature)
    player = student if told.player == "student" else teacher
    seed = work.recipe.training.seed * _SEED + step
    episodes = collect(tasks, tasks.of_step(step, told.rollouts), player, work.players, playing, seed)
    rows = _rows(work, episodes)
    loss = learn(work, progress, rows, targets(work, rows, teacher), tally)
    progress.step = step
    student.forget()
    _count_all(progress, episodes, rows)
    for name, value in measure(episodes).items():
        tally.add(f"play/{name}", value)
    tally.add("loss", loss)
    tally.add("depth", float(playing.max_turns))
    tally.steps += 1
    tally.tokens += sum(len(row.ids) for row in rows)


def _playing(told: OnPolicySettings, turns: int, temperature: float) -> agent.Settings:
    sampling = Sampling(temperature=temperature, max_tokens=told.max_tokens)
    return agent.Settings(max_turns=turns, sampling=sampling, constrained=told.constrained, strict_calls=True)


def _rows(work: Work, episodes: Sequence[Trajectory]) -> list[Row]:
    """Return the rows that fit; raises RolecraftError if no token of a step can be trained."""
    most, renderer = work.recipe.data.max_length, work.student.renderer
    made = (rollouts.rows(episode, work.players, renderer, packs=work.packs) for episode in episodes)
    found = [row for rows in made for row in rows if len(row.ids) <= most and any(row.chosen)]
    if not found:
        raise RolecraftError(
            f"none of {len(episodes)} episodes has a reply to learn from within data.max_length {most}; raise it, or "
            "look at what the player writes (rolecraft run)"
        )
    return sorted(found, key=lambda row: len(row.ids))


def targets(work: Work, rows: Sequence[Row], teacher: LocalEngine) -> list[tuple[float, ...]] | None:
    """Return the teacher's log-probability of each token of each row, 0 on context; None where its logits are used.

    Forward KL's sample needs no teacher beside the tokens that it played.
    """
    if work.told.estimate == "full":
        return None
    return asyncio.run(_scored(rows, teacher))


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
    total = sum(work.told.weights.get(str(who), 1.0) for row in rows for who in _chosen_speakers(row))
    work.student.model.train()
    loss = 0.0
    size = training.per_device_train_batch_size
    for first in range(0, len(rows), size):
        some = slice(first, first + size)
        part = _loss(work, rows[some], None if scores is None else scores[some], tally) / max(total, 1e-9)
        part = part + work.adapter.penalty(work.student.model) * len(rows[some]) / len(rows)
        part.backward()  # type: ignore[no-untyped-call]
        loss += float(part.detach())
    if not math.isfinite(loss):
        raise RolecraftError(
            f"the loss is {loss} at step {progress.step + 1}; lower training.learning_rate, or set on_policy.gate"
        )
    tally.add("grad_norm", policy_state.gradient_norm(list(progress.trained.values()), training.max_grad_norm))
    progress.optimizer.step()
    progress.scheduler.step()
    progress.optimizer.zero_grad(set_to_none=True)
    return loss


def _chosen_speakers(row: Row) -> Iterator[str | None]:
    return (who for who, chosen in zip(row.speakers, row.chosen, strict=True) if chosen)


def _loss(work: Work, rows: Sequence[Row], scores: Sequence[Sequence[float]] | None, tally: Tally) -> torch.Tensor:
    """Return the sum of some rows' token losses, each times the weight of its step and its role."""
    told, device = work.told, work.student.device
    values: dict[str, list[Sequence[float]]] = {} if scores is None else {"teacher": list(scores)}
    values["weights"] = [[told.weights.get(str(who), 1.0) for who in row.speakers] for row in rows]
    batch = rollouts.batch(rows, work.student.tokenizer.pad_token_id or 0, values, device)
    student_NV, targets_N = _logits(work.student, batch, rows, work.adapter, work.recipe)
    new_N = -objectives.token_losses(student_NV, targets_N)
    if scores is None:
        with torch.no_grad():
            teacher_NV, _ = _logits(work.teacher, batch, rows, None, work.recipe)
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
    _count(tally, rows, losses_N.detach(), gaps_N)
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


def _logits(
    loaded: Loaded, batch: rollouts.Batch, rows: Sequence[Row], adapter: Adapter | None, recipe: Recipe
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return a model's logits where a chosen token is predicted (N, V), and these tokens (N,)."""
    keep_BT, targets_N, _ = objectives.next_token_targets(batch.ids, batch.weights)
    roles_BT = rollouts.roles_of(rows, loaded.gate, batch.ids.device)
    call = {}
    if roles_BT is not None:
        call = {"role_ids": roles_BT} if adapter is None else dict(adapter.inputs(roles_BT))
    kind = batch.ids.device.type
    lower = torch.autocast(kind, torch.bfloat16) if recipe.training.bf16 and adapter is not None else nullcontext()
    with lower, objectives.only_logits_at(loaded.model.get_output_embeddings(), keep_BT):
        outputs = loaded.model(input_ids=batch.ids, use_cache=False, **call)
    return objectives.pick_logits(outputs.logits, keep_BT), targets_N


# ---- telling


def _count(tally: Tally, rows: Sequence[Row], losses_N: torch.Tensor, gaps_N: torch.Tensor) -> None:
    """Add a batch to the tally: losses by speaker, and how far student and teacher are apart."""
    speakers = [who for row in rows for who in list(_chosen_speakers(row))]
    for who in dict.fromkeys(speakers):
        mine_N = torch.tensor([one == who for one in speakers], device=losses_N.device)
        tally.add(f"loss/{who}", float(losses_N[mine_N].sum()), int(mine_N.sum()))
    tally.add("gap", float(gaps_N.sum()), len(gaps_N))


def _tell(work: Work, progress: Progress, tally: Tally) -> Tally:
    """Log the means since the last log, print a line of them, and begin anew."""
    training, means = work.recipe.training, tally.means()
    pace = (time.monotonic() - tally.started) / max(1, tally.steps)
    left = (training.max_steps - progress.step) * pace
    logged = {
        "step": progress.step,
        **means,
        "learning_rate": progress.scheduler.get_last_lr()[0],
        "tokens_per_second": tally.tokens / max(1e-9, pace * max(1, tally.steps)),
        "seconds_left": left,
    }
    Run(work.run).log(logged)
    shown = {
        name: means[name] for name in ("play/score", "play/calls", "play/over_calls", "gap", "gate") if name in means
    }
    told = ", ".join(f"{name.removeprefix('play/')} {value:.3f}" for name, value in shown.items())
    print(
        f"step {progress.step}/{training.max_steps}  loss {means['loss']:.4f} ({told})  "
        f"lr {logged['learning_rate']:.2e}  {timedelta(seconds=round(left))} left",
        flush=True,
    )
    return Tally()


def _validate(work: Work, progress: Progress, engine: LocalEngine, tally: Tally) -> None:
    """Play the validation tasks greedily, count their score, and keep the policy if it is the best so far."""
    told = work.told
    asked = world(work.recipe.data, told.validation, told.validation_seed)
    playing = _playing(told, told.max_turns, 0.0)
    found = measure(collect(asked, asked.tasks, engine, work.players, playing, told.validation_seed))
    engine.forget()
    best = policy_state.keep_best(progress, work.run, found["score"], work.accompany)
    for name, value in found.items():
        tally.add(f"validation/{name}", value)
    print(f"validation after step {progress.step}: score {found['score']:.3f}{', the best so far' if best else ''}")


def _forget_later_logs(run: Path, step: int) -> None:
    """Drop what was logged after the checkpoint that this run goes on from: those steps are done again."""
    logged = Run(run).metrics()
    if logged:
        store.write_jsonl(run / "metrics.jsonl", [one for one in logged if one["step"] <= step])


def _count_all(progress: Progress, episodes: Sequence[Trajectory], rows: Sequence[Row]) -> None:
    """Count what the card tells: episodes, rows, and each speaker's tokens."""
    progress.count("episodes", len(episodes))
    progress.count("rows", len(rows))
    for row in rows:
        for name, speakers in (("tokens", row.speakers), ("chosen", list(_chosen_speakers(row)))):
            for who, many in Counter(speakers).items():
                progress.count(f"{name}/{who}", many)
