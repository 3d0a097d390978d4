"""The two losses of MoRAgent beside the tokens' own: balance among the routed LoRAs, and orthogonality of all LoRAs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

import torch
from torch.autograd.function import once_differentiable

from rolecraft.adapters.mor._mixture import Routing
from rolecraft.adapters.mor._plan import Mixture

Orientation = Literal["subspace", "literal"]


@dataclass(frozen=True, slots=True)
class Load:
    """One forward call at one layer: `share` of its role's tokens that chose each LoRA, mean `chance` (E,), and `seen`.

    `seen` (E,) is how many tokens the LoRA's role had. Shared LoRAs have 0 everywhere: nobody routes to them.
    """

    share: torch.Tensor
    chance: torch.Tensor
    seen: torch.Tensor


def load(routing: Routing) -> Load:
    """Return f and P of every LoRA (equations 11 and 12), over the tokens of its own role only."""
    tokens_E, times_N = routing.seen.clamp(min=1), routing.times
    sums = [x.sum(1) if times_N is None else x @ times_N for x in (routing.chosen, routing.chances)]
    return Load(sums[0] / tokens_E, sums[1] / tokens_E, routing.seen)


def together(loads: Sequence[Load]) -> Load:
    """Return the loads of L layers as one (L, E)."""
    parts = [[getattr(one, name) for one in loads] for name in ("share", "chance", "seen")]
    return Load(*(torch.stack(part) for part in parts))


def balance(found: Load, mixture: Mixture) -> torch.Tensor:
    """Return the balance loss of each role (..., R): its routed LoRAs times the sum of f_i P_i (equation 10).

    Even routing gives `top_k`; a role without tokens gives 0.
    """
    products_E = found.share * found.chance
    sums = [products_E[..., a:b].sum(-1) * (b - a - 1.0) for a, b in pairwise(mixture.edges)]
    return torch.stack(sums, -1)


def orthogonality(
    A: torch.Tensor, B: torch.Tensor, mixture: Mixture, orientation: Orientation, include_shared: bool
) -> torch.Tensor:
    """Return the orthogonality loss of each role (R,): the sum over pairs i < j of its LoRAs (equation 13).

    `subspace`: ||A_i A_j^T||_F^2 + ||B_i B_j^T||_F^2 over the r x r products of rows, which can reach 0. `literal`: the
    other product, in x in and out x out, as the formula reads by the shapes that the paper prints; 0 only for vanishing
    LoRAs.
    """
    if orientation == "subspace":
        return _overlaps(A, mixture, include_shared) + _overlaps(B, mixture, include_shared)
    losses = []
    for first, end in pairwise(mixture.edges):
        last = end if include_shared else end - 1
        parts = [_literal(matrix[first * mixture.r : last * mixture.r], mixture.r) for matrix in (A, B)]
        losses.append(torch.stack(parts).sum())
    return torch.stack(losses)


def similarity(A: torch.Tensor, B: torch.Tensor, mixture: Mixture) -> torch.Tensor:
    """Return each role's largest |cosine| between the products B_i A_i of two of its LoRAs (R,); 0 for a lone LoRA."""
    largest = []
    for first, end in pairwise(mixture.edges):
        count = end - first
        A_nri, B_nro = (m[first * mixture.r : end * mixture.r].double().view(count, mixture.r, -1) for m in (A, B))
        # <B_i A_i, B_j A_j> is the sum of (B_i B_j^T) * (A_i A_j^T): the products themselves are never formed.
        inner = (torch.einsum("nri,msi->nmrs", A_nri, A_nri) * torch.einsum("nro,mso->nmrs", B_nro, B_nro)).sum((2, 3))
        norms = inner.diagonal().clamp(min=0).sqrt()
        cosine = inner / (norms[:, None] * norms).clamp(min=1e-30)
        largest.append(cosine.fill_diagonal_(0).abs().max())
    return torch.stack(largest)


def _literal(rows: torch.Tensor, r: int) -> torch.Tensor:
    """Return the sum of ||A_i^T A_j||^2 over pairs: the inner products of their r x r Gram matrices."""
    blocks = rows.view(-1, r, rows.shape[1])
    grams = (blocks @ blocks.transpose(1, 2)).flatten(1)
    return (grams @ grams.T).triu(diagonal=1).sum()


def _overlaps(matrix: torch.Tensor, mixture: Mixture, include_shared: bool) -> torch.Tensor:
    overlaps: torch.Tensor = _Overlaps.apply(matrix, mixture, include_shared)  # type: ignore[no-untyped-call]
    return overlaps


class _Overlaps(torch.autograd.Function):
    """For each role (R,) half the sum of ||A_i A_j^T||^2 over all i and j that differ.

    By hand, since each of autograd's slices would fill a gradient as large as the matrix, two hundred times a step.
    """

    @staticmethod
    def forward(ctx: Any, matrix: torch.Tensor, mixture: Mixture, include_shared: bool) -> torch.Tensor:
        r, overlaps, losses = mixture.r, [], []
        for first, end in pairwise(mixture.edges):
            count = end - first if include_shared else end - first - 1
            rows = matrix[first * r : (first + count) * r]
            overlap = rows @ rows.T
            overlap.view(count, r, count, r).diagonal(dim1=0, dim2=2).zero_()
            overlaps.append(overlap)
            losses.append(overlap.flatten().dot(overlap.flatten()) / 2)
        ctx.save_for_backward(matrix, *overlaps)
        ctx.mixture = mixture
        return torch.stack(losses)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, by_losses: torch.Tensor) -> Any:
        matrix, *overlaps = ctx.saved_tensors
        found, r = torch.zeros_like(matrix), ctx.mixture.r
        for first, overlap, scale in zip(ctx.mixture.edges, overlaps, by_losses * 2, strict=False):
            rows = slice(first * r, first * r + len(overlap))
            found[rows].addmm_(overlap, matrix[rows], beta=0).mul_(scale)
        return found, None, None
