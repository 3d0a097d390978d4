"""Plain LoRA by PEFT; what every adapter promises is in test_contracts."""

from __future__ import annotations

import pytest
import tiny
import torch

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
