"""What on-policy distillation is told: who teaches, who plays and how, and how a token's loss is made and weighed.

It is the section `on_policy` of a recipe, whose other sections say the student, its adapter, the tasks and the steps.
Not covered: the loop itself (`train.on_policy`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from rolecraft.errors import SettingsError
from rolecraft.settings import from_dict

_STAGES = "stages."


@dataclass(frozen=True, slots=True)
class OnPolicySettings:
    """On-policy distillation: `teacher` scores what the student plays; it is a base, with or without an adapter.

    In a recipe with stages `stages.NAME` is what an earlier one left.

    Each step plays `rollouts` tasks at `temperature` and trains on them once. `player` teacher is off-policy
    distillation by the same loop: the teacher plays and scores itself. `divergence` is the loss of a token: `reverse`
    KL, or `forward`; `estimate` `full` takes it over the whole vocabulary, `sampled` from the token that was played
    alone: then reverse KL is an advantage of the token, as in reinforcement, and forward KL is cross-entropy.

    `gate`: a step where student and teacher have parted by more nats a token than this counts less in proportion (SOD,
    arXiv 2605.07725); None: all count alike. `depth_start`: the most turns of an episode at first, one more every
    `depth_every` steps up to `max_turns` (TCOD, arXiv 2604.24005, front to back); None: `max_turns` from the beginning.
    `weights` scales the loss of a role's tokens. Every `validate_every` steps `validation` tasks of the training split
    at `validation_seed` are played greedily, and the best of these checkpoints is what is left; 0: the last is.
    """

    teacher: str
    teacher_adapter: str | None = None
    player: Literal["student", "teacher"] = "student"
    divergence: Literal["reverse", "forward"] = "reverse"
    estimate: Literal["full", "sampled"] = "full"
    rollouts: int = 16
    temperature: float = 1.0
    max_turns: int = 12
    max_tokens: int = 96
    constrained: bool = False
    gate: float | None = None
    depth_start: int | None = None
    depth_every: int = 10
    weights: Mapping[str, float] = field(default_factory=dict)
    validation: int = 0
    validate_every: int = 50
    validation_seed: int = 7

    def __post_init__(self) -> None:
        """Refuse numbers that cannot be meant."""
        for name in ("rollouts", "max_turns", "max_tokens", "depth_every", "validate_every"):
            if getattr(self, name) < 1:
                raise SettingsError(f"on_policy.{name} is {getattr(self, name)}; it must be at least 1")
        if self.validation < 0:
            raise SettingsError(f"on_policy.validation is {self.validation}; give a number of tasks, 0 for none")
        if self.temperature <= 0:
            raise SettingsError(
                f"on_policy.temperature is {self.temperature}; it must be above 0: what is distilled is all that the "
                "player may do, and greedily it does one thing"
            )
        if self.estimate == "sampled" and (self.player == "student") != (self.divergence == "reverse"):
            raise SettingsError(
                f"on_policy.divergence is {self.divergence!r} with estimate 'sampled' and player {self.player!r}; "
                "tokens that the student played tell of 'reverse' KL alone, the teacher's of 'forward'; set one of them"
            )
        if self.gate is not None and self.gate <= 0:
            raise SettingsError(f"on_policy.gate is {self.gate}; give nats a token above 0, or null for no gate")
        if self.depth_start is not None and not 1 <= self.depth_start <= self.max_turns:
            raise SettingsError(f"on_policy.depth_start is {self.depth_start}; it must be 1 to max_turns")
        if wrong := [name for name, weight in self.weights.items() if not weight >= 0]:
            raise SettingsError(f"on_policy.weights.{wrong[0]} is {self.weights[wrong[0]]}; it must be at least 0")

    @property
    def stage(self) -> str | None:
        """The stage that the teacher is, None where it is a base."""
        return self.teacher.removeprefix(_STAGES) if self.teacher.startswith(_STAGES) else None

    def depth(self, step: int) -> int:
        """Return the most turns of an episode in a step, counted from 1: k = min(start + floor(n / every), most)."""
        if self.depth_start is None:
            return self.max_turns
        return min(self.depth_start + (step - 1) // self.depth_every, self.max_turns)


def read_on_policy(sections: Mapping[str, Any]) -> OnPolicySettings | None:
    """Return the section of a recipe's sections, None where there is none."""
    return from_dict(OnPolicySettings, sections["on_policy"], "on_policy") if sections.get("on_policy") else None
