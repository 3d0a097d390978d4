from __future__ import annotations

import pytest
import tiny
import torch

from rolecraft.engine.model_runner import ModelRunner
from rolecraft.engine.precision import pays
from rolecraft.errors import SettingsError


@torch.inference_mode()
def _said(runner: ModelRunner, count: int) -> torch.Tensor:
    runner.cache.clear()
    return runner.prefill([(0, [(7 * place) % 300 for place in range(count)])])[0, -1]


def test_prompts_are_multiplied_in_bfloat16_and_short_calls_are_not(nano_tokenizer):
    loaded = tiny.loaded(nano_tokenizer, initializer_range=0.1)
    whole, half = (ModelRunner(loaded, 2, 200, prefill_dtype=dtype) for dtype in ("float32", "bfloat16"))
    assert torch.equal(_said(half, 20), _said(whole, 20))
    got, expected = _said(half, 120), _said(whole, 120)
    assert not torch.equal(got, expected)
    torch.testing.assert_close(got, expected, atol=3e-2, rtol=3e-2)


def test_replies_are_decoded_in_float32_however_many_there_are(nano_tokenizer):
    loaded = tiny.loaded(nano_tokenizer, initializer_range=0.1)
    runners = [ModelRunner(loaded, 80, 40, prefill_dtype=dtype) for dtype in ("float32", "bfloat16")]
    said = []
    for runner in runners:
        runner.cache.reserve(80, 10)
        with torch.inference_mode():
            for row in range(80):  # prompts too short to be worth it
                runner.prefill([(row, [row + place for place in range(5)])])
            said.append(runner.decode([(row, 7) for row in range(80)]))
    assert torch.equal(*said)


def test_weights_are_rounded_anew_once_they_have_changed(nano_tokenizer):
    loaded = tiny.loaded(nano_tokenizer, initializer_range=0.1)
    runner = ModelRunner(loaded, 2, 200, prefill_dtype="bfloat16")
    with torch.no_grad():
        loaded.model.model.layers[0].mlp.up_proj.weight.mul_(3.0)
    runner.refresh()
    torch.testing.assert_close(_said(runner, 120), _said(ModelRunner(loaded, 2, 200), 120), atol=3e-2, rtol=3e-2)


def test_bfloat16_is_refused_where_the_model_runs_by_itself(nano_tokenizer):
    with pytest.raises(SettingsError, match=r"prefill_dtype is 'bfloat16'.*'auto' or 'float32'"):
        ModelRunner(tiny.loaded(nano_tokenizer, hidden_act="gelu"), 2, 64, prefill_dtype="bfloat16")
    assert not ModelRunner(tiny.loaded(nano_tokenizer, hidden_act="gelu"), 2, 64, prefill_dtype="auto").fused


def test_what_is_in_another_type_already_is_left_in_it():
    assert not pays("bfloat16", torch.zeros(1, dtype=torch.float16))
    assert not pays("float32", torch.zeros(1))
