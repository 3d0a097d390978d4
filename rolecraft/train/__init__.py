"""Supervised training of an adapter: from a recipe to a folder that PEFT or transformers and every verb of ours load.

Not covered: evaluation while training (play held-out tasks afterwards).
"""

from __future__ import annotations

import gc
import json
import sys
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import peft
import torch
import transformers
from peft import PeftModel
from transformers import TrainerState, TrainingArguments

from rolecraft import adapters, bases, contract, examples, fit, model, renderers, store, team, workers
from rolecraft.errors import DataError, Interrupted, SettingsError
from rolecraft.gate import Gate
from rolecraft.model import Loaded
from rolecraft.recipe import (
    Recipe,
    differences,
    find_recipe,
    load_recipe,
    own_files,
    read_again,
    read_pairs,
    read_rows,
    recipe_to_dict,
)
from rolecraft.store import Run
from rolecraft.team import Team
from rolecraft.train import attending, card, data, distilling, memory, precision, preferring, recorded, reinforce
from rolecraft.train.batches import Alike, Batch, Cut, Schedule
from rolecraft.train.checkpoints import last_checkpoint, remove_broken
from rolecraft.train.data import Data
from rolecraft.train.display import Display
from rolecraft.train.preferring import Pairs
from rolecraft.train.processes import joined
from rolecraft.train.rows import Rows, virtual_of
from rolecraft.train.trainer import IMITATION, RoleTrainer, StopOnSignal, WholeCheckpoints, arguments_for
from rolecraft.train.validation import Validation, measure

__all__ = ["Recipe", "count_parameters", "find_recipe", "launch", "load_recipe", "train"]

MAY_CHANGE = ("training.report_to", "training.save_total_limit")
"""The settings that a resumed run may have otherwise."""
_SHOWN = 5


def launch(path: Path, output_dir: Path, *, flags: Sequence[str] = (), resume: bool = False) -> Path:
    """Train as the recipe file says, with `section.key=value` flags; see `train`."""
    return train(load_recipe(path, flags), output_dir, resume)


def train(recipe: Recipe, output_dir: Path, resume: bool = False) -> Path:
    """Train the recipe's adapter and return `output_dir`, which then holds it; in several processes if it says so.

    `resume` goes on from the last whole checkpoint, to the same weights as a run that never stopped. Raises UserErrors
    for settings, data and folders that do not fit or are being written, and Interrupted when a signal stopped it after
    saving a checkpoint.
    """
    if workers.is_worker() and (recipe.on_policy or recipe.reinforcement):
        raise SettingsError("what learns from play is not for torchrun; run it without, and set training.processes")
    with store.lock(output_dir) if workers.is_first() else nullcontext():
        return _train(recipe, output_dir, resume)


def _train(recipe: Recipe, output_dir: Path, resume: bool) -> Path:
    renderers.require(recipe.model.renderer)  # before the rows, which may take minutes to be made
    if recipe.experience is not None:
        raise SettingsError("experience is of an earlier stage; write the recipe's rounds as stages")
    if recipe.on_policy is not None or recipe.reinforcement is not None:
        return _learn_from_play(recipe, output_dir, resume)
    recipe = precision.decide(recipe, output_dir, resume)
    if recipe.training.processes > 1 and not workers.is_worker():
        return _share_out(recipe, output_dir, resume)
    arguments = arguments_for(recipe.training, output_dir)
    recipe = replace(recipe, training=replace(recipe.training, processes=arguments.world_size))
    checkpoint = _resumable(recipe, output_dir, resume)
    with arguments.main_process_first(desc="clearing the folder"):
        if arguments.process_index == 0:
            Run(output_dir).write_settings(recipe_to_dict(recipe))
            _say_where(checkpoint, remove_broken(output_dir), resume)
    with _without_collection():
        data.play_references(recipe, output_dir, arguments)
        work = _prepare(recipe, output_dir, arguments)
    if arguments.process_index == 0:
        _show_first(work, output_dir)
    try:
        _run(work, arguments, output_dir, checkpoint)
    finally:
        if torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()
    return output_dir


def _share_out(recipe: Recipe, output_dir: Path, resume: bool) -> Path:
    """Train in as many processes as the recipe says."""
    _resumable(recipe, output_dir, resume)
    Run(output_dir).write_settings(recipe_to_dict(recipe))
    told = output_dir / "settings.yaml"
    arguments = [str(told), str(output_dir), "resume" if resume else "new", *own_files(recipe)]
    workers.launch("rolecraft.train:_work", arguments, recipe.training.processes)
    return output_dir


