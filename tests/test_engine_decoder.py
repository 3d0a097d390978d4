from __future__ import annotations

import math

import pytest
import tiny
import torch
from hypothesis import given
from hypothesis import strategies as st
from peft import LoraConfig, PromptTuningConfig, get_peft_model
from transformers import BloomConfig, BloomForCausalLM, GPT2Config, GPT2LMHeadModel

from rolecraft import renderers
from rolecraft.engine.decoder import Decoder, draw
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
    decoder = Decoder(loaded, 4, 256)
    prompts = [torch.randint(0, 300, (length,)).tolist() for length in (5, 40, 17)]
    with torch.inference_mode():
        decoder.slots.reserve(3, 40)
        got = decoder.fill(list(enumerate(prompts)))[:, -1]
        for row, prompt in enumerate(prompts):
            torch.testing.assert_close(got[row], _full(loaded.model, prompt), atol=1e-4, rtol=1e-4)
        for step in range(100, 104):
            got = decoder.write([(0, step), (2, step + 1)])  # row 1 pauses between them
        torch.testing.assert_close(got[0], _full(loaded.model, decoder.slots.tokens[0]), atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(got[1], _full(loaded.model, decoder.slots.tokens[2]), atol=1e-4, rtol=1e-4)
        got = decoder.fill([(0, [7, 8, 9]), (1, [7])])[:, -1]
        torch.testing.assert_close(got[0], _full(loaded.model, decoder.slots.tokens[0]), atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(got[1], _full(loaded.model, decoder.slots.tokens[1]), atol=1e-4, rtol=1e-4)


def test_learned_positions_work_too(nano_tokenizer):
    model = GPT2LMHeadModel(GPT2Config(vocab_size=len(nano_tokenizer), n_embd=32, n_layer=2, n_head=4, n_positions=64))
    decoder = Decoder(_loaded(model.eval(), nano_tokenizer), 2, 1024)
    assert decoder.context == 64
    with torch.inference_mode():
        decoder.slots.reserve(1, 64)
        got = decoder.fill([(0, list(range(64)))])[:, -1]
    torch.testing.assert_close(got[0], _full(model, list(range(64))), atol=1e-4, rtol=1e-4)


def test_an_adapter_is_played(nano_tokenizer):
    loaded = tiny.loaded(nano_tokenizer)
    before = _full(loaded.model, [1, 2, 3])
    peft = get_peft_model(loaded.model, LoraConfig(target_modules="all-linear", init_lora_weights=False))
    decoder = Decoder(Loaded("x", peft, nano_tokenizer, loaded.renderer, "", ""), 2, 64)
    with torch.inference_mode():
        decoder.slots.reserve(1, 3)
        got = decoder.fill([(0, [1, 2, 3])])[0, -1]
    torch.testing.assert_close(got, _full(peft, [1, 2, 3]), atol=1e-4, rtol=1e-4)
    assert not torch.allclose(got, before, atol=1e-2)


def test_learned_prompts_are_refused(nano_tokenizer):
    loaded = tiny.loaded(nano_tokenizer)
    peft = get_peft_model(loaded.model, PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=2))
    with pytest.raises(EngineError, match="learned prompts"):
        Decoder(Loaded("x", peft, nano_tokenizer, loaded.renderer, "", ""), 2, 64)


def test_a_window_bounds_the_context(nano_tokenizer):
    loaded = tiny.loaded(nano_tokenizer, "phi3", sliding_window=48)
    decoder = Decoder(loaded, 2, 1024)
    assert (decoder.limit, decoder.context) == (48, 48)


def test_angles_that_change_with_length_bound_the_context(nano_tokenizer):
    rope = {"rope_type": "longrope", "short_factor": [1.0] * 4, "long_factor": [2.0] * 4, "factor": 8.0}
    changes = {"original_max_position_embeddings": 64, "rope_parameters": {**rope, "rope_theta": 10_000.0}}
    loaded = tiny.loaded(nano_tokenizer, "phi3", **changes)
    assert Decoder(loaded, 2, 1024).context == 64


def test_half_precision_is_played_as_it_computes(nano_tokenizer):
    loaded = tiny.loaded(nano_tokenizer, initializer_range=0.1)
    loaded.model.to(torch.bfloat16)
    decoder = Decoder(loaded, 2, 64)
    with torch.inference_mode():
        decoder.fill([(0, [5, 6, 7, 8])])
        got = decoder.write([(0, 9)])
    assert got.dtype == torch.float32
    torch.testing.assert_close(got[0], _full(loaded.model, [5, 6, 7, 8, 9]), atol=3e-2, rtol=3e-2)


def test_a_model_whose_cache_forgets_is_refused(nano_tokenizer):
    loaded = tiny.loaded(nano_tokenizer, "qwen2")
    loaded.model.config.layer_types = ["full_attention", "linear_attention"]
    with pytest.raises(EngineError, match="linear_attention"):
        Decoder(loaded, 2, 64)


def test_a_model_that_the_rows_do_not_suit_is_refused(nano_tokenizer):
    model = BloomForCausalLM(BloomConfig(vocab_size=len(nano_tokenizer), hidden_size=32, n_layer=2, n_head=4)).eval()
    with pytest.raises(EngineError, match="use a model with plain causal attention"):
        Decoder(_loaded(model, nano_tokenizer), 2, 64)


def test_greedy_takes_the_likeliest_and_tells_how_likely():
    logits = torch.randn(5, 11)
    ids, logprobs = draw(logits, [0.0] * 5, [1.0] * 5, [0.0] * 5)
    assert ids == logits.argmax(-1).tolist()
    assert logprobs == pytest.approx(logits.log_softmax(-1).amax(-1).tolist(), abs=1e-5)


def test_logprobs_ignore_temperature_and_top_p():
    logits = torch.randn(1, 11)
    (token,), (logprob,) = draw(logits, [3.0], [0.7], [0.5])
    assert logprob == pytest.approx(float(logits.log_softmax(-1)[0, token]), abs=1e-5)


@given(st.floats(0.2, 3.0), st.floats(0.05, 1.0))
def test_points_fall_on_tokens_as_often_as_they_are_likely(temperature, top_p):
    logits = torch.tensor([[2.0, 1.0, 0.0, -1.0]])
    chances = (logits[0].double() / temperature).softmax(-1).tolist()
    kept, total = [], 0.0
    for chance in chances:
        kept.append(chance if total < top_p else 0.0)
        total += chance
    count = 400
    ids, _ = draw(logits.expand(count, 4), [temperature] * count, [top_p] * count, [i / count for i in range(count)])
    for token, chance in enumerate(kept):
        assert math.isclose(ids.count(token) / count, chance / sum(kept), abs_tol=2 / count)
        assert chance > 0 or token not in ids


def test_a_draw_does_not_depend_on_its_neighbours():
    logits = torch.randn(3, 50)
    temperatures, top_ps, points = [0.0, 1.3, 0.7], [1.0, 0.8, 1.0], [0.0, 0.93, 0.21]
    together = draw(logits, temperatures, top_ps, points)[0]
    alone = [
        draw(logits[b : b + 1], temperatures[b : b + 1], top_ps[b : b + 1], points[b : b + 1])[0][0] for b in range(3)
    ]
    assert together == alone
