"""Several processes that learn from play: what they share out, and that they learn what one process learns."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from sharing_out import CASES, make_teacher, recipe_of

from rolecraft import workers
from rolecraft.errors import Interrupted, SettingsError
from rolecraft.store import Run
from rolecraft.train import distilling, on_policy, train
from rolecraft.train.checkpoints import last_checkpoint
from rolecraft.train.processes import Processes
from rolecraft.train.trainer import StopOnSignal

ROOT = Path(__file__).parents[1]
CHANGES = {"drift", "seconds_left", "tokens_per_second"}
"""What the log tells of the machine, and of the engine's last digits."""

pytestmark = pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning")


def group_of(count: int) -> list[Processes]:
    return [Processes(place, count) for place in range(count)]


@pytest.mark.parametrize(("things", "count"), [(12, 2), (7, 3), (2, 4), (0, 2)])
def test_runs_of_neighbours_are_all_there_is_in_order_and_of_nearly_the_same_size(things, count):
    runs = [one.run_of(things) for one in group_of(count)]
    assert [thing for run in runs for thing in run] == list(range(things))
    assert max(map(len, runs)) == Processes(0, count).most(things)
    assert max(map(len, runs)) - min(map(len, runs)) <= 1


def test_what_is_dealt_is_all_there_is_and_nobody_has_much_more_to_do():
    costs = [5, 1, 9, 1, 1, 4, 3, 8]
    dealt = [one.dealt(costs) for one in group_of(3)]
    assert sorted(thing for hand in dealt for thing in hand) == list(range(len(costs)))
    loads = [sum(costs[thing] for thing in hand) for hand in dealt]
    assert max(loads) == 11  # of 32


@pytest.mark.parametrize(
    ("size", "things", "count", "found"), [(16, 48, 1, 16), (16, 48, 2, 12), (3, 12, 2, 3), (8, 3, 2, 2), (8, 0, 2, 1)]
)
def test_batches_are_such_that_each_process_has_as_many(size, things, count, found):
    assert Processes(0, count).batch_size(size, things) == found


def weights_of(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "adapter_model.safetensors")


def largest_difference(one: Path, other: Path) -> float:
    ours, theirs = weights_of(one), weights_of(other)
    assert ours.keys() == theirs.keys()
    return max(float((ours[name] - theirs[name]).abs().max()) for name in ours)


def card_of(folder: Path) -> str:
    return re.sub("processes: [12]", "", (folder / "README.md").read_text().replace(str(folder), ""))


@pytest.fixture(scope="module")
def together(tmp_path_factory) -> Path:
    """The cases, each learned by two processes."""
    folder = tmp_path_factory.mktemp("together")
    make_teacher(folder / "teacher")
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), str(ROOT / "tests")]))
        workers.launch("sharing_out:learn", [str(folder)], 2)
    return folder


@pytest.mark.parametrize("name", CASES)
def test_two_processes_learn_what_one_does(tmp_path, together, name):
    alone = train(recipe_of(name, 1, together / "teacher"), tmp_path / name)
    for place in ("", "checkpoint-1", "checkpoint-2"):
        assert largest_difference(together / name / place, alone / place) < 1e-5
    assert max(one.abs().max() for key, one in weights_of(alone).items() if "_B" in key) > 1e-4
    told = [Run(folder).metrics() for folder in (together / name, alone)]
    assert len(told[0]) == len(told[1])
    for ours, theirs in zip(*told, strict=True):
        assert ours.keys() == theirs.keys()
        for key in ours.keys() - CHANGES:
            assert ours[key] == pytest.approx(theirs[key], rel=1e-3, abs=1e-5), key
    assert card_of(together / name) == card_of(alone)


def test_two_processes_that_went_on_have_the_same_weights_as_two_that_never_stopped(together):
    assert largest_difference(together / "again", together / next(iter(CASES))) == 0
    assert [entry["step"] for entry in Run(together / "again").metrics()] == [1, 2]


def started(folder: Path) -> subprocess.Popen[bytes]:
    """Start a run of two processes of its own; return it once its first step is saved."""
    code = f"""
import sys
sys.path.insert(0, "tests")
from pathlib import Path
from sharing_out import recipe_of
from rolecraft.train import train
train(recipe_of("grpo", 2), Path({str(folder)!r}))
"""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(
        [sys.executable, "-c", code], cwd=ROOT, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    while process.poll() is None and last_checkpoint(folder) is None:
        time.sleep(0.02)
    return process


def test_two_killed_processes_go_on_to_the_same_weights(tmp_path, together):
    process = started(tmp_path / "run")
    process.kill()
    process.communicate()
    found = last_checkpoint(tmp_path / "run")
    assert found
    assert found[1]["step"] < 4
    train(recipe_of("grpo", 2), tmp_path / "run", resume=True)
    assert largest_difference(tmp_path / "run", together / "grpo") == 0


@pytest.mark.slow
def test_a_signal_stops_two_processes_at_the_same_step(tmp_path, together):
    process = started(tmp_path / "run")
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate()
    assert f"{Interrupted.__name__}: stopped after step" in errors.decode()
    train(recipe_of("grpo", 2), tmp_path / "run", resume=True)
    assert largest_difference(tmp_path / "run", together / "grpo") == 0


def test_dropout_in_several_processes_is_refused_by_name(tmp_path):
    told = recipe_of("distilled", 2)
    shaken = replace(told, adapter=replace(told.adapter, settings=replace(told.adapter.settings, lora_dropout=0.1)))
    pair = distilling.load(shaken)
    work = on_policy.Work(shaken, *pair, tmp_path, lambda folder, place: None, Processes(0, 2))
    with pytest.raises(SettingsError, match=r"lora_dropout is above 0 and training\.processes is 2.*set adapter\.lora"):
        on_policy.run(work, None, StopOnSignal())


@pytest.mark.parametrize("name", ["grpo", "distilled"])
def test_torchrun_is_refused_with_the_remedy(tmp_path, monkeypatch, name):
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(SettingsError, match=r"not for torchrun; run it without, and set training\.processes"):
        train(recipe_of(name, 1), tmp_path / "run")
