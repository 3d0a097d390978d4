from __future__ import annotations

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import tiny
import torch
from peft import LoraConfig, get_peft_model

from rolecraft import contract as contract_file
from rolecraft.contract import Contract
from rolecraft.errors import ContractError, NotFound, SettingsError
from rolecraft.gate import Gate
from rolecraft.model import Loaded, limit_threads, load, make_contract

pytestmark = pytest.mark.filterwarnings(
    "ignore:.is_gradient_checkpointing:FutureWarning"
)  # peft 0.21 still asks for it


@pytest.fixture(scope="module")
def folder(nano_tokenizer, tmp_path_factory) -> Path:
    """A base as Hugging Face tools save it, in bfloat16."""
    path = tmp_path_factory.mktemp("base")
    tiny.model(len(nano_tokenizer)).to(torch.bfloat16).save_pretrained(path)
    nano_tokenizer.save_pretrained(path)
    return path


@pytest.fixture
def adapter(folder, tmp_path) -> Path:
    """A LoRA that changes something, with its contract."""
    loaded = load(str(folder))
    peft = get_peft_model(loaded.model, LoraConfig(target_modules="all-linear", init_lora_weights=False))
    peft.save_pretrained(tmp_path / "adapter")
    contract_file.save(make_contract(loaded, team="mor"), tmp_path / "adapter")
    return tmp_path / "adapter"


def _logits(loaded: Loaded) -> torch.Tensor:
    with torch.inference_mode():
        return loaded.model(torch.tensor([[5, 6, 7]])).logits.float()


def _rewrite(adapter: Path, **changes) -> None:
    path = adapter / "contract.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_a_folder_loads_with_what_belongs_to_it(folder):
    loaded = load(str(folder))
    assert loaded.name == str(folder)
    assert loaded.context == 512
    assert loaded.device == torch.device("cpu")
    assert next(loaded.model.parameters()).dtype == torch.float32
    assert not loaded.model.training
    assert loaded.renderer.text(loaded.renderer.prompt((), (), "reasoner")) == "<|im_start|>reasoner\n"
    assert (loaded.adapter, loaded.contract) == (None, None)


def test_the_type_of_numbers_is_chosen(folder):
    assert next(load(str(folder), dtype="bfloat16").model.parameters()).dtype == torch.bfloat16


def test_an_adapter_changes_the_model_and_brings_its_contract(folder, adapter):
    plain, tuned = load(str(folder)), load(str(folder), adapter=adapter)
    assert not torch.allclose(_logits(plain), _logits(tuned), atol=1e-2)
    assert tuned.adapter == adapter
    assert tuned.contract == make_contract(plain, team="mor")
    assert not tuned.model.training


def test_merging_changes_nothing_but_the_wrapper(folder, adapter):
    apart, merged = load(str(folder), adapter=adapter), load(str(folder), adapter=adapter, merge=True)
    torch.testing.assert_close(_logits(apart), _logits(merged), atol=1e-4, rtol=1e-4)
    assert type(merged.model).__name__ == "LlamaForCausalLM"


def test_a_contract_survives_its_file(folder, tmp_path):
    contract = make_contract(load(str(folder)), team="single", gate=Gate(("a", "b"), "stream", "a"))
    contract_file.save(contract, tmp_path)
    assert contract_file.read(tmp_path) == contract
    assert [path.name for path in tmp_path.iterdir()] == ["contract.json"]


def test_a_base_is_the_same_in_either_type(folder):
    assert make_contract(load(str(folder), dtype="bfloat16")) == make_contract(load(str(folder)))


def test_other_weights_are_noticed(folder, adapter, tmp_path, nano_tokenizer):
    tiny.model(len(nano_tokenizer), seed=1).save_pretrained(tmp_path / "other")
    nano_tokenizer.save_pretrained(tmp_path / "other")
    with pytest.raises(
        ContractError, match=r"with weights \w+, and those of .*/other' are \w+; load it on the very base"
    ):
        load(str(tmp_path / "other"), adapter=adapter)


