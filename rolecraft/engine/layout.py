"""Reads a transformers model into the matrices that `fused` multiplies by, without keeping its weights twice.

Covered: Llama, Qwen2, Qwen3 and Phi-3 with silu, angles that do not depend on the length, and a Mixture of Roles on any
of their linear layers. Anything else, a hook or a type that is not known, is left to the model's own forward pass.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from rolecraft import virtual_tokens
from rolecraft.adapters import mor
from rolecraft.engine.packed import Logits, Matrix
from rolecraft.engine.roles import RoleLoras, plain_loras, read_loras

_FAMILIES = ("Llama", "Qwen2", "Qwen3", "Phi3")
_MANY = 64
"""So many tokens are worth converting to bfloat16 and back."""
_ANGLES = frozenset(("default", "linear", "llama3", "yarn"))
"""Kinds of rotary embedding whose angles a position has for good."""


@dataclass(frozen=True, slots=True)
class Norm:
    """A root-mean-square norm; `floor` is its epsilon as a tensor."""

    weight: Tensor
    epsilon: float
    floor: Tensor


@dataclass(frozen=True, slots=True)
class Linear:
    """Linear layers that read the same input, side by side: `weights` (in, out), neighbouring in memory as written.

    From memory a CPU multiplies one row by such a matrix up to three times as fast as by transformers' (out, in).
    `half` is a copy of all in bfloat16 that many tokens at once are multiplied by, in networks for prompts. Where there
    is `packed`, it is what is multiplied by, for prompts `packed_prompts`, if there is one; then `weights` are none.
    """

    weights: tuple[Tensor, ...]
    width: int
    bias: Tensor | None
    loras: RoleLoras | None
    half: Tensor | None = None
    packed: Matrix | Logits | None = None
    packed_prompts: Matrix | None = None

    def apply(self, x: Tensor, spans: tuple[tuple[int, int, int], ...]) -> Tensor:
        """Return what the layers make of `x` (N, in), side by side (N, width); `spans` are its tokens by role."""
        if self.packed is not None:
            out = self.packed.product(x)
        elif self.half is not None and len(x) >= _MANY:
            out = self._rounded(x, self.half)
        else:
            out = x.new_empty(len(x), self.width)
            first = 0
            for weight in self.weights:
                torch.mm(x, weight, out=out.narrow(1, first, weight.shape[1]))
                first += weight.shape[1]
        return self._finished(out, x, spans)

    def add_to(self, out: Tensor, x: Tensor, spans: tuple[tuple[int, int, int], ...]) -> None:
        """Add what the one layer makes of `x` to `out`."""
        if self.packed is not None:
            out.add_(self.packed.rounded(x))
        elif self.half is not None and len(x) >= _MANY:
            out.add_(self._rounded(x, self.half))
        else:
            out.addmm_(x, self.weights[0])
        self._finished(out, x, spans)

    def _rounded(self, x: Tensor, half: Tensor) -> Tensor:
        return torch.mm(x.to(half.dtype), half).to(x.dtype)

    def _finished(self, out: Tensor, x: Tensor, spans: tuple[tuple[int, int, int], ...]) -> Tensor:
        if self.bias is not None:
            out.add_(self.bias)
        if self.loras is not None:
            self.loras.add_to(out, x, spans)
        return out


@dataclass(frozen=True, slots=True)
class Block:
    """One decoder layer; `head_norm`, (heads + cached heads, width), is Qwen3's on queries and keys."""

    before: Norm
    qkv: Linear
    head_norm: Norm | None
    out: Linear
    between: Norm
    gate_up: Linear
    down: Linear

    @property
    def linears(self) -> tuple[Linear, Linear, Linear, Linear]:
        """All that it multiplies by."""
        return self.qkv, self.out, self.gate_up, self.down


@dataclass(frozen=True, slots=True)
class Network:
    """A whole model. `cos` and `sin` (places, head width) hold each place's angles, `sin` negative in its first half.

    `heads` ask and `cached_heads` are asked; `mixed` tells whether any layer has a Mixture of Roles, `tuned` whether
    any has a LoRA that all tokens share. `apart`: a row's attention is computed by itself, so that it is the same to
    the bit whatever rows stand beside it. `virtual` (N, width) are the vectors of the ids beyond the embedding's.
    """

    embedding: Tensor
    blocks: tuple[Block, ...]
    norm: Norm
    head: Linear
    heads: int
    cached_heads: int
    head_width: int
    scale: float
    cos: Tensor
    sin: Tensor
    places: Tensor
    bias: Tensor
    mixed: bool
    tuned: bool = False
    apart: bool = False
    virtual: Tensor | None = None

    @property
    def device(self) -> torch.device:
        """Where it is computed."""
        return self.embedding.device

    @property
    def split(self) -> list[int]:
        """How many heads of queries, keys and values stand side by side."""
        return [self.heads, self.cached_heads, self.cached_heads]


