"""Rows laid out from one shared prefix train what they train one by one."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
import torch
import transformers
from test_train import largest_difference, place, recipe_of  # noqa: F401  # a fixture

from rolecraft import adapters, attention, objectives
from rolecraft.adapters import lora, mor
from rolecraft.errors import SettingsError
from rolecraft.examples import Example
from rolecraft.train import train
from rolecraft.train.batches import Batch
from rolecraft.train.rows import Rows

TOOLS = tuple(random.Random(0).choices(range(64), k=21))
SIZES = {
    "vocab_size": 64,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
}


def example(prefix: tuple[int, ...], length: int, seed: int, trained: int = 5) -> Example:
    draw = random.Random(seed)
    ids = (*prefix, *(draw.randrange(64) for _ in range(length)))
    weights = tuple(draw.choice((0.5, 1.0)) if t >= len(ids) - trained else 0.0 for t in range(len(ids)))
    roles = tuple(0 if not weight else 1 + t % 2 for t, weight in enumerate(weights))
    return Example(ids, weights, ("assistant",) * len(ids), roles=roles)


GROUPS = {
    "one prefix": [[example(TOOLS, length, length) for length in (9, 14, 7)]],
    "two prefixes and a row by itself": [
        [example(TOOLS, length, length) for length in (9, 14)],
        [example(TOOLS[:6], length, length) for length in (30, 8)],
        [example((), 12, 3)],
    ],
    "nothing in common": [[example((seed,), 11, seed) for seed in (1, 2)]],
    "the same row twice": [[example(TOOLS, 9, 1), example(TOOLS, 9, 1)]],
    "a row that begins another": [[example(TOOLS, 0, 1), example(TOOLS, 9, 1)]],
    "trained where others still agree": [[example(TOOLS, 9, 1), example(TOOLS, 9, 2, trained=25)]],
    "trained from the second token": [[example(TOOLS, 3, 1, trained=23), example(TOOLS, 3, 2, trained=23)]],
}


def base(family: str):
    torch.manual_seed(0)
    config = {"llama": transformers.LlamaConfig, "qwen2": transformers.Qwen2Config}[family](**SIZES)
    return transformers.AutoModelForCausalLM.from_config(config)


def adapted(family: str, name: str):
    if name == "lora":
        model = lora.attach(base(family), lora.Settings(r=4, lora_alpha=8, lora_dropout=0.0))
    else:
        settings = mor.Settings(r=4, init_weights="lora", balance_coef=1.0)
        model = mor.attach(base(family), settings)
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter += 0.2 * torch.randn_like(parameter)
    return model.train()


def step(model, adapter, rows: Rows, batch: Batch) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Return the batch's sorted losses with its penalty, and all gradients."""
    model.zero_grad()
    inputs = rows[batch]
    keep_BT, targets_N, weights_N = objectives.next_token_targets(inputs["ids_BT"], inputs["weights_BT"])
    call = {**inputs.get("call", {}), **adapter.inputs(inputs["roles_BT"], inputs.get("times_BT"))}
    logits = model(input_ids=inputs["ids_BT"], use_cache=False, **call).logits
    losses_N = objectives.token_losses(logits[keep_BT], targets_N)
    penalty = adapter.penalty(model)
    (objectives.weighted_sum(losses_N, weights_N) + penalty).backward()
    told = torch.stack([*losses_N.detach().sort().values, torch.as_tensor(penalty).detach()])
    return told, {name: one.grad.clone() for name, one in model.named_parameters() if one.grad is not None}


def require_same(family: str, name: str, groups: list[list[Example]], *, checkpointing: bool = False) -> None:
    examples = [one for group in groups for one in group]
    places = iter(range(len(examples)))
    batched = tuple(tuple(next(places) for _ in group) for group in groups)
    rows = Rows(examples, ("assistant",), pad_id=0)
    model, adapter = adapted(family, name), adapters.find(name)
    if checkpointing:
        model.activation_checkpointing_enable({"use_reentrant": False})
        model.enable_input_require_grads()
    order = tuple(range(len(examples)))
    apart, gradients = step(model, adapter, rows, Batch(order, 0.1))
    assert gradients
    model.set_attn_implementation(attention.register_shared())
    shared, others = step(model, adapter, rows, Batch(order, 0.1, batched))
    torch.testing.assert_close(shared, apart, rtol=1e-5, atol=1e-6)
    assert others.keys() == gradients.keys()
    for key, gradient in gradients.items():
        assert (others[key] - gradient).norm() <= 1e-5 * gradient.norm() + 1e-9, key


@pytest.mark.parametrize("groups", GROUPS.values(), ids=GROUPS)
@pytest.mark.parametrize("family", ["llama", "qwen2"])
@pytest.mark.parametrize("name", ["lora", "mor"])
def test_losses_and_gradients_are_those_of_the_rows_one_by_one(family, name, groups):
    require_same(family, name, groups)


@pytest.mark.parametrize("name", ["lora", "mor"])
def test_they_are_so_with_gradient_checkpointing(name):
    require_same("llama", name, GROUPS["two prefixes and a row by itself"], checkpointing=True)


def test_a_prefix_is_computed_once_and_ends_before_what_predicts_the_first_trained_token():
    rows = Rows(GROUPS["one prefix"][0], ("assistant",), pad_id=0)
    batch = rows[Batch((0, 1, 2), 1.0, ((0, 1, 2),))]
    assert batch["call"]["trees"][0] == attention.Tree(21, (9, 14, 7))
    assert batch["ids_BT"].shape == (1, 56)  # 21 + 9 + 14 + 7, rounded
    assert batch["call"]["position_ids"][0, 21 + 9] == 21
    assert batch["times_BT"][0].tolist() == [3] * 21 + [1] * 30 + [0] * 5
    assert batch["tokens"] == 3 * 21 + 30
    late = Rows(GROUPS["trained where others still agree"][0], ("assistant",), pad_id=0)
    assert late.common((0, 1)) == 30 - 25 - 1


def test_a_role_that_differs_ends_the_prefix():
    one = example(TOOLS, 9, 1)
    other = Example(one.ids, one.weights, one.speakers, roles=(0, 0, 0, -1, *one.roles[4:]))
    assert Rows([one, other], ("assistant",), pad_id=0).common((0, 1)) == 3


def test_rows_that_only_fill_up_a_step_count_nothing():
    rows = Rows(GROUPS["one prefix"][0], ("assistant",), pad_id=0)
    batch = rows[Batch((0,), 0.0, ((0,),))]
    assert not batch["weights_BT"].any()
    assert batch["roles_BT"].eq(-1).all()


def test_a_run_that_shares_prefixes_ends_as_one_that_does_not(place, tmp_path):  # noqa: F811
    whole = recipe_of(place, tmp_path, per_device_train_batch_size=8)
    shared = replace(whole, data=replace(whole.data, group=8))
    one, other = train(whole, tmp_path / "whole"), train(shared, tmp_path / "shared")
    assert largest_difference(one, other) < 1e-4


def test_a_base_that_attends_otherwise_and_a_named_attention_are_refused(place, tmp_path):  # noqa: F811
    told = recipe_of(place, tmp_path)
    told = replace(told, data=replace(told.data, group=4), model=replace(told.model, attn_implementation="eager"))
    with pytest.raises(SettingsError, match="attn_implementation is 'eager': leave it out"):
        train(told, tmp_path / "run")
    config = transformers.Qwen2Config(**SIZES, use_sliding_window=True, sliding_window=8, max_window_layers=0)
    assert not attention.shares(transformers.AutoModelForCausalLM.from_config(config))
    assert attention.shares(base("qwen2"))
