"""The Mixture of Roles as one gated low-rank product (MoRAgent, arXiv 2512.21708, equations 5 to 7), three ways.

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
"""`grouped`: a GEMM pair for each role that has tokens. `grouped_mm`: one launch for all, for CUDA. `stacked`: every
LoRA for every token, for compiled graphs, whose shapes must not depend on the data."""


@dataclass(frozen=True, slots=True)
class Weights:
    """The matrices of one layer: A (E*r, in), B (E*r, out), router (E, in); a role's rows are neighbours."""

    A: torch.Tensor
    B: torch.Tensor
    router: torch.Tensor | None


@dataclass(frozen=True, slots=True)
class Routing:
    """What the router did to N tokens: softmax `chances` and `chosen` marks (N, E), and whose routed LoRAs `own`
    them."""

    chances: torch.Tensor
    chosen: torch.Tensor
    own: torch.Tensor


def grouped(
    x: torch.Tensor, dropped: torch.Tensor, weights: Weights, plan: Plan, mixture: Mixture, way: Way
) -> tuple[torch.Tensor, Routing | None]:
    """Return what the LoRAs add to a linear layer's output, and the routing of the tokens that have a role.

    `x` (N, in), in the plan's order, is what the router reads, `dropped` what the LoRAs read: the same but for dropout.
    So is what comes back, (N, out).
    """
    w_NE, routing = mixing(x[: plan.covered], weights.router, plan.masks(mixture, ordered=True), mixture)
    multiply = _by_launch if way == "grouped_mm" else _by_role
    return multiply(dropped, w_NE, weights, plan, mixture), routing


def stacked(
    x: torch.Tensor, dropped: torch.Tensor, weights: Weights, plan: Plan, mixture: Mixture
) -> tuple[torch.Tensor, Routing | None]:
    """Return the same by every LoRA for every token, all of them where they stand, (N, in) to (N, out)."""
    w_NE, routing = mixing(x, weights.router, plan.masks(mixture, ordered=False), mixture)
    middle = functional.linear(dropped, weights.A)
    scaled = middle * w_NE.repeat_interleave(mixture.r, dim=-1).to(middle.dtype)
    return scaled @ weights.B.to(middle.dtype), routing


def mixing(
    x: torch.Tensor, router: torch.Tensor | None, masks: Masks, mixture: Mixture
) -> tuple[torch.Tensor, Routing | None]:
    """Return each token's weight of each LoRA (N, E), 0 for those of other roles, times the scale.

    Softmax over the routed LoRAs of the token's role in float32, the best `top_k` of them scaled to a sum of 1, and a
    sigmoid for the shared one (released code, moelora.py). Ties are broken by place: exactly `top_k` are ever active.
    """
    if router is None:
        return (masks.routed | masks.shared).to(x.dtype) * mixture.scale, None
    logits_NE = functional.linear(x, router).float()
    chances_NE = logits_NE.masked_fill(~masks.routed, torch.finfo(torch.float32).min).softmax(-1)
    # A role with no routed LoRA, and a token of nobody, has no chance to share out.
    chances_NE = chances_NE * masks.routed
    chosen_NE = masks.routed
    weights_NE = chances_NE
    if mixture.picks:
        best_Nk = chances_NE.topk(masks.keep.shape[1], dim=-1).indices
        chosen_NE = torch.zeros_like(masks.routed).scatter(-1, best_Nk, masks.keep) & masks.routed
        kept_NE = chances_NE * chosen_NE
        weights_NE = kept_NE / kept_NE.sum(-1, keepdim=True).clamp(min=torch.finfo(torch.float32).tiny)
    weights_NE = weights_NE + logits_NE.sigmoid() * masks.shared
    return (weights_NE * mixture.scale).to(x.dtype), Routing(chances_NE, chosen_NE, masks.routed)


def _by_role(moved: torch.Tensor, w_NE: torch.Tensor, weights: Weights, plan: Plan, mixture: Mixture) -> torch.Tensor:
    """Return (N, out) in the plan's order: a pair of products for each role that has tokens, zeros for nobody's."""
    edges, r = mixture.edges, mixture.r
    sizes = [end - first for _, first, end in plan.spans]
    rows = torch.split(moved, [*sizes, len(moved) - sum(sizes)])
    gates = torch.split(w_NE, sizes)
    parts = []
    for (role, _, _), x, w in zip(plan.spans, rows, gates, strict=False):
        first, end = edges[role], edges[role + 1]
        middle = functional.linear(x, weights.A[first * r : end * r])
        scaled = middle.view(len(x), end - first, r) * w[:, first:end, None].to(middle.dtype)
        parts.append(scaled.view(len(x), -1) @ weights.B[first * r : end * r].to(middle.dtype))
    if plan.covered < len(moved):
        dtype = parts[0].dtype if parts else moved.dtype
        parts.append(torch.zeros(len(moved) - plan.covered, weights.B.shape[1], dtype=dtype, device=moved.device))
    return parts[0] if len(parts) == 1 else torch.cat(parts)


def _by_launch(moved: torch.Tensor, w_NE: torch.Tensor, weights: Weights, plan: Plan, mixture: Mixture) -> torch.Tensor:
    """Return what `_by_role` does with two calls of `grouped_mm`: roles with fewer LoRAs are filled up with zeros."""
    most, r, x = max(mixture.counts), mixture.r, moved[: plan.covered]
    A_RDi, B_RDo = (_padded(matrix.to(x.dtype), mixture, most) for matrix in (weights.A, weights.B))
    present = torch.tensor([role for role, _, _ in plan.spans], device=x.device)
    ends = torch.tensor([end for _, _, end in plan.spans], dtype=torch.int32, device=x.device)
    edges_R = torch.tensor(mixture.edges, device=x.device)
    columns_NM = edges_R[plan.roles][:, None] + torch.arange(most, device=x.device)
    own_NM = columns_NM < edges_R[plan.roles + 1][:, None]
    w_NM = w_NE.gather(1, columns_NM.clamp(max=mixture.total - 1)) * own_NM
    middle = functional.grouped_mm(x, A_RDi[present].transpose(1, 2), offs=ends)
    scaled = middle.view(len(x), most, r) * w_NM[:, :, None].to(middle.dtype)
    added = functional.grouped_mm(scaled.view(len(x), -1), B_RDo[present], offs=ends)
    return functional.pad(added, (0, 0, 0, len(moved) - plan.covered))


def _padded(matrix: torch.Tensor, mixture: Mixture, most: int) -> torch.Tensor:
    """Return the roles' rows as (R, most * r, width)."""
    parts = torch.split(matrix, [count * mixture.r for count in mixture.counts])
    return torch.stack([functional.pad(part, (0, 0, 0, most * mixture.r - len(part))) for part in parts])
