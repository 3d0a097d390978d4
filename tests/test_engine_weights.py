"""Bases played with packed weights: near to float32, the same alone and among others, and no larger than told."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest
import tiny
import torch
from peft import LoraConfig, get_peft_model
from test_engine_fused import mixture
from transformers import GPTNeoXConfig, GPTNeoXForCausalLM

from rolecraft.engine import LocalEngine, Settings
from rolecraft.engine.model_runner import ModelRunner, cache_keys
from rolecraft.engine.weights import Choice, choose
from rolecraft.errors import SettingsError
from rolecraft.types import Prompt

pytestmark = pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing:FutureWarning")

KINDS = ("bfloat16", "int8", "int4")
NEAR = {"bfloat16": 0.03, "int8": 0.06, "int4": 0.35}
"""Of the logits' norm: what rounding costs random weights, which have no redundancy."""
WORDS = "debt of Ro, rank of Plalples, who is older than whom, and seven more words to make prompts differ".split()


def said(runner: ModelRunner, role: int = -1) -> torch.Tensor:
    """Return the logits after a prompt of 90 tokens, continued once as a prompt and once as a reply."""
    ids = cache_keys([(7 * place + 3) % 300 for place in range(92)], [role] * 92)
    runner.cache.clear()
    runner.cache.reserve(2, 100)
    with torch.inference_mode():
        return torch.cat((runner.prefill([(0, ids[:90])], 5)[0], runner.decode([(0, ids[90])])))


def off(got: torch.Tensor, expected: torch.Tensor) -> float:
    return float((got - expected).norm() / expected.norm())


@pytest.mark.parametrize("prompts", [False, True], ids=["one form", "bfloat16 for prompts"])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("architecture", list(tiny.ARCHITECTURES))
def test_logits_are_near_those_of_float32(nano_tokenizer, architecture, kind, prompts):
    changes = {"initializer_range": 0.1, "hidden_size": 64}
    expected = said(ModelRunner(tiny.loaded(nano_tokenizer, architecture, **changes), 2, 100))
    runner = ModelRunner(
        tiny.loaded(nano_tokenizer, architecture, **changes), 2, 100, pack_as=kind, pack_prompts=prompts
    )
    assert runner.fused
    assert 0 < off(said(runner), expected) < NEAR[kind]


@pytest.mark.parametrize("kind", KINDS)
def test_untied_logits_and_biases_are_kept(nano_tokenizer, kind):
    changes = {"initializer_range": 0.1, "attention_bias": True, "mlp_bias": True, "tie_word_embeddings": True}

    def loaded():
        made = tiny.loaded(nano_tokenizer, **changes)
        torch.manual_seed(5)
        for name, parameter in made.model.named_parameters():
            if name.endswith("bias"):
                torch.nn.init.normal_(parameter)
        return made

    expected = said(ModelRunner(loaded(), 2, 100))
    assert off(said(ModelRunner(loaded(), 2, 100, pack_as=kind)), expected) < NEAR[kind]


@pytest.mark.parametrize("kind", KINDS)
def test_a_reply_is_the_same_to_the_bit_alone_and_among_seven_others(nano_tokenizer, kind):
    prompts = [tiny.prompt(" ".join(WORDS[place : place + 4 + 3 * (place % 3)])) for place in range(8)]
    changes = {"initializer_range": 0.3, "hidden_size": 64}
    settings = Settings(max_requests=8, max_context=256, weights=kind)
    with LocalEngine(tiny.loaded(nano_tokenizer, **changes), settings) as engine:

        async def ask(asked: list[Prompt]):
            return [one.turn for (one,) in await asyncio.gather(*(engine.complete(prompt) for prompt in asked))]

        alone = []
        for prompt in prompts:
            engine.forget()
            alone += asyncio.run(ask([prompt]))
        engine.forget()
        among = asyncio.run(ask(prompts))
    assert [turn.token_ids for turn in among] == [turn.token_ids for turn in alone]
    # The marks that all prompts begin with are computed once for all, in another piece: the same but for rounding.
    for one, other in zip(among, alone, strict=True):
        assert one.logprobs == pytest.approx(other.logprobs, abs=0.05)


@pytest.mark.parametrize("kind", KINDS)
def test_a_row_is_the_same_to_the_bit_beside_longer_and_shorter_ones(nano_tokenizer, kind):
    runner = ModelRunner(tiny.loaded(nano_tokenizer, hidden_size=64), 8, 200, pack_as=kind)
    rows = [[(5 * place + 11 * row) % 300 for place in range(20 + 17 * row)] for row in range(8)]

    @torch.inference_mode()
    def computed(chosen: list[int]) -> list[torch.Tensor]:
        runner.cache.clear()
        runner.cache.reserve(8, 199)
        prompts = runner.prefill([(row, rows[row].copy()) for row in chosen])[:, 0]
        replies = runner.decode([(row, row + 4) for row in chosen])
        return [*zip(prompts, replies, strict=True)]

    among = computed(list(range(8)))
    for row in range(8):
        for one, other in zip(computed([row])[0], among[row], strict=True):
            assert torch.equal(one, other)


