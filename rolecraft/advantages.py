"""How much better than expected a rollout, or a step of it, was: pure functions from rewards to advantages.

`_G` is a rollout, `_L` a layer of its reward, `_S` a step of one (a model's reply), `_T` a token. Groups are ids: equal
ids are tries at one task. Not covered: how a reward is made (judges), and what a loss does with it (policy_losses).
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from typing import Literal

import torch

EPSILON = 1e-4
"""What is added to a standard deviation that divides, as TRL does."""

Scale = Literal["group", "batch", "none"]


def group_relative(rewards_G: torch.Tensor, groups_G: torch.Tensor, scale: Scale = "group") -> torch.Tensor:
    """Return each reward less its group's mean, divided by the group's deviation (GRPO, arXiv 2402.03300, 4.1.2).

    `batch` divides by the deviation over all rewards, `none` by nothing (Dr. GRPO, arXiv 2503.20783). A group of one,
    and one whose rewards are all equal, has advantage 0.
    """
    means_G, deviations_G = _of_groups(rewards_G, groups_G)
    centred_G = rewards_G - means_G
    if scale == "none":
        return centred_G
    if scale == "batch":
        deviations_G = _deviation(rewards_G).expand_as(rewards_G)
    return centred_G / (deviations_G + EPSILON)


def layered(
    rewards_GL: torch.Tensor, weights_L: torch.Tensor, groups_G: torch.Tensor, scale: Scale = "group"
) -> torch.Tensor:
    """Return advantages of a reward in layers, each normalised by itself before they are summed (GDPO, TRL 1.16).

    A layer that all of a group have fulfilled then no longer drowns the others' differences. The sum is normalised
    again over the batch. A layer that is not a number for a rollout was not judged there, and says nothing of it.
    """
    judged_GL = ~torch.isnan(rewards_GL)
    sums_G = torch.zeros_like(rewards_GL[:, 0])
    for layer, weight in enumerate(weights_L):
        known_G = judged_GL[:, layer]
        normal = group_relative(rewards_GL[known_G, layer], groups_G[known_G], "none" if scale == "none" else "group")
        sums_G[known_G] += weight * normal
    if scale == "none":
        return sums_G
    return (sums_G - sums_G.mean()) / (_deviation(sums_G) + EPSILON)


def varies(rewards_G: torch.Tensor, groups_G: torch.Tensor) -> torch.Tensor:
    """Return whether a rollout's group has differing rewards (G,): from one that has none nothing is learned (DAPO)."""
    _, deviations_G = _of_groups(rewards_G, groups_G)
    return deviations_G > 0


def stepwise(
    returns_S: torch.Tensor,
    states_S: Sequence[Hashable],
    groups_S: torch.Tensor,
    episodes_S: torch.Tensor,
    weight: float = 1.0,
    scale: Scale = "group",
) -> torch.Tensor:
    """Return an advantage for each step: its episode's plus `weight` times its own (GiGPO, arXiv 2505.10978, 3.2).

    Steps of one group of rollouts that began in the same state are compared by what came after them (`returns_S`, the
    discounted reward from the step on), and divided as `scale` says: by the deviation of the steps in that state, or
    of all; `episodes_S` (S,) is the episode's advantage, repeated. A state that was met once tells nothing of its step.
    """
    met = {key: number for number, key in enumerate(dict.fromkeys(zip(groups_S.tolist(), states_S, strict=True)))}
    anchors_S = torch.tensor([met[key] for key in zip(groups_S.tolist(), states_S, strict=True)])
    return episodes_S + weight * group_relative(returns_S, anchors_S.to(returns_S.device), scale)


def discounted(rewards_S: torch.Tensor, gamma: float) -> torch.Tensor:
    """Return what follows each step of one episode, itself included: R_s = r_s + gamma R_{s+1}."""
    found, after = [], rewards_S.new_zeros(())
    for reward in rewards_S.flip(0):
        after = reward + gamma * after
        found.append(after)
    return torch.stack(found).flip(0) if found else rewards_S


def generalised(
    rewards_T: torch.Tensor, values_T: torch.Tensor, gamma: float = 1.0, lam: float = 0.95
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return generalised advantage estimates and returns over one episode's model tokens (GAE, arXiv 1506.02438).

    The tokens of tools and of the grammar are left out before: nothing is chosen there, so no time passes. The last
    token ends the episode; what follows it is worth 0.
    """
    following_T = torch.cat((values_T[1:], values_T.new_zeros(1)))
    deltas_T = rewards_T + gamma * following_T - values_T
    advantages_T = discounted(deltas_T, gamma * lam)
    return advantages_T, advantages_T + values_T


def whitened(advantages_BT: torch.Tensor, mask_BT: torch.Tensor, *, centre: bool = True) -> torch.Tensor:
    """Return the advantages with deviation 1 over the masked tokens, and mean 0 unless `centre` is off; 0 elsewhere."""
    kept_N = advantages_BT[mask_BT]
    mean = kept_N.mean()
    normal_BT = (advantages_BT - mean) / (_deviation(kept_N) + 1e-8)
    return torch.where(mask_BT, normal_BT if centre else normal_BT + mean, 0.0)


def _of_groups(values_G: torch.Tensor, groups_G: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return each value's group's mean and (unbiased) standard deviation; the deviation of one value is 0."""
    _, places_G, counts = torch.unique(groups_G, return_inverse=True, return_counts=True)
    means = values_G.new_zeros(len(counts)).index_add_(0, places_G, values_G) / counts
    squares = values_G.new_zeros(len(counts)).index_add_(0, places_G, (values_G - means[places_G]) ** 2)
    # Equal rewards must come out as exactly equal: a mean's rounding would else be divided by itself.
    least = values_G.new_full((len(counts),), math.inf).scatter_reduce_(0, places_G, values_G, "amin")
    most = values_G.new_full((len(counts),), -math.inf).scatter_reduce_(0, places_G, values_G, "amax")
    deviations = torch.where(least == most, 0.0, (squares / (counts - 1).clamp(min=1)).sqrt())
    means = torch.where(least == most, least, means)
    return means[places_G], deviations[places_G]


def _deviation(values_N: torch.Tensor) -> torch.Tensor:
    return values_N.std() if len(values_N) > 1 else values_N.new_zeros(())
