"""What a round of CMAT's loop is told: who plays which training tasks before it learns, and who checks the actions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from rolecraft import strategies
from rolecraft.errors import SettingsError
from rolecraft.settings import from_dict


@dataclass(frozen=True, slots=True)
class ExperienceSettings:
    """A round (CMAT, Algorithm 1): an earlier `stage` plays, and this one learns from what came of it, too.

    What that stage left plays `tasks` of the recipe's benchmark at `seed`, by a `strategy` with a checker, its replies
    drawn at `temperature`. With `memory` the model reflects on failures, which is kept as lessons.

    `update` `supervised`: replies that proved right are trained beside the recipe's own data, and so are the checker's
    opinions as the outcome labels them; so are those of earlier rounds. `preference`: what proved right is to become
    likelier than what proved wrong in the same state, and the opinion that the outcome labels than its opposite (see
    the section `preference`); each task is played `tries` times, so that there are several actions from a state.
    """

    stage: str
    update: Literal["supervised", "preference"] = "supervised"
    tasks: int = 200
    tries: int = 1
    seed: int = 1
    strategy: str = "checked,checker=rules"
    temperature: float = 0.7
    max_turns: int = 12
    max_tokens: int = 96
    constrained: bool = False
    memory: bool = True

    def __post_init__(self) -> None:
        """Refuse what cannot be meant."""
        for name in ("tasks", "tries", "max_turns", "max_tokens"):
            if getattr(self, name) < 1:
                raise SettingsError(f"experience.{name} is {getattr(self, name)}; it must be at least 1")
        if self.temperature < 0:
            raise SettingsError(f"experience.temperature is {self.temperature}; it must be at least 0")
        if strategies.parse(self.strategy).name not in (strategies.CHECKED, "reflect"):
            raise SettingsError(f"experience.strategy is {self.strategy!r}; one with a checker is checked or reflect")


def read_experience(data: Mapping[str, Any], where: str) -> ExperienceSettings | None:
    """Return what a recipe's sections say of a round, None if nothing; raises SettingsError if it cannot be."""
    if not data.get("experience"):
        return None
    if not (data.get("data") or {}).get("benchmark"):
        raise SettingsError(f"{where} has experience, which is of a benchmark's tasks; set data.benchmark")
    return from_dict(ExperienceSettings, data["experience"], "experience")
