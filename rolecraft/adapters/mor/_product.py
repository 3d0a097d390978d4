"""The gated low-rank product as one differentiable function: a GEMM pair for each role, added to the base's own output.

Written by hand because autograd would keep, fill and copy a tensor of the layer's width at each of its dozen steps,
which costs as much as the products themselves. Not covered: second derivatives.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch.autograd.function import once_differentiable

from rolecraft.adapters.mor._mixture import Routing, Weights, shares, shares_gradient
from rolecraft.adapters.mor._plan import Arrangement, Masks, Mixture


@dataclass(frozen=True, slots=True)
class Layout:
    """How the tokens of a call stand, and the sizes of the LoRAs that they meet."""

    arrangement: Arrangement
    masks: Masks
    mixture: Mixture

    def spans(self) -> Iterator[tuple[slice, slice, slice]]:
        """Yield for each span its tokens, its role's LoRAs, and the rows of those LoRAs in A and B."""
        edges, r = self.mixture.edges, self.mixture.r
        for role, first, end in self.arrangement.spans:
            yield slice(first, end), slice(*edges[role : role + 2]), slice(edges[role] * r, edges[role + 1] * r)

    @property
    def covered(self) -> int:
        """How many tokens have a role."""
        return sum(end - first for _, first, end in self.arrangement.spans)

    def absent(self, begun: Collection[int]) -> Iterator[slice]:
        """Yield the rows in A and B of the roles whose first row is not in `begun`."""
        edges, r = self.mixture.edges, self.mixture.r
        yield from (slice(a * r, b * r) for a, b in pairwise(edges) if a * r not in begun)

    def scaled(self, matrix: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
        """Return a matrix (N, LoRAs * r) with each LoRA's part times its weight (N, LoRAs)."""
        return (self.by_lora(matrix) * weights[..., None]).view_as(matrix)

    def by_lora(self, matrix: torch.Tensor) -> torch.Tensor:
        """Return a matrix (N, LoRAs * r) as (N, LoRAs, r)."""
        return matrix.view(len(matrix), -1, self.mixture.r)


def add(
    output: torch.Tensor, x: torch.Tensor, dropped: torch.Tensor | None, weights: Weights, layout: Layout
) -> tuple[torch.Tensor, Routing | None]:
    """Add to `output` (N, out), in place, what the LoRAs make of its tokens; return it and the routing.

    `x` (N, in), arranged, is what the router reads, and the LoRAs too unless there is a `dropped` (N, in). `weights`
    are the adapter's own, in float32: they are cast to the type of `x` here, and their gradients back.
    """
    found: Any = _Product.apply(output, x, dropped, weights.A, weights.B, weights.router, layout)  # type: ignore[no-untyped-call]
    if weights.router is None:
        return found[0], None
    output, chances_EN, chosen_EN = found
    return output, Routing(chances_EN, chosen_EN, layout.masks.seen, layout.masks.times)


class _Product(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        output: torch.Tensor,
        x: torch.Tensor,
        dropped: torch.Tensor | None,
        A: torch.Tensor,
        B: torch.Tensor,
        router: torch.Tensor | None,
        layout: Layout,
    ) -> Any:
        low, masks, routing = x if dropped is None else dropped, layout.masks, None
        A, B = A.to(x.dtype), B.to(x.dtype)
        if router is None:
            shares_EN = masks.routed + masks.shared
        else:
            router = router.to(x.dtype)
            shares_EN, routing = shares((router @ x.T).float(), masks, layout.mixture)
        weights_NE = (shares_EN * layout.mixture.scale).T.to(x.dtype, memory_format=torch.contiguous_format)
        middles = _add(output, low, A, B, weights_NE, layout)
        ctx.mark_dirty(output)
        ctx.set_materialize_grads(False)
        ctx.layout, ctx.dropped = layout, dropped is not None
        chances_EN = None if routing is None else routing.chances
        ctx.save_for_backward(x, low, A, B, weights_NE, router, shares_EN, chances_EN, *middles)
        if routing is None:
            return (output,)
        ctx.mark_non_differentiable(routing.chosen)
        return output, routing.chances, routing.chosen

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, by_output: torch.Tensor | None, *by_routing: torch.Tensor | None) -> Any:
        layout: Layout = ctx.layout
        x, low, A, B, weights_NE, router, shares_EN, chances_EN, *middles = ctx.saved_tensors
        by_rows = x.new_zeros(len(x), B.shape[1]) if by_output is None else by_output.to(x.dtype)
        found = _gradients(by_rows, low, A, B, weights_NE, middles, layout)
        by_x, by_router = None if ctx.dropped else found.low, None
        if router is not None:
            by_shares_EN = found.weights.mul_(layout.mixture.scale).T
            by_logits = shares_gradient(by_shares_EN, by_routing[0], shares_EN, chances_EN, layout.masks).to(x.dtype)
            by_router = by_logits @ x
            by_x = by_logits.T @ router if by_x is None else by_x.addmm_(by_logits.T, router)
        return by_output, by_x, found.low if ctx.dropped else None, found.A, found.B, by_router, None


