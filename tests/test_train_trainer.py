"""Transformers' arguments, padded batches, and what the trainer adds to transformers' own."""

from __future__ import annotations

from dataclasses import fields

import pytest
import tiny
import torch
from test_recomputing import held_by_linear_layers
from transformers import TrainingArguments

from rolecraft import adapters
from rolecraft.adapters import lora
from rolecraft.errors import MissingExtra, SettingsError
from rolecraft.examples import Example
from rolecraft.recipe import TrainingSettings
from rolecraft.train.batches import Batch, Cut, Schedule
from rolecraft.train.rows import Rows
from rolecraft.train.trainer import RoleTrainer, arguments_for

EXAMPLES = (
    Example((7, 8, 9), (0.0, 1.0, 0.5), (None, "executor", "executor")),
    Example((5, 6), (0.0, 1.0), ("reasoner", "reasoner")),
)


def test_a_batch_is_padded_on_the_right_and_its_weights_are_shares():
    batch = Rows(EXAMPLES, ("reasoner", "executor"), pad_id=1, context=3)[Batch((0, 1), 0.4)]
    assert batch["ids_BT"].tolist() == [[7, 8, 9], [5, 6, 1]]
    torch.testing.assert_close(batch["weights_BT"], torch.tensor([[0.0, 0.4, 0.2], [0.0, 0.4, 0.0]]))
    assert batch["speakers_BT"].tolist() == [[-1, 1, 1], [0, 0, -1]]
    assert batch["tokens"] == 5


def test_widths_are_rounded_so_that_there_are_few_shapes():
    batch = Rows(EXAMPLES, ("reasoner", "executor"), pad_id=1)[Batch((0, 1), 0.4)]
    assert {name: tensor.shape[1] for name, tensor in batch.items() if name != "tokens"} == dict.fromkeys(
        ("ids_BT", "weights_BT", "speakers_BT"), 8
    )
    assert batch["ids_BT"][0].tolist() == [7, 8, 9, 1, 1, 1, 1, 1]


def test_a_row_that_only_fills_up_a_step_counts_nothing():
    batch = Rows(EXAMPLES, ("reasoner", "executor"), pad_id=1)[Batch((1,), 0.0)]
    assert not batch["weights_BT"].any()
    assert batch["tokens"] == 0


def test_training_settings_have_transformers_names():
    names = {field.name for field in fields(TrainingArguments)}
    callbacks = {"early_stopping_patience"}  # of its EarlyStoppingCallback
    assert {field.name for field in fields(TrainingSettings)} - names == {"processes", "extra", *callbacks}


def test_other_arguments_of_transformers_go_through(tmp_path):
    assert arguments_for(TrainingSettings(extra={"adam_beta2": 0.9}), tmp_path).adam_beta2 == 0.9


@pytest.mark.parametrize(
    ("extra", "told"),
    [
        ({"adam_beta3": 0.9}, "Did you mean 'adam_beta"),
        ({"learning_rate": 1.0}, "write it as training.learning_rate"),
        ({"eval_strategy": "steps"}, "use rolecraft eval"),
        ({"eval_steps": 5}, "write it as training.eval_steps"),
        ({"label_smoothing_factor": 0.1}, "cannot set 'label_smoothing_factor'"),
        ({"output_dir": "x"}, "cannot set 'output_dir'"),
    ],
)
def test_an_extra_that_would_do_harm_or_nothing_is_refused(tmp_path, extra, told):
    with pytest.raises(SettingsError, match=told):
        arguments_for(TrainingSettings(extra=extra), tmp_path)


def test_a_value_that_transformers_refuses_is_a_settings_error(tmp_path):
    with pytest.raises(SettingsError, match=r"training: .*sawtooth"):
        arguments_for(TrainingSettings(lr_scheduler_type="sawtooth"), tmp_path)


@pytest.mark.parametrize("name", ["wandb", "trackio"])
def test_a_reporter_that_is_not_installed_is_told_with_its_command(tmp_path, name, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda package: None)
    with pytest.raises(MissingExtra, match=rf"rolecraft\[{name}\]"):
        arguments_for(TrainingSettings(report_to=name), tmp_path)


def test_a_step_does_not_keep_what_is_cheap_to_compute_again(tmp_path):
    model = lora.attach(tiny.model(64), lora.Settings(r=4)).train()
    rows = Rows([Example((7,) * 256, (1.0,) * 256, ("executor",) * 256)], ("executor",), pad_id=0)
    arguments = arguments_for(TrainingSettings(max_steps=1, save_steps=0), tmp_path)
    schedule = Schedule([256], [256.0], Cut(1), 0)
    trainer = RoleTrainer(model, arguments, rows, schedule, adapters.find("lora"), ("executor",), [])
    held = held_by_linear_layers(model, "down_proj")
    losses_N, *_ = trainer.token_losses(model, rows[Batch((0,), 1.0)])
    assert losses_N.requires_grad
    assert [there() for there in held] == [None, None]
