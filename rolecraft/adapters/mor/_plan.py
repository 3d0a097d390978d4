"""How a forward call's tokens are grouped by role, worked out once and used by every layer."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch

_BAR = -1e30
_LONG = 64
"""Tokens in a run, on average, from which two products a run cost less than moving all tokens to and fro."""


@dataclass(frozen=True, slots=True)
class Mixture:
    """The LoRAs of one adapter: `counts` of each role (the shared one is its last), `top_k` routed ones active.

    All LoRAs have rank `r`, so role `o` owns `counts[o] * r` neighbouring rows of A and of B.
    """

    counts: tuple[int, ...]
    top_k: tuple[int, ...]
    r: int
    scale: float = 1.0
    router: bool = True

    @property
    def total(self) -> int:
        """LoRAs of all roles together."""
        return sum(self.counts)

    @property
    def edges(self) -> tuple[int, ...]:
        """Where each role's LoRAs begin, and the end of the last."""
        edges = [0]
        for count in self.counts:
            edges.append(edges[-1] + count)
        return tuple(edges)

    @property
    def picks(self) -> bool:
        """Whether some role leaves one of its routed LoRAs out."""
        return any(k < count - 1 for k, count in zip(self.top_k, self.counts, strict=True))


@dataclass(frozen=True, slots=True)
class Masks:
    """Which LoRAs are a token's own: 1 where it has `routed` and `shared` ones (E, N), else 0, in float32.

    `bar` (E, N) is added to the logits of what is not its own routed one. `keep` (N, k) tells, by 1 or 0, how many of
    its best count, and `seen` (E,) how many tokens have each routed LoRA for their own. `times` (N,) is how often each
    token counts there, None for once.
    """

    routed: torch.Tensor
    shared: torch.Tensor
    bar: torch.Tensor
    keep: torch.Tensor
    seen: torch.Tensor
    times: torch.Tensor | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Arrangement:
    """Tokens in an order in which those of one role are neighbours: `spans` are (role, first, end).

    `order` (N,) brings the tokens there and `inverse` back; both are None where they stand so already. Tokens of nobody
    lie outside all spans.
    """

    spans: tuple[tuple[int, int, int], ...]
    order: torch.Tensor | None = None
    inverse: torch.Tensor | None = None

    def arrange(self, rows: torch.Tensor) -> torch.Tensor:
        """Return the tokens' rows (N, ...) in this order."""
        return rows if self.order is None or self.inverse is None else reorder(rows, self.order, self.inverse)

    def restore(self, rows: torch.Tensor) -> torch.Tensor:
        """Return rows (N, ...) in this order back where their tokens stand."""
        return rows if self.order is None or self.inverse is None else reorder(rows, self.inverse, self.order)