def _learn_from_play(recipe: Recipe, output_dir: Path, resume: bool) -> Path:
    """Distil on-policy, or reinforce: the tasks are played, and there are no examples to prepare."""
    kept = recipe.reinforcement is not None and recipe.reinforcement.recorded
    way = distilling if recipe.on_policy is not None else recorded if kept else reinforce
    way.check(recipe)
    recipe = precision.decide(recipe, output_dir, resume)
    if recipe.training.processes > 1 and not workers.is_worker():
        return _share_out(recipe, output_dir, resume)
    checkpoint = _resumable(recipe, output_dir, resume)
    with joined() as processes:
        if processes.is_first:
            Run(output_dir).write_settings(recipe_to_dict(recipe))
            _say_where(checkpoint, remove_broken(output_dir), resume)
        policy, players, learn = way.prepare(recipe)
        work = _Work(recipe, policy, players, policy.gate, Data((), 0, 0, (), ""))
        if checkpoint:
            _require_fit(checkpoint.folder, policy.model)
        started = (checkpoint.folder, checkpoint.facts) if checkpoint else None
        finished = learn(output_dir, partial(_accompany, work, output_dir, None), started, processes)
        if finished:
            _move_up(finished, output_dir)
    return output_dir


def count_parameters(base: str, recipe: Recipe) -> dict[str, int]:
    """Return the `trainable` parameters, those of the `base` (see `bases.find_config`), and how many of them are `own`,
    that is, both; and the `virtual_tokens` before every sequence, if there are any. Loads no weights.
    """
    empty = model.make_empty(model.load_config(base))
    own = list(empty.parameters())
    total = sum(parameter.numel() for parameter in own)
    attached = adapters.find(recipe.adapter.name).attach(empty, recipe.adapter.settings)
    trained = sum(parameter.numel() for parameter in own if parameter.requires_grad)
    counted = {"trainable": adapters.count_trainable(attached), "base": total, "own": trained}
    virtual = adapters.find(recipe.adapter.name).virtual_tokens(recipe.adapter.settings)
    return counted | ({"virtual_tokens": virtual} if virtual else {})


def _work(settings: str, output_dir: str, resume: str, *flags: str) -> None:
    _train(load_recipe(Path(settings), flags), Path(output_dir), resume == "resume")


@contextmanager
def _without_collection() -> Iterator[None]:
    """Within, make no search for garbage: it would visit millions of tokens again and again, and free none of them."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


# ---- the run folder


@dataclass(frozen=True, slots=True)
class _Checkpoint:
    folder: Path
    facts: dict[str, Any]


def _resumable(recipe: Recipe, output_dir: Path, resume: bool) -> _Checkpoint | None:
    """Return the checkpoint to go on from (None: begin anew); raises SettingsError if the folder is not ours to use."""
    found = last_checkpoint(output_dir)
    if not resume and (found or bases.is_adapter(output_dir)):
        if not recipe.data.benchmark and not recipe.reinforcement:
            # another folder would not help against bad rows: they are told first
            read: Callable[..., Iterator[object]] = read_pairs if recipe.preference else read_rows
            deque(read(recipe.data, store.BadRows()), maxlen=0)
        raise SettingsError(
            f"{str(output_dir)!r} holds a run already; go on with it (--resume), or name another folder (--output)"
        )
    if not resume or found is None:
        return None
    changed = differences(read_again(output_dir / "settings.yaml", recipe), recipe, MAY_CHANGE)
    if changed:
        raise SettingsError(f"cannot resume {str(output_dir)!r} with other settings ({'; '.join(changed)}); undo that, "
                            "or begin anew in another folder (--output)")  # fmt: skip
    return _Checkpoint(*found)


def _say_where(checkpoint: _Checkpoint | None, broken: Sequence[str], resume: bool) -> None:
    for name in broken:
        print(f"{name} was not written to its end and is removed")
    if checkpoint:
        print(f"going on after step {checkpoint.facts['step']} from {checkpoint.folder}")
    elif resume:
        print("there is no whole checkpoint to go on from: beginning anew")


# ---- what is trained


@dataclass(frozen=True, slots=True)
class _Work:
    """What is trained on what: everything a run needs besides transformers' arguments."""

    recipe: Recipe
    loaded: Loaded
    team: Team
    gate: Gate | None
    data: Data


