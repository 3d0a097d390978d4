"""What reinforcement and preference minimise, as pure functions of log-probabilities: GRPO and its kin, PPO, DPO.

`_B` is a rollout, `_T` a token of it. `mask_BT` marks the tokens that the policy chose: neither a prompt's, nor a
tool's, nor those that a grammar left no choice for. `advantages` are (B, 1) for a whole rollout, or (B, T).
Not covered: where advantages come from (advantages), and sampling.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch.nn import functional

Level = Literal["token", "sequence"]
Aggregation = Literal["grpo", "bnpo", "dr_grpo", "dapo"]


@dataclass(frozen=True, slots=True)
class Clip:
    """How far the ratio of new to old probability may move before it stops counting (PPO, arXiv 1707.06347).

    `high` above `low` leaves unlikely tokens more room to rise (clip-higher, DAPO, arXiv 2503.14476, 3.1). `most`
    bounds the ratio of a token whose advantage is negative too (two-sided clipping); None: nothing does.
    """

    low: float = 0.2
    high: float = 0.2
    most: float | None = None


def ratios(new_BT: torch.Tensor, old_BT: torch.Tensor, mask_BT: torch.Tensor, level: Level = "token") -> torch.Tensor:
    """Return how much likelier the policy has made each token (B, T), or each rollout (B, 1).

    A rollout's ratio is the geometric mean of its tokens' (GSPO, arXiv 2507.18071, equation 7): it judges the whole
    trajectory, over all the replies in it.
    """
    logs_BT = torch.where(mask_BT, new_BT - old_BT, 0.0)
    if level == "token":
        return logs_BT.exp()
    return (logs_BT.sum(1, keepdim=True) / mask_BT.sum(1, keepdim=True).clamp(min=1)).exp()


def clipped(ratios_BT: torch.Tensor, advantages_BT: torch.Tensor, clip: Clip = Clip()) -> torch.Tensor:
    """Return the clipped surrogate's loss, by token (B, T), or by rollout (B, 1) where both arguments are."""
    bounded_BT = ratios_BT if clip.most is None else ratios_BT.clamp(max=clip.most)
    held_BT = ratios_BT.clamp(1 - clip.low, 1 + clip.high)
    return -torch.minimum(bounded_BT * advantages_BT, held_BT * advantages_BT)


def is_clipped(ratios_BT: torch.Tensor, advantages_BT: torch.Tensor, clip: Clip = Clip()) -> torch.Tensor:
    """Return where the surrogate has no gradient, since the ratio has moved far enough in the advantage's direction."""
    too_low_BT = (ratios_BT < 1 - clip.low) & (advantages_BT < 0)
    return too_low_BT | ((ratios_BT > 1 + clip.high) & (advantages_BT > 0))


def k3(new_BT: torch.Tensor, reference_BT: torch.Tensor) -> torch.Tensor:
    """Return an estimate of the KL divergence from the reference, by token; never negative (Schulman's k3)."""
    difference_BT = reference_BT - new_BT
    return difference_BT.exp() - difference_BT - 1


def aggregate(
    losses_BT: torch.Tensor, mask_BT: torch.Tensor, how: Aggregation = "dapo", longest: int | None = None
) -> torch.Tensor:
    """Return the batch's loss from those of its tokens.

    `grpo` averages each rollout's mean, so that a token of a short one counts more (arXiv 2402.03300); `bnpo` and
    `dapo` average over all tokens, the first of a batch and the second of a step, which are one here: a step's batches
    are summed before (arXiv 2503.14476, 3.3); `dr_grpo` divides by the `longest` that a rollout may be instead of what
    it is (arXiv 2503.20783).
    """
    losses_BT = torch.where(mask_BT, losses_BT, 0.0)
    if how == "grpo":
        return (losses_BT.sum(1) / mask_BT.sum(1).clamp(min=1)).mean()
    if how == "dr_grpo":
        if longest is None:
            raise ValueError("dr_grpo divides by the longest rollout; give `longest` in tokens")
        return losses_BT.sum() / (len(losses_BT) * longest)
    return losses_BT.sum() / mask_BT.sum().clamp(min=1)


def grpo(
    new_BT: torch.Tensor,
    old_BT: torch.Tensor,
    advantages_BT: torch.Tensor,
    mask_BT: torch.Tensor,
    *,
    clip: Clip = Clip(),
    level: Level = "token",
    how: Aggregation = "dapo",
    reference_BT: torch.Tensor | None = None,
    beta: float = 0.0,
    longest: int | None = None,
) -> torch.Tensor:
    """Return the loss of group-relative policy optimisation; with `level="sequence"` and `how="grpo"` that of GSPO.

    `beta` weighs the divergence from the reference policy's `reference_BT`, corrected by the ratio, since the tokens
    were drawn from the old policy (as TRL's `use_bias_correction_kl`).
    """
    ratios_BT = ratios(new_BT, old_BT, mask_BT, level)
    losses_BT = clipped(ratios_BT, advantages_BT, clip).expand_as(new_BT)
    if beta and reference_BT is not None:
        losses_BT = losses_BT + beta * ratios_BT * k3(new_BT, reference_BT)
    return aggregate(losses_BT, mask_BT, how, longest)


def value(
    values_BT: torch.Tensor,
    old_BT: torch.Tensor,
    returns_BT: torch.Tensor,
    mask_BT: torch.Tensor,
    clip: float = 0.2,
) -> torch.Tensor:
    """Return PPO's clipped value loss: half the squared error, of the worse of the value and one near the old value."""
    held_BT = old_BT + (values_BT - old_BT).clamp(-clip, clip)
    errors_BT = torch.maximum((values_BT - returns_BT) ** 2, (held_BT - returns_BT) ** 2)
    return 0.5 * aggregate(errors_BT, mask_BT)


def penalised(
    reward: float, old_T: torch.Tensor, reference_T: torch.Tensor | None = None, beta: float = 0.0
) -> torch.Tensor:
    """Return PPO's reward of each model token of an episode: less its divergence from the reference, the end's added.

    The divergence is the plain difference of log-probabilities (k1), as in arXiv 2203.02155, equation 2.
    """
    rewards_T = torch.zeros_like(old_T) if reference_T is None else -beta * (old_T - reference_T)
    rewards_T[-1] += reward
    return rewards_T


def margins(
    preferred_B: torch.Tensor,
    refused_B: torch.Tensor,
    preferred_before_B: torch.Tensor,
    refused_before_B: torch.Tensor,
    beta: float = 0.1,
) -> torch.Tensor:
    """Return how much more a preferred reply has gained than the refused one, in DPO's implicit reward (B,).

    A reply's reward is `beta` times its log-probability less what that was of the policy as it began (DPO, arXiv
    2305.18290, section 4).
    """
    return beta * ((preferred_B - preferred_before_B) - (refused_B - refused_before_B))


def dpo(margins_B: torch.Tensor) -> torch.Tensor:
    """Return the loss of each pair (DPO, arXiv 2305.18290, equation 7): how surprising it is that the one is better."""
    return -functional.logsigmoid(margins_B)