@pytest.mark.parametrize("kind", KINDS)
def test_a_mixture_of_roles_stays_in_float32_on_packed_weights(nano_tokenizer, kind):
    changes = {"initializer_range": 0.1, "hidden_size": 64}
    expected = said(ModelRunner(mixture(nano_tokenizer, changes=changes), 2, 100), 1)
    runner = ModelRunner(mixture(nano_tokenizer, changes=changes), 2, 100, pack_as=kind)
    assert off(said(runner, 1), expected) < NEAR[kind]
    assert off(said(runner, 0), expected) > NEAR["int4"]


def tuned(tokenizer, **changes):
    made = tiny.loaded(tokenizer, initializer_range=0.1, hidden_size=64, **changes)
    torch.manual_seed(7)
    model = get_peft_model(made.model, LoraConfig(r=4, target_modules=["q_proj", "v_proj", "up_proj", "down_proj"]))
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.3)
    return replace(made, model=model.eval())


@pytest.mark.parametrize("changes", [{}, {"hidden_act": "gelu"}], ids=["fused", "by transformers"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_plain_lora_stays_in_float32_on_packed_weights(nano_tokenizer, kind, changes):
    expected = said(ModelRunner(tuned(nano_tokenizer, **changes), 2, 100))
    bare = said(ModelRunner(tiny.loaded(nano_tokenizer, initializer_range=0.1, hidden_size=64, **changes), 2, 100))
    assert off(bare, expected) > 0.5
    loaded = tuned(nano_tokenizer, **changes)
    runner = ModelRunner(loaded, 2, 100, pack_as=kind)
    assert runner.fused is not bool(changes)
    assert off(said(runner), expected) < NEAR[kind]
    with torch.no_grad():
        for name, parameter in loaded.model.named_parameters():
            if "lora_B" in name:
                parameter.zero_()
    runner.refresh()
    assert off(said(runner), bare) < NEAR[kind]


@pytest.mark.parametrize("kind", KINDS)
def test_other_architectures_are_packed_layer_by_layer(nano_tokenizer, kind):
    torch.manual_seed(0)
    config = GPTNeoXConfig(
        vocab_size=len(nano_tokenizer),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=256,
        initializer_range=0.1,
        attn_implementation="eager",
    )
    torch.manual_seed(0)
    plain, other = GPTNeoXForCausalLM(config).eval(), GPTNeoXForCausalLM(config).eval()
    other.load_state_dict(plain.state_dict())
    like = tiny.loaded(nano_tokenizer)
    expected = said(ModelRunner(replace(like, model=plain), 2, 100))
    runner = ModelRunner(replace(like, model=other), 2, 100, pack_as=kind)
    assert not runner.fused
    assert 0 < off(said(runner), expected) < NEAR[kind]


def test_the_base_gives_its_matrices_away(nano_tokenizer):
    loaded = tiny.loaded(nano_tokenizer)
    runner = ModelRunner(loaded, 2, 100, pack_as="int8")
    assert runner.packer is not None
    held = {name: parameter.numel() for name, parameter in loaded.model.named_parameters() if parameter.numel()}
    assert all("proj" not in name and "lm_head" not in name for name in held)
    assert set(runner.packer.nbytes) == {
        "int8 for replies",
        "bfloat16 for prompts",
        "int8 for logits",
        "float32 for the best logits",
        "float32 for looking tokens up",
    }


def test_auto_takes_what_a_trial_has_fastest_and_4_bits_only_where_the_file_has_no_more(nano_tokenizer):
    config = tiny.model(300, hidden_size=64).config
    choice = choose("auto", config, 1, "float32", "cpu")
    assert choice.kind in (None, "bfloat16", "int8")
    assert choice.why
    assert choose("float32", config, 1, "bfloat16", "cuda") == Choice(None)


def test_weights_that_cannot_be_packed_are_refused_with_the_remedy():
    config = tiny.model(300).config
    with pytest.raises(SettingsError, match=r"weights is 'int8', and the model is in bfloat16 \(--dtype\).*'float32'"):
        choose("int8", config, 1, "bfloat16", "cpu")
    with pytest.raises(SettingsError, match=r"runs on 'cuda' \(--device\)"):
        choose("int4", config, 1, "float32", "cuda")
    assert choose("auto", config, 1, "float16", "cpu").kind is None


def test_an_unknown_form_is_refused(nano_tokenizer):
    with pytest.raises(SettingsError, match="weights is 'int2'; it must be one of auto, float32, bfloat16, int8, int4"):
        LocalEngine(tiny.loaded(nano_tokenizer), Settings(weights="int2"))
