"""Losses as pure functions of tensors; `_B _T _N _V` are batch, token, trained token and vocabulary."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.nn import functional

_CHUNK = 2**22
"""Logits whose float32 copies are alive at a time: 16 MiB."""


def next_token_targets(
    ids_BT: torch.Tensor, weights_BT: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return where a trained token is predicted (B, T), and that token's id and loss weight (N,), in reading order.

    The token at t is predicted at t - 1, so the first token of a row is never trained.
    """
    keep_BT = torch.zeros_like(weights_BT, dtype=torch.bool)
    keep_BT[:, :-1] = weights_BT[:, 1:] > 0
    after_BT = keep_BT.roll(1, dims=1)
    return keep_BT, ids_BT[after_BT], weights_BT[after_BT]


@contextmanager
def only_logits_at(head: torch.nn.Module, keep_BT: torch.Tensor) -> Iterator[None]:
    """Within, let the output layer `head` see only the hidden states at `keep_BT`: it answers (N, V), not (B, T, V).

    Most tokens of a trajectory are context; their logits are the largest tensor of a step and are never used.
    """

    def select(_: torch.nn.Module, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
        hidden, *rest = arguments
        fits = hidden.shape[:-1] == keep_BT.shape
        return (hidden[keep_BT] if fits else hidden, *rest)

    handle = head.register_forward_pre_hook(select)
    try:
        yield
    finally:
        handle.remove()


def pick_logits(logits: torch.Tensor, keep_BT: torch.Tensor) -> torch.Tensor:
    """Return the logits at `keep_BT` (N, V), whether or not `only_logits_at` had an effect on the model."""
    return logits[keep_BT] if logits.shape[:-1] == keep_BT.shape else logits


def token_losses(logits_NV: torch.Tensor, targets_N: torch.Tensor, chunk: int = _CHUNK) -> torch.Tensor:
    """Return each target's cross-entropy in nats (N,), in float32.

    `chunk` logits are done at a time, forward and again in the backward pass: the float32 copies and the
    log-probabilities of a large vocabulary are then never held whole.
    """
    losses: torch.Tensor = _TokenLosses.apply(logits_NV, targets_N, max(1, chunk // logits_NV.shape[-1]))  # type: ignore[no-untyped-call]
    return losses


def weighted_sum(losses_N: torch.Tensor, weights_N: torch.Tensor) -> torch.Tensor:
    """Return the weighted sum; the weights of a whole step add up to 1, over all its batches and processes."""
    return (losses_N * weights_N).sum()


def sums_by_speaker(losses_N: torch.Tensor, speakers_N: torch.Tensor, count: int) -> torch.Tensor:
    """Return each speaker's sum of losses and number of tokens (count, 2); stays on the device, nothing waits."""
    pairs_N2 = torch.stack((losses_N.detach(), torch.ones_like(losses_N)), dim=1)
    return torch.zeros(count, 2, dtype=losses_N.dtype, device=losses_N.device).index_add_(0, speakers_N, pairs_N2)


def _cross_entropy(logits_NV: torch.Tensor, targets_N: torch.Tensor) -> torch.Tensor:
    return functional.cross_entropy(logits_NV.float(), targets_N, reduction="none")


class _TokenLosses(torch.autograd.Function):
    """Cross-entropy over a few rows at a time; what is kept are the logits, which are there anyway."""

    @staticmethod
    def forward(ctx: Any, logits_NV: torch.Tensor, targets_N: torch.Tensor, rows: int) -> torch.Tensor:
        ctx.save_for_backward(logits_NV, targets_N)
        ctx.rows = rows
        pieces = zip(torch.split(logits_NV, rows), torch.split(targets_N, rows), strict=True)
        return torch.cat([_cross_entropy(*piece) for piece in pieces])

    @staticmethod
    def backward(ctx: Any, by_losses_N: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        if torch.is_grad_enabled():
            raise RuntimeError("token_losses has no second derivative; take functional.cross_entropy (create_graph)")
        logits_NV, targets_N = ctx.saved_tensors  # once: a checkpoint around it gives them only once
        by_logits_NV = torch.empty_like(logits_NV)
        parts = (torch.split(x, ctx.rows) for x in (logits_NV, targets_N, by_losses_N, by_logits_NV))
        for logits, targets, by_losses, by_logits in zip(*parts, strict=True):
            with torch.enable_grad():
                again = logits.detach().requires_grad_()
                losses = _cross_entropy(again, targets)
            by_logits.copy_(*torch.autograd.grad(losses, again, by_losses))
        return by_logits_NV, None, None
