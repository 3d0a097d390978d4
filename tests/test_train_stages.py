"""Stages on a tiny random model: each is resumed, skipped or run again, and the last one's adapter finds its base."""

from __future__ import annotations

import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import yaml
from test_stages import MOR
from test_train import NAMES, RECIPE, interrupt_at, same, trajectory, weights, write_data
from test_train import place as tiny_place
from verbs import call

from rolecraft import bases, contract, model, recipe, store
from rolecraft.errors import Interrupted, SettingsError
from rolecraft.train import stages

place = tiny_place
"""The fixture: a folder with a tiny base and its data."""

STEPS = {"max_steps": 6, "save_steps": 1}
LOCAL = {"adapter": MOR | {"assignment": "reencode", "lora_dropout": 0.2}}


def write_recipe(place: Path, path: Path, told: dict | None = None, **data) -> Path:
    whole = {
        **RECIPE,
        "model": {"base": str(place / "base")},
        "data": {"path": str(place / "data.jsonl"), **data},
        "training": {**RECIPE["training"], **STEPS},
        "stages": told or {"global": {}, "local": LOCAL},
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(whole, sort_keys=False))
    return path


@pytest.fixture(scope="module")
def finished(place, tmp_path_factory) -> Path:
    """A finished run of two stages, which nothing stopped; its recipe lies beside it."""
    folder = tmp_path_factory.mktemp("staged")
    return stages.launch(write_recipe(place, folder / "recipe.yaml"), folder / "run")


@pytest.fixture
def copied(finished, tmp_path) -> Path:
    shutil.copy(finished.parent / "recipe.yaml", tmp_path)
    return shutil.copytree(finished, tmp_path / "run")


def again(run: Path, *flags: str) -> Path:
    return stages.launch(run.parent / "recipe.yaml", run, flags=flags, resume=True)


def trained(run: Path) -> dict[str, int]:
    """Return when each stage's weights were written."""
    return {path.parent.name: path.stat().st_mtime_ns for path in run.glob("*/adapter_model.safetensors")}


def test_what_the_last_stage_left_lies_at_the_top_and_plays_on_the_merged_base(place, finished):
    assert same(weights(finished), weights(finished / "local"))
    base = contract.base_of(contract.read(finished), finished)
    assert base == str(finished / "global" / "merged")
    ids, roles = torch.tensor([[3, 5, 7]]), torch.tensor([[0, 0, 0]])
    whole = model.load(base, adapter=finished)
    stage = model.load(str(place / "base"), adapter=finished / "global")
    with torch.no_grad():
        plain, merged = stage.model(ids).logits, model.load(base).model(ids).logits
        assert torch.allclose(plain, merged, atol=1e-4)
        assert not torch.allclose(whole.model(ids, role_ids=roles).logits, merged, atol=1e-4)


def test_a_moved_run_is_played_by_its_folder_alone_from_anywhere(copied, tmp_path, monkeypatch, capsys):
    moved = tmp_path / "elsewhere" / "renamed"
    moved.parent.mkdir()
    copied.rename(moved)
    monkeypatch.chdir(tmp_path)
    for adapter in ("elsewhere/renamed", "elsewhere/renamed/local", "elsewhere/renamed/local/checkpoint-6"):
        made = contract.read(Path(adapter))
        assert Path(contract.base_of(made, Path(adapter))).resolve() == (moved / "global" / "merged").resolve()
        assert model.load(contract.base_of(made, Path(adapter)), adapter=Path(adapter)).contract == made
    code, _, err = call(capsys, "run", "Hello.", "--adapter", "elsewhere/renamed", "--max-tokens", "4")
    assert code in (0, 1), err  # a model that knows nothing may give no answer


def test_stages_whose_inputs_have_not_changed_are_skipped(copied, capsys):
    before = trained(copied)
    again(copied)
    assert trained(copied) == before
    assert capsys.readouterr().out.count("nothing that went into it has changed") == 2


def test_a_changed_setting_runs_its_stage_again_and_none_before_it(copied, capsys):
    before = trained(copied)
    again(copied, "stages.local.training.learning_rate=0.02")
    assert trained(copied)["global"] == before["global"]
    assert trained(copied)["local"] > before["local"]
    assert "'local': runs again, for other training.learning_rate" in capsys.readouterr().out
    assert same(weights(copied), weights(copied / "local"))


def test_a_changed_setting_of_an_earlier_stage_runs_those_after_it_again(copied, capsys):
    old, merged = weights(copied), bases.digest(str(copied / "global" / "merged"))
    again(copied, "stages.global.training.learning_rate=0.02")
    assert "'local': runs again, for other weights to start from" in capsys.readouterr().out
    assert not same(weights(copied), old)
    assert bases.digest(str(copied / "global" / "merged")) != merged
    assert not list(copied.glob("*.old"))


def test_changed_data_runs_the_stages_again_that_read_it(place, tmp_path, capsys):
    own = write_data(tmp_path / "own.jsonl", [trajectory(number, name) for number, name in enumerate(NAMES)])
    told = {"global": {}, "local": {**LOCAL, "data": {"path": str(own)}}}
    path = write_recipe(place, tmp_path / "recipe.yaml", told)
    run = stages.launch(path, tmp_path / "run")
    before = trained(run)
    write_data(own, [trajectory(number + 3, name) for number, name in enumerate(NAMES)])
    stages.launch(path, run, resume=True)
    assert "'local': runs again, for other data" in capsys.readouterr().out
    assert trained(run)["global"] == before["global"]
    assert trained(run)["local"] > before["local"]