def changed(network: Network, change: Callable[[Linear], Linear]) -> Network:
    """Return the network with every linear layer of its blocks changed."""

    def block(one: Block) -> Block:
        return replace(
            one, qkv=change(one.qkv), out=change(one.out), gate_up=change(one.gate_up), down=change(one.down)
        )

    return replace(network, blocks=tuple(block(one) for one in network.blocks))


def read(model: Any, places: int, *, with_lora: bool = False) -> Network | None:
    """Return the model, which then reads its weights from the same memory, for `places` tokens; None if not covered.

    `with_lora` covers PEFT's plain LoRAs that are not merged as well.

    What a Mixture of Roles adds is copied, since it is kept in another order. Read again once weights have changed.
    """
    family = next((name for name in _FAMILIES if type(model).__name__ == f"{name}ForCausalLM"), None)
    if family is None or not type(model).__module__.startswith("transformers.") or not _plain(model, family, with_lora):
        return None
    # Parameters are to point at what is made here, and one made in inference mode could not be trained again.
    with torch.inference_mode(False), torch.no_grad():
        return _network(model, places)


def _plain(model: Any, family: str, with_lora: bool) -> bool:
    """Tell whether every module is one of the family's own, unwatched, and all weights are of one type and place."""
    config = model.config.get_text_config()
    rope = getattr(config, "rope_parameters", None) or {}
    if config.hidden_act != "silu" or rope.get("rope_type", "default") not in _ANGLES:
        return False
    known = {f"{family}{part}" for part in ("ForCausalLM", "Model", "DecoderLayer", "Attention", "MLP", "RMSNorm")}
    known |= {f"{family}RotaryEmbedding", "SiLUActivation", "SiLU", "Embedding", "Linear", "ModuleList", "Dropout"}
    wrappers = [*mor.layers(model).values(), *virtual_tokens.layers(model)]
    wrappers += plain_loras(model) if with_lora else ()
    inside = {id(module) for wrapper in wrappers for module in wrapper.modules()}
    modules = [module for module in model.modules() if id(module) not in inside]
    modules += [getattr(wrapper, "table", None) or wrapper.base_layer for wrapper in wrappers]
    gate = getattr(model, "mor_gate", None)
    if not all(type(module).__name__ in known and not _watched(module, gate) for module in modules):
        return False
    if any(weight.is_inference() for module in modules for weight in module.parameters(recurse=False)):
        return False  # it was made in inference mode, and cannot be pointed elsewhere
    kinds = {(weight.dtype, weight.device) for module in modules for weight in module.parameters(recurse=False)}
    return len(kinds) == 1 and next(iter(kinds))[0].is_floating_point


def _watched(module: nn.Module, gate: Any) -> bool:
    """Tell whether somebody else's code runs when the module is called."""
    hooks = (*module._forward_hooks.values(), *module._forward_pre_hooks.values())
    return "forward" in vars(module) or any(
        gate is None or getattr(hook, "__self__", None) is not gate for hook in hooks
    )


def _network(model: Any, places: int) -> Network | None:
    inner = model.model
    tied = model.lm_head.weight is inner.embed_tokens.weight  # whose rows are to be neighbours
    weight, bias = model.lm_head.weight, model.lm_head.bias
    turned = weight.detach().t() if tied else _turned(weight)
    head = Linear((turned,), turned.shape[1], None if bias is None else bias.detach(), None)
    return assemble(model, places, inner.embed_tokens.weight.detach(), _linear, head)