def test_another_shape_is_noticed(adapter, tmp_path, nano_tokenizer):
    tiny.model(len(nano_tokenizer), num_hidden_layers=1).save_pretrained(tmp_path / "other")
    nano_tokenizer.save_pretrained(tmp_path / "other")
    with pytest.raises(ContractError, match="layers have other shapes than those of"):
        load(str(tmp_path / "other"), adapter=adapter)


def test_the_adapters_renderer_is_used(folder, adapter):
    loaded = load(str(folder), renderer="hermes")
    contract_file.save(make_contract(loaded), adapter)
    assert load(str(folder), adapter=adapter).renderer.format == loaded.renderer.format


def test_another_renderer_is_refused(folder, adapter):
    with pytest.raises(ContractError, match="of renderer 'nano', not of 'hermes'; load it with renderer='nano'"):
        load(str(folder), adapter=adapter, renderer="hermes")


def test_the_first_token_that_differs_is_told(folder, adapter):
    contract = contract_file.read(adapter)
    assert contract is not None
    changed = list(contract.golden)
    changed[20] += 1
    _rewrite(adapter, golden=changed)
    with pytest.raises(ContractError, match=r"token 20, after '.{4,}', was .+ and is .+;"):
        load(str(folder), adapter=adapter)


def test_a_golden_render_that_ends_early_is_told(folder, adapter):
    contract = contract_file.read(adapter)
    assert contract is not None
    _rewrite(adapter, golden=contract.golden[:-1])
    with pytest.raises(
        ContractError, match=rf"token {len(contract.golden) - 1}, .*, was 'the end' and is '<\|im_end\|>'"
    ):
        load(str(folder), adapter=adapter)


def test_a_changed_format_is_noticed_though_prompts_agree(folder, adapter):
    loaded = load(str(folder))
    contract = replace(make_contract(loaded), format="0" * 16)
    with pytest.raises(ContractError, match="renderer 'nano' that has changed since"):
        contract_file.check(contract, make_contract(loaded), loaded.renderer)


def test_a_renderer_of_ones_own_is_named_again(folder, adapter, tmp_path):
    own = tmp_path / "mine.py"
    text = "from rolecraft.renderers import nano, Format\nimport dataclasses\n"
    own.write_text(text + "FORMAT = dataclasses.replace(nano.FORMAT, gap='\\n')\n")
    contract_file.save(make_contract(load(str(folder), renderer=own)), adapter)
    assert load(str(folder), adapter=adapter, renderer=own).adapter == adapter
    with pytest.raises(ContractError, match="a renderer of your own; name its file"):
        load(str(folder), adapter=adapter)


def test_an_adapter_without_contract_needs_a_vouched_renderer(folder, adapter):
    (adapter / "contract.json").unlink()
    with pytest.raises(ContractError, match=r"has no contract\.json.*name the renderer to vouch for it: .*hermes, "):
        load(str(folder), adapter=adapter)
    assert load(str(folder), adapter=adapter, renderer="nano").contract is None


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"golden": 3}', '{"golden": ["x"]}', '{"golden": [1], "moon": 1}'])
def test_a_broken_contract_is_named(adapter, text):
    (adapter / "contract.json").write_text(text)
    with pytest.raises(ContractError, match=r"contract\.json: not a contract"):
        contract_file.read(adapter)


def test_an_adapter_that_is_not_there_is_named(folder, tmp_path):
    with pytest.raises(NotFound, match=r"no adapter in .*no adapter_config\.json"):
        load(str(folder), adapter=tmp_path)


