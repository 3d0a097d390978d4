"""The ways to learn that are not imitation of given replies: a recipe has at most one of them.

Not covered: what each is told (`on_policy`, `experience`, `reinforcement`, `preference`).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rolecraft import bases
from rolecraft.errors import SettingsError
from rolecraft.experience import ExperienceSettings, read_experience
from rolecraft.on_policy import OnPolicySettings, read_on_policy
from rolecraft.preference import PreferenceSettings, read_preference
from rolecraft.reinforcement import ReinforcementSettings, read_reinforcement
from rolecraft.team import Team

SECTIONS = ("on_policy", "experience", "reinforcement", "preference")
"""The sections of a recipe that name a way, in the order in which `read` returns them."""

Read = tuple[
    OnPolicySettings | None, ExperienceSettings | None, ReinforcementSettings | None, PreferenceSettings | None
]


def read(sections: Mapping[str, Any], where: str) -> Read:
    """Return what a recipe's sections say of each way, None where nothing; raises SettingsError for two of them.

    Experience and preference are one way where the pairs are of what was played.
    """
    named = [name for name in SECTIONS if sections.get(name) is not None]
    if len(named) > 1 and named != ["experience", "preference"]:
        raise SettingsError(
            f"{where} has both {named[0]} and {named[1]}, and learns in one way; write them as two stages, or leave "
            "one out"
        )
    return (
        read_on_policy(sections),
        read_experience(sections, where),
        read_reinforcement(sections),
        read_preference(sections, where),
    )


def check(distils: OnPolicySettings | None, players: Team) -> None:
    """Raise NotFound for a role that distillation weighs and the team has not, or a teacher that is not there."""
    if distils is None:
        return
    for role in distils.weights:
        players.role(role)
    if distils.stage is None:
        tuned = None if distils.teacher_adapter is None else Path(distils.teacher_adapter)
        if tuned is not None:
            bases.require_adapter(tuned)
        bases.find(bases.source(distils.teacher, tuned))
