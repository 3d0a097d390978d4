"""Full tuning end to end on a tiny random model with tied embeddings: a whole model comes out, and is played as one."""

from __future__ import annotations

import json
import shutil
import signal
from pathlib import Path

import pytest
import tiny
import torch
import yaml
from safetensors.torch import load_file, save_file
from test_train import LONG, RECIPE, interrupt_at, same, started, trajectory, write_data
from transformers import AutoModelForCausalLM, AutoTokenizer
from verbs import call

from rolecraft import contract, engine, model, recipe, team, train
from rolecraft.errors import ContractError, Interrupted, NotFound, SettingsError
from rolecraft.types import Message

IDS = torch.tensor([[3, 5, 7]])


@pytest.fixture(scope="module")
def place(tmp_path_factory, nano_tokenizer) -> Path:
    """A folder with a tiny base in bfloat16 and a data file."""
    folder = tmp_path_factory.mktemp("full")
    made = tiny.model(len(nano_tokenizer), hidden_size=16, num_hidden_layers=1, tie_word_embeddings=True)
    made.to(torch.bfloat16).save_pretrained(folder / "base")
    nano_tokenizer.save_pretrained(folder / "base")
    write_data(folder / "data.jsonl", [trajectory(number, f"Ro{number}") for number in range(6)])
    return folder


def write_recipe(place: Path, path: Path, adapter: dict | None = None, **training: object) -> Path:
    told = {
        **RECIPE,
        "model": {"base": str(place / "base"), "dtype": "bfloat16"},
        "data": {"path": str(place / "data.jsonl")},
        "adapter": {"name": "full", **(adapter or {})},
        "training": {**RECIPE["training"], "learning_rate": 1e-3, **training},
    }
    path.write_text(yaml.safe_dump(told))
    return path