def _prepare(recipe: Recipe, output_dir: Path, arguments: TrainingArguments) -> _Work:
    """Load the base and make the examples; raises DataError for what must not be trained."""
    needs = memory.count(recipe, arguments)
    memory.require(needs)
    loaded = model.load(recipe.model.base, dtype=recipe.model.dtype, renderer=recipe.model.renderer)
    if loaded.chat:
        print(f"chat format {loaded.chat}")
    chosen = team.find(recipe.team.preset, instructions=recipe.team.instructions)
    gate = adapters.find(recipe.adapter.name).gate(recipe.adapter.settings)
    if gate is not None:
        gate.check(chosen)
    virtual = len(virtual_of(recipe, loaded))
    length = min(recipe.data.max_length, (loaded.context or sys.maxsize) - virtual)
    fitting = replace(recipe, data=replace(recipe.data, max_length=length))
    made = data.prepare(fitting, output_dir, chosen, loaded.renderer, gate, arguments)
    if arguments.process_index == 0:
        print(memory.tell(needs, virtual + max(len(example.ids) for example in made.examples)))
    return _Work(recipe, loaded, chosen, gate, made)


def _rows(work: _Work, of: Sequence[examples.Example]) -> Rows:
    loaded = work.loaded
    pad, virtual = loaded.tokenizer.pad_token_id or 0, virtual_of(work.recipe, loaded)
    return Rows(of, work.team.speakers, pad, loaded.context, virtual)


def _show_first(work: _Work, output_dir: Path) -> None:
    """Print the first example token by token, and leave it in `labels.txt`."""
    text = examples.label_text(work.data.examples, work.loaded.tokenizer)
    (output_dir / "labels.txt").write_text(text + "\n", encoding="utf-8")
    print(text)
    print(f"{len(work.data.examples):,} examples of {work.data.trajectories:,} trajectories")
    if work.data.dropped:
        print(f"{work.data.dropped:,} replies are left out: too long, or cut before their end token")
    for reason in work.data.refused[:_SHOWN]:
        print(f"left out: {reason}")
    if len(work.data.refused) > _SHOWN:
        print(f"left out: {len(work.data.refused) - _SHOWN:,} more")


# ---- the run


def _run(work: _Work, arguments: TrainingArguments, output_dir: Path, checkpoint: _Checkpoint | None) -> None:
    if checkpoint and checkpoint.facts["data"] != work.data.fingerprint:
        raise DataError(f"the data is not what {checkpoint.folder} was trained on; restore it, or begin anew elsewhere")
    with StopOnSignal() as signals:
        trainer = _trainer(work, arguments, output_dir, signals)
        validation = next((one for one in trainer.callback_handler.callbacks if isinstance(one, Validation)), None)
        if checkpoint:
            _require_fit(checkpoint.folder, trainer.model)
            if validation:
                validation.load(checkpoint.folder)
        if checkpoint and checkpoint.facts["step"] >= checkpoint.facts["of"]:
            trainer.load_weights(checkpoint.folder)
            trainer.state = TrainerState.load_from_json(str(checkpoint.folder / "trainer_state.json"))
        else:
            if isinstance(trainer.train_dataset, Pairs):
                trainer.train_dataset.begin(trainer)
            trainer.train(resume_from_checkpoint=str(checkpoint.folder) if checkpoint else None)
    if signals.stopped:
        step, steps = trainer.state.global_step, trainer.state.max_steps
        raise Interrupted(f"stopped after step {step} of {steps}, which is saved; repeat the command with --resume")
    _save(trainer, work, output_dir)


def _require_fit(checkpoint: Path, tuned: Any) -> None:
    if isinstance(tuned, PeftModel):
        fit.require_fit(checkpoint, tuned, tuned.peft_config["default"])
    else:
        fit.require_whole_fit(checkpoint, tuned)


def _trainer(work: _Work, arguments: TrainingArguments, output_dir: Path, signals: StopOnSignal) -> RoleTrainer:
    recipe, loaded, training = work.recipe, work.loaded, work.recipe.training
    adapter = adapters.find(recipe.adapter.name)
    virtual = len(virtual_of(recipe, loaded))
    lengths = [virtual + len(example.ids) for example in work.data.examples]
    weights = [sum(example.weights[1:]) for example in work.data.examples]
    alike = Alike(work.data.told, recipe.data.group) if recipe.data.group > 1 else None
    attending.choose(loaded.model, recipe, arguments, max(lengths))
    transformers.set_seed(training.seed)
    tuned = adapter.attach(loaded.model, recipe.adapter.settings)
    validation = (
        Validation(training.eval_steps, training.early_stopping_patience, output_dir) if work.data.held else None
    )
    beside = partial(_accompany, work, output_dir, validation)
    whole = WholeCheckpoints(training.save_total_limit, beside, {"data": work.data.fingerprint})
    plain = _rows(work, work.data.examples)
    rows: Rows | Pairs = plain
    objective = IMITATION
    if recipe.preference is not None:
        rows, objective = Pairs(plain, lengths), preferring.objective(recipe.preference)
        lengths, weights = [rows.length(pair) for pair in range(len(rows))], [1.0] * len(rows)
    trainer = RoleTrainer(
        tuned,
        arguments,
        rows,
        Schedule(lengths, weights, _cut(recipe), training.seed, arguments.process_index, alike),
        adapter,
        work.team.speakers,
        [signals, whole, Display(Run(output_dir))],
        objective,
    )
    if validation:
        _watch(validation, trainer, work)
    return trainer


