"""Where a server listens, what it bounds, and the API key that it requires."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass, field
from pathlib import Path

import rolecraft.server.turns as turns
from rolecraft.errors import NotFound, SettingsError
from rolecraft.server.service import Limits

KEY_VARIABLE = "ROLECRAFT_API_KEY"

_MINIMUM = {"request_bytes": 1, "stall_seconds": 0.1, "grace_seconds": 0}
_MINIMUM_LIMITS = {"places": 1, "waiting": 0, "seconds": 0.1, "messages": 1, "remembered": 0}
_MINIMUM_PLAYING = {"temperature": 0, "max_tokens": 1, "max_thought": 1, "max_turns": 1, "max_calls": 1}


@dataclass(frozen=True, slots=True)
class Settings:
    """Where the server listens, and what one connection may take.

    `request_bytes` bounds a body (None: by what the models' contexts can hold). Whoever takes nothing of a stream for
    `stall_seconds`, or needs longer for the head of a request, is cut off. After a signal requests may go on for
    `grace_seconds`. `keyless`: listen beyond this machine though no key is required.
    """

    host: str = "127.0.0.1"
    port: int = 8000
    request_bytes: int | None = None
    stall_seconds: float = 30.0
    grace_seconds: float = 20.0
    keyless: bool = False
    limits: Limits = field(default_factory=Limits)
    playing: turns.Settings = field(default_factory=turns.Settings)


def check(settings: Settings) -> None:
    """Raise SettingsError for an impossible setting."""
    if not 0 <= settings.port < 1 << 16:
        raise SettingsError(f"the server's port is {settings.port!r}; it must be below 65536, and 0 takes a free one")
    limits, playing = settings.limits, settings.playing
    parts = ((settings, _MINIMUM), (limits, _MINIMUM_LIMITS), (playing, _MINIMUM_PLAYING))
    for part, bounds in parts:
        for name, minimum in bounds.items():
            value = getattr(part, name)
            if value is not None and not minimum <= value < math.inf:
                raise SettingsError(f"the server's {name} is {value!r}; it must be at minimum {minimum}")


def read_key(file: Path | None) -> str | None:
    """Return the API key in `file`, else in the environment, else None; raises without ever showing the key."""
    source = KEY_VARIABLE if file is None else str(file)
    if file is None:
        key = os.environ.get(KEY_VARIABLE)
    elif file.is_file():
        key = file.read_bytes().decode("latin-1").strip()
    else:
        raise NotFound(f"no file {str(file)!r}; write the API key into it, and let nobody else read it")
    if key is not None and (not key.isascii() or not key.isprintable() or " " in key or len(key) < 8):
        raise SettingsError(f"the API key in {source!r} must be at minimum 8 ASCII characters without spaces")
    return key
