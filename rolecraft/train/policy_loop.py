"""What learning from play is, whatever is learned: steps of play, told, validated, saved, resumed and interrupted.

A way of learning gives its `Step` and what it is told (`on_policy`, `reinforce`). Several processes share out a step's
play and its batches, and each knows all that was played: they take the same steps, of which the first one writes. Not
covered: updates on rollouts of a policy that is older than a step.
"""

from __future__ import annotations

import hashlib
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any, Protocol

import torch

import rolecraft.train.policy_state as policy_state
import rolecraft.train.rollouts as rollouts
from rolecraft import adapters, agent, attention, objectives, store
from rolecraft.adapters import Adapter
from rolecraft.engine import LocalEngine
from rolecraft.engine import Settings as EngineSettings
from rolecraft.engine.settings import Constrain
from rolecraft.errors import DataError, Interrupted, RolecraftError, SettingsError
from rolecraft.model import Loaded
from rolecraft.recipe import Recipe
from rolecraft.recomputing import is_checkpointed, recomputing
from rolecraft.store import Run
from rolecraft.team import Team
from rolecraft.train.collecting import World, collect, measure, world
from rolecraft.train.policy_state import Progress
from rolecraft.train.processes import Processes
from rolecraft.train.rollouts import Row
from rolecraft.train.tally import Tally
from rolecraft.train.trainer import StopOnSignal
from rolecraft.types import Sampling, Trajectory

SEED = 1_000_003
"""Steps' seeds are so far apart that no two runs of neighbouring seeds play alike."""

Step = Callable[[Progress, World, LocalEngine, Tally], None]
"""Plays with the engine and moves the policy once; it sets what is logged, and counts the step."""


class Told(Protocol):
    """What every way of learning from play is told in its section of a recipe."""

    @property
    def temperature(self) -> float:
        """What rollouts are drawn at."""
        ...

    @property
    def max_turns(self) -> int:
        """The most replies of an episode."""
        ...

    @property
    def max_tokens(self) -> int:
        """The most tokens of a reply."""
        ...

    @property
    def constrained(self) -> bool:
        """Whether calls are held to a grammar."""
        ...

    @property
    def validation(self) -> int:
        """The tasks that are played to choose the best checkpoint; 0: the last is what is left."""
        ...

    @property
    def validate_every(self) -> int:
        """The steps from one validation to the next."""
        ...

    @property
    def validation_seed(self) -> int:
        """The seed of the validation tasks."""
        ...


class Work(Protocol):
    """All that a run needs: `student` has the adapter that is tuned on it, `accompany` writes what lies beside it."""

    @property
    def recipe(self) -> Recipe:
        """What is told."""
        ...

    @property
    def student(self) -> Loaded:
        """The policy."""
        ...

    @property
    def players(self) -> Team:
        """Who plays."""
        ...

    @property
    def run(self) -> Path:
        """The run's folder."""
        ...

    @property
    def accompany(self) -> policy_state.Accompany:
        """Writes what belongs beside an adapter."""
        ...

    @property
    def told(self) -> Told:
        """The section of this way of learning."""
        ...

    @property
    def per_step(self) -> int:
        """How many different tasks a step plays."""
        ...

    @property
    def in_all(self) -> int:
        """How many different tasks the steps take together, where the recipe does not say."""
        ...

    @property
    def at_once(self) -> int:
        """How many episodes are played at once."""
        ...

    @property
    def packs(self) -> bool:
        """Whether one row may hold several replies of an episode."""
        ...

    @property
    def processes(self) -> Processes:
        """Who shares the work."""
        ...


def check(recipe: Recipe, told: Told, section: str) -> None:
    """Raise SettingsError for what no way of learning from play can do."""
    training = recipe.training
    if training.max_steps < 1:
        raise SettingsError(f"training.max_steps is not set; {section} has no epochs, only steps")
    if training.gradient_accumulation_steps != 1:
        raise SettingsError(
            f"training.gradient_accumulation_steps is {training.gradient_accumulation_steps}; {section} takes 1, for a "
            "step's batches are summed however many there are"
        )
    if training.extra:
        raise SettingsError(f"training.extra has {next(iter(training.extra))!r}; {section} takes none")
    made = recipe.adapter
    if adapters.find(made.name).virtual_tokens(made.settings):
        raise SettingsError(f"adapter.name is {str(made.name)!r}, and {section} knows no virtual tokens; tune a LoRA")
    if told.validation and told.validation_seed == recipe.data.seed:
        raise SettingsError(f"{section}.validation_seed is {told.validation_seed}, data.seed; give another one")


