"""What the backward pass computes again instead of the forward pass keeping it: products, activations, their copies.

A layer's linear parts keep what they take in, and most of that is an elementwise step from what is kept anyway: a
norm's output, or a gated activation's product. Such a tensor is known by autograd's own graph, whoever wrote the model,
and made again by the same operations, so that gradients are the same to the bit; any other is kept as ever. Not
covered: models under gradient checkpointing, which keep little already and give what they keep only once; gradients
of a part of the graph that another backward pass has freed; tensors on the way that were changed in place without
gradients (`detach`, `no_grad`, `data`), which the graph does not show.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

_LEAST = 2**14
"""Numbers of the smallest tensor that is worth the call."""
_DEEPEST = 6
"""Of what is computed again from what is computed again: each could double the work."""
_VIEWS = ("ViewBackward0", "UnsafeViewBackward0", "ReshapeAliasBackward0", "UnsqueezeBackward0", "ToCopyBackward0")


@dataclass(frozen=True, slots=True)
class _Kept:
    """A tensor, and its version when it was kept: autograd leaves it to hooks to notice a change in place."""

    tensor: Tensor
    version: int


@dataclass(frozen=True, slots=True)
class _Recipe:
    """The node of the graph that has computed a tensor, and has not been freed while a node after it needs it."""

    node: Any


@contextmanager
def recomputing(device: torch.device, least: int = _LEAST, *, checkpointed: bool = False) -> Iterator[None]:
    """Within, let a forward pass keep no tensor of `least` numbers or more that is cheap to compute again.

    On a CPU only: elsewhere a step of small kernels is bound by the calls that this adds to. A `checkpointed` model is
    left alone.
    """

    depths: dict[Any, int] = {}

    def pack(tensor: Tensor) -> _Kept | _Recipe:
        # What was changed in place is not what its node has made, and without gradients the graph does not show it.
        if tensor.numel() >= least and not tensor._version and _known(tensor.grad_fn):
            node = tensor.grad_fn
            depth = 1 + max((depths.get(one, 0) for one, _ in node.next_functions), default=0)  # type: ignore[union-attr]
            if depth <= _DEEPEST:
                depths[node] = depth
                return _Recipe(node)
        return _Kept(tensor.detach(), tensor._version)  # not itself: an output would keep its own node alive

    on = device.type == "cpu" and not checkpointed
    hooks = torch.autograd.graph.saved_tensors_hooks(pack, _unpack) if on else nullcontext()
    try:
        with hooks:
            yield
    finally:
        depths.clear()


def is_checkpointed(model: Any) -> bool:
    """Tell whether a model's layers are under gradient checkpointing."""
    return any(getattr(module, "gradient_checkpointing", False) for module in model.modules())


def _unpack(packed: _Kept | _Recipe) -> Tensor:
    if isinstance(packed, _Recipe):
        with torch.no_grad():
            return _value(packed.node)
    if packed.tensor._version != packed.version:
        raise RuntimeError(
            f"a tensor {tuple(packed.tensor.shape)} that the gradient needs was changed in place after it was kept "
            f"(version {packed.tensor._version}, not {packed.version}); change a copy of it"
        )
    return packed.tensor


def _known(node: Any, left: int = 2 * _DEEPEST) -> bool:
    """Tell whether `_value` can compute what a node has, within so many nodes before it.

    It asks for nothing that is kept, which may be a recipe itself.
    """
    if node is None or not left:
        return False
    name, before = node.name(), [one for one, _ in node.next_functions]
    if name == "MulBackward0":
        # Each factor is kept for the other's gradient: where only one has a gradient, only the other is kept.
        return all(before) or _known(before[0] or before[1], left - 1)
    if name in ("SiluBackward0", "GeluBackward0"):
        return True
    return (name in _VIEWS or _again(node) is not None) and _known(before[0], left - 1)


def _again(node: Any) -> Any:
    """Return what a Function written in Python gives to compute it again by (`again`), if it does."""
    return getattr(getattr(node, "_forward_cls", None), "again", None)


def _value(node: Any) -> Tensor:
    """Return what a node has computed, of the same shape and type, from what it and those before it keep."""
    (told,) = node._input_metadata
    return _computed(node).to(told.dtype).reshape(tuple(told.shape))


def _computed(node: Any) -> Tensor:
    name, before = node.name(), [one for one, _ in node.next_functions]
    if name == "MulBackward0":
        left = _value(before[0]) if before[1] is None else node._saved_self
        right = _value(before[1]) if before[0] is None else node._saved_other
        return left * right
    if name == "SiluBackward0":
        return functional.silu(node._saved_self)
    if name == "GeluBackward0":
        return functional.gelu(node._saved_self, approximate=node._saved_approximate)
    again = _again(node)
    return _value(before[0]) if again is None else again(node, _value(before[0]))
