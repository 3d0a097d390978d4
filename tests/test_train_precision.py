"""`bf16: auto` becomes true or false by what the machine is faster in, and stays what it was in a resumed run."""

from __future__ import annotations

import pytest
import torch
from test_train import place, recipe_of  # noqa: F401  # a fixture

from rolecraft import bfloat16
from rolecraft.errors import SettingsError
from rolecraft.recipe import TrainingSettings, recipe_to_dict
from rolecraft.settings import from_dict
from rolecraft.store import Run
from rolecraft.train import precision, train


def test_the_gain_is_a_ratio_of_two_times():
    assert 0.05 < bfloat16.gain(torch.device("cpu")) < 50


def test_what_is_said_outright_is_not_tried(place, tmp_path):  # noqa: F811
    for said in (True, False):
        recipe = recipe_of(place, tmp_path, bf16=said)
        assert precision.decide(recipe, tmp_path, resume=False) is recipe


def test_auto_is_decided_and_written_into_the_runs_settings(place, tmp_path, capsys):  # noqa: F811
    train(recipe_of(place, tmp_path, bf16="auto"), tmp_path / "run")
    said = "training.bf16 auto: True" in capsys.readouterr().out
    assert Run(tmp_path / "run").settings()["training"]["bf16"] is said


@pytest.mark.parametrize("decided", [True, False])
def test_a_resumed_run_keeps_what_was_decided(place, tmp_path, decided):  # noqa: F811
    run = Run(tmp_path / "run")
    run.write_settings(recipe_to_dict(recipe_of(place, tmp_path, bf16=decided)))
    auto = recipe_of(place, tmp_path, bf16="auto")
    assert precision.decide(auto, run.path, resume=True).training.bf16 is decided


def test_another_word_than_auto_is_refused():
    with pytest.raises(SettingsError, match=r"bf16 is 'often'"):
        from_dict(TrainingSettings, {"bf16": "often"}, "training")