@pytest.fixture(scope="module")
def finished(place, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("finished")
    return train.launch(write_recipe(place, folder / "recipe.yaml", save_steps=2), folder / "run")


@pytest.fixture
def copied(finished, tmp_path) -> Path:
    return shutil.copytree(finished, tmp_path / "copied")


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


def write(folder: Path, tensors: dict[str, torch.Tensor]) -> None:
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def logits(plain) -> torch.Tensor:
    with torch.inference_mode():
        return plain(IDS).logits.float()


def test_a_finished_run_is_a_whole_model_with_its_papers(finished):
    names = {path.name for path in finished.iterdir()}
    assert {"config.json", "generation_config.json", "model.safetensors", "tokenizer.json", "contract.json"} <= names
    assert {"chat_template.jinja", "README.md", "settings.yaml", "checkpoint-3"} <= names
    assert "adapter_config.json" not in names
    assert not [name for name in names if name.endswith(".partial")]


def test_plain_transformers_loads_it_as_it_was_trained_in_float32(place, finished):
    plain = AutoModelForCausalLM.from_pretrained(finished)
    told = json.loads((finished / "config.json").read_text())
    assert (told["dtype"], told["use_cache"], "quantization_config" in told) == ("float32", True, False)
    assert plain.get_output_embeddings().weight is plain.get_input_embeddings().weight
    base = AutoModelForCausalLM.from_pretrained(place / "base", dtype=torch.float32)
    assert not torch.equal(logits(plain), logits(base))
    assert all(
        not torch.equal(one, two)
        for (_, one), (_, two) in zip(plain.named_parameters(), base.named_parameters(), strict=True)
    )


def test_it_is_the_same_model_as_an_adapter_and_as_a_base(place, finished):
    plain = logits(AutoModelForCausalLM.from_pretrained(finished))
    for loaded in (
        model.load(str(place / "base"), adapter=finished),
        model.load(str(place / "base"), adapter=finished, merge=True),
        model.load(str(finished), adapter=finished),
        model.load(str(finished)),
    ):
        assert torch.equal(logits(loaded.model), plain)
    assert model.load(str(place / "base"), adapter=finished).contract.team == "mor"


def test_it_plays_where_its_base_is_not(finished, capsys):
    made = contract.read(finished)
    shutil.move(made.base, f"{made.base}.away")
    try:
        code, out, err = call(capsys, "run", "Hello.", "--adapter", str(finished), "--max-tokens", "4")
        assert code != 2, err  # cut short, it gave no answer
        assert "was not tuned" not in err
        assert "reasoner" in out
    finally:
        shutil.move(f"{made.base}.away", made.base)


def test_a_base_of_another_shape_is_refused(finished, nano_tokenizer, tmp_path):
    tiny.model(len(nano_tokenizer)).save_pretrained(tmp_path / "other")
    with pytest.raises(ContractError, match="whose layers have other shapes"):
        model.load(str(tmp_path / "other"), adapter=finished)


def test_the_engine_plays_it_by_the_fused_path_and_packs_it(place, finished):
    for settings in (engine.Settings(max_context=128), engine.Settings(max_context=128, weights="int8")):
        with engine.open_local(str(place / "base"), finished, settings=settings) as local:
            assert local._runner.fused
            assert any(name.startswith("int8") for name in local.copies) == (settings.weights == "int8")


def test_its_tokenizer_prompts_as_the_first_role_sees_it(place, finished):
    saved = AutoTokenizer.from_pretrained(finished)
    text = saved.apply_chat_template([{"role": "user", "content": "Hi."}], tokenize=False, add_generation_prompt=True)
    loaded = model.load(str(place / "base"), adapter=finished)
    seen = team.find("mor", instructions=False).role("reasoner").view((Message("user", "Hi."),))
    assert text == loaded.renderer.text(loaded.renderer.prompt(seen, (), "reasoner"))


def test_only_the_chosen_parameters_are_trained(place, tmp_path):
    chosen = {"unfrozen_parameters": r"model\.layers\.0\.mlp\..*"}
    run = train.launch(write_recipe(place, tmp_path / "recipe.yaml", chosen, max_steps=1), tmp_path / "run")
    before = {name: one.float() for name, one in load_file(place / "base" / "model.safetensors").items()}
    changed = {name for name, one in weights(run).items() if not torch.equal(one, before[name])}
    assert changed == {f"model.layers.0.mlp.{name}_proj.weight" for name in ("gate", "up", "down")}


@pytest.mark.parametrize("pattern", ["lm_head.weight", "layers"])
def test_a_pattern_that_matches_no_name_is_refused_with_names(place, tmp_path, pattern):
    told = write_recipe(place, tmp_path / "recipe.yaml", {"unfrozen_parameters": pattern})
    with pytest.raises(SettingsError, match=r"matches none of the 11 parameters' whole names.*model\.embed_tokens"):
        train.launch(told, tmp_path / "run")


# ---- broken runs


def test_a_run_killed_while_it_writes_resumes_to_the_same_weights(place, tmp_path):
    told, run = write_recipe(place, tmp_path / "recipe.yaml", **LONG), tmp_path / "run"
    unbroken = weights(train.launch(told, tmp_path / "unbroken"))
    child = started(told, run, until=4, flags=[])
    child.send_signal(signal.SIGKILL)
    _, errors = child.communicate()
    assert child.returncode == -signal.SIGKILL, f"the run ended before it could be killed: {errors!r}"
    assert not (run / "config.json").exists()
    assert same(weights(train.launch(told, run, resume=True)), unbroken)


def test_ctrl_c_leaves_a_whole_checkpoint_that_plays(place, tmp_path):
    told, run = write_recipe(place, tmp_path / "recipe.yaml", **LONG), tmp_path / "run"
    interrupt_at(run, 2)
    with pytest.raises(Interrupted):
        train.launch(told, run)
    newest = max(run.glob("checkpoint-*"), key=lambda path: int(path.name.split("-")[1]))
    assert model.load(str(place / "base"), adapter=newest).contract is not None


def test_resuming_a_finished_run_changes_nothing(finished):
    before = weights(finished)
    assert same(weights(train.launch(finished.parent / "recipe.yaml", finished, resume=True)), before)


def test_a_folder_that_holds_a_whole_model_is_not_overwritten(finished, copied):
    for checkpoint in copied.glob("checkpoint-*"):
        shutil.rmtree(checkpoint)
    with pytest.raises(SettingsError, match="holds a run already"):
        train.launch(finished.parent / "recipe.yaml", copied)


# ---- folders that do not fit


KEY = "model.layers.0.mlp.up_proj.weight"


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (lambda one: {key: value for key, value in one.items() if key != KEY}, rf"'{KEY}' is missing, of shape"),
        (lambda one: {**one, KEY: one[KEY][:8].clone()}, r"has the shape \[8, 16\], and \[64, 16\] is wanted"),
        (lambda one: {**one, "x.y": torch.zeros(2)}, r"'x\.y' is of no part of the model that config\.json tells"),
        (lambda one: {**one, KEY: one[KEY] / 0}, "numbers that are NaN or infinite"),
    ],
)
def test_weights_that_do_not_fit_are_refused_by_key(place, finished, copied, damage, told):
    write(copied, damage(weights(copied)))
    with pytest.raises(ContractError, match=told):
        model.load(str(place / "base"), adapter=copied)
    for checkpoint in copied.glob("checkpoint-*"):
        write(checkpoint, damage(weights(checkpoint)))
        mark = checkpoint / "complete.json"
        facts = json.loads(mark.read_text())
        facts["files"]["model.safetensors"] = (checkpoint / "model.safetensors").stat().st_size
        mark.write_text(json.dumps(facts))
    with pytest.raises(ContractError, match=told):
        train.launch(finished.parent / "recipe.yaml", copied, resume=True)


