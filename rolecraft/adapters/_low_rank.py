"""Lets PEFT's plain LoRA layers take less memory in training, to the same bits.

They add to their base's output in place: PEFT's own sum makes three tensors of the output's width more, between those
that the backward pass needs, and the holes that they leave take as much memory as what is kept. And of a dropout they
keep which numbers were dropped, not the float32 factors that torch keeps on a CPU. Not covered: layers with
anything beside a base, A and B (DoRA, several adapters at once, weights merged or quantised, two types of numbers,
hooks on the base, which may have kept what it returned), which go PEFT's own way. torch is imported where it is
needed: a recipe's mistakes are told before it is loaded.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch


def lighten(model: Any) -> None:
    """Set the forward call of a model's LoRA layers; it asks each time whether the layer is plain."""
    from peft.tuners.lora import Linear
    from torch import nn

    for layer in model.modules():
        if type(layer) is Linear and type(layer.get_base_layer()) is nn.Linear:
            layer.__class__ = _light()


@cache
def _light() -> type:
    """Return the class of layers: PEFT's, and nothing beside, so that what is copied or saved of one is as before."""
    from peft.tuners.lora import Linear as LoraLinear

    class Light(LoraLinear):  # type: ignore[misc]
        def forward(self, x: torch.Tensor, *arguments: Any, **named: Any) -> torch.Tensor:
            if arguments or named or not _is_plain(self):
                plain: torch.Tensor = LoraLinear.forward(self, x, *arguments, **named)
                return plain
            return _added(self, x)

    return Light


def _is_plain(layer: Any) -> bool:
    active = layer.active_adapters
    off = layer.disable_adapters or layer.merged or layer.lora_variant or layer.base_layer._forward_hooks
    return not off and len(active) == 1 and active[0] in layer.lora_A


def _added(layer: Any, x: torch.Tensor) -> torch.Tensor:
    (name,) = layer.active_adapters
    down, up = layer.lora_A[name], layer.lora_B[name]
    result: torch.Tensor = layer.base_layer(x)
    dropped = _dropped(layer.lora_dropout[name], layer._cast_input_dtype(x, down.weight.dtype))
    added: torch.Tensor = up(down(dropped)).mul_(layer.scaling[name])
    return result.add_(added) if result.dtype == added.dtype else (result + added).to(result.dtype)


def _dropped(dropout: Any, x: torch.Tensor) -> torch.Tensor:
    from torch import nn

    if type(dropout) is nn.Dropout and dropout.training and 0.0 < dropout.p < 1.0 and x.device.type == "cpu":
        return _dropout().apply(x, 1.0 - dropout.p)  # type: ignore[no-any-return]
    return dropout(x)  # type: ignore[no-any-return]


@cache
def _dropout() -> Any:
    """Return torch's own dropout on a CPU, with its draws, which keeps a byte of each number."""
    import torch

    def again(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        (kept,) = ctx.saved_tensors
        back: torch.Tensor = x * kept.to(x.dtype).div_(ctx.share)
        return back

    class Dropout(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: torch.Tensor, share: float) -> torch.Tensor:
            factors = torch.empty_like(x).bernoulli_(share)
            ctx.share = share
            ctx.save_for_backward(factors.bool())
            return x * factors.div_(share)

        @staticmethod
        def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, None]:
            return again(ctx, gradient), None

    Dropout.again = staticmethod(again)  # type: ignore[attr-defined]  # for `recomputing`
    return Dropout
