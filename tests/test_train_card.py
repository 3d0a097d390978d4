"""The model card tells what the adapter is, in words and in the hub's front matter."""

from __future__ import annotations

import pytest
import yaml

from rolecraft.examples import Budget
from rolecraft.recipe import read_recipe
from rolecraft.train import card

FACTS = card.Facts(
    folder="runs/x",
    renderer="nano",
    speakers=("reasoner", "executor"),
    first="reasoner",
    trajectories=1200,
    examples=1100,
    dropped=3,
    budget={None: Budget(5000, 0), "reasoner": Budget(900, 800)},
    steps=70,
    step_size=12,
    trainable=147_840,
    losses={"loss": 0.25, "reasoner": 0.125},
    versions={"peft": "0.21.2"},
)


@pytest.fixture
def text() -> str:
    recipe = read_recipe({"team": {"preset": "mor"}, "data": {"path": "debts.jsonl"}, "adapter": {"r": 12}})
    return card.write(recipe, FACTS)


def test_the_front_matter_names_base_and_library(text):
    matter = yaml.safe_load(text.split("---\n")[1])
    assert (matter["base_model"], matter["library_name"], "tool-calling" in matter["tags"]) == ("nano", "peft", True)


@pytest.mark.parametrize(
    "told",
    ["`debts.jsonl`", "1,200 trajectories", "3 replies left out", "147,840", "0.125 (reasoner)", "r: 12", "`nano`"],
)
def test_the_card_tells_what_was_trained_on_what(text, told):
    assert told in text


def test_nothing_is_left_to_be_filled_in(text):
    assert "{" not in text.replace("{}", "")
    assert "More information" not in text


def test_a_benchmark_is_named_with_its_split_and_seed():
    recipe = read_recipe({"data": {"benchmark": "toolworld", "seed": 5}})
    assert "benchmark `toolworld`, split `train`, seed 5" in card.write(recipe, FACTS)


def test_a_method_of_our_own_is_imported_before_it_is_loaded(text):
    assert "import rolecraft.adapters" not in text
    recipe = read_recipe({"team": {"preset": "mor"}, "data": {"path": "debts.jsonl"}, "adapter": {"name": "mor"}})
    assert "import rolecraft.adapters.mor\nfrom peft import AutoPeftModelForCausalLM" in card.write(recipe, FACTS)
