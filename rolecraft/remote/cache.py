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

_ASKED = ".asked"


def take_lost(folder: Path) -> int:
    """Return how many requests were asked and neither answered nor given up, as a kill leaves them, and forget them."""
    marks = list(folder.glob(f"*/*{_ASKED}"))
    for mark in marks:
        mark.unlink(missing_ok=True)
    return len(marks)


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

    def begin(self, url: str, body: Json) -> None:
        """Note that a request is asked now; one that does not `end`, nor has an answer `put`, is a `lost` one."""
        mark = self._mark(url, body)
        mark.parent.mkdir(parents=True, exist_ok=True)
        mark.touch()

    def put(self, url: str, body: Json, answer: Json) -> None:
        """Keep an answer."""
        with atomic(self._path(url, body)) as unfinished:
            unfinished.write_text(wire.dumps(answer), encoding="utf-8")
        self.end(url, body)

    def end(self, url: str, body: Json) -> None:
        """Note that nothing more is awaited of a request: it is refused or given up, and its caller knows."""
        self._mark(url, body).unlink(missing_ok=True)

    def _mark(self, url: str, body: Json) -> Path:
        return self._path(url, body).with_suffix(_ASKED)

    def _path(self, url: str, body: Json) -> Path:
        digest = hashlib.sha256(wire.dumps([url, body]).encode()).hexdigest()
        return self._folder / digest[:2] / f"{digest}.json"
