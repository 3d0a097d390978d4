"""What a Mixture of Roles adds to linear layers that read the same input, one role's LoRAs at a time.

Not covered: training, and several adapters at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from rolecraft.adapters import mor


@dataclass(frozen=True, slots=True)
class One:
    """One role's part of M layers: `count` LoRAs of rank `r` each, of which `top_k` routed ones and the last, shared.

    `down` (in, M * count * r + M * count): all A, then all routers, if there are any. `ups`: each layer's B
    (count * r, out) with the adapter's scale in it, and `stacked` the same as one where the layers are equally wide.
    `shared` is 1 for the shared LoRA and 0 for the others.
    """

    count: int
    r: int
    top_k: int
    routed: bool
    down: Tensor
    ups: tuple[Tensor, ...]
    stacked: Tensor
    shared: Tensor


@dataclass(frozen=True, slots=True)
class RoleLoras:
    """All roles' parts; `outs` are the columns (first, end) of the layers that have LoRAs, `together`
    tells that these are all, and equally wide."""

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
        count, layers = len(x), len(self.outs)
        middle = torch.mm(x, one.down)
        rank = one.count * one.r
        if one.routed:
            middle, logits = middle.split_with_sizes((layers * rank, layers * one.count), 1)
            weights = _weights(logits.view(count, layers, one.count), one)
            middle.view(count, layers, one.count, one.r).mul_(weights.unsqueeze(-1))
        if layers == 1:
            first, end = self.outs[0]
            (out if self.together else out[:, first:end]).addmm_(middle, one.ups[0])
        elif self.together:
            by_layer = middle.view(count, layers, rank).transpose(0, 1)
            out.view(count, layers, -1).transpose(0, 1).baddbmm_(by_layer, one.stacked)
        else:
            for (first, end), part, up in zip(self.outs, torch.split(middle, rank, 1), one.ups, strict=True):
                out[:, first:end].addmm_(part, up)


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


def read_loras(modules: Sequence[Any]) -> RoleLoras | None:
    """Return the LoRAs of linear layers side by side; None if there are none, or not one active adapter's."""
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
    roles = tuple(_one(mixed, role, together) for role in range(len(mixture.counts)))
    return RoleLoras(roles, tuple(outs), together)


def _one(mixed: Sequence[tuple[Any, str]], role: int, together: bool) -> One:
    module, name = mixed[0]
    mixture, dtype = module.mixtures[name], module.base_layer.weight.dtype
    first, end = mixture.edges[role : role + 2]
    kept = [layer.weights(its) for layer, its in mixed]
    ranks, count = slice(first * mixture.r, end * mixture.r), end - first
    downs = [one.A.detach()[ranks] for one in kept]
    downs += [one.router.detach()[first:end] for one in kept if one.router is not None]
    ups = [one.B.detach()[ranks] * mixture.scale for one in kept]
    shared = torch.zeros(count, device=ups[0].device)
    shared[-1] = 1.0
    stacked = torch.stack(ups).to(dtype) if together else torch.empty(0, dtype=dtype)
    return One(
        count=count,
        r=mixture.r,
        top_k=mixture.top_k[role],
        routed=mixture.router,
        down=torch.cat(downs).to(dtype).t().contiguous(),
        ups=tuple(stacked) if together else tuple(up.to(dtype) for up in ups),
        stacked=stacked,
        shared=shared,
    )
