from __future__ import annotations

from pathlib import Path

import pytest
import tiny
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer
from verbs import call

from rolecraft import adapters, contract, model, team
from rolecraft.types import Message

pytestmark = pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing:FutureWarning")


@pytest.fixture(scope="module")
def base(nano_tokenizer, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("base")
    tiny.model(len(nano_tokenizer)).save_pretrained(path)
    nano_tokenizer.save_pretrained(path)
    return path


@pytest.fixture
def adapter(base, tmp_path) -> Path:
    """A LoRA of the team `mor`, saved as training saves it."""
    loaded = model.load(str(base))
    tuned = get_peft_model(loaded.model, LoraConfig(target_modules="all-linear", init_lora_weights=False))
    tuned.save_pretrained(tmp_path / "adapter")
    model.save_tokenizer(loaded, team.find("mor"), tmp_path / "adapter")
    contract.save(model.make_contract(loaded, team="mor"), tmp_path / "adapter")
    return tmp_path / "adapter"


def logits(plain) -> torch.Tensor:
    with torch.inference_mode():
        return plain(torch.tensor([[5, 6, 7]])).logits.float()


def test_a_merged_folder_is_the_tuned_model_to_plain_transformers(base, adapter, tmp_path, capsys) -> None:
    out = tmp_path / "whole"
    code, printed, _ = call(capsys, "merge", str(adapter), str(out), "--dtype", "float32")
    assert code == 0
    assert str(out) in printed
    tuned = model.load(str(base), adapter=adapter)
    assert torch.allclose(logits(AutoModelForCausalLM.from_pretrained(out)), logits(tuned.model), atol=1e-4)


@pytest.mark.parametrize("merged", [False, True], ids=["adapter", "merged"])
def test_a_saved_tokenizer_prompts_as_the_first_role_of_the_team_sees_it(merged, adapter, tmp_path, capsys) -> None:
    folder = adapter
    if merged:
        folder = tmp_path / "whole"
        assert call(capsys, "merge", str(adapter), str(folder))[0] == 0
    saved = AutoTokenizer.from_pretrained(folder)
    asked = {"role": "user", "content": "What does Plalples owe?"}
    text = saved.apply_chat_template([asked], tokenize=False, add_generation_prompt=True)
    loaded, first = model.load(str(tmp_path / "whole") if merged else "nano"), team.find("mor").role("reasoner")
    seen = first.view((Message("user", asked["content"]),))
    assert text == loaded.renderer.text(loaded.renderer.prompt(seen, (), "reasoner"))
    assert loaded.chat == ""


def test_a_merged_folder_is_a_base_like_any_other(adapter, tmp_path, capsys) -> None:
    out = tmp_path / "whole"
    assert call(capsys, "merge", str(adapter), str(out))[0] == 0
    assert contract.name_of(model.load(str(out)).renderer) == "nano"


def test_a_mixture_of_roles_is_refused_by_name(base, tmp_path, capsys) -> None:
    loaded, method = model.load(str(base)), adapters.find("mor")
    method.attach(loaded.model, method.Settings(target_modules=["q_proj"])).save_pretrained(tmp_path / "adapter")
    contract.save(model.make_contract(loaded, team="mor"), tmp_path / "adapter")
    code, _, complaint = call(capsys, "merge", str(tmp_path / "adapter"), str(tmp_path / "whole"))
    assert code != 0
    assert "Mixture of Roles" in complaint
    assert "rolecraft serve --adapter" in complaint
    assert not (tmp_path / "whole").exists()


def test_nothing_that_is_there_is_overwritten(adapter, tmp_path, capsys) -> None:
    code, _, complaint = call(capsys, "merge", str(adapter), str(tmp_path))
    assert code != 0
    assert "is there already" in complaint