@pytest.mark.parametrize("named", ["path", "sources"])
def test_a_folder_of_data_is_known_by_what_its_files_hold(named, tmp_path, monkeypatch):
    monkeypatch.setenv("ROLECRAFT_DATA", str(tmp_path))
    folder = tmp_path / "trees"
    (folder / "deep").mkdir(parents=True)
    (folder / "deep" / "one.json").write_text("{}")
    data = {"path": str(folder)} if named == "path" else {"sources": [{"path": "trees", "importer": "toolbench"}]}
    told = recipe.read_recipe({"data": data})
    before = stages._digests(told)
    assert list(before) == [str(folder) if named == "path" else "trees"]
    assert stages._digests(told) == before
    (folder / "deep" / "one.json").write_text("[]")
    assert stages._digests(told) != before


def test_a_benchmark_of_public_data_is_known_by_what_its_files_hold(tmp_path, monkeypatch):
    monkeypatch.setenv("ROLECRAFT_DATA", str(tmp_path))
    (tmp_path / "gsm8k").mkdir()
    file = tmp_path / "gsm8k" / "train.jsonl"
    file.write_text("{}")
    told = recipe.read_recipe({"data": {"benchmark": "gsm8k", "split": "train"}})
    before = stages._digests(told)
    assert list(before) == ["gsm8k/train.jsonl"]
    assert stages._digests(told) == before
    (tmp_path / "gsm8k" / "test.jsonl").write_text("{}")
    assert stages._digests(told) == before
    file.write_text("[]")
    assert stages._digests(told) != before


def test_a_benchmark_whose_tasks_follow_from_its_settings_has_no_files_to_know_it_by():
    assert stages._digests(recipe.read_recipe({"data": {"benchmark": "toolworld", "split": "train"}})) == {}


def test_a_teacher_is_known_by_its_base_and_its_adapter(place, tmp_path):
    def known(**told: str) -> dict[str, str]:
        return stages._teacher(recipe.read_recipe({"on_policy": told}), {"first": "left"})

    adapter = tmp_path / "teacher"
    adapter.mkdir()
    (adapter / "adapter_config.json").write_text("{}")
    (adapter / "adapter_model.safetensors").write_bytes(b"one")
    base = {"teacher": str(place / "base"), "teacher_adapter": str(adapter)}
    before = known(**base)
    assert before == known(**base)
    assert before != known(teacher=base["teacher"])
    assert known(**base | {"teacher": "stages.first"})["teacher"] == "left"
    (adapter / "adapter_model.safetensors").write_bytes(b"two")
    assert known(**base) != before


def test_weights_that_are_gone_are_trained_again_to_the_same(copied, finished):
    shutil.rmtree(copied / "local")
    (copied / "adapter_model.safetensors").unlink()
    again(copied)
    assert same(weights(copied), weights(finished))


def test_another_place_of_the_same_base_changes_nothing(place, copied, tmp_path, capsys):
    shutil.copytree(place / "base", tmp_path / "other")
    again(copied, f"model.base={tmp_path / 'other'}")
    assert capsys.readouterr().out.count("nothing that went into it has changed") == 2


def test_a_folder_that_holds_a_run_is_not_overwritten(copied):
    with pytest.raises(SettingsError, match=r"holds a run already.*--resume.*--output"):
        stages.launch(copied.parent / "recipe.yaml", copied)


def test_the_settings_left_behind_train_the_same_again(finished, tmp_path):
    run = stages.launch(finished / "settings.yaml", tmp_path / "again")
    assert same(weights(run), weights(finished))


def test_a_stage_with_full_weights_is_started_from_and_may_be_the_last(place, tmp_path):
    full = {"adapter": {"name": "full"}, "training": {"learning_rate": 1e-3}}
    run = stages.launch(write_recipe(place, tmp_path / "r.yaml", {"global": full, "local": full}), tmp_path / "run")
    assert bases.is_whole(run)
    assert contract.base_of(contract.read(run), run) == str(run / "global" / "merged")
    ids = torch.tensor([[3, 5, 7]])
    found = [model.load(str(place / "base"), adapter=path).model for path in (run / "global", run / "local", run)]
    with torch.no_grad():
        first, last, top = (one(ids).logits for one in found)
        assert torch.equal(last, top)
        assert not torch.allclose(first, last, atol=1e-4)


# ---- broken runs


def test_ctrl_c_in_a_stage_is_gone_on_from(place, finished, tmp_path):
    path = write_recipe(place, tmp_path / "recipe.yaml")
    interrupt_at(tmp_path / "run" / "local", 2)
    with pytest.raises(Interrupted, match=r"stopped after step \d of 6"):
        stages.launch(path, tmp_path / "run")
    assert not bases.is_adapter(tmp_path / "run")
    assert same(weights(again(tmp_path / "run")), weights(finished))


def test_killed_again_and_again_it_ends_with_the_same_weights(place, finished, tmp_path):
    path, run, draw = write_recipe(place, tmp_path / "recipe.yaml"), tmp_path / "run", random.Random(4)
    seen = [run / "global" / "checkpoint-2", run / "global" / "adapter_config.json", run / "local" / "checkpoint-3"]
    for mark in seen:
        script = "from pathlib import Path; from rolecraft.train import stages; " + (
            f"stages.launch(Path({str(path)!r}), Path({str(run)!r}), resume=True)"
        )
        child = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        while child.poll() is None and not mark.exists():
            time.sleep(0.001)
        time.sleep(draw.random() / 20)
        child.send_signal(signal.SIGKILL)
        _, errors = child.communicate()
        assert child.returncode == -signal.SIGKILL, f"it ended before it could be killed: {errors!r}"
    assert same(weights(again(run)), weights(finished))
    assert same(weights(run / "global"), weights(finished / "global"))
    assert store.Run(run / "local").metrics()[-1]["step"] == 6
