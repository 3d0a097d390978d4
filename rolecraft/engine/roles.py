"""What a Mixture of Roles adds to linear layers that read the same input, one role's LoRAs at a time.

Not covered: training, and several adapters at once.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import exp
from typing import Any

import torch
from peft.tuners.lora.layer import Linear as LoraLinear
from torch import Tensor

from rolecraft.adapters import mor

_LARGE = 700.0
"""Its exponential is still a number."""


@dataclass(frozen=True, slots=True)
class Scratch:
    """Where a CPU works on a token that stands alone, so that the step makes no tensors.

    `both` (1, M * count * r + M * count) is what `down` gives; `middle` (1, M * count * r), `scaled`, the same as
    (M * count, r), and `logits` (M * count,) are views of it. What is written to `numbers` stands in `weights`
    (M * count, 1).
    """

    both: Tensor
    middle: Tensor
    scaled: Tensor
    logits: Tensor
    weights: Tensor
    numbers: array[float]


@dataclass(frozen=True, slots=True)
class One:
    """One role's part of M layers: `count` LoRAs of rank `r` each, of which `top_k` routed ones and the last, shared.

    `down` (in, M * count * r + M * count): all A, then all routers, if there are any. `ups`: each layer's B
    (count * r, out) with the adapter's scale in it, and `stacked` the same as one where the layers are equally wide.
    `shared` is 1 for the shared LoRA and 0 for the others. `scratch` is None where a token is not worked on alone.
    """

    count: int
    r: int
    top_k: int
    routed: bool
    down: Tensor
    ups: tuple[Tensor, ...]
    stacked: Tensor
    shared: Tensor
    scratch: Scratch | None = None


@dataclass(frozen=True, slots=True)
class RoleLoras:
    """All roles' parts; `outs` are the columns (first, end) of the layers that have LoRAs, `together`
    tells that these are all, and equally wide. For one thread at a time."""

    roles: tuple[One, ...]
    outs: tuple[tuple[int, int], ...]
    together: bool

    def add_to(self, out: Tensor, x: Tensor, spans: tuple[tuple[int, int, int], ...]) -> None:
        """Add what each token's role has to `out` (N, out); `x` (N, in) stands by role as `spans` tell."""
        for role, first, end in spans:
            if end - first == len(x):
                self._add(out, x, self.roles[role])
            else:
                self._add(out[first:end], x[first:end], self.roles[role])

    def _add(self, out: Tensor, x: Tensor, one: One) -> None:
        if len(x) == 1 and one.scratch is not None and _lower_alone(x, one, one.scratch):
            self._add_ups(out, one.scratch.middle, one)
            return
        count, layers = len(x), len(self.outs)
        middle = torch.mm(x, one.down)
        if one.routed:
            middle, logits = middle.split_with_sizes((layers * one.count * one.r, layers * one.count), 1)
            weights = _weights(logits.view(count, layers, one.count), one)
            middle.view(count, layers, one.count, one.r).mul_(weights.unsqueeze(-1))
        self._add_ups(out, middle, one)

    def _add_ups(self, out: Tensor, middle: Tensor, one: One) -> None:
        """Add what the B make of each layer's part of `middle` (N, M * count * r)."""
        count, layers, rank = len(out), len(self.outs), one.count * one.r
        if layers == 1:
            first, end = self.outs[0]
            (out if self.together else out[:, first:end]).addmm_(middle, one.ups[0])
        elif self.together:
            by_layer = middle.view(count, layers, rank).transpose(0, 1)
            out.view(count, layers, -1).transpose(0, 1).baddbmm_(by_layer, one.stacked)
        else:
            for (first, end), part, up in zip(self.outs, torch.split(middle, rank, 1), one.ups, strict=True):
                out[:, first:end].addmm_(part, up)


def _lower_alone(x: Tensor, one: One, scratch: Scratch) -> bool:
    """Put what A make of one token, weighted, into `scratch`; tell whether that was done.

    It is not where LoRAs tie for the last place, which `topk` must decide. The weights are Python's numbers: torch has
    five small kernels for them, which the matrices of the step keep driving from the processor's caches.
    """
    torch.mm(x, one.down, out=scratch.both)
    logits = scratch.logits.tolist()
    for first in range(0, len(logits), one.count):
        if not _weigh(logits[first : first + one.count], one.top_k, scratch.numbers, first):
            return False
    scratch.scaled.mul_(scratch.weights)
    return True


def _weigh(logits: list[float], top_k: int, weights: array[float], place: int) -> bool:
    """Write a layer's weights, as `_weights` has them, from `place` on; False if LoRAs tie for the last place."""
    if own := logits[:-1]:
        ranked = sorted(own)
        best, last, total = ranked[-1], ranked[-top_k], 0.0
        if top_k < len(own) and ranked[-top_k - 1] == last:
            return False
        for logit in ranked[-top_k:]:
            total += exp(logit - best)
        for logit in own:
            weights[place] = exp(logit - best) / total if logit >= last else 0.0
            place += 1
    weights[place] = 1 / (1 + exp(min(-logits[-1], _LARGE)))
    return True


