"""Takes each reply as it comes: a plain chain of thoughts and actions, drawn as the episode's settings say."""

from __future__ import annotations

from dataclasses import dataclass

from rolecraft.agent import greedily
from rolecraft.step import Episode
from rolecraft.types import Trajectory


@dataclass(frozen=True, slots=True)
class Settings:
    """It has none."""


async def play(episode: Episode, settings: Settings) -> Trajectory:
    """Play the episode reply by reply."""
    return await greedily(episode)