def run(
    work: Work,
    progress: Progress,
    step: Step,
    shown: Sequence[str],
    checkpoint: tuple[Path, Mapping[str, Any]] | None,
    signals: StopOnSignal,
) -> Progress:
    """Learn to the recipe's last step and return the policy, the best one by its validation tasks if there are any.

    `shown` are the measures in the line of each log. `checkpoint`: the whole one to go on from, and the facts in its
    mark. Raises Interrupted, after saving, when a signal came, DataError if the tasks are not those of the checkpoint,
    and SettingsError where too few are left to validate.
    """
    training, told, processes = work.recipe.training, work.told, work.processes
    told_tasks = tasks(work)
    held_out = validation(work, told_tasks) if told.validation else None
    facts = {"of": training.max_steps, "data": fingerprint(told_tasks)}
    if len(set(processes.merged({processes.place: facts["data"]}))) > 1:
        raise DataError(
            f"the processes have different tasks of {work.recipe.data.benchmark}; its order must follow from the seed "
            "alone (not from a set), or train in one process (training.processes=1)"
        )
    if checkpoint is not None:
        folder, known = checkpoint
        if known["data"] != facts["data"]:
            raise DataError(
                f"the tasks are not those that {folder} was trained on; restore them, or begin anew elsewhere"
            )
        policy_state.restore(progress, folder, known["step"])
    _forget_later_logs(work, progress.step)
    with engine(work.student, work) as player:
        tally = Tally()
        while progress.step < training.max_steps and not progress.collapsed:
            step(progress, told_tasks, player, tally)
            last = progress.step == training.max_steps or bool(progress.collapsed)
            validates = held_out is not None and (last or progress.step % told.validate_every == 0)
            if held_out is not None and validates:
                _validate(work, progress, held_out, player, tally)
            if last or validates or progress.step % training.logging_steps == 0:
                tally = _tell(work, progress, tally, shown)
            asked = processes.any(signals.asked)
            if asked or last or (training.save_steps and progress.step % training.save_steps == 0):
                _save(work, progress, facts)
            if asked and not last:
                raise Interrupted(
                    f"stopped after step {progress.step} of {training.max_steps}, which is saved; repeat the command "
                    "with --resume"
                )
    if processes.is_first:  # who leaves the policy
        policy_state.take_best(progress, work.run)
    return progress


def tasks(work: Work) -> World:
    """Return the tasks to play; raises SettingsError if a step would play one twice."""
    found = world(work.recipe.data, work.recipe.data.size or work.in_all)
    if len(found.tasks) < work.per_step:
        raise SettingsError(
            f"a step plays {work.per_step} different tasks and there are {len(found.tasks)}; raise data.size, or let "
            "a step play fewer"
        )
    return found


def validation(work: Work, trained: World) -> World:
    """Return the tasks that choose the best checkpoint, none of which is trained; raises SettingsError for too few.

    Of a benchmark whose tasks are rows of a file another seed gives the same ones in another order.
    """
    data, count, seed = work.recipe.data, work.told.validation, work.told.validation_seed
    known, found = {task.id for task in trained.tasks}, world(data, count, seed)
    if not known.isdisjoint(task.id for task in found.tasks):
        found = world(data, count + len(known), seed)
    left = tuple(task for task in found.tasks if task.id not in known)[:count]
    if len(left) < count:
        raise SettingsError(
            f"validation is {count} tasks, and of {len(found.tasks)} of {str(data.benchmark)!r}, split {data.split!r}, "
            f"{len(left)} are left by the {len(known)} that are trained; lower data.size, or validation"
        )
    return replace(found, tasks=left)


def fingerprint(told: World) -> str:
    """Return a digest by which a resumed run knows its tasks again."""
    asked = [(task.id, [message.content for message in task.messages]) for task in told.tasks]
    return hashlib.sha256(repr(asked).encode()).hexdigest()[:16]


def engine(loaded: Loaded, work: Work) -> LocalEngine:
    """Return an engine with room for all that are played at once."""
    constrain: Constrain = "always" if work.told.constrained else "asked"
    return LocalEngine(loaded, EngineSettings(work.at_once, loaded.context, constrain=constrain))


def playing(told: Told, turns: int, temperature: float) -> agent.Settings:
    """Return how episodes of at most so many turns are played."""
    sampling = Sampling(temperature=temperature, max_tokens=told.max_tokens)
    return agent.Settings(max_turns=turns, sampling=sampling, constrained=told.constrained, strict_calls=True)


def rows(work: Work, episodes: Sequence[Trajectory]) -> list[Row]:
    """Return the rows that fit; raises RolecraftError if no token of a step can be trained."""
    renderer = work.student.renderer
    made = (rollouts.rows(episode, work.players, renderer, packs=work.packs) for episode in episodes)
    return fitting(work, made, len(episodes))


def fitting(work: Work, made: Iterable[Sequence[Row]], count: int) -> list[Row]:
    """Return the rows of `count` episodes that fit; raises RolecraftError if no token of theirs can be trained."""
    most = work.recipe.data.max_length
    found = [row for some in made for row in some if len(row.ids) <= most and any(row.chosen)]
    if not found:
        raise RolecraftError(
            f"none of {count} episodes has a reply to learn from within data.max_length {most}; raise it, or "
            "look at what the player writes (rolecraft run)"
        )
    return found