def _watch(validation: Validation, trainer: RoleTrainer, work: _Work) -> None:
    """Let the held-out rows be measured, and each role's own weights be kept at their best."""
    held, trained = work.data.held, work.recipe.training
    rows = _rows(work, held)
    step = trained.per_device_train_batch_size
    order = sorted(range(len(held)), key=lambda row: len(held[row].ids))
    batches = [Batch(tuple(order[start : start + step]), 1.0) for start in range(0, len(order), step)]
    own = adapters.find(work.recipe.adapter.name).parts(trainer.model)
    numbers = [parameter for parameter in trainer.model.parameters() if parameter.requires_grad]
    roles = work.recipe.team.roles or work.team.speakers
    validation.watch(roles, own, numbers, partial(measure, trainer, rows, work.team.speakers, batches))
    trainer.add_callback(validation)


def _cut(recipe: Recipe) -> Cut:
    training = recipe.training
    return Cut(training.per_device_train_batch_size, training.gradient_accumulation_steps, training.processes)


def _accompany(work: _Work, run: Path, validation: Validation | None, folder: Path, place: Path | None = None) -> None:
    """Put beside an adapter what it takes to load and check it anywhere; `place` is where the folder will be."""
    if validation:
        validation.save(folder)
    model.save_tokenizer(work.loaded, work.team, folder)
    told = work.recipe.team
    made = model.make_contract(work.loaded, team=str(told.preset), instructions=told.instructions, gate=work.gate)
    near = contract.near(work.recipe.model.base, place or folder, run)
    contract.save(replace(made, near=near), folder)


def _save(trainer: RoleTrainer, work: _Work, output_dir: Path) -> None:
    """Write the adapter and its papers to the top of the folder, last the file that makes it an adapter."""
    finished = output_dir / "finished.partial"
    trainer.save_model(str(finished))
    if not trainer.is_world_process_zero():
        return
    _accompany(work, output_dir, None, finished, output_dir)
    trainer.state.save_to_json(str(finished / "trainer_state.json"))
    if loads := adapters.find(work.recipe.adapter.name).loads(trainer.model):
        (finished / adapters.ROUTER_LOAD).write_text(json.dumps(loads) + "\n", encoding="utf-8")
    (finished / "README.md").write_text(card.write(work.recipe, _facts(trainer, work, output_dir)), encoding="utf-8")
    _move_up(finished, output_dir)


def _move_up(finished: Path, output_dir: Path) -> None:
    """Move what is finished to the top of the run folder, last the file that makes it an adapter."""
    for path in sorted(finished.iterdir(), key=lambda path: path.name in bases.MARKS):
        path.replace(output_dir / path.name)
    finished.rmdir()
    print(f"the adapter is in {output_dir}")


def _facts(trainer: RoleTrainer, work: _Work, output_dir: Path) -> card.Facts:
    logged = [entry for entry in trainer.state.log_history if "loss" in entry]
    last = logged[-1] if logged else {}
    return card.Facts(
        folder=str(output_dir),
        renderer=model.make_contract(work.loaded).renderer,
        speakers=work.team.speakers,
        first=work.team.first,
        trajectories=work.data.trajectories,
        examples=len(work.data.examples),
        dropped=work.data.dropped,
        budget=examples.budget(work.data.examples),
        steps=trainer.state.global_step,
        step_size=_cut(work.recipe).step_size,
        trainable=adapters.count_trainable(trainer.model),
        whole=not isinstance(trainer.model, PeftModel),
        losses={key.removeprefix("loss/"): value for key, value in last.items() if key.startswith("loss")},
        versions={"peft": peft.__version__, "torch": str(torch.__version__), "transformers": transformers.__version__},
    )
