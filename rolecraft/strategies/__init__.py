"""How an episode is played: by each reply as it comes, by a vote among several, by whole episodes, by a search.

A member exports `Settings`, a frozen dataclass, and `async def play(episode, settings)`, which plays one episode
(`step.Episode`) with the steps of `step` and returns its judged record; it never reads the judge or the task's
reference before. What it tried beside the record is the record's `trials`. It also tells `NEEDS`, what an engine must
have for it (`n`: several replies to one prompt, `logprobs`), if anything, and `width(settings)`, how many replies it
asks for at once, if several. Tools are tried on branches of the episode's toolbox, of which one is committed; where a
tool cannot be copied, NotForkable says so by name. A user's own `path/to/strategy.py` is the same.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

from rolecraft import catalog
from rolecraft.agent import Player
from rolecraft.errors import NotFound, SettingsError
from rolecraft.settings import from_dict, override
from rolecraft.step import Episode
from rolecraft.types import Trajectory

__all__ = ["CHECKED", "Chosen", "choose", "parse"]

CHECKED = "checked"
"""The strategy that a team with a checker is played by."""


@dataclass(frozen=True, slots=True)
class Chosen:
    """A strategy by name, with its settings; `digest` is that of a user's own file. Made by `choose`."""

    name: str | Path = "greedy"
    settings: Mapping[str, Any] = field(default_factory=dict)
    digest: str = ""

    def player(self) -> Player:
        """Return what plays an episode so."""
        module, settings = self._opened()

        async def play(episode: Episode) -> Trajectory:
            record: Trajectory = await module.play(episode, settings)
            return record

        return play

    @property
    def values(self) -> Any:
        """Its settings as the member's own `Settings`."""
        return self._opened()[1]

    @property
    def width(self) -> int:
        """How many replies it asks for at once."""
        module, settings = self._opened()
        return int(module.width(settings)) if hasattr(module, "width") else 1

    @property
    def needs(self) -> tuple[str, ...]:
        """What an engine must have for it: `n`, `logprobs`."""
        return tuple(getattr(self._opened()[0], "NEEDS", ()))

    def _opened(self) -> tuple[ModuleType, Any]:
        module = catalog.find("strategies", self.name)
        return module, from_dict(module.Settings, self.settings, f"strategy {self.name}")


def choose(name: str | Path = "greedy", settings: Mapping[str, Any] | None = None) -> Chosen:
    """Return a member of this folder, or (a `Path`) a user's own file, with settings.

    Raises NotFound for a misspelt name and SettingsError for settings that it does not have.
    """
    digest = hashlib.sha256(name.read_bytes()).hexdigest() if isinstance(name, Path) and name.is_file() else ""
    chosen = Chosen(name, dict(settings or {}), digest)
    module, _ = chosen._opened()
    if not callable(getattr(module, "play", None)):
        raise NotFound(f"{str(name)!r} has no function 'play'; a strategy is an async function play(episode, settings)")
    return chosen


def parse(text: str, *, files: bool = False) -> Chosen:
    """Return the strategy that `NAME,KEY=VALUE,...` names; with `files` the name may be that of a user's own file.

    Raises what `choose` raises, and SettingsError for what is no setting.
    """
    name, *words = text.split(",")
    if stray := [word for word in words if not word.partition("=")[1]]:
        raise SettingsError(f"strategy {text!r} has {stray[0]!r}; write NAME,KEY=VALUE,KEY=VALUE")
    given = override({}, [f"strategy.{word.strip()}" for word in words]).get("strategy", {})
    return choose(catalog.given(name.strip()) if files else name.strip(), given)