def test_an_adapter_that_does_not_fit_is_told_in_a_line(folder, adapter, nano_tokenizer):
    wide = get_peft_model(tiny.model(len(nano_tokenizer), hidden_size=64), LoraConfig(target_modules="all-linear"))
    contract = contract_file.read(adapter)
    wide.save_pretrained(adapter)
    assert isinstance(contract, Contract)
    with pytest.raises(ContractError, match="does not fit the model") as caught:
        load(str(folder), adapter=adapter)
    assert "\n" not in str(caught.value)


def test_an_adapter_given_as_base_is_told_apart(adapter):
    with pytest.raises(NotFound, match="it is an adapter"):
        load(str(adapter))


@pytest.mark.parametrize("base", ["./nowhere", "/nowhere/at/all", "a/b/c", "~/nowhere/base"])
def test_a_missing_folder_is_named(base):
    with pytest.raises(NotFound, match=f"no folder {base!r}; give a folder"):
        load(base)


def test_an_empty_folder_is_named(tmp_path):
    with pytest.raises(NotFound, match=r"holds no model \(no config\.json\)"):
        load(str(tmp_path))


@pytest.mark.parametrize("base", ["nobody/nothing-here", "nothing-here"])
def test_a_hub_name_out_of_reach_is_one_line(base, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(
        NotFound, match=f"no folder {base!r}, and the Hugging Face hub cannot be reached; give"
    ) as caught:
        load(base)
    assert "\n" not in str(caught.value)


def test_a_name_no_hub_has_is_told():
    with pytest.raises(NotFound, match="no such model on the Hugging Face hub"):
        load("no such name!")


def test_a_folder_without_tokenizer_is_told(folder, tmp_path):
    for name in ("config.json", "model.safetensors"):
        shutil.copy(folder / name, tmp_path)
    with pytest.raises(NotFound, match=r"has no tokenizer that loads; put one beside the weights"):
        load(str(tmp_path))


def test_a_folder_without_weights_is_told(folder, tmp_path):
    for path in folder.iterdir():
        if path.suffix != ".safetensors":
            shutil.copy(path, tmp_path)
    with pytest.raises(NotFound, match="does not load as a causal language model") as caught:
        load(str(tmp_path))
    assert "\n" not in str(caught.value)


def test_a_tokenizer_with_more_tokens_than_the_model_is_refused(tmp_path, nano_tokenizer):
    tiny.model(len(nano_tokenizer) - 1).save_pretrained(tmp_path)
    nano_tokenizer.save_pretrained(tmp_path)
    with pytest.raises(ContractError, match=r"makes ids up to \d+ and the model embeds \d+"):
        load(str(tmp_path))


def test_a_tokenizer_without_chat_tokens_is_refused_with_a_remedy(tmp_path, phi3_tokenizer):
    tiny.model(len(phi3_tokenizer)).save_pretrained(tmp_path)
    phi3_tokenizer.save_pretrained(tmp_path)
    with pytest.raises(ContractError, match=rf"'{tmp_path}': the tokenizer has no token .*choose a renderer"):
        load(str(tmp_path), renderer="hermes")


def test_an_unknown_device_is_refused(folder):
    with pytest.raises(SettingsError, match="device is 'abacus'"):
        load(str(folder), device="abacus")


def test_auto_finds_a_device(folder):
    assert load(str(folder), device="auto").device.type in {"cpu", "cuda", "mps", "xpu"}


@pytest.mark.skipif(
    not (Path(load.__code__.co_filename).parent / "nano/weights/config.json").is_file(), reason="no base yet"
)
def test_the_built_in_base_loads():
    loaded = load("nano")
    assert loaded.renderer.format.calls.compact
    assert loaded.context == 1024


def test_threads_are_limited_unless_the_environment_decides(monkeypatch):
    before = torch.get_num_threads()
    try:
        monkeypatch.setitem(os.environ, "OMP_NUM_THREADS", "2")
        torch.set_num_threads(2)
        limit_threads()
        assert torch.get_num_threads() == 2
        monkeypatch.delitem(os.environ, "OMP_NUM_THREADS")
        limit_threads()
        assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(before)
