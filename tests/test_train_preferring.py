"""Preferring on a tiny random model: margins grow from nought, a stop changes nothing, and what is no pair is told."""

from __future__ import annotations

import json
import math
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml
from test_train import NAMES, RECIPE, same, trajectory, weights
from test_train import place as tiny_place

from rolecraft import wire
from rolecraft.errors import DataError, NotFound, SettingsError
from rolecraft.preference import PreferenceSettings
from rolecraft.recipe import load_recipe, read_recipe
from rolecraft.store import Run
from rolecraft.train import preferring, train
from rolecraft.types import Message, ToolCall

place = tiny_place
"""The fixture: a folder with a tiny base."""


def pair(number: int, name: str, wrong: Message | None = None) -> wire.Pair:
    """A call of the right company is preferred to one of another company."""
    told = trajectory(number, name)
    before, act = told.messages[:2], told.messages[2]
    context = (before[0], before[1].edited(weight=0.0))
    other = act.edited(tool_calls=(ToolCall("read_debt", {"key": "Nobody"}, id="1"),))
    better, worse = (replace(told, messages=(*context, last)) for last in (act, wrong or other))
    return better, worse


def write_pairs(path: Path, rows) -> Path:
    path.write_text("".join(wire.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def recipe_of(place: Path, folder: Path, pairs: Path | None = None, preference: dict | None = None, **changes):
    pairs = pairs or write_pairs(folder / "pairs.jsonl", [wire.pair_to_json(pair(*one)) for one in enumerate(NAMES)])
    told = {
        **RECIPE,
        "model": {"base": str(place / "base")},
        "data": {"path": str(pairs), **changes.pop("data", {})},
        "training": {**RECIPE["training"], "max_steps": 6, "save_steps": 1, "save_total_limit": 9, **changes},
        "adapter": {**RECIPE["adapter"], "lora_dropout": 0.1},
        "preference": preference or {},
    }
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(told))
    return load_recipe(path)


@pytest.fixture(scope="module")
def finished(place, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("preferred")
    return train(recipe_of(place, folder), folder / "run")


def test_the_margin_begins_at_nought_and_grows(finished):
    told = Run(finished).metrics()
    assert told[0]["loss"] == pytest.approx(math.log(2), abs=0.05)  # dropout alone makes it another policy
    assert abs(told[0]["preference/margin"]) < 0.1
    assert told[-1]["preference/margin"] > 0.3
    assert told[-1]["preference/preferred"] > told[-1]["preference/refused"]
    assert told[-1]["loss"] < told[0]["loss"]


def test_the_policy_before_is_computed_in_the_precision_of_the_policy(place, tmp_path):
    told = recipe_of(place, tmp_path, bf16=True, max_steps=1, learning_rate=1e-30)
    plain = replace(told, adapter=replace(told.adapter, settings=replace(told.adapter.settings, lora_dropout=0.0)))
    (first, *_) = Run(train(plain, tmp_path / "run")).metrics()
    assert abs(first["preference/margin"]) < 1e-4


def test_a_finished_run_is_not_said_to_have_bad_rows(place, finished, tmp_path):
    run = shutil.copytree(finished, tmp_path / "run")
    with pytest.raises(SettingsError, match="holds a run already"):
        train(recipe_of(place, tmp_path), run)


def test_a_run_that_was_killed_goes_on_to_the_same_weights(place, finished, tmp_path):
    run = shutil.copytree(finished, tmp_path / "run")
    for name in ("checkpoint-4", "checkpoint-5"):
        shutil.rmtree(run / name)
    (run / "checkpoint-6" / "complete.json").unlink()  # as if a kill had come while it was written
    (run / "adapter_model.safetensors").unlink()
    (run / "adapter_config.json").unlink()
    shutil.copy(finished.parent / "pairs.jsonl", tmp_path)
    told = recipe_of(place, finished.parent)
    assert same(weights(train(told, run, resume=True)), weights(finished))
    assert Run(run).metrics()[-1]["loss"] == Run(finished).metrics()[-1]["loss"]


@pytest.mark.parametrize("preference", [{"by_length": True, "beta": 2.0}, {"likelihood": 1.0}])
def test_other_losses_move_the_policy_too(place, tmp_path, preference):
    told = Run(train(recipe_of(place, tmp_path, preference=preference), tmp_path / "run")).metrics()
    assert told[-1]["loss"] < told[0]["loss"]
    assert told[-1]["preference/margin"] > told[0]["preference/margin"]


def inputs(scale: float = 0.5) -> tuple[torch.Tensor, torch.Tensor, dict]:
    """Two pairs of rows of up to three trained tokens, and their losses and weights in reading order."""
    weights_BT = torch.tensor([[0, 0, 1, 1.0], [0, 0, 1, 0], [0, 1, 1, 1], [0, 0, 1, 1]])
    losses_N = torch.tensor([0.5, 0.7, 1.0, 0.2, 0.3, 0.4, 0.9, 0.8])
    before_B = torch.tensor([-1.0, -0.5, -1.0, -2.0])
    batch = {"ids_BT": torch.ones(4, 4, dtype=torch.long), "weights_BT": weights_BT, "before_B": before_B}
    return losses_N, torch.ones(8), {**batch, "scale": scale}


def softplus(value: float) -> float:
    return math.log1p(math.exp(value))


def test_the_loss_of_a_batch_is_what_its_pairs_give_by_hand():
    # gains: -1.2 + 1, -1.0 + 0.5 | -0.9 + 1, -1.7 + 2
    loss, measured = preferring.objective(PreferenceSettings(beta=2.0)).loss(*inputs())
    assert loss.item() == pytest.approx(0.5 * (softplus(-2 * 0.3) + softplus(2 * 0.2)), abs=1e-6)
    sums, counts = measured.unbind(1)
    assert sums.tolist() == pytest.approx([2 * 0.3 - 2 * 0.2, 1.0, -0.1, -0.2], abs=1e-6)
    assert counts.tolist() == [2.0] * 4
    by_length, _ = preferring.objective(PreferenceSettings(beta=2.0, by_length=True)).loss(*inputs())
    margins = 2 * (-0.2 / 2 + 0.5), 2 * (0.1 / 3 - 0.3 / 2)
    assert by_length.item() == pytest.approx(0.5 * sum(softplus(-one) for one in margins), abs=1e-6)
    likely, _ = preferring.objective(PreferenceSettings(beta=2.0, likelihood=3.0)).loss(*inputs())
    assert likely.item() == pytest.approx(loss.item() + 0.5 * 3 * (1.2 / 2 + 0.9 / 3), abs=1e-6)


def test_a_batch_that_fills_up_a_step_counts_for_nothing():
    losses_N, _, batch = inputs(scale=0.0)
    loss, measured = preferring.objective(PreferenceSettings()).loss(
        losses_N[:0], losses_N[:0], {**batch, "weights_BT": torch.zeros(4, 4)}
    )
    assert loss.item() == 0
    assert not measured.any()


def test_pairs_of_which_a_reply_is_too_long_are_left_out_whole(place, tmp_path, capsys):
    long = Message("assistant", "user " * 200, speaker="executor")
    rows = [wire.pair_to_json(pair(number, name)) for number, name in enumerate(NAMES)]
    rows.append(wire.pair_to_json(pair(99, "Tor", long)))
    data = write_pairs(tmp_path / "pairs.jsonl", rows)
    train(recipe_of(place, tmp_path, data, data={"max_length": 200, "on_long": "skip"}, max_steps=1), tmp_path / "run")
    assert f"{2 * len(NAMES)} examples" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("row", "why"),
    [
        ({"input": {"messages": []}}, "input.messages is empty"),
        ({"preferred_output": []}, "preferred_output holds 0 messages"),
        ({"non_preferred_output": [{"role": "user", "content": "no"}]}, "is of role 'user'"),
        ({"non_preferred_output": [{"role": "assistant", "content": "yes"}]}, "both replies are the same"),
        ({"chosen": []}, "unknown key 'chosen'"),
    ],
)
def test_a_row_that_is_no_pair_is_refused_with_its_place(place, tmp_path, row, why):
    good = {
        "input": {"messages": [{"role": "user", "content": "Is it?"}]},
        "preferred_output": [{"role": "assistant", "content": "yes"}],
        "non_preferred_output": [{"role": "assistant", "content": "no"}],
    }
    data = write_pairs(tmp_path / "pairs.jsonl", [good, good | row])
    with pytest.raises(DataError, match=f"line 2.*{why}|:2.*{why}"):
        train(recipe_of(place, tmp_path, data), tmp_path / "run")


def test_a_pair_is_read_back_as_it_was_written():
    told = pair(0, "Ro")
    found = wire.pair_from_json(json.loads(wire.dumps(wire.pair_to_json(told))))
    assert [one.messages for one in found] == [one.messages for one in told]
    assert found[0].task.tools == told[0].task.tools


def test_a_refused_reply_may_call_what_is_not_there():
    wrong = Message("assistant", tool_calls=(ToolCall("red", {}, id="1"),))
    row = wire.pair_to_json(pair(0, "Ro", wrong))
    assert wire.pair_from_json(row)[1].messages[-1].tool_calls[0].name == "red"
    row["preferred_output"], row["non_preferred_output"] = row["non_preferred_output"], row["preferred_output"]
    with pytest.raises(DataError, match="'red', which is not among"):
        wire.pair_from_json(row)


def test_what_cannot_be_pairs_is_refused_by_name(place, tmp_path):
    for data, why in (
        ({"benchmark": "toolworld"}, r"data\.benchmark"),
        ({"path": "x.jsonl", "importer": "glaive"}, r"data\.importer"),
        ({"path": "x.jsonl", "validation": 0.1}, r"data\.validation"),
        ({"path": "x.jsonl", "group": 2}, r"data\.group"),
    ):
        with pytest.raises(SettingsError, match=why):
            read_recipe({"data": data, "preference": {}})
    with pytest.raises(SettingsError, match=r"preference\.beta"):
        read_recipe({"data": {"path": "x.jsonl"}, "preference": {"beta": 0}})
    with pytest.raises(NotFound):
        train(recipe_of(place, tmp_path, tmp_path / "nowhere.jsonl"), tmp_path / "run")
