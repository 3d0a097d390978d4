"""The two losses of MoRAgent beside the tokens' own: balance among the routed LoRAs, and orthogonality of all LoRAs."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import torch

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
    tokens_E = routing.seen.clamp(min=1)
    return Load(routing.chosen.sum(0) / tokens_E, routing.chances.sum(0) / tokens_E, routing.seen)


def balance(found: Load, mixture: Mixture) -> torch.Tensor:
    """Return the balance loss of each role (R,): its routed LoRAs times the sum of f_i P_i (equation 10).

    Even routing gives `top_k`; a role without tokens gives 0.
    """
    products_E = found.share * found.chance
    routed = torch.tensor([count - 1.0 for count in mixture.counts], device=products_E.device)
    return routed * torch.stack([products_E[a:b].sum() for a, b in pairwise(mixture.edges)])


def orthogonality(
    A: torch.Tensor, B: torch.Tensor, mixture: Mixture, orientation: Orientation, include_shared: bool
) -> torch.Tensor:
    """Return the orthogonality loss of each role (R,): the sum over pairs i < j of its LoRAs (equation 13).

    `subspace`: ||A_i A_j^T||_F^2 + ||B_i B_j^T||_F^2 over the r x r products of rows, which can reach 0. `literal`: the
    other product, in x in and out x out, as the formula reads by the shapes that the paper prints; 0 only for vanishing
    LoRAs.
    """
    losses = []
    for first, end in pairwise(mixture.edges):
        last = end if include_shared else end - 1
        parts = [_pairs(matrix[first * mixture.r : last * mixture.r], mixture.r, orientation) for matrix in (A, B)]
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


def _pairs(rows: torch.Tensor, r: int, orientation: Orientation) -> torch.Tensor:
    count = len(rows) // r
    if count < 2:
        return rows.sum() * 0.0
    if orientation == "subspace":
        products = (rows @ rows.T).view(count, r, count, r).square().sum((1, 3))
    else:  # ||A_i^T A_j||^2 is the inner product of the two r x r Gram matrices
        blocks = rows.view(count, r, -1)
        grams = (blocks @ blocks.transpose(1, 2)).flatten(1)
        products = grams @ grams.T
    return products.triu(diagonal=1).sum()
