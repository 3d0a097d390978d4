"""What is computed again in the backward pass is not kept, and changes no bit of a gradient."""

from __future__ import annotations

import contextlib
import weakref
from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn import functional
from transformers import AutoModelForCausalLM, Gemma3TextConfig, LlamaConfig, Phi3Config, Qwen2Config, Qwen3Config

from rolecraft import adapters, objectives
from rolecraft.recomputing import recomputing

KINDS = {
    "llama": LlamaConfig,
    "qwen2": Qwen2Config,
    "qwen3": Qwen3Config,
    "gemma3": Gemma3TextConfig,
    "phi3": Phi3Config,
}
SETTINGS = {"lora": {"r": 4, "lora_dropout": 0.1}, "mor": {"r": 4}, "full": {}}
CPU = torch.device("cpu")
ROLES_BT = torch.tensor([[0, 1, 2, -1] * 5, [1] * 20])


def tuned(kind: str, adapter: str):
    """Return a random model of two layers with an adapter on it that does something."""
    torch.manual_seed(0)
    base = AutoModelForCausalLM.from_config(
        KINDS[kind](
            vocab_size=64,
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            head_dim=8,
            initializer_range=0.3,
            pad_token_id=0,
            bos_token_id=1,
            eos_token_id=2,
        )
    )
    member = adapters.find(adapter)
    model = member.attach(base, member.Settings(**SETTINGS[adapter])).train()
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter)
    return model


def gradients(model, adapter: str, *, bf16: bool) -> dict[str, Tensor]:
    """Return the gradients of a step of 2 rows of 20 tokens."""
    ids_BT = torch.arange(40).view(2, 20)
    keep_BT, targets_N, weights_N = objectives.next_token_targets(ids_BT, torch.ones(2, 20))
    lower = torch.autocast("cpu", torch.bfloat16) if bf16 else contextlib.nullcontext()
    torch.manual_seed(1)
    model.zero_grad()
    with lower, objectives.only_logits_at(model.get_output_embeddings(), keep_BT):
        logits_NV = model(input_ids=ids_BT, use_cache=False, **adapters.find(adapter).inputs(ROLES_BT)).logits
    objectives.weighted_sum(objectives.token_losses(logits_NV, targets_N), weights_N).backward()
    return {name: one.grad for name, one in model.named_parameters() if one.grad is not None}


@pytest.mark.parametrize("bf16", [False, True])
@pytest.mark.parametrize("adapter", list(SETTINGS))
@pytest.mark.parametrize("kind", list(KINDS))
def test_gradients_are_the_same_to_the_bit(kind, adapter, bf16):
    model = tuned(kind, adapter)
    plain = gradients(model, adapter, bf16=bf16)
    with recomputing(CPU, least=1):
        again = gradients(model, adapter, bf16=bf16)
    assert plain.keys() == again.keys() != set()
    assert [name for name in plain if not torch.equal(plain[name], again[name])] == []


@pytest.mark.parametrize("adapter", list(SETTINGS))
def test_they_are_so_under_gradient_checkpointing(adapter):
    model = tuned("llama", adapter)
    plain = gradients(model, adapter, bf16=False)
    inner = model if adapter == "full" else model.base_model.model
    inner.activation_checkpointing_enable({"use_reentrant": False})
    with recomputing(CPU, least=1):
        again = gradients(model, adapter, bf16=False)
    assert [name for name in plain if not torch.equal(plain[name], again[name])] == []


def held_by_linear_layers(model, name: str) -> list[weakref.ref]:
    """Return a list that takes in, whenever a layer of this name is called, a reference to what it is given."""
    found: list[weakref.ref] = []
    for path, layer in model.named_modules():
        if path.endswith(name):
            layer.register_forward_pre_hook(lambda _, given: found.append(weakref.ref(given[0].untyped_storage())))
    return found


def norm(x: Tensor, scale: Tensor) -> Tensor:
    return scale * (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6))


@torch.no_grad()
def changed(x: Tensor) -> Tensor:
    return x.add_(1)


MADE: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "a product": lambda x, frozen: x * x.sin(),
    "a silu": lambda x, frozen: functional.silu(x),
    "a gelu": lambda x, frozen: functional.gelu(x, approximate="tanh"),
    "a gated product": lambda x, frozen: functional.silu(x) * x.cos(),
    "a norm": norm,
    "a norm in another type": lambda x, frozen: norm(x, frozen).double(),
    "a norm in another shape": lambda x, frozen: norm(x, frozen).view(2, 2, 4),
}


def is_kept(make: Callable[[Tensor, Tensor], Tensor]) -> bool:
    """Tell whether what is made is kept for a linear layer's gradient, once nobody else holds it."""
    x = torch.randn(4, 4, requires_grad=True) + 0  # what a model's layers see has a history
    made = make(x, torch.ones(4))
    found = made.flatten() @ torch.ones(made.numel(), dtype=made.dtype, requires_grad=True)
    there = weakref.ref(made.untyped_storage())
    del made
    kept = there() is not None
    found.backward()
    return kept


@pytest.mark.parametrize("make", MADE.values(), ids=list(MADE))
def test_what_is_cheap_to_compute_again_is_not_kept(make):
    assert is_kept(make)
    with recomputing(CPU, least=1):
        assert not is_kept(make)


@pytest.mark.parametrize(
    "make",
    [
        pytest.param(lambda x, frozen: x + 1, id="a sum"),
        pytest.param(lambda x, frozen: frozen * (x + 1), id="a frozen scale of a sum"),
        pytest.param(lambda x, frozen: (x * x).add_(1), id="a product that was changed"),
        pytest.param(lambda x, frozen: changed(x * x), id="a product that was changed without gradient"),
    ],
)
def test_what_the_graph_does_not_know_is_kept(make):
    with recomputing(CPU, least=1):
        assert is_kept(make)


def test_small_tensors_are_kept():
    with recomputing(CPU, least=17):
        assert is_kept(MADE["a product"])


@pytest.mark.parametrize("make", [MADE["a norm"], lambda x, frozen: x + 1], ids=["computed again", "kept"])
def test_a_change_in_place_of_what_is_kept_is_an_error_that_says_so(make):
    x = torch.randn(4, 4, requires_grad=True) + 0
    with recomputing(CPU, least=1):
        made = make(x, torch.ones(4))
        found = made @ torch.ones(4, requires_grad=True)
    for tensor in (x, made):
        tensor.mul_(2)
    with pytest.raises(RuntimeError, match=r"tensor \(4, 4\) .* changed in place"):
        found.sum().backward()


def test_a_graph_that_is_retained_gives_the_same_gradient_again():
    x = torch.randn(4, 4, requires_grad=True)
    with recomputing(CPU, least=1):
        found = (norm(x, torch.ones(4)) @ torch.ones(4, requires_grad=True)).sum()
    first, again = (torch.autograd.grad(found, x, retain_graph=True)[0] for _ in range(2))
    assert torch.equal(first, again)


def test_a_long_chain_is_made_again_in_pieces():
    weight = torch.randn(8, 8, requires_grad=True)

    def learned() -> torch.Tensor:
        x = torch.linspace(0.1, 1.0, 8).repeat(8, 1) + weight * 0
        for _ in range(24):  # doubled at each step, it would take minutes
            x = x * functional.silu(x)
        (gradient,) = torch.autograd.grad((x @ weight).sum(), weight)
        return gradient

    with recomputing(torch.device("cpu"), least=1):
        found = learned()
    assert torch.equal(found, learned())
