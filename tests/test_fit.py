"""An adapter that does not fit its base is refused by the key, the shape or the value that is wrong."""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path

import pytest
import tiny
import torch
from peft import LoraConfig, PromptTuningConfig, get_peft_model
from safetensors.torch import load_file, save_file

from rolecraft import adapters, cli, contract, matching, model
from rolecraft.adapters import lora, mor
from rolecraft.errors import ContractError, RolecraftError, SettingsError

pytestmark = pytest.mark.filterwarnings(
    "ignore:.is_gradient_checkpointing:FutureWarning"
)  # peft 0.21 still asks for it

KEY = "base_model.model.model.layers.0.self_attn.q_proj."
KINDS = ("lora", "mor")
MATRIX = {"lora": "lora_A.weight", "mor": "mor_A"}
SETTINGS = {
    "lora": lora.Settings(r=4, target_modules=("q_proj", "v_proj")),
    "mor": mor.Settings(
        roles={"a": 2, "b": 3}, top_k={"a": 1, "b": 1}, r=4, context="a", target_modules=("q_proj", "v_proj")
    ),
}


@pytest.fixture(scope="module")
def base(nano_tokenizer, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("fit")
    tiny.model(len(nano_tokenizer)).save_pretrained(path)
    nano_tokenizer.save_pretrained(path)
    return path


@pytest.fixture(scope="module")
def saved(base, tmp_path_factory) -> Path:
    """One adapter of each kind, with its contract."""
    path = tmp_path_factory.mktemp("adapters")
    for kind in KINDS:
        loaded, method = model.load(str(base)), adapters.find(kind)
        made = model.make_contract(loaded, gate=method.gate(SETTINGS[kind]))
        method.attach(loaded.model, SETTINGS[kind]).save_pretrained(path / kind)
        contract.save(made, path / kind)
    return path


@pytest.fixture(params=KINDS)
def adapter(request, saved, tmp_path) -> Path:
    return shutil.copytree(saved / request.param, tmp_path / request.param)


def weights(adapter: Path) -> dict[str, torch.Tensor]:
    return load_file(adapter / "adapter_model.safetensors")


def write(adapter: Path, tensors: dict[str, torch.Tensor]) -> None:
    save_file({key: one.contiguous() for key, one in tensors.items()}, adapter / "adapter_model.safetensors")


def configure(adapter: Path, **changes) -> None:
    path = adapter / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def refusal(base: Path, adapter: Path, merge: bool = False) -> str:
    """Return the line with which the adapter is refused, with not a single warning before."""
    with pytest.raises(ContractError) as caught:
        model.load(str(base), adapter=adapter, merge=merge)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def first(adapter: Path) -> str:
    return KEY + next(key for key in (MATRIX[adapter.name], *weights(adapter)) if KEY + key in weights(adapter))


@pytest.mark.parametrize(
    "content",
    [b"", b"\xff" * 99, b"[1, 2]", b'{"a": ' * 100_000, b'{"a": ' + b"9" * 5000 + b"}"],
    ids=["empty", "bytes", "list", "deep", "long"],
)
@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "tokenizer_config.json", "model.safetensors"])
def test_a_base_of_garbage_is_told_in_a_line(base, tmp_path, name, content):
    copied = shutil.copytree(base, tmp_path / "base")
    (copied / name).write_bytes(content)
    part = {"config.json": "the config of", "model.safetensors": "does not load as a causal language model"}
    with pytest.raises(RolecraftError, match=part.get(name, "has no tokenizer that loads")) as caught:
        model.load(str(copied))
    assert str(copied) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_one_that_fits_is_loaded(base, adapter):
    assert model.load(str(base), adapter=adapter).adapter == adapter


def test_a_missing_key_is_named(base, adapter):
    tensors = weights(adapter)
    key = sorted(tensors)[0]
    shape = list(tensors.pop(key).shape)
    write(adapter, tensors)
    assert (
        f"adapter_model.safetensors does not fit the model: {key!r} is missing, of shape {shape}; restore"
        in refusal(base, adapter)
    )


def test_an_unexpected_key_is_named(base, adapter):
    tensors = weights(adapter)
    write(adapter, {**tensors, "base_model.model.model.layers.7.mlp.gate_proj.lora_A.weight": torch.zeros(4, 32)})
    assert "'base_model.model.model.layers.7.mlp.gate_proj.lora_A.weight' is of no part" in refusal(base, adapter)


