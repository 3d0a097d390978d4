"""Runs a recipe's stages one after the other: each resumed where it stopped, and skipped while its inputs are the same.

Each has its folder in the run's, with `stage.json`: what went into it, and the digest of what came out. What the last
one leaves lies at the top of the run's folder too, and finds its base from there. Not covered: several machines.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch

from rolecraft import bases, cast, catalog, contract, curate, model, store, workers
from rolecraft import stages as told_stages
from rolecraft.errors import SettingsError
from rolecraft.recipe import ModelSettings, Recipe, load_recipe, recipe_to_dict
from rolecraft.stages import Stage, to_dict
from rolecraft.store import Run
from rolecraft.train import MAY_CHANGE, precision, rounds, train

FILE = "stage.json"
MERGED = "merged"
"""The folder in a stage's own with the base that the stages after it start from."""
_OLD = ".old"
_OWN = frozenset((FILE, "settings.yaml", "references.jsonl"))
"""Files of a stage's folder that have no place at the top of the run's."""


@dataclass(frozen=True, slots=True)
class _Record:
    """What went into a stage, and the digest of the weights that came out; '' while it is not finished."""

    inputs: Mapping[str, Any]
    output: str = ""


def launch(path: Path, output_dir: Path, *, flags: Sequence[str] = (), resume: bool = False) -> Path:
    """Train as the recipe file says, with or without stages, with `section.key=value` flags; see `run` and `train`."""
    if told_stages.are_in(path):
        stages = told_stages.load(path, flags)
        return run(stages, output_dir, resume, told_stages.cast(path, stages))
    return train(load_recipe(path, flags), output_dir, resume)


def run(
    stages: Sequence[Stage], output_dir: Path, resume: bool = False, played: Mapping[str, str] = MappingProxyType({})
) -> Path:
    """Train the stages into `output_dir/<stage>` and return `output_dir`, which then holds what the last one left.

    Where several are `played` together, stages by role, it holds their cast instead.
    With `resume` a finished stage is skipped if its settings, its start's weights and its data are what they were, one
    that was stopped goes on, and one whose inputs have changed runs again, as do those that start from it. Raises what
    `train` raises.
    """
    if workers.is_worker():
        raise SettingsError("a recipe with stages is not for torchrun; run it without, and set training.processes")
    with store.lock(output_dir):
        _require_new(stages, output_dir, resume)
        for old in output_dir.glob(f"*{_OLD}"):
            shutil.rmtree(old)
        Run(output_dir).write_settings(to_dict(stages, tuple(dict.fromkeys(played.values()))))
        left: dict[str, str] = {}
        for number, stage in enumerate(stages, start=1):
            left[stage.name] = _run(stage, output_dir, left, f"stage {number} of {len(stages)}, {stage.name!r}")
        if played:
            cast.save(cast.Cast(played), output_dir)
            print(f"the models of {', '.join(played)} are played together from {output_dir}")
        else:
            _present(output_dir / stages[-1].name, output_dir)
            print(f"what the last stage left is in {output_dir} too: play it from there")
    return output_dir


def merge(adapter: Path, told: ModelSettings, into: Path) -> str:
    """Write the base with the adapter merged in, whole or not at all, if it is not there; return the folder's name.

    In float32, for sums of bfloat16 numbers lose most of what an adapter adds; it is written in the base's type.
    """
    if not into.exists():
        unfinished = into.with_name(f"{into.name}.partial")
        shutil.rmtree(unfinished, ignore_errors=True)
        loaded = model.load(told.base, adapter=adapter, renderer=told.renderer, merge=True)
        kind = "float32" if bases.is_whole(adapter) else told.dtype
        loaded.model.to(getattr(torch, kind)).save_pretrained(str(unfinished))
        loaded.tokenizer.save_pretrained(str(unfinished))
        unfinished.rename(into)
    return str(into)


def on(recipe: Recipe, base: str) -> Recipe:
    """Return the recipe with another base."""
    return replace(recipe, model=replace(recipe.model, base=base))


