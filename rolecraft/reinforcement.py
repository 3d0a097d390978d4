"""What reinforcement is told: how tasks are tried, what is rewarded, and how advantages become a loss.

It is the section `reinforcement` of a recipe, whose other sections say the policy, its adapter, the tasks and the
steps. Not covered: the loop itself (`train.reinforce`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from rolecraft.errors import SettingsError
from rolecraft.judges import layered
from rolecraft.settings import from_dict

Objective = Literal["grpo", "gspo", "ppo", "gigpo", "rejection"]
_CLIPS = {"gspo": (3e-4, 4e-4)}
_CLIP = (0.2, 0.28)


@dataclass(frozen=True, slots=True)
class Collapse:
    """When a run ends before its last step, judged by means over the last `window` steps; 0 watches nothing of a kind.

    `entropy`, `calls` and `reward` are the least that is left of what the first `window` steps had, as a share; `kl` is
    the most nats a token from the reference, or from the step's own start where there is none.
    """

    window: int = 10
    entropy: float = 0.02
    calls: float = 0.2
    reward: float = 0.5
    kl: float = 2.0

    def __post_init__(self) -> None:
        """Refuse numbers that cannot be meant."""
        if self.window < 1:
            raise SettingsError(f"reinforcement.collapse.window is {self.window}; it must be at least 1")
        for name in ("entropy", "calls", "reward", "kl"):
            if not getattr(self, name) >= 0:
                raise SettingsError(f"reinforcement.collapse.{name} is {getattr(self, name)}; it must be at least 0")


@dataclass(frozen=True, slots=True)
class Values:
    """PPO's value head: how its loss counts and is clipped, and how rewards are carried back over model tokens."""

    weight: float = 0.1
    clip: float = 0.2
    gamma: float = 1.0
    lam: float = 0.95

    def __post_init__(self) -> None:
        """Refuse numbers that cannot be meant."""
        _require_least("values.weight", self.weight)
        _require_least("values.clip", self.clip)
        _require_share("values.gamma", self.gamma)
        _require_share("values.lam", self.lam)


@dataclass(frozen=True, slots=True)
class ReinforcementSettings:
    """Reinforcement: each step tries `tasks` tasks `group` times each at `temperature` and learns from the rewards.

    `objective`: `grpo` clips the ratio of each token, `gspo` that of a whole episode; `ppo` has a value head (`values`)
    in place of groups; `gigpo` adds to an episode's advantage `step_weight` times that of its replies, each compared
    with the replies that began in the same state, their reward discounted by `step_gamma`; `rejection` is fine-tuning
    on the tries whose task's score is at least `keep`. `aggregation` and `clip_low`, `clip_high` are the objective's
    own if they are not given. `kl` weighs the divergence (k3) from the policy as it began: in the loss, under PPO in
    the reward (k1).

    `reward` weighs the layers (`judges.layered`); with `normalise: layers` each is normalised by itself. Advantages are
    compared `per` trajectory, per role of it, or per turn: a role's n-th reply. `scale` is what they are divided by. A
    group whose rewards are all equal is given up to `resample` times for another task's, where groups are compared (not
    `ppo` and `rejection`). The rows of a step are gone through `updates` times, in `minibatches` moves of the optimizer
    each. `share_prompts`: what several rows begin with is computed once, where the base attends to all before (else
    each row is computed by itself).

    Every `validate_every` steps `validation` tasks of the training split at `validation_seed` are played greedily, and
    the best of these checkpoints by the task's own score is what is left; 0: the last is.

    With `recorded` no task is played: one step learns from the answers that a server kept in that folder, by the file
    of `rewards` (`train.recorded`).
    """

    objective: Objective = "grpo"
    tasks: int = 4
    group: int = 8
    temperature: float = 1.0
    max_turns: int = 12
    max_tokens: int = 96
    constrained: bool = False
    reward: layered.Settings = field(default_factory=layered.Settings)
    normalise: Literal["layers", "sum"] = "layers"
    scale: Literal["group", "batch", "none"] = "group"
    per: Literal["trajectory", "role", "turn"] = "trajectory"
    resample: int = 0
    aggregation: Literal["grpo", "bnpo", "dr_grpo", "dapo"] | None = None
    clip_low: float | None = None
    clip_high: float | None = None
    kl: float = 0.0
    updates: int = 1
    minibatches: int = 1
    share_prompts: bool = True
    step_weight: float = 1.0
    step_gamma: float = 0.95
    keep: float = 1.0
    values: Values = field(default_factory=Values)
    collapse: Collapse = field(default_factory=Collapse)
    validation: int = 0
    validate_every: int = 50
    validation_seed: int = 7
    recorded: str | None = None
    rewards: str | None = None

    def __post_init__(self) -> None:
        """Refuse numbers that cannot be meant."""
        for name in ("tasks", "group", "max_turns", "max_tokens", "updates", "minibatches", "validate_every"):
            if getattr(self, name) < 1:
                raise SettingsError(f"reinforcement.{name} is {getattr(self, name)}; it must be at least 1")
        for name in ("resample", "validation", "kl", "step_weight"):
            _require_least(name, getattr(self, name))
        for name in ("step_gamma", "keep"):
            _require_share(name, getattr(self, name))
        if self.temperature <= 0:
            raise SettingsError(
                f"reinforcement.temperature is {self.temperature}; it must be above 0: tries that are all alike teach "
                "nothing"
            )
        low, high = self.clip
        if not 0 < low <= 1:
            raise SettingsError(
                f"reinforcement.clip_low is {low}; it must be above 0 and at most 1, for no ratio is below 0"
            )
        if not high > 0:
            raise SettingsError(f"reinforcement.clip_high is {high}; it must be above 0")
        self._require_groups()
        self._require_both()

    def _require_groups(self) -> None:
        if self.objective in ("ppo", "rejection"):
            if self.resample:
                raise SettingsError(
                    f"reinforcement.resample is {self.resample}; {self.objective} compares no groups, and one that is "
                    "all alike teaches it as well: set it to 0"
                )
        elif self.group < 2:
            raise SettingsError(f"reinforcement.group is {self.group}; {self.objective} compares at least 2 tries")

    def _require_both(self) -> None:
        if bool(self.recorded) != bool(self.rewards):
            raise SettingsError(
                f"reinforcement.recorded is {self.recorded!r} and reinforcement.rewards {self.rewards!r}; a record is "
                "learned from by its rewards: give both (--from RUN --rewards FILE), or neither"
            )

    @property
    def clip(self) -> tuple[float, float]:
        """How far a ratio may move down and up."""
        low, high = _CLIPS.get(self.objective, _CLIP)
        return low if self.clip_low is None else self.clip_low, high if self.clip_high is None else self.clip_high

    @property
    def how(self) -> Literal["grpo", "bnpo", "dr_grpo", "dapo"]:
        """How the tokens' losses become one."""
        return self.aggregation or ("grpo" if self.objective == "gspo" else "dapo")


def _require_least(name: str, value: float) -> None:
    if not value >= 0:
        raise SettingsError(f"reinforcement.{name} is {value}; it must be at least 0")


def _require_share(name: str, value: float) -> None:
    if not 0 <= value <= 1:
        raise SettingsError(f"reinforcement.{name} is {value}; it must be from 0 to 1")


def read_reinforcement(sections: Mapping[str, Any]) -> ReinforcementSettings | None:
    """Return the section of a recipe's sections, which may be empty; None where there is none."""
    if "reinforcement" not in sections:
        return None
    return from_dict(ReinforcementSettings, sections["reinforcement"], "reinforcement")
