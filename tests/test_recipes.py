"""Every recipe in recipes/ trains: two steps of it on a small random model."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import tiny
import yaml

from rolecraft import bases, cast, stages, store
from rolecraft.importers import openai
from rolecraft.recipe import DataSettings, Recipe, load_recipe
from rolecraft.train import find_recipe, train
from rolecraft.train.stages import run as run_stages

FOLDER = Path(__file__).parents[1] / "recipes"
GLAIVE = Path(__file__).parents[2] / "shared/evaldata/glaive_demo/glaive_toolcall_en_demo.json"
FAMILIES = {"llama": "llama3_tokenizer", "qwen2": "hermes_tokenizer", "phi3": "phi3_tokenizer"}


def small_base(tmp_path: Path, tokenizer, architecture: str = "llama") -> str:
    folder = tmp_path / "base"
    tiny.model(len(tokenizer), architecture, max_position_embeddings=4096).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


def two_steps(recipe: Recipe, base: str, run: Path) -> list[dict]:
    """Train two steps in one process and return what was logged; everything else is the recipe's."""
    training = replace(recipe.training, max_steps=2, processes=1, logging_steps=1)
    train(replace(recipe, model=replace(recipe.model, base=base), training=training), run)
    return store.Run(run).metrics()


STAGED = [path for path in sorted(FOLDER.glob("*.yaml")) if stages.are_in(path)]


def small_data(recipe: Recipe, tmp_path: Path) -> DataSettings:
    """Return the recipe's data, few of them; the tokenizer made for tests cuts words smaller than a real one."""
    plain = replace(recipe.data, sources=(), without=(), validation=0.0)
    data = replace(plain, size=14) if plain.benchmark else replace(plain, path=openai_file(tmp_path))
    return replace(data, max_length=2000)


@pytest.mark.parametrize("path", STAGED, ids=lambda path: path.stem)
def test_each_stage_of_a_recipe_trains_two_steps(path, tmp_path, nano_tokenizer):
    base, found = small_base(tmp_path, nano_tokenizer), []
    for stage in stages.load(path):
        one = replace(stage.recipe.training, max_steps=2, logging_steps=1, eval_steps=0, early_stopping_patience=0)
        data, told = small_data(stage.recipe, tmp_path), replace(stage.recipe.model, base=base)
        few = stage.recipe.experience and replace(
            stage.recipe.experience, tasks=3, max_turns=2, max_tokens=8, update="supervised", tries=1
        )  # a base that knows nothing takes no action that could be preferred
        less = {"tasks": 2, "group": 2, "max_turns": 2, "max_tokens": 8, "validation": 2, "minibatches": 1}
        tried = replace(stage.recipe.reinforcement, **less) if stage.recipe.reinforcement else None
        small = replace(stage.recipe, model=told, data=data, training=one, experience=few, reinforcement=tried)
        small = replace(small, preference=None)
        found.append(replace(stage, recipe=small))
    run_stages(found, tmp_path / "run", played=stages.cast(path, found))
    for stage in found:
        assert [entry["step"] for entry in store.Run(tmp_path / "run" / stage.name).metrics()] == [1, 2]
    assert bases.is_adapter(tmp_path / "run") or cast.read(tmp_path / "run")


@pytest.mark.parametrize("path", sorted({*FOLDER.glob("*.yaml")} - {*STAGED}), ids=lambda path: path.stem)
def test_a_recipe_trains_two_steps(path, tmp_path, nano_tokenizer):
    recipe = load_recipe(path)
    data = small_data(recipe, tmp_path)
    base = small_base(tmp_path, nano_tokenizer)
    if told := recipe.on_policy:
        pair = replace(told, teacher=base, teacher_adapter=None, rollouts=4, max_turns=2, max_tokens=8, validation=2)
        recipe = replace(recipe, on_policy=replace(pair, depth_start=1))
    logged = two_steps(replace(recipe, data=data), base, tmp_path / "run")
    assert [entry["step"] for entry in logged] == [1, 2]
    assert bases.is_adapter(tmp_path / "run")


def openai_file(tmp_path: Path) -> str:
    row = json.loads(json.dumps(openai.EXAMPLE))
    for message in row["messages"]:
        message.pop("speaker", None)
    (tmp_path / "data.jsonl").write_text(json.dumps(row) + "\n")
    return str(tmp_path / "data.jsonl")


@pytest.mark.parametrize("architecture", FAMILIES)
@pytest.mark.parametrize("name", ["lora", "mor"])
def test_an_adapter_trains_each_architecture_on_glaive_conversations(name, architecture, tmp_path, request):
    if not GLAIVE.exists():
        pytest.skip(f"needs {GLAIVE.name}, which is not part of the project")
    few = tmp_path / "few.json"
    few.write_text(json.dumps(json.loads(GLAIVE.read_text())[:10]))
    recipe = load_recipe(find_recipe(name), [f"data.path={few}", "data.importer=glaive"])
    base = small_base(tmp_path, request.getfixturevalue(FAMILIES[architecture]), architecture)
    logged = two_steps(recipe, base, tmp_path / "run")
    assert len(logged) == 2
    labels = (tmp_path / "run" / "labels.txt").read_text()
    assert ("executor" if name == "mor" else "assistant") in labels
    assert "x1" in labels


@pytest.mark.slow
@pytest.mark.parametrize("architecture", FAMILIES)
def test_all_glaive_conversations_tune_a_mixture_for_an_epoch(architecture, tmp_path, request):
    if not GLAIVE.exists():
        pytest.skip(f"needs {GLAIVE.name}, which is not part of the project")
    base = small_base(tmp_path, request.getfixturevalue(FAMILIES[architecture]), architecture)
    flags = [f"model.base={base}", f"data.path={GLAIVE}", "data.importer=glaive"]
    flags += ["training.num_train_epochs=1", "training.logging_steps=1", "training.learning_rate=1e-2"]
    recipe = load_recipe(find_recipe("mor"), flags)
    train(recipe, tmp_path / "run")
    logged = store.Run(tmp_path / "run").metrics()
    rows = len(json.loads(GLAIVE.read_text()))
    steps = -(-rows // (recipe.training.per_device_train_batch_size * recipe.training.gradient_accumulation_steps))
    assert [entry["step"] for entry in logged] == list(range(1, steps + 1))
    for role in ("reasoner", "executor", "summarizer"):
        losses = [entry[f"loss/{role}"] for entry in logged if f"loss/{role}" in entry]
        assert losses[-1] < losses[0], role
        assert any(f"balance/{role}/late" in entry for entry in logged)
    print(architecture, rows, "conversations,", steps, "steps, loss", logged[0]["loss"], "to", logged[-1]["loss"])


def test_a_recipe_says_where_its_values_come_from():
    for path in FOLDER.glob("*.yaml"):
        lines = path.read_text().splitlines()
        assert lines[0].startswith("# "), path
        assert yaml.safe_load("\n".join(lines)), path


def test_the_recipes_of_the_quickstart_use_both_cores():
    assert {load_recipe(FOLDER / f"{name}.yaml").training.processes for name in ("quickstart", "long")} == {2}