@dataclass(frozen=True, slots=True)
class _Gradients:
    low: torch.Tensor
    A: torch.Tensor
    B: torch.Tensor
    weights: torch.Tensor


def _add(
    rows: torch.Tensor, low: torch.Tensor, A: torch.Tensor, B: torch.Tensor, weights_NE: torch.Tensor, layout: Layout
) -> list[torch.Tensor]:
    """Add what the LoRAs make of `low` to `rows` (N, out) where their tokens stand; return each span's middle."""
    order, covered = layout.arrangement.order, layout.covered
    added = None if order is None else low.new_empty(covered, rows.shape[1])
    middles = []
    for tokens, loras, ranks in layout.spans():
        middle = low[tokens] @ A[ranks].T
        scaled = layout.scaled(middle, weights_NE[tokens, loras])
        if added is not None:
            torch.mm(scaled, B[ranks], out=added[tokens])
        elif rows.dtype == low.dtype:
            rows[tokens].addmm_(scaled, B[ranks])
        else:
            rows[tokens].add_(scaled @ B[ranks])
        middles.append(middle)
    if added is not None and order is not None:
        rows.index_add_(0, order[:covered], added.to(rows.dtype))
    return middles


def _gradients(
    by_rows: torch.Tensor,
    low: torch.Tensor,
    A: torch.Tensor,
    B: torch.Tensor,
    weights_NE: torch.Tensor,
    middles: Sequence[torch.Tensor],
    layout: Layout,
) -> _Gradients:
    """Return the gradients of `low`, A, B and the weights from that of the output (N, out), as its tokens stand."""
    order, dtype = layout.arrangement.order, torch.promote_types(low.dtype, torch.float32)
    by_rows = by_rows if order is None else by_rows.index_select(0, order[: layout.covered])
    by_low = torch.empty_like(low) if layout.covered == len(low) else torch.zeros_like(low)
    by_A, by_B = (torch.empty_like(one, dtype=dtype) for one in (A, B))
    by_weights = torch.zeros_like(weights_NE, dtype=dtype)
    begun = set[int]()
    for (tokens, loras, ranks), middle in zip(layout.spans(), middles, strict=True):
        by_scaled = by_rows[tokens] @ B[ranks].T
        by_weights[tokens, loras] = layout.by_lora(by_scaled * middle).sum(-1, dtype=dtype)
        by_middle = layout.scaled(by_scaled, weights_NE[tokens, loras])
        scaled = layout.scaled(middle, weights_NE[tokens, loras])
        again = ranks.start in begun
        _accumulate(by_A[ranks], by_middle.T, low[tokens], again)
        _accumulate(by_B[ranks], scaled.T, by_rows[tokens], again)
        torch.mm(by_middle, A[ranks], out=by_low[tokens])
        begun.add(ranks.start)
    for ranks in layout.absent(begun):
        by_A[ranks], by_B[ranks] = 0, 0
    return _Gradients(by_low, by_A, by_B, by_weights)


def _accumulate(into: torch.Tensor, left: torch.Tensor, right: torch.Tensor, again: bool) -> None:
    """Set `into` to left @ right, or add it."""
    if into.dtype == left.dtype:
        into.addmm_(left, right, beta=int(again))
    elif again:
        into.add_(left @ right)
    else:
        into.copy_(left @ right)
