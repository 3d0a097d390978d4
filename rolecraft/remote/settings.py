"""What an endpoint is and how it is asked; the key that opens it is kept apart, so that no record can hold it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from rolecraft.errors import NotFound, SettingsError

KEY_VARIABLE = "ROLECRAFT_ENGINE_KEY"
"""Where the key is read from unless the user names another variable; others' keys are never sent by accident."""

ToolsForm = Literal["native", "prompt"]
"""Tools as the request's `tools`, or told as text in the system message, for servers that do not know them."""

Dialect = Literal["openai", "rolecraft"]
"""Rolecraft's own server is told who speaks (`speaker`); for others a role is told of in words."""


@dataclass(frozen=True, slots=True)
class Settings:
    """An endpoint: its `url`, without `/chat/completions`, and the model that each speaker is played by.

    `models` has the default under "". At most `requests` are under way; each is tried `retries` times more where the
    endpoint fails, after a pause that doubles from `pause` up to `longest_pause`. `seconds` bound one try. An answer
    of more than `max_bytes` is none. `cache` is the folder of answers that need not be asked for again. `logprobs`:
    the tokens' log-probabilities are asked for, which not every endpoint tells (see `require`). `texts`: calls that
    stood in a reply's text go back as that text, and their results follow it, which not every endpoint takes.
    """

    url: str
    models: Mapping[str, str] = field(default_factory=dict)
    tools: ToolsForm = "native"
    dialect: Dialect = "openai"
    requests: int = 8
    retries: int = 6
    pause: float = 0.5
    longest_pause: float = 60.0
    connect_seconds: float = 10.0
    seconds: float = 120.0
    max_bytes: int = 8 << 20
    cache: Path | None = None
    continues: bool = False
    logprobs: bool = False
    texts: bool = False

    def __post_init__(self) -> None:
        """Refuse an address that is none or holds a secret, and bounds that bound nothing."""
        object.__setattr__(self, "url", checked_url(self.url))
        least = {"requests": 1, "retries": 0, "pause": 0, "longest_pause": 0, "max_bytes": 1}
        for name, bound in least.items():
            if not getattr(self, name) >= bound:
                raise SettingsError(f"remote.{name} is {getattr(self, name)!r}; it must be at least {bound}")
        for name in ("seconds", "connect_seconds"):
            if not 0 < getattr(self, name) < float("inf"):
                raise SettingsError(f"remote.{name} is {getattr(self, name)!r}; give a number of seconds above 0")

    def model(self, speaker: str) -> str:
        """Return the name of the model that plays `speaker`; raises SettingsError if none is named."""
        name = self.models.get(speaker) or self.models.get("")
        if not name:
            raise SettingsError(f"no model plays {speaker!r} at {self.url}; name one (--model {speaker}=NAME)")
        return name

    @property
    def knows_roles(self) -> bool:
        """Whether each role is played by our own server's model of that role, which gives it its instructions."""
        return self.dialect == "rolecraft" and all(
            role and name.endswith(f":{role}") for role, name in self.models.items()
        )

    @property
    def identity(self) -> str:
        """What plays, in words, for a run's record."""
        names = ", ".join(f"{role}={name}" if role else name for role, name in sorted(self.models.items()))
        return f"{names} at {self.url} ({self.tools} tools{', calls as they were written' if self.texts else ''})"


def checked_url(url: str) -> str:
    """Return the address without a final slash; raises SettingsError for what is none, or holds what is recorded."""
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError as error:
        raise SettingsError(
            f"the engine's URL is no address ({error}); give one as http://127.0.0.1:8000/v1"
        ) from error
    if "@" in parts.netloc or parts.query or parts.fragment:  # not shown: it may hold a key
        raise SettingsError(
            "the engine's URL holds a user name, a query or a fragment, and URLs are written into records; "
            f"give the address alone, and the key in a file (--api-key-file) or in {KEY_VARIABLE}"
        )
    if parts.scheme not in ("http", "https") or not host or not url.isprintable() or " " in url:
        raise SettingsError(f"the engine's URL is {url!r}; give one as http://127.0.0.1:8000/v1")
    return url.rstrip("/").removesuffix("/chat/completions")


def read_key(file: Path | None = None, variable: str | None = None) -> str | None:
    """Return the key in a file, else in an environment variable; raises for one that was named and is not there.

    Without either the variable is `KEY_VARIABLE`, and there may be no key.
    """
    if file is not None:
        if not file.is_file():
            raise NotFound(f"no file {str(file)!r}; give a file that holds the endpoint's key")
        key, where = file.read_text(encoding="utf-8", errors="replace").strip(), str(file)
    else:
        where = variable or KEY_VARIABLE
        if where not in os.environ:
            if variable:
                raise NotFound(f"the environment has no {variable}; export it, or leave --api-key-env out")
            return None
        key = os.environ[where].strip()
    if not key or not key.isascii() or not key.isprintable() or " " in key:
        raise SettingsError(f"{where} holds no usable key; it must be one line of ASCII text without spaces")
    return key
