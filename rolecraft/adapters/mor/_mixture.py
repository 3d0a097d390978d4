"""The Mixture of Roles as one gated low-rank product (MoRAgent, arXiv 2512.21708, equations 5 to 7).

For a token of role O, with a shared LoRA 0 and routed LoRAs i: h = W x + g(x) B_0 A_0 x + sum_i w_i(x) B_i A_i x. All
LoRAs of a role are one LoRA of rank counts[O] * r whose middle is scaled by the token's weights, so nothing is looped
over.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch.nn import functional

from rolecraft.adapters.mor._plan import Masks, Mixture, Plan

Way = Literal["grouped", "grouped_mm", "stacked"]
"""`grouped`: a GEMM pair for each role that has tokens (`_product`). `grouped_mm`: one launch for all, for CUDA.
`stacked`: every LoRA for every token, for compiled graphs, whose shapes must not depend on the data."""


@dataclass(frozen=True, slots=True)
class Weights:
    """The matrices of one layer: A (E*r, in), B (E*r, out), router (E, in); a role's rows are neighbours."""

    A: torch.Tensor
    B: torch.Tensor
    router: torch.Tensor | None


@dataclass(frozen=True, slots=True)
class Routing:
    """What the router did to N tokens: softmax `chances` and marks, 0 or 1, of the `chosen` (E, N).

    `seen` (E,) is how many tokens have each routed LoRA for their own, where each counts `times` (N,), None for once.
    LoRAs come first here, since a softmax over a dozen neighbours in memory takes a CPU twenty times as long as one
    over a dozen rows.
    """

    chances: torch.Tensor
    chosen: torch.Tensor
    seen: torch.Tensor
    times: torch.Tensor | None = None


def stacked(
    x: torch.Tensor, dropped: torch.Tensor, weights: Weights, plan: Plan, mixture: Mixture
) -> tuple[torch.Tensor, Routing | None]:
    """Return what the LoRAs add to a linear layer's output (N, out), and the routing, by every LoRA for every token.

    `x` (N, in), the tokens where they stand, is what the router reads, `dropped` what the LoRAs read: the same but for
    dropout.
    """
    w_NE, routing = mixing(x, weights.router, plan.masks(mixture), mixture)
    middle = functional.linear(dropped, weights.A)
    scaled = middle * w_NE.repeat_interleave(mixture.r, dim=-1).to(middle.dtype)
    return scaled @ weights.B.to(middle.dtype), routing


def launched(
    x: torch.Tensor, dropped: torch.Tensor, weights: Weights, plan: Plan, mixture: Mixture
) -> tuple[torch.Tensor, Routing | None]:
    """Return the same by two calls of `grouped_mm`, of and for tokens that stand as `plan.by_role` has them.

    Roles with fewer LoRAs are filled up with zeros.
    """
    w_NE, routing = mixing(x, weights.router, plan.masks(mixture, plan.by_role), mixture)
    spans, moved, most, r = plan.by_role.spans, dropped[: plan.covered], max(mixture.counts), mixture.r
    if not spans:
        return dropped.new_zeros(len(dropped), weights.B.shape[1]), routing
    A_RDi, B_RDo = (_padded(matrix.to(moved.dtype), mixture, most) for matrix in (weights.A, weights.B))
    present = torch.tensor([role for role, _, _ in spans], device=moved.device)
    sizes = torch.tensor([end - first for _, first, end in spans], device=moved.device)
    roles_N = torch.repeat_interleave(present, sizes, output_size=plan.covered)
    edges_R = torch.tensor(mixture.edges, device=moved.device)
    columns_NM = edges_R[roles_N][:, None] + torch.arange(most, device=moved.device)
    own_NM = columns_NM < edges_R[roles_N + 1][:, None]
    w_NM = w_NE[: plan.covered].gather(1, columns_NM.clamp(max=mixture.total - 1)) * own_NM
    ends = sizes.cumsum(0, dtype=torch.int32)
    middle = functional.grouped_mm(moved, A_RDi[present].transpose(1, 2), offs=ends)
    scaled = middle.view(len(moved), most, r) * w_NM[:, :, None].to(middle.dtype)
    added = functional.grouped_mm(scaled.view(len(moved), -1), B_RDo[present], offs=ends)
    return functional.pad(added, (0, 0, 0, len(dropped) - plan.covered)), routing


def mixing(
    x: torch.Tensor, router: torch.Tensor | None, masks: Masks, mixture: Mixture
) -> tuple[torch.Tensor, Routing | None]:
    """Return each token's weight of each LoRA (N, E), 0 for those of other roles, times the scale; and the routing."""
    if router is None:
        return (masks.routed + masks.shared).T.to(x.dtype) * mixture.scale, None
    shares_EN, routing = shares(functional.linear(router, x).float(), masks, mixture)
    return (shares_EN * mixture.scale).T.to(x.dtype), routing


def shares(logits_EN: torch.Tensor, masks: Masks, mixture: Mixture) -> tuple[torch.Tensor, Routing]:
    """Return each token's share of each LoRA (E, N), 0 for those of other roles, and the routing, from float32 logits.

    Softmax over the routed LoRAs of the token's role, the best `top_k` of them scaled to a sum of 1, and a sigmoid for
    the shared one (released code, moelora.py). Exactly `top_k` are active, also where some tie.
    """
    # A role with no routed LoRA, and a token of nobody, has no chance to share out.
    own_EN = logits_EN + masks.bar
    chances_EN = own_EN.softmax(0) * masks.routed
    chosen_EN, shares_EN = masks.routed, chances_EN
    if mixture.picks:
        best_Nk = own_EN.T.topk(masks.keep.shape[1], dim=-1).indices
        marks_NE = torch.zeros_like(chances_EN.T, memory_format=torch.contiguous_format)
        chosen_EN = marks_NE.scatter(-1, best_Nk, masks.keep).T * masks.routed
        kept_EN = chances_EN * chosen_EN
        total_N = kept_EN.sum(0)
        shares_EN = kept_EN / (total_N + (total_N == 0))
    return shares_EN + logits_EN.sigmoid() * masks.shared, Routing(chances_EN, chosen_EN, masks.seen, masks.times)


def shares_gradient(
    by_shares_EN: torch.Tensor,
    by_chances_EN: torch.Tensor | None,
    shares_EN: torch.Tensor,
    chances_EN: torch.Tensor,
    masks: Masks,
) -> torch.Tensor:
    """Return the gradient of the logits of `shares` (E, N) from those of the shares and the chances.

    Scaled to a sum of 1, the best of a softmax are the softmax of the best; a sigmoid's slope is s (1 - s). Both are
    s g - s G, with G the sum of s g over the LoRAs that compete: the chosen routed ones, or the shared one alone.
    """
    own_EN = shares_EN * by_shares_EN
    rivals_EN = own_EN * masks.shared + (own_EN * masks.routed).sum(0) * (1 - masks.shared)
    found_EN = own_EN.addcmul_(shares_EN, rivals_EN, value=-1)
    if by_chances_EN is not None:
        own_EN = chances_EN * by_chances_EN
        found_EN += own_EN.addcmul_(chances_EN, own_EN.sum(0), value=-1)
    return found_EN


def _padded(matrix: torch.Tensor, mixture: Mixture, most: int) -> torch.Tensor:
    """Return the roles' rows as (R, most * r, width)."""
    parts = torch.split(matrix, [count * mixture.r for count in mixture.counts])
    return torch.stack([functional.pad(part, (0, 0, 0, most * mixture.r - len(part))) for part in parts])
