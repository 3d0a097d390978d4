"""How a forward call's tokens are grouped by role, worked out once and used by every layer."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch


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
    """Which LoRAs are a token's own: `routed` and `shared` (N, E) bool, `keep` (N, k) how many of the best count."""

    routed: torch.Tensor
    shared: torch.Tensor
    keep: torch.Tensor


class Plan:
    """The tokens of one forward call by role; tokens of nobody come last and are left out.

    `spans` are (role, first, end) in the order `order` (N,), None where the tokens already stand in it.
    """

    def __init__(self, role_ids: torch.Tensor, roles: int) -> None:
        """Take role ids (B, T), -1 for nobody; raises ValueError for an id beyond `roles`."""
        self.ids = role_ids.reshape(-1)
        self.shape = tuple(role_ids.shape)
        self._roles = roles
        self._masks: dict[tuple[Mixture, bool], Masks] = {}
        self._last: tuple[torch.Tensor, torch.Tensor] | None = None

    @cached_property
    def _counts(self) -> list[int]:
        # The one place where the device is waited for.
        counts: list[int] = torch.bincount(self.ids + 1, minlength=self._roles + 1).tolist()
        if len(counts) > self._roles + 1:
            raise ValueError(
                f"role id {len(counts) - 2} is given to a model with {self._roles} roles (0 to {self._roles - 1})"
            )
        return counts

    @cached_property
    def spans(self) -> tuple[tuple[int, int, int], ...]:
        """Return (role, first, end) of every role that has tokens, in the order of `order`."""
        spans, place = [], 0
        for role, count in enumerate(self._counts[1:]):
            if count:
                spans.append((role, place, place + count))
            place += count
        return tuple(spans)

    @cached_property
    def covered(self) -> int:
        """Return how many tokens have a role."""
        return len(self.ids) - self._counts[0]

    @cached_property
    def order(self) -> torch.Tensor | None:
        """Return the tokens' places by role (N,), or None if all of them have one and the same role."""
        if len(self.spans) == 1 and self.covered == len(self.ids):
            return None
        keys = torch.where(self.ids < 0, self._roles, self.ids)
        return keys.argsort(stable=True)

    @cached_property
    def inverse(self) -> torch.Tensor | None:
        """Return where each token stands in `order` (N,)."""
        return None if self.order is None else self.order.argsort()

    @cached_property
    def roles(self) -> torch.Tensor:
        """Return the role ids of the tokens that have one, in `order`."""
        return (self.ids if self.order is None else self.ids[self.order])[: self.covered]

    def grouped(self, x: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
        """Return the tokens (N, in) of `x` (..., in) in `order`; neighbours that read one tensor share the result."""
        if self._last is None or self._last[0] is not x or self._last[1].dtype != dtype:
            rows = x.reshape(-1, x.shape[-1]).to(dtype)
            if self.order is not None and self.inverse is not None:
                rows = reorder(rows, self.order, self.inverse)
            self._last = (x, rows)
        return self._last[1]

    def ungrouped(self, rows: torch.Tensor) -> torch.Tensor:
        """Return rows (N, ...) in `order` back where their tokens stand."""
        if self.order is None or self.inverse is None:
            return rows
        return reorder(rows, self.inverse, self.order)

    def masks(self, mixture: Mixture, *, ordered: bool) -> Masks:
        """Return the masks of the tokens with a role, in `order`, or of all tokens where they stand."""
        key = (mixture, ordered)
        if key not in self._masks:
            self._masks[key] = _masks(self.roles if ordered else self.ids, mixture)
        return self._masks[key]


def _masks(ids_N: torch.Tensor, mixture: Mixture) -> Masks:
    device = ids_N.device
    owner_E = torch.repeat_interleave(torch.tensor(mixture.counts, device=device))
    last_E = torch.zeros(mixture.total, dtype=torch.bool, device=device)
    last_E[torch.tensor(mixture.edges[1:], device=device) - 1] = True
    own_NE = ids_N[:, None] == owner_E
    k_N = torch.tensor((*mixture.top_k, 0), device=device)[ids_N]  # nobody's -1 is the last: it keeps none
    keep_Nk = torch.arange(max(*mixture.top_k, 1), device=device) < k_N[:, None]
    return Masks(own_NE & ~last_E, own_NE & last_E, keep_Nk)


class Reorder(torch.autograd.Function):
    """Rows in another order; the gradient goes back by the inverse order, with nothing to add up."""

    @staticmethod
    def forward(ctx: Any, rows: torch.Tensor, order: torch.Tensor, inverse: torch.Tensor) -> torch.Tensor:
        """Return `rows[order]`."""
        ctx.save_for_backward(order, inverse)
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
