"""A trainer in another interpreter that waits for a line before each step, and tells of it in a line of JSON.

A line is a word and what it tells: `step {...}` after each step, whatever else the code says by another word. Not
covered: what the code does.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Peer:
    """The process, and what runs it."""

    python: str
    process: subprocess.Popen[str]

    def step(self) -> dict[str, Any]:
        """Let it take a step, and return what it tells of it."""
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        return self.read("step")

    def read(self, word: str) -> dict[str, Any]:
        """Return what it tells next by a word; ends the program if it has ended."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line.startswith(word + " "):
                found: dict[str, Any] = json.loads(line.removeprefix(word))
                return found
        raise SystemExit(f"{self.python} ended without a word; --loud shows why (TRL needs trl, peft and jmespath)")


@contextmanager
def running(python: str, code: str, told: Mapping[str, Any], *, loud: bool) -> Iterator[Peer]:
    """Yield what runs `code` on one thread with `told` as its argument, until the end of the block."""
    with subprocess.Popen(
        [python, "-W", "ignore", "-c", code, json.dumps(told)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=None if loud else subprocess.DEVNULL,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"},
    ) as process:
        try:
            yield Peer(python, process)
        finally:
            process.kill()