def test_the_bases_own_weights_are_not_written_over(base, adapter):
    key = KEY + "base_layer.weight"
    write(adapter, {**weights(adapter), key: torch.zeros(32, 32)})
    assert f"{key!r} is of no part" in refusal(base, adapter)


def test_another_shape_is_named_with_the_one_that_is_wanted(base, adapter):
    tensors = weights(adapter)
    key = max(tensors, key=lambda key: tensors[key].dim())
    shape = list(tensors[key].shape)
    write(adapter, {**tensors, key: torch.cat([tensors[key]] * 2)})
    told = refusal(base, adapter)
    assert f"{key!r} has the shape {[2 * shape[0], *shape[1:]]}, and {shape} is wanted" in told


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_numbers_that_are_none_are_told(base, adapter, value, dtype):
    tensors = {key: one.to(dtype) for key, one in weights(adapter).items()}
    key = max(tensors, key=lambda key: tensors[key].numel())
    tensors[key].view(-1)[3] = value
    write(adapter, tensors)
    assert f"{key!r} holds 1 of {tensors[key].numel()} numbers that are NaN or infinite" in refusal(base, adapter)


def test_whole_numbers_are_no_weights(base, adapter):
    tensors = weights(adapter)
    key = sorted(tensors)[0]
    write(adapter, {**tensors, key: tensors[key].to(torch.int32)})
    assert f"{key!r} holds torch.int32, and torch.float32 is wanted" in refusal(base, adapter)


def test_a_config_that_names_fewer_layers_than_the_file_holds_is_refused(base, adapter):
    configure(adapter, target_modules=["q_proj"])
    told = refusal(base, adapter)
    assert "layers.0.self_attn.v_proj" in told
    assert "more keys are of no part that adapter_config.json asks for on this base" in told


def test_a_config_that_names_more_layers_is_refused(base, adapter):
    configure(adapter, target_modules=["q_proj", "v_proj", "k_proj"])
    assert "layers.0.self_attn.k_proj" in refusal(base, adapter)


def test_a_config_of_another_rank_is_refused(base, adapter):
    configure(adapter, r=2)
    assert "has the shape" in refusal(base, adapter)


def test_no_rank_takes_memory_before_it_is_refused(base, adapter):
    configure(adapter, r=1 << 40)
    assert "is wanted" in refusal(base, adapter)


def test_a_mixture_of_other_roles_is_refused(base, saved, tmp_path):
    adapter = shutil.copytree(saved / "mor", tmp_path / "mor")
    configure(adapter, roles=[["a", 2], ["b", 2]])
    assert "is wanted" in refusal(base, adapter)


def test_an_adapter_without_weights_is_told(base, adapter):
    (adapter / "adapter_model.safetensors").unlink()
    assert "holds no weights (adapter_model.safetensors or adapter_model.bin)" in refusal(base, adapter)


@pytest.mark.parametrize("cut", [0, 3, 8, 40, -5])
def test_a_file_that_was_not_copied_to_its_end_is_told(base, adapter, cut):
    path = adapter / "adapter_model.safetensors"
    path.write_bytes(path.read_bytes()[:cut])
    assert "adapter_model.safetensors cannot be read (" in refusal(base, adapter)


def test_garbage_for_weights_is_told(base, adapter):
    (adapter / "adapter_model.safetensors").write_bytes(b"\xff" * 999)
    assert "adapter_model.safetensors cannot be read (" in refusal(base, adapter)
    (adapter / "adapter_model.safetensors").unlink()
    (adapter / "adapter_model.bin").write_bytes(b"\xff" * 999)
    assert "adapter_model.bin cannot be read (" in refusal(base, adapter)
    torch.save([1, 2], adapter / "adapter_model.bin")
    assert "adapter_model.bin holds other things than tensors by name" in refusal(base, adapter)


def test_weights_kept_by_pickle_are_checked_too(base, adapter):
    tensors = weights(adapter)
    (adapter / "adapter_model.safetensors").unlink()
    torch.save(tensors, adapter / "adapter_model.bin")
    model.load(str(base), adapter=adapter)
    tensors.pop(sorted(tensors)[0])
    torch.save(tensors, adapter / "adapter_model.bin")
    assert "is missing" in refusal(base, adapter)


