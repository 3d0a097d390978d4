"""Answers kept on disk by their exact request, so that what was asked once is not paid for twice.

Not covered: getting rid of them; the folder is the user's, to delete when its answers are of no more use.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from rolecraft import wire
from rolecraft.errors import DataError
from rolecraft.store import atomic
from rolecraft.types import Json


class AnswerCache:
    """A folder of answers; a damaged one is asked for again."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def get(self, url: str, body: Json) -> Json:
        """Return the answer to a request, or None."""
        try:
            return wire.loads(self._path(url, body).read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, DataError):
            return None

    def put(self, url: str, body: Json, answer: Json) -> None:
        """Keep an answer."""
        with atomic(self._path(url, body)) as unfinished:
            unfinished.write_text(wire.dumps(answer), encoding="utf-8")

    def _path(self, url: str, body: Json) -> Path:
        digest = hashlib.sha256(wire.dumps([url, body]).encode()).hexdigest()
        return self._folder / digest[:2] / f"{digest}.json"