def _weights(logits: Tensor, one: One) -> Tensor:
    """Return each LoRA's weight (N, M, count): softmax over the best `top_k` routed ones, a sigmoid for the shared.

    To scale the best of a softmax to a sum of 1 is to take the softmax of the best.
    """
    logits = logits if logits.dtype == torch.float32 else logits.float()
    weights = logits.sigmoid().mul_(one.shared)
    if one.count > 1:
        best, places = logits.narrow(-1, 0, one.count - 1).topk(one.top_k, -1)
        weights.scatter_(-1, places, best.softmax(-1))
    return weights if one.down.dtype == torch.float32 else weights.to(one.down.dtype)


def plain_loras(model: Any) -> Iterator[Any]:
    """Yield the modules that PEFT's plain LoRA has put around a linear layer: one adapter, not merged, no variant."""
    for module in model.modules():
        if type(module) is LoraLinear and _is_plain(module):
            yield module


def _is_plain(module: Any) -> bool:
    names = list(module.active_adapters)
    return (
        len(names) == 1
        and names[0] in module.lora_A
        and not (module.merged or module.disable_adapters or module.lora_variant or module.fan_in_fan_out)
        and module.lora_B[names[0]].bias is None
    )


def read_loras(modules: Sequence[Any], dtype: torch.dtype | None = None) -> RoleLoras | None:
    """Return the LoRAs of linear layers side by side; None if there are none, or not one active adapter's.

    They are of `dtype`, or of the base's. Plain LoRAs are those of a role that all tokens have.
    """
    dtype = dtype or getattr(modules[0], "base_layer", modules[0]).weight.dtype
    if any(type(module) is LoraLinear for module in modules):
        return _read_plain(modules, dtype)
    outs, mixed, first = [], [], 0
    for module in modules:
        end = first + module.out_features
        if isinstance(module, mor.MoRLinear):
            names = [name for name in module.active_adapters if name in module.mixtures]
            if module.disable_adapters or len(names) != 1:
                return None
            outs.append((first, end))
            mixed.append((module, names[0]))
        first = end
    if not mixed:
        return None
    widths = {end - start for start, end in outs}
    together = len(outs) == len(modules) and len(widths) == 1
    mixture = mixed[0][0].mixtures[mixed[0][1]]
    if any(module.mixtures[name] != mixture for module, name in mixed):
        return None
    roles = tuple(_one(mixed, role, together, dtype) for role in range(len(mixture.counts)))
    return RoleLoras(roles, tuple(outs), together)


def _read_plain(modules: Sequence[Any], dtype: torch.dtype) -> RoleLoras | None:
    outs, downs, ups, first = [], [], [], 0
    for module in modules:
        end = first + module.out_features
        if type(module) is LoraLinear:
            if not _is_plain(module):
                return None
            name = module.active_adapters[0]
            outs.append((first, end))
            downs.append(module.lora_A[name].weight.detach().to(dtype))
            ups.append((module.lora_B[name].weight.detach() * module.scaling[name]).t().to(dtype).contiguous())
        first = end
    if len({len(down) for down in downs}) > 1:
        return None
    together = len(outs) == len(modules) and len({end - start for start, end in outs}) == 1
    stacked = torch.stack(ups) if together else torch.empty(0, dtype=dtype)
    parts = tuple(stacked) if together else tuple(ups)
    down = torch.cat(downs).t().contiguous()
    one = One(1, len(downs[0]), 0, False, down, parts, stacked, torch.ones(1, device=down.device))
    return RoleLoras((one,), tuple(outs), together)


def _one(mixed: Sequence[tuple[Any, str]], role: int, together: bool, dtype: torch.dtype) -> One:
    module, name = mixed[0]
    mixture = module.mixtures[name]
    first, end = mixture.edges[role : role + 2]
    kept = [layer.weights(its) for layer, its in mixed]
    ranks, count = slice(first * mixture.r, end * mixture.r), end - first
    downs = [one.A.detach()[ranks] for one in kept]
    downs += [one.router.detach()[first:end] for one in kept if one.router is not None]
    ups = [one.B.detach()[ranks] * mixture.scale for one in kept]
    shared = torch.zeros(count, device=ups[0].device)
    shared[-1] = 1.0
    stacked = torch.stack(ups).to(dtype) if together else torch.empty(0, dtype=dtype)
    down = torch.cat(downs).to(dtype).t().contiguous()
    alone = mixture.router and down.dtype == torch.float32 and down.device.type == "cpu"
    return One(
        count=count,
        r=mixture.r,
        top_k=mixture.top_k[role],
        routed=mixture.router,
        down=down,
        ups=tuple(stacked) if together else tuple(up.to(dtype) for up in ups),
        stacked=stacked,
        shared=shared,
        scratch=_scratch(down, len(mixed), count, mixture.r) if alone else None,
    )


def _scratch(down: Tensor, layers: int, count: int, r: int) -> Scratch:
    both, numbers = down.new_empty(1, down.shape[1]), array("f", bytes(4 * layers * count))
    middle, logits = both.split_with_sizes((layers * count * r, layers * count), 1)
    return Scratch(
        both=both,
        middle=middle,
        scaled=middle.view(layers * count, r),
        logits=logits[0],
        weights=torch.frombuffer(numbers, dtype=torch.float32).view(-1, 1),
        numbers=numbers,
    )
