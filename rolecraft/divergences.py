"""How far a student is from its teacher, token by token and step by step: pure functions of logits.

`_N` is a token that the player chose, `_V` the vocabulary. Not covered: who plays, and how tokens are gathered
(`train.on_policy`).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch.utils.checkpoint import checkpoint

_CHUNK = 2**24
"""Logits of each of the two models whose float32 copies are alive at a time: 64 MiB."""


def reverse_kl(student_NV: torch.Tensor, teacher_NV: torch.Tensor, chunk: int = _CHUNK) -> torch.Tensor:
    """Return KL(student || teacher) at each token (N,), over the whole vocabulary: it seeks the teacher's modes.

    On-policy distillation's loss (GKD, arXiv 2306.13649, section 3; MiniLLM, arXiv 2306.08543).
    """
    return _in_pieces(_reverse, student_NV, teacher_NV, chunk)


def forward_kl(student_NV: torch.Tensor, teacher_NV: torch.Tensor, chunk: int = _CHUNK) -> torch.Tensor:
    """Return KL(teacher || student) at each token (N,), over the whole vocabulary: it covers all the teacher does."""
    return _in_pieces(_forward, student_NV, teacher_NV, chunk)


def step_gates(gaps_N: torch.Tensor, steps_N: torch.Tensor, within: float) -> torch.Tensor:
    """Return the weight of each token's step (N,): 1 up to a gap of `within` nats a token, less in proportion beyond.

    `gaps_N` is how far student and teacher have parted at each token, `steps_N` numbers the reply that it is in. After
    a wrong call the student is where the teacher never is, and what the teacher says there misleads: such a step counts
    less, and one that is back on the way counts in full (SOD, arXiv 2605.07725; this form of the weight is ours).
    """
    numbers_N = torch.unique(steps_N, return_inverse=True)[1]
    sums = gaps_N.new_zeros(int(numbers_N.max()) + 1 if len(numbers_N) else 0)
    counts = sums.index_add(0, numbers_N, torch.ones_like(gaps_N))
    means = sums.index_add(0, numbers_N, gaps_N) / counts
    return (within / means.clamp(min=within)).detach()[numbers_N]


def _in_pieces(
    divergence: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
    student_NV: torch.Tensor,
    teacher_NV: torch.Tensor,
    chunk: int,
) -> torch.Tensor:
    """Return the divergences; more than `chunk` logits are done in pieces that the backward pass computes again."""
    rows = max(1, chunk // student_NV.shape[-1])
    if len(student_NV) <= rows:
        return divergence(student_NV, teacher_NV)
    pieces = zip(torch.split(student_NV, rows), torch.split(teacher_NV, rows), strict=True)
    return torch.cat([checkpoint(divergence, *piece, use_reentrant=False) for piece in pieces])


def _reverse(student_NV: torch.Tensor, teacher_NV: torch.Tensor) -> torch.Tensor:
    student, teacher = student_NV.float().log_softmax(-1), teacher_NV.float().log_softmax(-1)
    return _expected(student, student - teacher)


def _forward(student_NV: torch.Tensor, teacher_NV: torch.Tensor) -> torch.Tensor:
    student, teacher = student_NV.float().log_softmax(-1), teacher_NV.float().log_softmax(-1)
    return _expected(teacher, teacher - student)


def _expected(logs_NV: torch.Tensor, values_NV: torch.Tensor) -> torch.Tensor:
    """Return the values' mean under the distribution; what is impossible there adds nothing, though 0 times inf."""
    chances_NV = logs_NV.exp()
    return torch.where(chances_NV > 0, chances_NV * values_NV, 0.0).sum(-1)
