"""A policy's chances of the tokens that were played, by the rules by which they were drawn: temperature and grammar.

What a grammar did not let through had no chance, in the engine or here, so the ratio of two policies is that of what
they may do. Memory is bounded: logits are masked in pieces, which the backward pass computes again.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch.utils.checkpoint import checkpoint

from rolecraft import objectives
from rolecraft.engine.drawn import let_through
from rolecraft.types import Drawn

_CHUNK = 2**24
"""Logits that are masked and warmed at a time: 64 MiB in float32, and a quarter of that for the mask."""


def of_played(
    logits_NV: torch.Tensor,
    targets_N: torch.Tensor,
    told: Sequence[Drawn],
    temperature: float,
    chunk: int = _CHUNK,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return each token's log-probability and its distribution's entropy, which has no gradient, in nats (N,)."""
    rows = max(1, chunk // logits_NV.shape[-1])
    if len(logits_NV) <= rows:
        return _piece(logits_NV, targets_N, told, temperature)
    starts = range(0, len(logits_NV), rows)
    masks = [told[start : start + rows] for start in starts]
    pieces = zip(torch.split(logits_NV, rows), torch.split(targets_N, rows), masks, strict=True)
    found = [checkpoint(_piece, *piece, temperature, use_reentrant=False) for piece in pieces]
    return torch.cat([new_N for new_N, _ in found]), torch.cat([entropy_N for _, entropy_N in found])


def _piece(
    logits_NV: torch.Tensor, targets_N: torch.Tensor, told: Sequence[Drawn], temperature: float
) -> tuple[torch.Tensor, torch.Tensor]:
    warm_NV = let_through(logits_NV.float(), told) / temperature
    return -objectives.token_losses(warm_NV, targets_N), entropies(warm_NV)


@torch.no_grad()
def entropies(logits_NV: torch.Tensor) -> torch.Tensor:
    """Return each distribution's entropy in nats (N,)."""
    found: torch.Tensor = torch.special.entr(logits_NV.softmax(-1)).sum(-1)
    return found