def taught(recipe: Recipe, place: Callable[[str], str]) -> Recipe:
    """Return the recipe with its teacher where it lies, if that is a stage; `place` tells it by the stage's name."""
    told = recipe.on_policy
    if told is None or told.stage is None:
        return recipe
    return replace(recipe, on_policy=replace(told, teacher=place(told.stage)))


def _run(stage: Stage, run_dir: Path, left: Mapping[str, str], title: str) -> str:
    """Run a stage unless it is finished, and return the digest of what it left; `left` has those of the others."""
    folder = run_dir / stage.name
    inputs = _inputs(stage, left)
    record, finished = _read(folder), _digest_of(folder)
    if record and record.inputs == inputs and record.output and record.output == finished:
        print(f"{title}: finished, and nothing that went into it has changed")
        return finished
    _withdraw(run_dir)
    if folder.exists() and (record is None or record.inputs != inputs):
        changed = ", ".join(_changed(record.inputs, inputs)) if record else f"inputs than {FILE} could tell"
        print(f"{title}: runs again, for other {changed}")
        _clear(folder)
    print(f"{title}, starts from {stage.start or stage.recipe.model.base}", flush=True)
    _write(folder, _Record(inputs))
    recipe = on(stage.recipe, _start(stage, run_dir))
    recipe = taught(recipe, lambda name: _merged(name, stage.recipe.model, run_dir))
    if recipe.experience is not None:
        player = run_dir / recipe.experience.stage
        recipe = rounds.prepare(recipe, folder, player, _base_of(player), player)
    begun = (folder / "settings.yaml").exists()
    if begun:  # the base's place may have changed, nothing else has
        recipe = precision.decide(recipe, folder, resume=True)
        Run(folder).write_settings(recipe_to_dict(recipe))
    train(recipe, folder, resume=begun)
    output = _digest_of(folder)
    _write(folder, _Record(inputs, output))
    return output


def _start(stage: Stage, run_dir: Path) -> str:
    """Return the base that a stage starts from, made if it is not there yet."""
    if stage.start is None:
        return stage.recipe.model.base
    return _merged(stage.start, stage.recipe.model, run_dir)


def _merged(name: str, settings: ModelSettings, run_dir: Path) -> str:
    """Return the base with what a finished stage left merged in, made if it is not there yet."""
    before = run_dir / name
    return merge(before, replace(settings, base=_base_of(before)), before / MERGED)


def _base_of(before: Path) -> str:
    """Return the base of what a finished stage left."""
    told = contract.read(before)
    assert told is not None, before  # a finished stage has its papers
    return contract.base_of(told, before)


def _require_new(stages: Sequence[Stage], output_dir: Path, resume: bool) -> None:
    held = [stage.name for stage in stages if (output_dir / stage.name).exists()]
    if not resume and (held or bases.is_adapter(output_dir)):
        raise SettingsError(
            f"{str(output_dir)!r} holds a run already; go on with it, skipping what is finished and unchanged "
            "(--resume), or name another folder (--output)"
        )


# ---- what a stage is known by


def _inputs(stage: Stage, left: Mapping[str, str]) -> dict[str, Any]:
    settings = recipe_to_dict(stage.recipe)
    for name in MAY_CHANGE:
        section, _, key = name.partition(".")
        settings[section].pop(key, None)
    # its weights tell the base, wherever it lies
    base = settings["model"].pop("base")
    start = bases.digest(base) if stage.start is None else left[stage.start]
    inputs = {"settings": settings, "start": start, "data": _digests(stage.recipe), **_teacher(stage.recipe, left)}
    if stage.recipe.experience is not None:
        inputs["player"] = left[stage.recipe.experience.stage]
    told: dict[str, Any] = json.loads(json.dumps(inputs))
    return told


def _teacher(recipe: Recipe, left: Mapping[str, str]) -> dict[str, str]:
    """Return the digests of the teacher's weights, of a recipe that has one."""
    told = recipe.on_policy
    if told is None:
        return {}
    tuned = Path(told.teacher_adapter) if told.teacher_adapter else None
    base = bases.digest(bases.source(told.teacher, tuned)) if told.stage is None else left[told.stage]
    return {"teacher": base} | ({"teacher's adapter": bases.digest_weights(tuned)} if tuned else {})


