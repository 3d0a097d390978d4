"""Samples tokens from logits, so that a row's token does not depend on what else is in the batch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch


@dataclass(frozen=True, slots=True)
class Draw:
    """How one row's token is drawn: as `types.Sampling` says, at `point`, uniform in [0, 1), of the distribution.

    `written` are the tokens that penalties count; they need not be given where there are none.
    """

    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    point: float = 0.0
    written: Sequence[int] = ()


def sample(
    logits_BV: torch.Tensor,
    draws: Sequence[Draw],
    allowed_BV: torch.Tensor | None = None,
    merged: Mapping[int, tuple[int, torch.Tensor]] | None = None,
) -> tuple[list[int], list[float]]:
    """Draw a token from each row; return the tokens and their log-probabilities at temperature 1, nothing cut off.

    Temperature 0 takes the likeliest. Else the token is where the row's point falls in its cumulative distribution, so
    a row's draw depends on nothing but its own logits and its own `Draw`. Only tokens in `allowed_BV` are drawn; the
    log-probabilities are the model's own, whatever is penalised or not allowed. In the rows `merged` one token is drawn
    for all of some tokens (V,), itself among them, with their chances together.
    """
    free_BV = logits_BV
    logits_BV = open_BV = _penalised(logits_BV, draws)
    if allowed_BV is not None:
        logits_BV = logits_BV.masked_fill(~allowed_BV.to(logits_BV.device), float("-inf"))
    if merged:
        logits_BV = _merged(logits_BV, open_BV, merged)
    ids_B = logits_BV.argmax(-1)
    warm = [b for b, draw in enumerate(draws) if draw.temperature > 0]
    if warm:
        ids_B[warm] = _sample_warm(logits_BV[warm].double(), [draws[b] for b in warm])
    logprobs_B = free_BV.gather(-1, ids_B[:, None])[:, 0] - free_BV.logsumexp(-1)
    return ids_B.tolist(), logprobs_B.tolist()


def likeliest(logits_V: torch.Tensor, count: int) -> tuple[tuple[int, float], ...]:
    """Return the `count` likeliest tokens, each with its log-probability, the likeliest first."""
    logprobs, ids = logits_V.log_softmax(-1).topk(min(count, logits_V.shape[-1]))
    return tuple(zip(ids.tolist(), logprobs.tolist(), strict=True))


def _merged(
    logits_BV: torch.Tensor, open_BV: torch.Tensor, merged: Mapping[int, tuple[int, torch.Tensor]]
) -> torch.Tensor:
    """Return logits in which some rows' tokens are one: what they are likely together is that of the one."""
    logits_BV = logits_BV.clone()
    for b, (token, others_V) in merged.items():
        others_V = others_V.to(logits_BV.device)
        logits_BV[b, others_V] = float("-inf")
        logits_BV[b, token] = open_BV[b, others_V].logsumexp(-1)
    return logits_BV


def _penalised(logits_BV: torch.Tensor, draws: Sequence[Draw]) -> torch.Tensor:
    """Return the logits, those of tokens that a row has written lowered as it asks."""
    rows = [b for b, draw in enumerate(draws) if draw.written and (draw.presence_penalty or draw.frequency_penalty)]
    if not rows:
        return logits_BV
    logits_BV = logits_BV.clone()
    for b in rows:
        draw, counts = draws[b], Counter(draws[b].written)
        ids = torch.tensor(list(counts), device=logits_BV.device)
        times = torch.tensor(list(counts.values()), dtype=logits_BV.dtype, device=logits_BV.device)
        logits_BV[b, ids] -= draw.presence_penalty + draw.frequency_penalty * times
    return logits_BV


def _sample_warm(logits_BV: torch.Tensor, draws: Sequence[Draw]) -> torch.Tensor:
    def column(values: Sequence[float]) -> torch.Tensor:
        return torch.tensor(values, dtype=torch.float64, device=logits_BV.device)[:, None]

    chances_BV = (logits_BV / column([draw.temperature for draw in draws])).softmax(-1)
    chances_BV = _cut(chances_BV, draws, column([draw.top_p for draw in draws]), column([draw.min_p for draw in draws]))
    steps_BV = chances_BV.cumsum(-1)
    whole_B1 = steps_BV[:, -1:]
    point_B1 = column([draw.point for draw in draws])
    below_B1 = torch.minimum(point_B1 * whole_B1, whole_B1.nextafter(torch.zeros_like(whole_B1)))  # it may round up
    ids_B1 = torch.searchsorted(steps_BV, below_B1, right=True)
    return ids_B1[:, 0].clamp(max=logits_BV.shape[-1] - 1)


def _cut(
    chances_BV: torch.Tensor, draws: Sequence[Draw], top_p_B1: torch.Tensor, min_p_B1: torch.Tensor
) -> torch.Tensor:
    """Return the chances, 0 for tokens that `top_k`, `top_p` or `min_p` leave out; the likeliest always stays."""
    whole = chances_BV
    if any(draw.top_p < 1 or draw.top_k for draw in draws):
        sorted_BV, order_BV = whole.sort(dim=-1, descending=True, stable=True)
        likelier_BV = sorted_BV.cumsum(-1) - sorted_BV
        beyond_BV = (likelier_BV >= top_p_B1) & (top_p_B1 < 1)  # what is likelier makes up top_p without it
        for b, draw in enumerate(draws):
            if draw.top_k:
                beyond_BV[b, draw.top_k :] = True
        beyond_BV[:, 0] = False
        chances_BV = whole.masked_fill(beyond_BV.scatter(-1, order_BV, beyond_BV), 0.0)
    if any(draw.min_p for draw in draws):
        chances_BV = chances_BV.masked_fill(whole < min_p_B1 * whole.amax(-1, keepdim=True), 0.0)
    return chances_BV