def test_a_file_that_was_not_copied_to_its_end_is_told(place, copied):
    path = copied / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(ContractError, match="cannot be read"):
        model.load(str(place / "base"), adapter=copied)


def test_a_folder_without_weights_is_told(place, copied):
    (copied / "model.safetensors").unlink()
    with pytest.raises(ContractError, match="holds no weights"):
        model.load(str(place / "base"), adapter=copied)


def test_other_prompts_are_refused(place, copied):
    path = copied / "contract.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "golden": [1, 2]}))
    with pytest.raises(ContractError, match="prompts that came out otherwise"):
        model.load(str(place / "base"), adapter=copied)


def test_a_whole_model_without_its_contract_is_a_base(place, copied):
    (copied / "contract.json").unlink()
    with pytest.raises(NotFound, match=r"it is a whole model without contract\.json; give it as the base"):
        model.load(str(place / "base"), adapter=copied)
    assert model.load(str(copied)).adapter is None


# ---- what is told


def test_merging_writes_the_model_without_its_run(finished, tmp_path, capsys):
    out = tmp_path / "out"
    code, printed, _ = call(capsys, "merge", str(finished), str(out))
    assert code == 0
    assert "which was whole already, in bfloat16" in printed
    assert not (out / "contract.json").exists()
    plain = AutoModelForCausalLM.from_pretrained(out)
    assert plain.dtype == torch.bfloat16
    assert torch.allclose(logits(plain), logits(AutoModelForCausalLM.from_pretrained(finished)), atol=0.2)


def test_the_count_is_of_the_bases_own_parameters(place, tmp_path, capsys):
    told = write_recipe(place, tmp_path / "recipe.yaml", {"unfrozen_parameters": r".*mlp.*"})
    code, out, _ = call(capsys, "params", "--base", str(place / "base"), "--recipe", str(told))
    assert code == 0
    total = sum(one.numel() for one in load_file(place / "base" / "model.safetensors").values())
    assert f"{3 * 16 * 64:,} of the base's own {total:,} parameters are trained" in out


def test_the_card_says_how_a_whole_model_is_loaded(finished):
    text = (finished / "README.md").read_text()
    assert "library_name: transformers" in text
    assert f'AutoModelForCausalLM.from_pretrained("{finished}")' in text
    assert "peft import" not in text
    assert f"rolecraft merge {finished} OUT" in text


def test_memory_is_told_before_the_first_step(place, tmp_path, capsys):
    train.launch(write_recipe(place, tmp_path / "recipe.yaml", max_steps=1), tmp_path / "run")
    out, err = capsys.readouterr()
    assert "Writing model shards" not in err
    assert out.index("memory: up to about ") < out.index("step 1/1")
    assert "states of adamw_torch_fused" in out


def test_a_run_that_cannot_fit_is_refused_before_weights_are_loaded(tmp_path):
    config = tiny.model(64).config
    config.update({"hidden_size": 1 << 16, "intermediate_size": 1 << 18, "num_hidden_layers": 400})
    config.save_pretrained(tmp_path)
    with pytest.raises(SettingsError, match=r"needs at least [\d,]+ MiB .* this machine has [\d,]+: weights .*lora"):
        train.train(recipe.read_recipe({"model": {"base": str(tmp_path)}, "adapter": {"name": "full"}}), tmp_path / "r")
