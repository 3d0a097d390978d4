"""Samples tokens from logits, so that a row's token does not depend on what else is in the batch."""

from __future__ import annotations

from collections.abc import Sequence

import torch


def sample(
    logits_BV: torch.Tensor,
    temperatures: Sequence[float],
    top_ps: Sequence[float],
    points: Sequence[float],
    allowed_BV: torch.Tensor | None = None,
) -> tuple[list[int], list[float]]:
    """Draw a token from each row; return the tokens and their log-probabilities at temperature 1, nothing cut off.

    Temperature 0 takes the likeliest. Else the token is where `points[b]`, uniform in [0, 1), falls in row b's
    cumulative distribution, so a row's draw depends on nothing but its own logits and its own point. Only tokens in
    `allowed_BV` are drawn; what is not allowed still counts in the log-probabilities.
    """
    free_BV = logits_BV
    if allowed_BV is not None:
        logits_BV = logits_BV.masked_fill(~allowed_BV.to(logits_BV.device), float("-inf"))
    ids_B = logits_BV.argmax(-1)
    warm = [b for b, temperature in enumerate(temperatures) if temperature > 0]
    if warm:
        drawn = _sample_warm(
            logits_BV[warm].double() / _column(temperatures, warm, logits_BV),
            _column(top_ps, warm, logits_BV),
            _column(points, warm, logits_BV),
        )
        ids_B[warm] = drawn
    logprobs_B = free_BV.gather(-1, ids_B[:, None])[:, 0] - free_BV.logsumexp(-1)
    return ids_B.tolist(), logprobs_B.tolist()


def _column(values: Sequence[float], chosen: Sequence[int], like: torch.Tensor) -> torch.Tensor:
    return torch.tensor([[values[b]] for b in chosen], dtype=torch.float64, device=like.device)


def _sample_warm(logits_BV: torch.Tensor, top_p_B1: torch.Tensor, point_B1: torch.Tensor) -> torch.Tensor:
    chances_BV = logits_BV.softmax(-1)
    if bool((top_p_B1 < 1).any()):
        sorted_BV, order_BV = chances_BV.sort(dim=-1, descending=True, stable=True)
        beyond_BV = sorted_BV.cumsum(-1) - sorted_BV >= top_p_B1  # what is likelier makes up top_p without it
        beyond_BV[:, 0] = False
        chances_BV = chances_BV.masked_fill(beyond_BV.scatter(-1, order_BV, beyond_BV), 0.0)
    steps_BV = chances_BV.cumsum(-1)
    whole_B1 = steps_BV[:, -1:]
    below_B1 = torch.minimum(point_B1 * whole_B1, whole_B1.nextafter(torch.zeros_like(whole_B1)))  # it may round up
    ids_B1 = torch.searchsorted(steps_BV, below_B1, right=True)
    return ids_B1[:, 0].clamp(max=logits_BV.shape[-1] - 1)