class Plan:
    """The tokens of one forward call by role: `by_role`, and `arrangement`, which may leave long runs in place."""

    def __init__(self, role_ids: torch.Tensor, roles: int, times: torch.Tensor | None = None) -> None:
        """Take role ids (B, T): from 0 to below `roles`, or -1 for nobody; raises ValueError for any other.

        `times` (B, T) is how often each token counts where tokens are counted, once by default.
        In a compiled graph, which must not depend on the ids, none is looked at.
        """
        self.ids = role_ids.reshape(-1)
        self.shape = tuple(role_ids.shape)
        self._roles = roles
        self._times = None if times is None else times.reshape(-1).float()
        self._masks: dict[tuple[Mixture, bool], Masks] = {}
        self._last: tuple[torch.Tensor, tuple[object, ...], torch.Tensor] | None = None
        if not torch.compiler.is_compiling():
            _ = self._counts  # counting is checking, and the first layer would count anyway

    @cached_property
    def _counts(self) -> list[int]:
        # The one place where a device is waited for. What is no id at all is counted at the two ends.
        places = (self.ids + 2).clamp(0, self._roles + 2)
        below, *counts, beyond = torch.bincount(places, minlength=self._roles + 3).tolist()
        if below or beyond:
            wrong = int(self.ids.min() if below else self.ids.max())
            raise ValueError(
                f"role id {wrong} is given to a model with {self._roles} roles; give 0 to {self._roles - 1}, or -1 for "
                "nobody and for padding"
            )
        return counts

    @cached_property
    def covered(self) -> int:
        """Return how many tokens have a role."""
        return len(self.ids) - self._counts[0]

    @cached_property
    def by_role(self) -> Arrangement:
        """Return the tokens role by role, one span each, those of nobody last."""
        spans, place = [], 0
        for role, count in enumerate(self._counts[1:]):
            if count:
                spans.append((role, place, place + count))
            place += count
        if len(spans) == 1 and self.covered == len(self.ids):
            return Arrangement(tuple(spans))
        order = torch.where(self.ids < 0, self._roles, self.ids).argsort(stable=True)
        return Arrangement(tuple(spans), order, order.argsort())

    @cached_property
    def arrangement(self) -> Arrangement:
        """Return the tokens where they stand if their runs are long, for nothing is moved then; else `by_role`."""
        if self.ids.device.type != "cpu" or self.covered == 0:  # elsewhere launches cost more than moving
            return self.by_role
        edges = [0, *((self.ids[1:] != self.ids[:-1]).nonzero().view(-1) + 1).tolist(), len(self.ids)]
        if len(self.ids) < _LONG * (len(edges) - 1):
            return self.by_role
        runs = zip(self.ids[edges[:-1]].tolist(), edges, edges[1:], strict=False)
        return Arrangement(tuple(run for run in runs if run[0] >= 0))

    def arranged(self, x: torch.Tensor, arrangement: Arrangement, dtype: torch.dtype) -> torch.Tensor:
        """Return the tokens (N, in) of `x` (..., in) so arranged; neighbours that read one tensor share the result."""
        version = None if x.is_inference() else x._version
        made_for = (arrangement, dtype, version, torch.is_grad_enabled())
        if self._last is None or self._last[0] is not x or self._last[1] != made_for:
            rows = arrangement.arrange(x.reshape(-1, x.shape[-1]).to(dtype))
            self._last = (x, made_for, rows)
        return self._last[2]

    def masks(self, mixture: Mixture, arrangement: Arrangement | None = None) -> Masks:
        """Return the masks of all tokens, so arranged or where they stand."""
        order = None if arrangement is None else arrangement.order
        key = (mixture, order is None)
        if key not in self._masks:
            places = slice(None) if order is None else order
            times = None if self._times is None else self._times[places]
            self._masks[key] = _masks(self.ids[places], mixture, times)
        return self._masks[key]


def _masks(ids_N: torch.Tensor, mixture: Mixture, times_N: torch.Tensor | None) -> Masks:
    device = ids_N.device
    owner_E = torch.repeat_interleave(torch.tensor(mixture.counts, device=device))
    last_E = torch.zeros(mixture.total, dtype=torch.bool, device=device)
    last_E[torch.tensor(mixture.edges[1:], device=device) - 1] = True
    own_EN = owner_E[:, None] == ids_N
    k_N = torch.tensor((*mixture.top_k, 0), device=device)[ids_N]  # nobody's -1 is the last: it keeps none
    keep_Nk = torch.arange(max(*mixture.top_k, 1), device=device) < k_N[:, None]
    routed_EN = (own_EN & ~last_E[:, None]).float()
    shared_EN = (own_EN & last_E[:, None]).float()
    seen_E = routed_EN.sum(1) if times_N is None else routed_EN @ times_N
    return Masks(routed_EN, shared_EN, (1 - routed_EN) * _BAR, keep_Nk.float(), seen_E, times_N)


class Reorder(torch.autograd.Function):
    """Rows in another order; the gradient goes back by the inverse order, with nothing to add up."""

    @staticmethod
    def forward(ctx: Any, rows: torch.Tensor, order: torch.Tensor, inverse: torch.Tensor) -> torch.Tensor:
        """Return `rows[order]`."""
        ctx.save_for_backward(order, inverse)
        return rows.index_select(0, order)

    @staticmethod
    def again(ctx: Any, rows: torch.Tensor) -> torch.Tensor:
        """Return what `forward` has returned, for `recomputing`."""
        order, _ = ctx.saved_tensors
        return rows.index_select(0, order)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        """Return `gradient[inverse]`; by the same function, so that it can be differentiated again."""
        order, inverse = ctx.saved_tensors
        return reorder(gradient, inverse, order), None, None


def reorder(rows: torch.Tensor, order: torch.Tensor, inverse: torch.Tensor) -> torch.Tensor:
    """Return `rows[order]` (N, ...), where `inverse` undoes `order`."""
    moved: torch.Tensor = Reorder.apply(rows, order, inverse)  # type: ignore[no-untyped-call]
    return moved
