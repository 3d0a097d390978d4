"""Held-out rows are measured role by role; each role ends at its best, and a role that gets worse is held there."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import yaml
from test_stages import MOR
from test_train import RECIPE, interrupt_at, last_step, launch, same, trajectory, weights, write_data
from test_train import place as tiny_place

from rolecraft import model
from rolecraft.adapters import mor
from rolecraft.errors import DataError, Interrupted, NotFound, SettingsError
from rolecraft.recipe import check
from rolecraft.store import Run
from rolecraft.train.validation import Validation

place = tiny_place
"""The fixture: a folder with a tiny base and its data."""

OWN = MOR | {"assignment": "reencode"}
STEPS = {"max_steps": 12, "save_steps": 1, "eval_steps": 2, "learning_rate": 0.3, "lr_scheduler_type": "constant"}


@pytest.fixture(scope="module")
def rows(tmp_path_factory) -> Path:
    return write_data(tmp_path_factory.mktemp("rows") / "rows.jsonl", [trajectory(i % 7, f"Ro{i}") for i in range(24)])


def write(place, rows, path: Path, adapter: dict | None = None, team: dict | None = None, **training) -> Path:
    told = {
        "model": {"base": str(place / "base")},
        "team": {**RECIPE["team"], **(team or {})},
        "data": {"path": str(rows), "validation": 0.3},
        "adapter": adapter or OWN,
        "training": {**RECIPE["training"], **STEPS, **training},
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(told, sort_keys=False))
    return path


def measured(run: Path) -> list[dict]:
    return [json.loads(line) for line in (run / "validation.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def finished(place, rows, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("validated")
    return launch(write(place, rows, folder / "recipe.yaml", save_total_limit=100), folder / "run")


def test_every_role_is_measured_and_its_best_step_told(finished):
    told = measured(finished)
    assert [one["step"] for one in told] == [2, 4, 6, 8, 10, 12]
    for role in ("reasoner", "executor", "summarizer"):
        losses = {one["step"]: one[f"loss/{role}"] for one in told}
        assert told[-1]["best"][role] == min(losses, key=losses.__getitem__)


def test_each_role_ends_with_the_weights_that_were_best_for_it(finished):
    best = measured(finished)[-1]["best"]
    assert len(set(best.values())) > 1, "all roles are best at one step, which shows nothing"
    last = weights(finished)
    for place, step in enumerate(best[role] for role in ("reasoner", "executor", "summarizer")):
        # of a checkpoint before the last, which holds what was best
        kept = weights(finished / f"checkpoint-{step}") if step < 12 else last
        for name, tensor in last.items():
            assert torch.equal(tensor[2 * place : 2 * place + 2], kept[name][2 * place : 2 * place + 2]), name


def test_held_out_rows_are_not_trained(place, rows, finished, tmp_path):
    path = write(place, rows, tmp_path / "recipe.yaml", max_steps=1, eval_steps=1)
    launch(path, tmp_path / "run")
    whole = launch(path, tmp_path / "whole", flags=["data.validation=0", "training.eval_steps=0"])
    shares = [(folder / "labels.txt").read_text().splitlines() for folder in (tmp_path / "run", whole)]
    counts = [int(next(line for line in lines if line.startswith("tokens of")).split()[2]) for lines in shares]
    assert 0.4 * counts[1] < counts[0] < 0.9 * counts[1]


def test_a_role_that_gets_worse_is_frozen_while_others_go_on(place, rows, tmp_path):
    run = launch(write(place, rows, tmp_path / "recipe.yaml", early_stopping_patience=1), tmp_path / "run")
    told = measured(run)
    frozen = {role: next(one["step"] for one in told if role in one["frozen"]) for role in told[-1]["frozen"]}
    assert frozen, "no role got worse, which shows nothing"
    for role, step in frozen.items():
        after = {one[f"loss/{role}"] for one in told if one["step"] > step}
        assert after <= {one[f"loss/{role}"] for one in told if one["step"] == told[-1]["best"][role]}


def test_where_roles_share_the_weights_they_stop_together(place, rows, tmp_path, capsys):
    lora = {"name": "lora", "r": 4, "lora_alpha": 8, "lora_dropout": 0.0}
    settings = {"early_stopping_patience": 1, "max_steps": 40, "learning_rate": 0.5}
    run = launch(write(place, rows, tmp_path / "recipe.yaml", lora, **settings), tmp_path / "run")
    told = measured(run)
    assert told[-1]["frozen"] == ["all roles"]
    assert last_step(run) == told[-1]["step"] < 40
    assert f"step {told[-1]['step']}/{told[-1]['step']}" in capsys.readouterr().out
    before = weights(run)
    again = launch(tmp_path / "recipe.yaml", run, resume=True)
    assert same(weights(again), before)
    assert last_step(run) == told[-1]["step"]


def test_a_stopped_run_ends_as_one_that_never_stopped(place, rows, finished, tmp_path):
    path = write(place, rows, tmp_path / "recipe.yaml", save_total_limit=100)
    interrupt_at(tmp_path / "run", 5)
    with pytest.raises(Interrupted):
        launch(path, tmp_path / "run")
    run = launch(path, tmp_path / "run", resume=True)
    assert same(weights(run), weights(finished))
    assert measured(run) == measured(finished)


def test_only_the_replies_of_the_named_roles_are_trained(place, rows, tmp_path):
    path = write(place, rows, tmp_path / "recipe.yaml", team={"roles": ["executor"]}, max_steps=2)
    run = launch(path, tmp_path / "run", flags=["data.validation=0", "training.eval_steps=0"])
    for entry in Run(run).metrics():
        assert [key for key in entry if key.startswith("loss/")] == ["loss/executor"]
    tensors = weights(run)
    assert all(not tensor[:2].any() and not tensor[4:].any() for name, tensor in tensors.items() if "mor_B" in name)


def test_roles_own_parts_only_where_each_computes_all_that_it_sees(place):
    for assignment, own in (("reencode", 3), ("stream", 0)):
        settings = {key: value for key, value in (OWN | {"assignment": assignment}).items() if key != "name"}
        attached = mor.attach(model.load(str(place / "base")).model, mor.Settings(**settings))
        found = mor.parts(attached)
        assert len(found) == own
        total = sum(tensor.numel() for tensors in found.values() for tensor in tensors)
        assert total in (0, sum(one.numel() for one in attached.parameters() if one.requires_grad))


@pytest.mark.parametrize(
    ("flags", "error", "why"),
    [
        (["training.eval_steps=0"], SettingsError, "set both, or neither"),
        (["data.validation=0"], SettingsError, "set both, or neither"),
        (["data.validation=0.9"], SettingsError, r"data\.validation is 0\.9"),
        (["training.eval_steps=0", "training.early_stopping_patience=1"], SettingsError, "set training.eval_steps too"),
        (["team.roles=[poet]"], NotFound, "no role 'poet'"),
    ],
)
def test_what_cannot_be_meant_is_refused(place, rows, tmp_path, flags, error, why):
    with pytest.raises(error, match=why):
        check(write(place, rows, tmp_path / "recipe.yaml"), flags)


def test_a_share_that_holds_nothing_out_is_refused(place, rows, tmp_path):
    with pytest.raises(DataError, match="holds none out"):
        launch(write(place, rows, tmp_path / "recipe.yaml"), tmp_path / "run", flags=["data.validation=1e-6"])


def test_a_role_without_a_held_out_row_does_not_keep_a_run_from_ending(tmp_path):
    losses = iter([1.0, 2.0, 3.0])
    validation = Validation(1, 1, tmp_path)
    own = {"reasoner": [torch.zeros(1)], "executor": [torch.zeros(1)]}
    validation.watch(("reasoner", "executor"), own, [], lambda: {"reasoner": (next(losses), 1.0)})
    control = SimpleNamespace(should_training_stop=False)
    for step in (1, 2):
        state = SimpleNamespace(global_step=step, max_steps=9, is_world_process_zero=True)
        validation.on_step_end(None, state, control)
    assert control.should_training_stop
    assert state.max_steps == 2
