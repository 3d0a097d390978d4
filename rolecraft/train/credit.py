"""From tries at tasks to what each reply of them earned: groups, roles, turns and states that were met again.

Not covered: how a reward is made (`judges.layered`), and PPO, whose value head says what was to be expected.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import torch

from rolecraft import advantages
from rolecraft.judges import layered
from rolecraft.reinforcement import ReinforcementSettings
from rolecraft.types import Trajectory


@dataclass(frozen=True, slots=True)
class Try:
    """One try at a task: its record with the layered verdict, whose `group` it is of, and its task's own score.

    `states` are what the world was before each reply, where that was watched.
    """

    episode: Trajectory
    group: int
    score: float
    states: tuple[Hashable, ...] = ()

    @property
    def reward(self) -> float:
        """The layers' weighted mean."""
        return self.episode.verdict.score if self.episode.verdict else 0.0


def earned(tries: Sequence[Try], told: ReinforcementSettings) -> list[list[float]]:
    """Return the advantage of each reply of each try."""
    units = [_units(one, told) for one in tries]
    known = list(dict.fromkeys((place, unit) for place, of in enumerate(units) for unit in of))
    met = {key: number for number, key in enumerate(dict.fromkeys((tries[p].group, unit) for p, unit in known))}
    groups_U = torch.tensor([met[tries[place].group, unit] for place, unit in known])
    found_U = _relative([tries[place] for place, _ in known], groups_U, told)
    by_unit = dict(zip(known, found_U.tolist(), strict=True))
    plain = [[by_unit[place, unit] for unit in of] for place, of in enumerate(units)]
    return _with_steps(tries, plain, told) if told.objective == "gigpo" else plain


def flat(tries: Sequence[Try]) -> set[int]:
    """Return the groups whose rewards are all equal."""
    groups_G = torch.tensor([one.group for one in tries])
    varies_G = advantages.varies(torch.tensor([one.reward for one in tries], dtype=torch.float64), groups_G)
    return {one.group for one, varies in zip(tries, varies_G.tolist(), strict=True) if not varies}


def _units(one: Try, told: ReinforcementSettings) -> list[Hashable]:
    """Return for each reply what of its try is compared with the same of another."""
    said, found = Counter[str](), list[Hashable]()
    for turn in one.episode.turns:
        unit = {"trajectory": (), "role": (turn.speaker,), "turn": (turn.speaker, said[turn.speaker])}[told.per]
        said[turn.speaker] += 1
        found.append(unit)
    return found


def _relative(tries: Sequence[Try], groups_U: torch.Tensor, told: ReinforcementSettings) -> torch.Tensor:
    if told.normalise == "sum" or told.reward.binary:
        rewards_U = torch.tensor([one.reward for one in tries], dtype=torch.float64)
        return advantages.group_relative(rewards_U, groups_U, told.scale)
    parts = [one.episode.verdict.parts if one.episode.verdict else {} for one in tries]
    rewards_UL = torch.tensor(
        [[part.get(name, math.nan) for name in layered.LAYERS] for part in parts], dtype=torch.float64
    )
    weights_L = torch.tensor([getattr(told.reward, name) for name in layered.LAYERS], dtype=torch.float64)
    return advantages.layered(rewards_UL, weights_L, groups_U, told.scale)


def _with_steps(
    tries: Sequence[Try], plain: Sequence[Sequence[float]], told: ReinforcementSettings
) -> list[list[float]]:
    """Return the advantages with those of the replies themselves added, each among the replies in the same state."""
    counts = [len(one.episode.turns) for one in tries]
    ends = [[0.0] * (count - 1) + [one.reward] for one, count in zip(tries, counts, strict=True) if count]
    returns_S = torch.cat(
        [advantages.discounted(torch.tensor(end, dtype=torch.float64), told.step_gamma) for end in ends]
    )
    groups_S = torch.tensor([one.group for one, count in zip(tries, counts, strict=True) for _ in range(count)])
    states = [state for one in tries for state in one.states]
    episodes_S = torch.tensor([value for one in plain for value in one], dtype=torch.float64)
    found_S = advantages.stepwise(returns_S, states, groups_S, episodes_S, told.step_weight, told.scale)
    return [part.tolist() for part in torch.split(found_S, counts)]
