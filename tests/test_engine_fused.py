"""The fused forward pass against the models' own: the same numbers in whatever order rows come and go."""

from __future__ import annotations

import asyncio
import random
from dataclasses import replace

import pytest
import tiny
import torch
from peft import LoraConfig, get_peft_model
from test_mor import shaken
from transformers import LlamaForCausalLM, Qwen3Config, Qwen3ForCausalLM

from rolecraft import renderers
from rolecraft.adapters import mor
from rolecraft.engine import LocalEngine, Settings
from rolecraft.engine.model_runner import ModelRunner, cache_keys
from rolecraft.engine.roles import read_loras
from rolecraft.model import Loaded
from rolecraft.types import Message, Prompt, Sampling

pytestmark = pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing:FutureWarning")

CONVERSATIONS = ("reasoner", "executor", "reasoner", "summarizer"), ("reasoner", "executor"), ("reasoner",)
VARIANTS = {
    "grouped queries": ("llama", {}),
    "a head of keys for each of queries": ("llama", {"num_key_value_heads": 4}),
    "one head of keys": ("llama", {"num_key_value_heads": 1}),
    "tied embeddings": ("llama", {"tie_word_embeddings": True}),
    "biases everywhere": ("llama", {"attention_bias": True, "mlp_bias": True}),
    "heads wider than the model": ("llama", {"head_dim": 16}),
    "stretched angles": ("llama", {"rope_parameters": {"rope_type": "linear", "factor": 4.0, "rope_theta": 1e4}}),
    "llama 3's angles": (
        "llama",
        {
            "rope_parameters": {
                "rope_type": "llama3",
                "factor": 8.0,
                "low_freq_factor": 1.0,
                "high_freq_factor": 4.0,
                "original_max_position_embeddings": 32,
                "rope_theta": 1e4,
            }
        },
    ),
    "biases on what asks and is asked": ("qwen2", {}),
    "matrices side by side": ("phi3", {}),
}


def mixture(tokenizer, assignment="stream", changes=None, **settings) -> Loaded:
    """A tiny random model with a Mixture of Roles that changes much."""
    base = tiny.loaded(tokenizer, **(changes or {}))
    chosen = mor.Settings(r=4, assignment=assignment, **settings)
    torch.manual_seed(1)
    tuned = shaken(mor.attach(base.model, chosen)).eval()
    return Loaded("tiny", tuned, tokenizer, base.renderer, "", "", gate=mor.gate(chosen))


def with_routers_times(loaded: Loaded, factor: float) -> Loaded:
    """The same, with another scale of its routers."""
    for name, parameter in loaded.model.named_parameters():
        if "mor_router" in name:
            parameter.data.mul_(factor)
    return loaded


def pair(loaded: Loaded, rows: int = 4, context: int = 200) -> tuple[ModelRunner, ModelRunner]:
    """Return a fused runner and one that runs the model's own forward pass."""
    ours, theirs = ModelRunner(loaded, rows, context), ModelRunner(loaded, rows, context, use_fused=False)
    assert ours.fused
    assert not theirs.fused
    return ours, theirs


@torch.inference_mode()
def compare(ours: ModelRunner, theirs: ModelRunner, roles: int, seed: int = 0, steps: int = 14) -> None:
    """Fill and write rows in a random order with both decoders, from short to long and with gaps between them."""
    dice = random.Random(seed)
    vocabulary = min(400, ours.vocabulary)

    def new(count: int) -> list[int]:
        role = dice.randrange(-1, roles) if roles else -1
        mixed = [dice.randrange(-1, roles) for _ in range(count)] if dice.random() < 0.5 and roles else [role] * count
        return cache_keys([dice.randrange(vocabulary) for _ in range(count)], mixed)

    for runner in (ours, theirs):
        runner.cache.clear()
        runner.cache.reserve(4, 60)
    for step in range(steps):
        rows = sorted(dice.sample(range(4), dice.randint(1, 4)))
        written = [row for row in rows if ours.cache.tokens[row]]
        if step % 2 or not written:
            call = [(row, new(dice.randint(1, 9))) for row in rows]
            keep = min(len(tokens) for _, tokens in call) if dice.random() < 0.3 else 1
            got, expected = (runner.prefill(call, keep) for runner in (ours, theirs))
        else:
            one = [(row, new(1)[0]) for row in written]
            got, expected = (runner.decode(one) for runner in (ours, theirs))
        torch.testing.assert_close(got, expected, atol=1e-4, rtol=1e-4)
    assert ours.cache.tokens == theirs.cache.tokens


