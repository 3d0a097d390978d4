"""Samples tokens from logits, so that a row's token does not depend on what else is in the batch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

_FEW = 64
"""So many of the likeliest tokens are sorted at first, where a draw is cut to some of them."""

_COLDEST = 1e-6
"""Colder, a draw is greedy: divided by a number near 0 logits are infinite, and then no numbers."""


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

    @property
    def heat(self) -> float:
        """The temperature, or 1 where the likeliest is taken."""
        return self.temperature if self.temperature >= _COLDEST else 1.0


def sample(
    logits_BV: torch.Tensor,
    draws: Sequence[Draw],
    allowed_BV: torch.Tensor | None = None,
    merged: Mapping[int, tuple[int, torch.Tensor]] | None = None,
) -> tuple[list[int], list[float]]:
    """Draw a token from each row; return the tokens and their log-probabilities at temperature 1, nothing cut off.

    Temperature 0, or one below 1e-6, takes the likeliest. Else the token is where the row's point falls in its
    cumulative distribution, so a row's draw depends on nothing but its own logits and its own `Draw`. Only tokens in
    `allowed_BV` are drawn; the log-probabilities are the model's own, whatever is penalised or not allowed. In the rows
    `merged` one token is drawn for all of some tokens (V,), itself among them, with their chances together.
    """
    free_BV = logits_BV
    open_BV = _penalised(logits_BV, draws)
    logits_BV = held(open_BV, allowed_BV, merged)
    ids_B = logits_BV.argmax(-1)
    warm = [b for b, draw in enumerate(draws) if draw.temperature >= _COLDEST]
    if warm:
        ids_B[warm] = _sample_warm(logits_BV[warm].double(), [draws[b] for b in warm])
    logprobs_B = free_BV.gather(-1, ids_B[:, None])[:, 0] - free_BV.logsumexp(-1)
    return ids_B.tolist(), logprobs_B.tolist()


def chances(
    logits_BV: torch.Tensor,
    ids: Sequence[int],
    draws: Sequence[Draw],
    allowed_BV: torch.Tensor | None = None,
    merged: Mapping[int, tuple[int, torch.Tensor]] | None = None,
) -> list[float]:
    """Return the log-probability that each row's token was drawn with, but for what `top_k` and the like cut off.

    It is that of its temperature, or of 1 where the likeliest was taken.
    """
    open_BV = _penalised(logits_BV, draws)
    heat_B1 = open_BV.new_tensor([draw.heat for draw in draws])[:, None]
    logs_BV = (held(open_BV, allowed_BV, merged) / heat_B1).log_softmax(-1)
    return logs_BV.gather(-1, torch.tensor(ids, device=logs_BV.device)[:, None])[:, 0].tolist()


def held(
    open_BV: torch.Tensor,
    allowed_BV: torch.Tensor | None,
    merged: Mapping[int, tuple[int, torch.Tensor]] | None,
) -> torch.Tensor:
    """Return logits with -inf for tokens that are not allowed; those `merged` are one, as likely as all together."""
    logits_BV = open_BV
    if allowed_BV is not None:
        logits_BV = logits_BV.masked_fill(~allowed_BV.to(logits_BV.device), float("-inf"))
    return _merged(logits_BV, open_BV, merged) if merged else logits_BV


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
    ids_BK, chances_BK = _open(chances_BV, draws, column([draw.top_p for draw in draws]))
    if any(draw.min_p for draw in draws):
        least_B1 = column([draw.min_p for draw in draws]) * chances_BV.amax(-1, keepdim=True)
        chances_BK = chances_BK.masked_fill(chances_BK < least_B1, 0.0)
    steps_BK = chances_BK.cumsum(-1)
    whole_B1 = steps_BK[:, -1:]
    point_B1 = column([draw.point for draw in draws])
    below_B1 = torch.minimum(point_B1 * whole_B1, whole_B1.nextafter(torch.zeros_like(whole_B1)))  # it may round up
    places_B1 = torch.searchsorted(steps_BK, below_B1, right=True).clamp(max=steps_BK.shape[-1] - 1)
    return places_B1[:, 0] if ids_BK is None else ids_BK.gather(-1, places_B1)[:, 0]


def _open(
    chances_BV: torch.Tensor, draws: Sequence[Draw], top_p_B1: torch.Tensor
) -> tuple[torch.Tensor | None, torch.Tensor]:
    """Return the ids of the tokens to draw from, ascending (None: all), and their chances.

    A chance is 0 where `top_k` or `top_p` leaves a token out; the likeliest always stays. Where every row is cut, its
    tokens are mostly among the few likeliest, and to sort and add up these is much faster than a whole vocabulary.
    """
    if all(draw.top_p == 1 and not draw.top_k for draw in draws):
        return None, chances_BV
    if chances_BV.shape[-1] > _FEW and all(draw.top_p < 1 or draw.top_k for draw in draws):
        ids_BK = chances_BV.topk(_FEW).indices.sort(-1).values
        chances_BK = chances_BV.gather(-1, ids_BK)
        kept_BK = _kept(chances_BK, draws, top_p_B1)
        least_B1 = chances_BK.masked_fill(~kept_BK, 1.0).amin(-1, keepdim=True)
        # Tokens as likely as the last of the few may lie beyond them.
        if bool((least_B1 > chances_BK.amin(-1, keepdim=True)).all()):
            return ids_BK, chances_BK.masked_fill(~kept_BK, 0.0)
    return None, chances_BV.masked_fill(~_kept(chances_BV, draws, top_p_B1), 0.0)


def _kept(chances_BK: torch.Tensor, draws: Sequence[Draw], top_p_B1: torch.Tensor) -> torch.Tensor:
    """Return which tokens `top_k` and `top_p` leave; of equal chances the first stays."""
    sorted_BK, order_BK = chances_BK.sort(dim=-1, descending=True, stable=True)
    likelier_BK = sorted_BK.cumsum(-1) - sorted_BK
    beyond_BK = (likelier_BK >= top_p_B1) & (top_p_B1 < 1)  # what is likelier makes up top_p without it
    for b, draw in enumerate(draws):
        if draw.top_k:
            beyond_BK[b, draw.top_k :] = True
    beyond_BK[:, 0] = False
    return torch.zeros_like(beyond_BK).scatter(-1, order_BK, ~beyond_BK)
