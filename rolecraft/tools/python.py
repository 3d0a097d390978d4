"""A Python interpreter that a model may use: every call runs in the sandbox, and variables stay between calls.

Not covered: what `sandbox` does not cover. A fork runs the earlier calls again, so time, `os.urandom` and object
addresses differ in it; hashes and `random` do not. Where they do not run again it has no variables, and says so once.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Mapping
from dataclasses import dataclass

from rolecraft.errors import SandboxError
from rolecraft.sandbox import Limits, Outcome, open_session
from rolecraft.tools._contract import ToolFailure
from rolecraft.types import Json, ToolSpec

_FENCE = re.compile(r"\A\s*```[\w+-]*[ \t]*\n(.*?)\n?```\s*\Z", re.DOTALL)
_SHOWN_BEFORE_ERROR = 120


@dataclass(frozen=True, slots=True)
class Settings:
    """What a call may use (see `sandbox.Limits`), and the modules beyond the standard library that it may import.

    `unsafe` accepts a machine on which nothing keeps the code from the user's files.
    """

    seconds: float = 5.0
    memory_mb: int = 512
    output_bytes: int = 4000
    file_mb: int = 16
    processes: int = 0
    modules: tuple[str, ...] = ()
    unsafe: bool = False


EXAMPLE = Settings()

SPEC = ToolSpec(
    "python",
    "run Python code; variables stay between calls",
    {
        "type": "object",
        "properties": {"code": {"type": "string", "description": "Python code; print what you want to see"}},
        "required": ["code"],
    },
)
"""The tool as the model is told of it."""


def open(settings: Settings) -> Python:
    """Return the tool `python` with a session of its own; the caller closes it.

    Raises SandboxError when the machine cannot isolate the code, and SettingsError for impossible limits.
    """
    return Python(settings)


class Python:
    """The tool `python`: one sandbox session and the steps that made its variables."""

    def __init__(self, settings: Settings) -> None:
        """Start the session."""
        limits = Limits(
            settings.seconds, settings.memory_mb, settings.output_bytes, settings.file_mb, settings.processes
        )
        self._settings = settings
        self._lock = threading.Lock()
        self._steps: list[str] = []
        self._missing: str | None = None
        self._session = open_session(limits, unsafe=settings.unsafe, modules=settings.modules)

    @property
    def spec(self) -> ToolSpec:
        """The tool as the model is told of it."""
        return SPEC

    def call(self, arguments: Mapping[str, Json]) -> str:
        """Return what the code printed; raises ToolFailure with its error."""
        code = _unfenced(arguments["code"])
        with self._lock:
            if (missing := self._missing) is not None:
                self._missing = None
                raise ToolFailure(missing)
            outcome = self._session.run(code)
            self._steps = [] if outcome.lost else [*self._steps, code]
        if outcome.error is not None:
            raise ToolFailure(_failure(outcome))
        if not outcome.output:
            return "nothing printed; use print() to see a value"
        cut = f"\n... (cut at {self._settings.output_bytes} bytes)" if outcome.truncated else ""
        return outcome.output.removesuffix("\n") + cut

    def fork(self) -> Python:
        """Return a tool whose session has run the same steps; where one does not run again, its next call says so.

        That is the model's doing, or a slow machine's, and so no reason to end a run as NotForkable does.
        """
        with self._lock:
            steps, missing = list(self._steps), self._missing
        copy = Python(self._settings)
        copy._missing = missing
        try:
            for number, code in enumerate(steps, 1):
                outcome = copy._session.run(code)
                if outcome.lost:
                    copy._missing = f"this did not run: step {number} did not run again in a copy ({outcome.error})"
                    return copy
        except SandboxError:
            copy.close()
            raise
        copy._steps = steps
        return copy

    def state(self) -> Json:
        """Return None: variables are a model's scratch work, nothing that a judge compares."""
        return None

    def close(self) -> None:
        """End the session; safe to call twice."""
        self._session.close()


def _unfenced(code: str) -> str:
    """Return the code without the Markdown fence that models like to put around it."""
    fenced = _FENCE.match(code)
    return fenced[1] if fenced else code


def _failure(outcome: Outcome) -> str:
    """Return the error first: whoever shows it may cut the end."""
    printed = " ".join(outcome.output.split())
    if not printed:
        return outcome.error or ""
    shown = printed if len(printed) <= _SHOWN_BEFORE_ERROR else f"... {printed[-_SHOWN_BEFORE_ERROR:]}"
    return f"{outcome.error}; printed before it: {shown}"