def assemble(
    model: Any,
    places: int,
    embedding: Tensor,
    make: Callable[[Sequence[Any]], Linear | None],
    head: Linear,
    dtype: torch.dtype | None = None,
) -> Network | None:
    """Return a network of what `make` makes of linear layers that read the same input; None where it makes none.

    Norms and angles are of `dtype`, or of the embedding's.
    """
    inner, device = model.model, embedding.device
    layers = inner.layers[: inner.config.num_hidden_layers]
    attention = layers[0].self_attn
    width = int(attention.head_dim)
    queries, cached = inner.config.num_attention_heads, inner.config.num_key_value_heads
    numbers = torch.arange(places, device=device)
    cos, sin = inner.rotary_emb(torch.empty(1, dtype=dtype or embedding.dtype, device=device), numbers[None])
    if cos.shape[-1] != width:  # only a part of each head is turned
        return None
    blocks = tuple(_block(layer, queries, cached, make, cos.dtype) for layer in layers)
    if any(block is None for block in blocks):
        return None
    sin = torch.cat((-sin[0, :, : width // 2], sin[0, :, width // 2 :]), -1)
    return Network(
        embedding=embedding,
        blocks=tuple(block for block in blocks if block is not None),
        norm=_norm(inner.norm, cos.dtype),
        head=head,
        heads=queries,
        cached_heads=cached,
        head_width=width,
        scale=float(attention.scaling),
        cos=cos[0].contiguous(),
        sin=sin,
        places=numbers,
        bias=torch.tensor([0.0, float("-inf")], dtype=cos.dtype, device=device),
        mixed=bool(mor.layers(model)),
        tuned=any(True for _ in plain_loras(model)),
        virtual=virtual_tokens.rows(model),
    )


def linears(layer: Any) -> tuple[list[Any], list[Any], list[Any], list[Any]]:
    """Return a layer's linear modules by what they read: queries, keys and values; out; gate and up; down."""
    attention, mlp = layer.self_attn, layer.mlp
    if hasattr(attention, "qkv_proj"):  # Phi-3 has its matrices side by side already
        return [attention.qkv_proj], [attention.o_proj], [mlp.gate_up_proj], [mlp.down_proj]
    readers = [attention.q_proj, attention.k_proj, attention.v_proj]
    return readers, [attention.o_proj], [mlp.gate_proj, mlp.up_proj], [mlp.down_proj]


def _block(
    layer: Any, queries: int, cached: int, make: Callable[[Sequence[Any]], Linear | None], dtype: torch.dtype
) -> Block | None:
    parts = [make(group) for group in linears(layer)]
    if any(part is None for part in parts):
        return None
    attention = layer.self_attn
    qkv, out, gate_up, down = (part for part in parts if part is not None)
    head_norm = None
    if hasattr(attention, "q_norm"):
        one_q, one_k = attention.q_norm, attention.k_norm
        weight = torch.cat((one_q.weight.expand(queries, -1), one_k.weight.expand(cached, -1)))
        head_norm = Norm(weight.to(dtype), one_q.variance_epsilon, _floor(one_q))
    before, between = (_norm(norm, dtype) for norm in (layer.input_layernorm, layer.post_attention_layernorm))
    return Block(before, qkv, head_norm, out, between, gate_up, down)


def _norm(module: Any, dtype: torch.dtype) -> Norm:
    return Norm(module.weight.detach().to(dtype), float(module.variance_epsilon), _floor(module))


def _floor(module: Any) -> Tensor:
    return torch.tensor(float(module.variance_epsilon), dtype=torch.float32, device=module.weight.device)


def base_layers(modules: Sequence[Any]) -> list[Any]:
    """Return the linear modules themselves, without what an adapter has put around them."""
    return [getattr(module, "base_layer", module) for module in modules]


def joint_bias(modules: Sequence[Any]) -> Tensor | None:
    """Return the biases of linear modules side by side, zeros for those that have none; None if none has."""
    biases = [module.bias for module in modules]
    if all(one is None for one in biases):
        return None
    none = next(one for one in biases if one is not None).new_zeros(())
    return torch.cat([none.expand(m.out_features) if m.bias is None else m.bias.detach() for m in modules])


def _linear(modules: Sequence[Any]) -> Linear | None:
    """Return linear layers as one; None if what is on them cannot be read."""
    plain = base_layers(modules)
    loras = read_loras(modules)
    if loras is None and plain != list(modules):
        return None
    weights = tuple(_turned(module.weight) for module in plain)
    return Linear(weights, sum(weight.shape[1] for weight in weights), joint_bias(plain), loras)


def _turned(weight: nn.Parameter) -> Tensor:
    """Return a matrix (out, in) as one of (in, out), and let the parameter be its view, so that it is not held twice.

    Each keeps memory of its own: transformers does not save parameters that are columns of a common one.
    """
    turned = weight.detach().t()
    if not turned.is_contiguous():
        turned = turned.contiguous()
        weight.data = turned.t()
    return turned
