"""What a base needs is worked out from its config."""

from __future__ import annotations

import io

import pytest
import tiny
from rich.console import Console

from rolecraft import recipe, tryout

LORA = recipe.load_recipe(recipe.find_recipe("lora"), ())


@pytest.mark.parametrize("architecture", ["llama", "qwen2", "phi3"])
def test_the_estimate_counts_the_weights_that_there_are(architecture):
    made = tiny.model(1000, architecture, hidden_size=256, intermediate_size=512)
    found = tryout.estimate(made.config, LORA)
    exact = sum(parameter.numel() for parameter in made.parameters())
    assert found["float32"]["weights"] == -(-exact * 4 // 2**20)
    assert found["bfloat16"]["weights"] == -(-exact * 2 // 2**20)


def test_tuning_needs_more_than_playing_and_a_longer_context_more_to_play():
    short, long = (
        tryout.estimate(tiny.model(1000, max_position_embeddings=tokens).config, LORA) for tokens in (64, 200_000)
    )
    assert long["play_tokens"] == 8192
    assert long["float32"]["play"] > short["float32"]["play"]
    assert short["float32"]["tune"] > short["float32"]["play"]


def test_every_copy_of_packed_weights_is_listed():
    found = tryout.examine("nano", "int8")
    kept = {"int8 for replies", "int8 for all"} & set(found["copies"])  # a probe says whether prompts have another
    assert len(kept) == 1
    assert "int8 for logits" in found["copies"]
    held = sum(found["copies"].values())
    assert held < 1.25 * tryout.examine("nano")["copies"]["float32 for all"]
    console = Console(record=True, width=200, file=io.StringIO())
    tryout.show(found, console)
    assert kept.pop() in console.export_text()
