"""Lets PEFT's plain LoRA layers take less memory in training, to the same bits.

They add to their base's output in place: PEFT's own sum makes three tensors of the output's width more, between those
that the backward pass needs, and the holes that they leave take as much memory as what is kept. And of a dropout they
keep which numbers were dropped, not the float32 factors that torch keeps on a CPU. Not covered: layers with
anything beside a base, A and B (DoRA, several adapters at once, weights merged or quantised, two types of numbers),
which go PEFT's own way.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from peft.tuners.lora import Linear
from torch import nn


def lighten(model: Any) -> None:
    """Set the forward call of a model's LoRA layers; it asks each time whether the layer is plain."""
    for layer in model.modules():
        if type(layer) is Linear and type(layer.get_base_layer()) is nn.Linear:
            # a partial, not a closure, for a copy of the layer then has a call of its own
            layer.forward = partial(_forward, layer)


def _forward(layer: Any, x: torch.Tensor, *arguments: Any, **named: Any) -> torch.Tensor:
    active = layer.active_adapters
    name = active[0] if len(active) == 1 else ""
    if arguments or named or layer.disable_adapters or layer.merged or name not in layer.lora_A or layer.lora_variant:
        plain: torch.Tensor = Linear.forward(layer, x, *arguments, **named)
        return plain
    down, up = layer.lora_A[name], layer.lora_B[name]
    result: torch.Tensor = layer.base_layer(x)
    dropped = _dropped(layer.lora_dropout[name], layer._cast_input_dtype(x, down.weight.dtype))
    added: torch.Tensor = up(down(dropped)).mul_(layer.scaling[name])
    return result.add_(added) if result.dtype == added.dtype else (result + added).to(result.dtype)


def _dropped(dropout: Any, x: torch.Tensor) -> torch.Tensor:
    if type(dropout) is nn.Dropout and dropout.training and 0.0 < dropout.p < 1.0 and x.device.type == "cpu":
        return _Dropout.apply(x, 1.0 - dropout.p)  # type: ignore[no-untyped-call, no-any-return]
    return dropout(x)  # type: ignore[no-any-return]


class _Dropout(torch.autograd.Function):
    """torch's own dropout on a CPU, with its draws; it keeps a byte of each number."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, share: float) -> torch.Tensor:
        """Return `x` with each number kept at a chance of `share`, and the larger for it."""
        factors = torch.empty_like(x).bernoulli_(share)
        ctx.share = share
        ctx.save_for_backward(factors.bool())
        return x * factors.div_(share)

    @staticmethod
    def again(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        """Return what `forward` has returned, for `recomputing`."""
        (kept,) = ctx.saved_tensors
        back: torch.Tensor = x * kept.to(x.dtype).div_(ctx.share)
        return back

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, None]:
        """Return the gradient of what was kept."""
        return _Dropout.again(ctx, gradient), None