def reply(engine: LocalEngine, *prompts: Prompt):
    async def ask():
        return await asyncio.gather(*(engine.complete(prompt) for prompt in prompts))

    return [completion.turn for completions in asyncio.run(ask()) for completion in completions]


def talk(engine: LocalEngine, conversations) -> list:
    """Hold conversations at once, each speaker in turn; return all turns."""

    async def hold(number, speakers):
        messages, turns = [Message("user", f"debt of Plalples and rank of Ro {number}" * (number + 1))], []
        for speaker in speakers:
            (completion,) = await engine.complete(Prompt(tuple(messages), (), speaker, sampling=Sampling(max_tokens=7)))
            turns.append(completion.turn)
            messages.append(completion.message)
            if speaker == "executor":
                messages.append(Message("tool", "3809"))
        return turns

    async def ask():
        return await asyncio.gather(*(hold(number, speakers) for number, speakers in enumerate(conversations)))

    return [turn for turns in asyncio.run(ask()) for turn in turns]


@pytest.mark.parametrize("variant", VARIANTS)
def test_fused_rows_equal_those_of_the_models_own_forward(nano_tokenizer, variant):
    architecture, changes = VARIANTS[variant]
    compare(*pair(tiny.loaded(nano_tokenizer, architecture, **changes)), roles=0)