def test_a_merge_checks_first(base, saved, tmp_path):
    adapter = shutil.copytree(saved / "lora", tmp_path / "lora")
    tensors = weights(adapter)
    tensors.pop(sorted(tensors)[0])
    write(adapter, tensors)
    assert "is missing" in refusal(base, adapter, merge=True)


def test_a_layer_that_was_trained_in_full_is_asked_for(base, tmp_path):
    loaded = model.load(str(base))
    tuned = get_peft_model(loaded.model, LoraConfig(target_modules=["q_proj"], modules_to_save=["lm_head"]))
    tuned.save_pretrained(tmp_path)
    assert model.load(str(base), adapter=tmp_path, renderer="nano").adapter == tmp_path
    tensors = weights(tmp_path)
    tensors.pop("base_model.model.lm_head.weight")
    write(tmp_path, tensors)
    with pytest.raises(ContractError, match=r"'base_model\.model\.lm_head\.weight' is missing"):
        model.load(str(base), adapter=tmp_path, renderer="nano")


def test_learned_prompts_are_checked_too(base, tmp_path):
    loaded = model.load(str(base))
    get_peft_model(loaded.model, PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=3)).save_pretrained(
        tmp_path
    )
    assert model.load(str(base), adapter=tmp_path, renderer="nano").adapter == tmp_path
    configure(tmp_path, num_virtual_tokens=4)
    with pytest.raises(ContractError, match=r"'prompt_embeddings' has the shape \[3, 32\], and \[4, 32\] is wanted"):
        model.load(str(base), adapter=tmp_path, renderer="nano")


@pytest.mark.parametrize("verb", ["run hi", "chat", "eval --limit 1", "serve --port 0 --no-base"])
def test_every_verb_that_plays_refuses_it_in_a_line(base, saved, tmp_path, capsys, monkeypatch, verb):
    adapter = shutil.copytree(saved / "lora", tmp_path / "lora")
    tensors = weights(adapter)
    tensors.pop(KEY + "lora_A.weight")
    write(adapter, tensors)
    monkeypatch.chdir(tmp_path)
    assert cli.main([*verb.split(), "--base", str(base), "--adapter", str(adapter)]) == 2
    told = capsys.readouterr().err
    assert f"'{KEY}lora_A.weight' is missing, of shape [4, 32]" in told
    assert "Traceback" not in told


BOMB = r"(\w+\.?)*!"


def test_a_pattern_that_never_ends_is_refused_in_an_adapters_config(base, adapter, monkeypatch):
    monkeypatch.setattr(matching, "SECONDS", 0.5)
    configure(adapter, target_modules=BOMB)
    told = refusal(base, adapter)
    assert "adapter_config.json: target_modules is '(\\\\w+\\\\.?)*!', which takes more than 0.5 s" in told


@pytest.mark.parametrize("kind", KINDS)
def test_a_pattern_that_never_ends_is_refused_in_a_recipe(base, kind, monkeypatch):
    monkeypatch.setattr(matching, "SECONDS", 0.5)
    method = adapters.find(kind)
    with pytest.raises(SettingsError, match=r"adapter\.target_modules is .* takes more than 0\.5 s to match the names"):
        method.attach(model.load(str(base)).model, method.Settings(target_modules=BOMB))


def test_a_pattern_is_matched_within_its_time(monkeypatch):
    monkeypatch.setattr(matching, "SECONDS", 0.5)
    began = time.monotonic()
    with pytest.raises(SettingsError, match=r"takes more than 0\.5 s"):
        matching.require_quick({"x": BOMB}, ["model.layers.0.self_attn.q_proj.model.layers"])
    assert time.monotonic() - began < 10
    monkeypatch.undo()
    matching.require_quick({"x": r".*\.(q|v)_proj", "y": None, "z": ["q_proj"], "w": "all-linear"}, ["a.q_proj"])


def test_what_is_no_pattern_is_told():
    with pytest.raises(SettingsError, match=r"x is '\(q_proj', which is no regular expression \(.*missing \)"):
        matching.require_quick({"x": "(q_proj"}, ["q_proj"])


@pytest.mark.parametrize("text", ["NaN", "1e999", '"much"'])
def test_a_scale_that_is_no_number_is_refused(base, adapter, text):
    path = adapter / "adapter_config.json"
    values = json.loads(path.read_text())
    path.write_text(json.dumps({**values, "lora_alpha": "HERE"}).replace('"HERE"', text))
    with pytest.raises(RolecraftError):
        model.load(str(base), adapter=adapter)
