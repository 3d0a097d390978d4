"""Times what is played of some runs, from the open engine on, and logs it in each of them even if it is stopped."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from rolecraft.evaluate.playing import EngineOpener
from rolecraft.store import Run
from rolecraft.types import Engine


class Clock:
    """Counts the seconds since an engine is open, and the episodes that some runs hold since the clock was made."""

    def __init__(self, runs: Sequence[Run]) -> None:
        """Count what the runs hold."""
        self._runs, self._started = runs, float("nan")
        self._held = [len(run.finished()) for run in runs]

    def start(self) -> None:
        """Begin with the seconds: loading a model is no part of an episode."""
        self._started = time.monotonic()

    @contextmanager
    def opened(self, open_engine: EngineOpener) -> Iterator[Engine]:
        """Open an engine, and start once it is open."""
        with open_engine() as engine:
            self.start()
            yield engine

    def log(self) -> None:
        """Log in each run how many episodes it has been given, and their share of the seconds."""
        played = [len(run.finished()) - held for run, held in zip(self._runs, self._held, strict=True)]
        if not sum(played):
            return
        pace = (time.monotonic() - self._started) / sum(played)
        for run, count in zip(self._runs, played, strict=True):
            if count:
                run.log({"played": count, "seconds": round(count * pace, 3)})
