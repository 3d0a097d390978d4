from __future__ import annotations

import pytest
import tiny
import torch
from peft import LoraConfig, PromptTuningConfig, get_peft_model
from transformers import BloomConfig, BloomForCausalLM, GPT2Config, GPT2LMHeadModel

from rolecraft import renderers
from rolecraft.engine.model_runner import ModelRunner
from rolecraft.errors import EngineError
from rolecraft.model import Loaded

pytestmark = pytest.mark.filterwarnings(
    "ignore:.is_gradient_checkpointing:FutureWarning"
)  # peft 0.21 still asks for it


def _full(model, tokens: list[int]) -> torch.Tensor:
    with torch.inference_mode():
        return model(torch.tensor([tokens]), use_cache=False).logits[0, -1].float()


def _loaded(model, tokenizer) -> Loaded:
    return Loaded("other", model, tokenizer, renderers.find(tokenizer), "", "")


@pytest.mark.parametrize("architecture", tiny.ARCHITECTURES)
def test_cached_rows_equal_a_full_forward(nano_tokenizer, architecture):
    loaded = tiny.loaded(nano_tokenizer, architecture)
    runner = ModelRunner(loaded, 4, 256)
    prompts = [torch.randint(0, 300, (length,)).tolist() for length in (5, 40, 17)]
    with torch.inference_mode():
        runner.cache.reserve(3, 40)
        got = runner.prefill(list(enumerate(prompts)))[:, -1]
        for row, prompt in enumerate(prompts):
            torch.testing.assert_close(got[row], _full(loaded.model, prompt), atol=1e-4, rtol=1e-4)
        for step in range(100, 104):
            got = runner.decode([(0, step), (2, step + 1)])  # row 1 pauses between them
        torch.testing.assert_close(got[0], _full(loaded.model, runner.cache.tokens[0]), atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(got[1], _full(loaded.model, runner.cache.tokens[2]), atol=1e-4, rtol=1e-4)
        got = runner.prefill([(0, [7, 8, 9]), (1, [7])])[:, -1]
        torch.testing.assert_close(got[0], _full(loaded.model, runner.cache.tokens[0]), atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(got[1], _full(loaded.model, runner.cache.tokens[1]), atol=1e-4, rtol=1e-4)


def test_learned_positions_work_too(nano_tokenizer):
    model = GPT2LMHeadModel(GPT2Config(vocab_size=len(nano_tokenizer), n_embd=32, n_layer=2, n_head=4, n_positions=64))
    runner = ModelRunner(_loaded(model.eval(), nano_tokenizer), 2, 1024)
    assert runner.context == 64
    with torch.inference_mode():
        runner.cache.reserve(1, 64)
        got = runner.prefill([(0, list(range(64)))])[:, -1]
    torch.testing.assert_close(got[0], _full(model, list(range(64))), atol=1e-4, rtol=1e-4)


def test_an_adapter_is_played(nano_tokenizer):
    loaded = tiny.loaded(nano_tokenizer)
    before = _full(loaded.model, [1, 2, 3])
    peft = get_peft_model(loaded.model, LoraConfig(target_modules="all-linear", init_lora_weights=False))
    runner = ModelRunner(Loaded("x", peft, nano_tokenizer, loaded.renderer, "", ""), 2, 64)
    with torch.inference_mode():
        runner.cache.reserve(1, 3)
        got = runner.prefill([(0, [1, 2, 3])])[0, -1]
    torch.testing.assert_close(got, _full(peft, [1, 2, 3]), atol=1e-4, rtol=1e-4)
    assert not torch.allclose(got, before, atol=1e-2)


def test_learned_prompts_are_refused(nano_tokenizer):
    loaded = tiny.loaded(nano_tokenizer)
    peft = get_peft_model(loaded.model, PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=2))
    with pytest.raises(EngineError, match="learned prompts"):
        ModelRunner(Loaded("x", peft, nano_tokenizer, loaded.renderer, "", ""), 2, 64)


def test_a_window_bounds_the_context(nano_tokenizer):
    loaded = tiny.loaded(nano_tokenizer, "phi3", sliding_window=48)
    runner = ModelRunner(loaded, 2, 1024)
    assert (runner.limit, runner.context) == (48, 48)


def test_angles_that_change_with_length_bound_the_context(nano_tokenizer):
    rope = {"rope_type": "longrope", "short_factor": [1.0] * 4, "long_factor": [2.0] * 4, "factor": 8.0}
    changes = {"original_max_position_embeddings": 64, "rope_parameters": {**rope, "rope_theta": 10_000.0}}
    loaded = tiny.loaded(nano_tokenizer, "phi3", **changes)
    assert ModelRunner(loaded, 2, 1024).context == 64


def test_half_precision_is_played_as_it_computes(nano_tokenizer):
    loaded = tiny.loaded(nano_tokenizer, initializer_range=0.1)
    loaded.model.to(torch.bfloat16)
    runner = ModelRunner(loaded, 2, 64)
    with torch.inference_mode():
        runner.prefill([(0, [5, 6, 7, 8])])
        got = runner.decode([(0, 9)])
    assert got.dtype == torch.float32
    torch.testing.assert_close(got[0], _full(loaded.model, [5, 6, 7, 8, 9]), atol=3e-2, rtol=3e-2)


def test_a_model_whose_cache_forgets_is_refused(nano_tokenizer):
    loaded = tiny.loaded(nano_tokenizer, "qwen2")
    loaded.model.config.layer_types = ["full_attention", "linear_attention"]
    with pytest.raises(EngineError, match="linear_attention"):
        ModelRunner(loaded, 2, 64)


def test_a_model_that_the_rows_do_not_suit_is_refused(nano_tokenizer):
    model = BloomForCausalLM(BloomConfig(vocab_size=len(nano_tokenizer), hidden_size=32, n_layer=2, n_head=4)).eval()
    with pytest.raises(EngineError, match="use a model with plain causal attention"):
        ModelRunner(_loaded(model, nano_tokenizer), 2, 64)
