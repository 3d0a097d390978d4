"""The trainer's own numbers of what was played, a few rows of a large vocabulary at a time."""

from __future__ import annotations

import torch

from rolecraft.train import chances
from rolecraft.types import Drawn


def test_in_pieces_the_chances_and_their_gradient_are_those_of_the_whole():
    logits_NV, targets_N = torch.randn(10, 8, requires_grad=True), torch.randint(8, (10,))
    told = [Drawn(-1.0, 0.7)] * 10

    def found(chunk: int) -> list[torch.Tensor]:
        new_N, entropy_N = chances.of_played(logits_NV, targets_N, told, 0.7, chunk)
        (gradient,) = torch.autograd.grad((new_N * torch.arange(10)).sum(), logits_NV)
        return [new_N, entropy_N, gradient]

    for whole, pieces in zip(found(1_000), found(16), strict=True):
        torch.testing.assert_close(pieces, whole)
