"""Plain LoRA by PEFT; what every adapter promises is in test_contracts."""

from __future__ import annotations

import copy

import pytest
import tiny
import torch
from peft.tuners.lora import Linear

from rolecraft import adapters
from rolecraft.adapters import lora
from rolecraft.errors import SettingsError
from rolecraft.settings import from_dict

IDS_BT = torch.arange(8).view(1, 8)


def attached(architecture: str = "llama", **settings):
    torch.manual_seed(1)
    return lora.attach(tiny.model(64, architecture), lora.Settings(**{"r": 4, **settings}))


@pytest.mark.parametrize(("architecture", "linear"), [("llama", 7), ("qwen2", 7), ("phi3", 4)])
def test_all_linear_layers_but_the_output_get_a_lora(architecture, linear):
    names = [name for name, _ in attached(architecture).named_parameters() if "lora_A" in name]
    assert len(names) == 2 * linear
    assert not [name for name in names if "lm_head" in name]


def test_the_rank_decides_how_many_numbers_are_trained():
    twice = adapters.count_trainable(attached(r=8))
    assert twice == 2 * adapters.count_trainable(attached(r=4))


def test_named_layers_alone_are_adapted():
    names = [
        name for name, parameter in attached(target_modules=("q_proj",)).named_parameters() if parameter.requires_grad
    ]
    assert names
    assert all("q_proj" in name for name in names)


def test_a_layer_that_is_not_there_is_an_error_that_names_it():
    with pytest.raises(SettingsError, match="no_such_layer"):
        attached(target_modules=("no_such_layer",))


def test_the_lora_is_float32_on_a_half_precision_base():
    model = lora.attach(tiny.model(64).bfloat16(), lora.Settings(r=4))
    assert {parameter.dtype for parameter in model.parameters() if parameter.requires_grad} == {torch.float32}


def test_merging_keeps_what_was_learned():
    model = attached(lora_dropout=0.0).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.1)
        adapted = model(input_ids=IDS_BT).logits
        merged = lora.merge(model)
        torch.testing.assert_close(merged(input_ids=IDS_BT).logits, adapted, atol=1e-4, rtol=1e-4)
    assert not [name for name, _ in merged.named_parameters() if "lora" in name]


@pytest.mark.parametrize("values", [{"r": 0}, {"lora_dropout": 1.0}, {"target_modules": ""}, {"bias": "some"}])
def test_a_setting_that_cannot_be_meant_is_refused(values):
    with pytest.raises(SettingsError, match=next(iter(values))):
        from_dict(lora.Settings, values, "adapter")


def test_a_misspelt_setting_is_answered_with_the_nearest():
    with pytest.raises(SettingsError, match="Did you mean 'lora_alpha'"):
        from_dict(lora.Settings, {"lora_alfa": 1}, "adapter")


def learned(model, *, bf16: bool = False) -> list[torch.Tensor]:
    """Return a model's logits and its gradients, of a step with the same chances."""
    torch.manual_seed(2)
    model.zero_grad()
    with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        logits = model(input_ids=IDS_BT, use_cache=False).logits
    logits.float().logsumexp(-1).sum().backward()
    return [logits, *(one.grad for one in model.parameters() if one.grad is not None)]


@pytest.mark.parametrize("bf16", [False, True])
@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize("settings", [{}, {"use_dora": True}, {"bias": "lora_only"}, {"use_rslora": True}])
def test_taking_less_memory_changes_no_bit(settings, half, bf16):
    torch.manual_seed(1)
    base = tiny.model(64, "qwen2")
    model = lora.attach(base.bfloat16() if half else base, lora.Settings(r=4, lora_dropout=0.1, **settings)).train()
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter)
    mine = learned(model, bf16=bf16)
    light = [layer for layer in model.modules() if isinstance(layer, Linear) and type(layer) is not Linear]
    assert len(light) == 14
    for layer in light:
        layer.__class__ = Linear
    theirs = learned(model, bf16=bf16)
    assert len(mine) > 14
    assert all(torch.equal(one, other) for one, other in zip(mine, theirs, strict=True))


def test_what_a_hook_on_the_base_returned_is_not_changed():
    model = attached().train()
    seen: list[torch.Tensor] = []
    layers = [layer.base_layer for layer in model.modules() if isinstance(layer, Linear)]
    for layer in layers:
        layer.register_forward_hook(lambda _, __, output: seen.append(output))
    learned(model)
    assert len(seen) == len(layers)
    assert all(one._version == 0 for one in seen)


def test_of_a_dropout_it_keeps_which_numbers_were_dropped():
    kept: list[torch.dtype] = []

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        kept.append(tensor.dtype)
        return tensor.detach()

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        learned(attached(lora_dropout=0.1).train())
    assert kept.count(torch.bool) == 14 - 3  # to the frozen embeddings the first three pass nothing back


def test_a_model_without_its_adapter_is_the_base():
    base = tiny.model(64)
    expected = base(input_ids=IDS_BT).logits
    torch.manual_seed(1)
    model = lora.attach(base, lora.Settings(r=4, target_modules="all-linear")).eval()
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter)
    with model.disable_adapter():
        assert torch.equal(model(input_ids=IDS_BT).logits, expected)
    assert not torch.equal(model(input_ids=IDS_BT).logits, expected)


def test_a_copy_adds_its_own_weights():
    model = attached()
    copied = copy.deepcopy(model)
    with torch.no_grad():
        for name, parameter in copied.named_parameters():
            if "lora_B" in name:
                parameter.normal_()
        assert not torch.equal(copied(input_ids=IDS_BT).logits, model(input_ids=IDS_BT).logits)