def chosen_speakers(row: Row) -> Iterator[str | None]:
    """Yield the speaker of each token that the player chose."""
    return (who for who, chosen in zip(row.speakers, row.chosen, strict=True) if chosen)


def logits(
    loaded: Loaded, batch: rollouts.Batch, some: Sequence[Row], adapter: Adapter | None, recipe: Recipe
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return a model's logits where a chosen token is predicted (N, V), and these tokens (N,), as a batch has them."""
    keep_BT, targets_N, _ = objectives.next_token_targets(batch.ids, batch.weights)
    roles_BT = rollouts.roles_of(some, loaded.gate, batch.ids.device, batch.layout)
    call = batch.call
    if roles_BT is not None:
        call |= {"role_ids": roles_BT} if adapter is None else dict(adapter.inputs(roles_BT, batch.times))
    kind = batch.ids.device.type
    lower = torch.autocast(kind, torch.bfloat16) if recipe.training.bf16 and adapter is not None else nullcontext()
    attends = nullcontext() if batch.layout is None else attention.sharing(loaded.model)
    fewer = objectives.only_logits_at(loaded.model.get_output_embeddings(), keep_BT)
    with recomputing(batch.ids.device, checkpointed=is_checkpointed(loaded.model)), lower, attends, fewer:
        outputs = loaded.model(input_ids=batch.ids, use_cache=False, **call)
    return objectives.pick_logits(outputs.logits, keep_BT), targets_N


def move(recipe: Recipe, progress: Progress, tally: Tally) -> None:
    """Let the optimizer take its step along the gradient that was gathered, and forget the gradient."""
    most = recipe.training.max_grad_norm
    tally.add("grad_norm", policy_state.gradient_norm(list(progress.trained.values()), most))
    progress.optimizer.step()
    progress.optimizer.zero_grad(set_to_none=True)


def count_play(progress: Progress, tally: Tally, episodes: Sequence[Trajectory], some: Sequence[Row]) -> None:
    """Count a step's play: what the card tells (episodes, rows, each speaker's tokens), and what is logged."""
    progress.count("episodes", len(episodes))
    progress.count("rows", len(some))
    for row in some:
        for name, speakers in (("tokens", row.speakers), ("chosen", list(chosen_speakers(row)))):
            for who, many in Counter(speakers).items():
                progress.count(f"{name}/{who}", many)
    for name, value in measure(episodes).items():
        tally.add(f"play/{name}", value)
    tally.steps += 1
    tally.tokens += sum(len(row.ids) for row in some)


def count_losses(tally: Tally, some: Sequence[Row], losses_N: torch.Tensor) -> None:
    """Add a batch's token losses to the tally, by speaker."""
    speakers = [who for row in some for who in list(chosen_speakers(row))]
    for who in dict.fromkeys(speakers):
        mine_N = torch.tensor([one == who for one in speakers], device=losses_N.device)
        tally.add(f"loss/{who}", float(losses_N[mine_N].sum()), int(mine_N.sum()))


def _tell(work: Work, progress: Progress, tally: Tally, shown: Sequence[str]) -> Tally:
    """Log the means since the last log, print a line of them, and begin anew."""
    if not work.processes.is_first:
        return Tally()
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
    told = ", ".join(f"{name.removeprefix('play/')} {means[name]:.3f}" for name in shown if name in means)
    print(
        f"step {progress.step}/{training.max_steps}  loss {means['loss']:.4f} ({told})  "
        f"lr {logged['learning_rate']:.2e}  {timedelta(seconds=round(left))} left",
        flush=True,
    )
    return Tally()


def _validate(work: Work, progress: Progress, asked: World, player: LocalEngine, tally: Tally) -> None:
    """Play the validation tasks greedily, count their score, and keep the policy if it is the best so far."""
    seed, how = work.told.validation_seed, playing(work.told, work.told.max_turns, 0.0)
    found = measure(collect(asked, asked.tasks, player, work.players, how, seed, work.processes))
    player.forget()
    best = policy_state.is_best(progress, found["score"])
    for name, value in found.items():
        tally.add(f"validation/{name}", value)
    if not work.processes.is_first:
        return
    if best:
        policy_state.keep_best(progress, work.run, work.accompany)
    print(f"validation after step {progress.step}: score {found['score']:.3f}{', the best so far' if best else ''}")


def _save(work: Work, progress: Progress, facts: Mapping[str, Any]) -> None:
    if work.processes.is_first:
        policy_state.save(progress, work.run, work.accompany, facts, work.recipe.training.save_total_limit)
    work.processes.wait()  # one that ended by an error now would soon end the first, which still writes


def _forget_later_logs(work: Work, step: int) -> None:
    """Drop what was logged after the checkpoint that this run goes on from: those steps are done again."""
    logged = Run(work.run).metrics() if work.processes.is_first else []
    if logged:
        store.write_jsonl(work.run / "metrics.jsonl", [one for one in logged if one["step"] <= step])
