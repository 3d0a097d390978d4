"""Renders chat templates in a process of its own: a template is somebody else's program, and need not end.

Not covered: what the sandbox of Jinja, in which transformers runs templates, lets through.
"""

from __future__ import annotations

import contextlib
import functools
import json
import subprocess
import sys
import threading
import weakref
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

LONGEST_TEMPLATE = 200_000
"""Characters of a template; the longest of those that are known has 40,000."""

_SECONDS = 5.0  # of one rendering
_STARTING = 120.0  # seconds in which the process must have started, on a machine that has much to do
_MEMORY = 2 << 30
_LONGEST_TEXT = 16_000_000


class TemplateFailed(Exception):
    """A template that refuses a conversation, fails, or takes more than it may; told in words."""


class Templates:
    """One process that renders templates, started when first needed; safe to share between threads."""

    def __init__(self, seconds: float = _SECONDS) -> None:
        self._seconds = seconds
        self._lock = threading.Lock()
        self._running: list[subprocess.Popen[str]] = []
        self._ready = False
        self._endless: set[str] = set()
        weakref.finalize(self, _end, self._running)

    def render(self, template: str, messages: Sequence[Mapping[str, Any]], **variables: Any) -> str:
        """Return the text that a template makes of messages as OpenAI's API has them; raises TemplateFailed.

        A template that was not done in time once is not tried again.
        """
        if len(template) > LONGEST_TEMPLATE:
            raise TemplateFailed(f"the template has {len(template)} characters; at most {LONGEST_TEMPLATE} are taken")
        try:
            request = json.dumps(
                {"chat_template": template, "messages": messages, "most": _LONGEST_TEXT, **variables}, allow_nan=False
            )
        except (TypeError, ValueError, RecursionError) as error:
            raise TemplateFailed(f"the conversation holds what JSON cannot: {error}") from error
        with self._lock:
            line = "" if template in self._endless else _ask(self._process(), request, self._seconds)
            if not line:
                self._endless.add(template)
                _end(self._running)
        if not line:
            raise TemplateFailed(f"the template was not done after {self._seconds:g} s, or took its process down")
        answer = json.loads(line)
        if "text" not in answer:
            raise TemplateFailed(answer["error"])
        return str(answer["text"])

    def prepare(self) -> None:
        """Start the process without waiting for it, which takes a second."""
        with self._lock:
            self._begin()

    def release(self) -> None:
        """End the process; it starts again when it is needed."""
        with self._lock:
            _end(self._running)

    def _begin(self) -> None:
        if not self._running or self._running[0].poll() is not None:
            _end(self._running)
            self._running.append(_start())
            self._ready = False

    def _process(self) -> subprocess.Popen[str]:
        self._begin()
        if not self._ready and not _ask(self._running[0], "", _STARTING):
            raise TemplateFailed("the process that renders templates does not start; is transformers whole?")
        self._ready = True
        return self._running[0]


@functools.cache
def templates(pid: int) -> Templates:
    """Return this process's own; a forked one has another id, and starts with none."""
    return Templates()


def _start() -> subprocess.Popen[str]:
    # Without -P this folder's files would hide Python's own of the same name.
    script = Path(__file__).with_name("_jinja_worker.py")
    return subprocess.Popen(
        [sys.executable, "-P", str(script), str(_MEMORY)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        encoding="utf-8",
    )


def _ask(process: subprocess.Popen[str], request: str, seconds: float) -> str:
    """Return the answer to a request, if it is one, or '' from a process that is not done in time and is ended."""
    assert process.stdin is not None
    assert process.stdout is not None
    timer = threading.Timer(seconds, process.kill)
    timer.daemon = True
    timer.start()
    line = ""
    with contextlib.suppress(OSError):
        if request:
            process.stdin.write(f"{request}\n")
            process.stdin.flush()
        line = process.stdout.readline()
    timer.cancel()
    return line if line.endswith("\n") else ""


def _end(running: list[subprocess.Popen[str]]) -> None:
    """End the process, if there is one."""
    while running:
        process = running.pop()
        process.kill()
        with contextlib.suppress(OSError):
            process.communicate()
