"""Divides data by what is asked: rows that ask the same are always on the same side, whatever file they come from."""

from __future__ import annotations

import hashlib
import re

from rolecraft.errors import SettingsError
from rolecraft.types import Trajectory

_PART = re.compile(r"([1-9]\d{0,2})/([1-9]\d{0,2})")


def read(text: str) -> tuple[int, int]:
    """Return the two numbers of `1/2`, the first of two parts; raises SettingsError for anything else."""
    match = _PART.fullmatch(text)
    if not match or int(match[1]) > int(match[2]):
        raise SettingsError(f"data.part is {text!r}; write which of how many parts, such as '1/2'")
    return int(match[1]), int(match[2])


def belongs(trajectory: Trajectory, part: str) -> bool:
    """Tell whether the row is of the part, such as `1/2`; each row is of one part alone, about as many of each."""
    number, of = read(part)
    return int(place(trajectory, "part") * of) == number - 1


def place(trajectory: Trajectory, of: str) -> float:
    """Return a number in [0, 1) that is drawn by the row's first request; another `of` is another draw."""
    asked = next((message.content for message in trajectory.messages if message.role == "user"), trajectory.id)
    digest = hashlib.sha256(f"{of}/{' '.join(asked.split())}".encode()).digest()
    return int.from_bytes(digest[:6], "big") / (1 << 48)