def _digests(recipe: Recipe) -> dict[str, str]:
    """Return the digest of each file that data and parts come from; a benchmark's tasks may follow from its settings.

    What rows and tasks are read from may be a folder, too.
    """
    data = recipe.data
    named = [data.importer, data.benchmark, recipe.adapter.name, recipe.model.renderer, recipe.team.preset]
    named += [value for value in data.options.values() if isinstance(value, str)]
    found = {str(name): store.hash_file(Path(name)) for name in named if name and Path(name).is_file()}
    read = {source.path: curate.place(source) for source in data.sources}
    if data.path:
        read[data.path] = Path(data.path)
    if data.benchmark and hasattr(benchmark := catalog.find("benchmarks", data.benchmark), "sources"):
        read |= {f"{data.benchmark}/{path.name}": path for path in benchmark.sources(data.split)}
    return found | {name: _digest(path) for name, path in read.items() if path.exists()}


def _digest(path: Path) -> str:
    """Return the digest of a file, or of a folder's files with their names."""
    if path.is_file():
        return store.hash_file(path)
    found = hashlib.sha256()
    for one in sorted(path.rglob("*")):
        if one.is_file():
            found.update(f"{one.relative_to(path)} {store.hash_file(one)}\n".encode("utf-8", "surrogateescape"))
    return found.hexdigest()


def _changed(before: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[str]:
    """Yield what of two stages' inputs differs: settings by name, the start's weights, the data."""
    for part in now:
        if part != "settings":
            if before.get(part) != now[part]:
                yield {"start": "weights to start from"}.get(part, part)
            continue
        told = before.get(part) or {}
        for section, values in now[part].items():
            yield from (f"{section}.{key}" for key in values if told.get(section, {}).get(key) != values[key])


def _digest_of(folder: Path) -> str:
    """Return the digest of the weights that a stage left at its end, '' if it has not got there."""
    return bases.digest_weights(folder) if bases.is_adapter(folder) else ""


# ---- on disk


def _read(folder: Path) -> _Record | None:
    try:
        told = json.loads((folder / FILE).read_text(encoding="utf-8"))
        return _Record(dict(told["inputs"]), str(told["output"]))
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None


def _write(folder: Path, record: _Record) -> None:
    with store.atomic(folder / FILE) as unfinished:
        unfinished.write_text(json.dumps({"inputs": record.inputs, "output": record.output}, indent=1) + "\n")


def _clear(folder: Path) -> None:
    """Remove a stage's folder; what a kill leaves of it is no stage any more."""
    old = folder.with_name(f"{folder.name}{_OLD}")
    folder.rename(old)
    shutil.rmtree(old)


def _withdraw(run_dir: Path) -> None:
    """Take away what lies at the top, which is not what the stages lead to any more."""
    for path in (*(run_dir / mark for mark in (*bases.MARKS, cast.FILE)), *run_dir.glob("*.safetensors")):
        path.unlink(missing_ok=True)


def _present(last: Path, run_dir: Path) -> None:
    """Put what the last stage left at the top, last the file that makes it an adapter."""
    for path in sorted(last.iterdir(), key=lambda path: path.name in bases.MARKS):
        if path.is_file() and path.name not in _OWN:
            with store.atomic(run_dir / path.name) as unfinished:
                _put(path, unfinished, last, run_dir)


def _put(path: Path, target: Path, last: Path, run_dir: Path) -> None:
    if path.name == contract.FILE:
        made = contract.read(last)
        assert made is not None, last
        near = contract.near(contract.base_of(made, last), run_dir, last)
        target.write_text(contract.text(replace(made, near=near)), encoding="utf-8")
    elif path.name == "README.md":  # it says how the folder is loaded
        target.write_text(path.read_text(encoding="utf-8").replace(str(last), str(run_dir)), encoding="utf-8")
    else:
        _link(path, target)


def _link(path: Path, target: Path) -> None:
    target.unlink(missing_ok=True)
    try:
        os.link(path, target)
    except OSError:  # a file system without links
        shutil.copyfile(path, target)