def test_norms_on_queries_and_keys_are_computed(nano_tokenizer):
    shape = {"num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8}
    config = Qwen3Config(
        vocab_size=len(nano_tokenizer), hidden_size=32, intermediate_size=64, initializer_range=0.3, **shape
    )
    torch.manual_seed(0)
    model = Qwen3ForCausalLM(config).eval()
    for name, parameter in model.named_parameters():
        if "norm" in name:
            torch.nn.init.uniform_(parameter, 0.5, 1.5)
    compare(*pair(Loaded("qwen3", model, nano_tokenizer, renderers.find(nano_tokenizer), "", "")), roles=0)


def test_windows_that_the_context_never_leaves_are_no_hindrance(nano_tokenizer):
    ours, theirs = pair(tiny.loaded(nano_tokenizer, "phi3", sliding_window=48))
    assert ours.context == 48
    compare(ours, theirs, roles=0, steps=6)


@pytest.mark.parametrize("seed", range(4))
def test_a_mixture_of_roles_is_the_same_whoever_is_in_the_batch(nano_tokenizer, seed):
    compare(*pair(mixture(nano_tokenizer)), roles=3, seed=seed)


@pytest.mark.parametrize(
    "settings",
    [
        {"router": False},
        {"target_modules": ("q_proj", "v_proj", "down_proj")},
        {"target_modules": ("gate_proj",), "lora_alpha": 9.0},
        {"roles": {"reasoner": 1, "executor": 2, "summarizer": 6},
         "top_k": {"reasoner": 0, "executor": 1, "summarizer": 5}},
        {"roles": {f"r{i}": 3 for i in range(7)}, "top_k": {f"r{i}": 2 for i in range(7)}, "context": None},
    ],
    ids=["no router", "some layers", "a scale", "lone shared LoRAs", "seven roles"],
)  # fmt: skip
def test_mixtures_of_all_shapes_are_computed(nano_tokenizer, settings):
    changes = {"num_key_value_heads": 4} if settings.get("router") is False else {}
    loaded = mixture(nano_tokenizer, changes=changes, **settings)
    compare(*pair(loaded), roles=len(loaded.gate.roles))


def test_routers_may_be_certain(nano_tokenizer):
    compare(*pair(with_routers_times(mixture(nano_tokenizer), 1e6)), roles=3)


@pytest.mark.parametrize("factor", [0.0, 0.1, 1.0, 1e6], ids=["tied", "near", "random", "certain"])
def test_a_token_alone_gets_what_it_gets_among_others(nano_tokenizer, factor):
    layer = with_routers_times(mixture(nano_tokenizer), factor).model.base_model.model.model.layers[1]
    for modules in ([layer.self_attn.q_proj], [layer.mlp.gate_proj, layer.mlp.up_proj]):
        loras = read_loras(modules)
        x = torch.randn(12, modules[0].in_features)
        for role in range(3):
            out = torch.zeros(12, sum(module.out_features for module in modules))
            loras.add_to(out, x, ((role, 0, 12),))
            for token in range(12):
                alone = torch.zeros(1, out.shape[1])
                loras.add_to(alone, x[token : token + 1], ((role, 0, 1),))
                torch.testing.assert_close(alone[0], out[token])


@pytest.mark.parametrize("assignment", ["stream", "reencode", "activated"])
def test_hand_overs_write_the_same_tokens(nano_tokenizer, assignment):
    loaded = mixture(nano_tokenizer, assignment)
    told = {}
    for fused in (True, False):
        for order in (CONVERSATIONS, CONVERSATIONS[::-1]):
            with LocalEngine(loaded, Settings(max_requests=3, fused=fused)) as engine:
                turns = talk(engine, order)
            told[fused, order] = sorted((turn.prompt_ids, turn.token_ids, turn.logprobs) for turn in turns)
    for order in (CONVERSATIONS, CONVERSATIONS[::-1]):
        for ours, theirs in zip(told[True, order], told[False, order], strict=True):
            assert ours[:2] == theirs[:2]
            assert ours[2] == pytest.approx(theirs[2], abs=1e-4)


def test_greedy_replies_are_those_of_the_models_own_forward(nano_tokenizer):
    loaded = tiny.loaded(nano_tokenizer)
    prompts = [tiny.prompt("rank of Ro " * (1 + i % 5), max_tokens=3 + 4 * i % 17) for i in range(9)]
    settings = Settings(max_requests=4)
    with LocalEngine(loaded, settings) as ours, LocalEngine(loaded, replace(settings, fused=False)) as theirs:
        expected = reply(theirs, *prompts)
        assert [turn.token_ids for turn in reply(ours, *prompts)] == [turn.token_ids for turn in expected]
        backwards = reply(ours, *prompts[::-1])
    assert [turn.token_ids for turn in backwards[::-1]] == [turn.token_ids for turn in expected]


def test_a_merged_lora_is_played_fused(nano_tokenizer):
    loaded = tiny.loaded(nano_tokenizer)
    tuned = get_peft_model(loaded.model, LoraConfig(target_modules="all-linear", init_lora_weights=False))
    merged = tuned.merge_and_unload().eval()
    compare(*pair(Loaded("merged", merged, nano_tokenizer, loaded.renderer, "", "")), roles=0)


def test_a_lora_that_is_not_merged_is_left_to_the_model(nano_tokenizer):
    loaded = tiny.loaded(nano_tokenizer)
    tuned = get_peft_model(loaded.model, LoraConfig(target_modules="all-linear", init_lora_weights=False))
    assert not ModelRunner(Loaded("lora", tuned, nano_tokenizer, loaded.renderer, "", ""), 2, 64).fused


def test_what_is_not_known_is_left_to_the_model(nano_tokenizer):
    dynamic = {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 1e4}
    assert not ModelRunner(tiny.loaded(nano_tokenizer, rope_parameters=dynamic), 2, 64).fused
    assert not ModelRunner(tiny.loaded(nano_tokenizer, hidden_act="gelu"), 2, 64).fused
    hooked = tiny.loaded(nano_tokenizer)
    hooked.model.model.layers[1].mlp.register_forward_hook(lambda module, args, output: output * 2)
    assert not ModelRunner(hooked, 2, 64).fused
    replaced = tiny.loaded(nano_tokenizer)
    replaced.model.model.norm = torch.nn.LayerNorm(32)
    assert not ModelRunner(replaced, 2, 64).fused


def test_a_part_turned_head_is_left_to_the_model(nano_tokenizer):
    rope = {"rope_type": "default", "partial_rotary_factor": 0.5, "rope_theta": 1e4}
    assert not ModelRunner(tiny.loaded(nano_tokenizer, "phi3", rope_parameters=rope), 2, 64).fused


def test_a_model_that_computes_otherwise_is_found_out_by_the_trial(nano_tokenizer):
    class LlamaForCausalLM(type(tiny.loaded(nano_tokenizer).model)):
        def forward(self, *args, **kwargs):
            output = super().forward(*args, **kwargs)
            output.logits = output.logits * 1.5
            return output

    LlamaForCausalLM.__module__ = "transformers.models.llama.modeling_llama"
    loaded = tiny.loaded(nano_tokenizer)
    other = LlamaForCausalLM(loaded.model.config).eval()
    runner = ModelRunner(Loaded("other", other, nano_tokenizer, loaded.renderer, "", ""), 2, 64)
    assert not runner.fused
    with torch.inference_mode():
        got = runner.prefill([(0, [5, 6, 7])])[0, -1]
        torch.testing.assert_close(got, other(torch.tensor([[5, 6, 7]])).logits[0, -1], atol=1e-4, rtol=1e-4)


def test_a_model_that_was_made_in_inference_mode_is_left_as_it_is(nano_tokenizer):
    with torch.inference_mode():
        loaded = tiny.loaded(nano_tokenizer)
    assert not ModelRunner(loaded, 2, 64).fused


def test_half_precision_is_computed_in_it(nano_tokenizer):
    loaded = tiny.loaded(nano_tokenizer, initializer_range=0.1)
    loaded.model.to(torch.bfloat16)
    ours, theirs = pair(loaded)
    call = [(0, [5, 6, 7, 8]), (1, [9, 10])]
    with torch.inference_mode():
        torch.testing.assert_close(ours.prefill(call)[:, -1], theirs.prefill(call)[:, -1], atol=3e-2, rtol=3e-2)


@pytest.mark.parametrize("roles", [False, True])
def test_forgetting_takes_weights_that_were_trained_since(nano_tokenizer, roles):
    loaded = mixture(nano_tokenizer) if roles else tiny.loaded(nano_tokenizer)
    prompt = Prompt((Message("user", "debt"),), (), "reasoner", sampling=Sampling(max_tokens=3))
    with LocalEngine(loaded) as engine:
        (before,) = reply(engine, prompt)
        with torch.no_grad():
            for parameter in loaded.model.parameters():
                parameter += 0.05 * torch.randn(
                    parameter.shape, generator=torch.Generator().manual_seed(len(parameter))
                )
        engine.forget()
        (after,) = reply(engine, prompt)
    with LocalEngine(loaded, Settings(fused=False)) as engine:
        (expected,) = reply(engine, prompt)
    assert after.token_ids == expected.token_ids
    assert after.logprobs == pytest.approx(expected.logprobs, abs=1e-4)
    assert after.logprobs != pytest.approx(before.logprobs, abs=1e-2)


def test_forgetting_takes_weights_that_were_put_in_the_place_of_others(nano_tokenizer):
    loaded = tiny.loaded(nano_tokenizer)
    with LocalEngine(loaded) as engine:
        (before,) = reply(engine, tiny.prompt("debt"))
        projection = loaded.model.model.layers[0].self_attn.k_proj
        projection.weight = torch.nn.Parameter(torch.randn_like(projection.weight))
        engine.forget()
        (after,) = reply(engine, tiny.prompt("debt"))
    assert before.logprobs != pytest.approx(after.logprobs, abs=1e-2)
    with LocalEngine(loaded, Settings(fused=False)) as engine:
        assert reply(engine, tiny.prompt("debt"))[0].token_ids == after.token_ids


def test_a_played_model_holds_each_weight_once_and_can_be_trained_and_saved(nano_tokenizer, tmp_path):
    loaded = tiny.loaded(nano_tokenizer)
    expected = {name: value.clone() for name, value in loaded.model.state_dict().items()}
    runner = ModelRunner(loaded, 2, 64)
    attention = loaded.model.model.layers[0].self_attn
    parts = [layer.weight for layer in (attention.q_proj, attention.k_proj, attention.v_proj)]
    assert all(part.t().is_contiguous() for part in parts)
    assert all(part.untyped_storage().nbytes() == part.nbytes for part in parts)
    places = [part.data_ptr() for part in parts]
    runner.refresh()
    assert places == [part.data_ptr() for part in parts]
    loaded.model.save_pretrained(tmp_path)
    again = LlamaForCausalLM.from_pretrained(tmp_path).state_dict()
    assert all(torch.equal(value, again[name]) for name, value in expected.items())
    loaded.model(input_ids=torch.tensor([[1, 2]])).logits.sum().backward()
    assert all(part.grad is not None and part.grad.shape == part.shape for part in parts)


def test_a_second_runner_finds_the_weights_as_the_first_left_them(nano_tokenizer):
    loaded = tiny.loaded(nano_tokenizer)
    places = []
    for _ in range(2):
        ModelRunner(loaded, 2, 64)
        places.append(loaded.model.model.layers[0].mlp.up_proj.weight.data_ptr())
    assert places[0] == places[1]
