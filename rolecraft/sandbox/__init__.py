"""Runs code that a model wrote, in a place that can reach neither files, network nor other processes.

A member of this folder is a back end: it exports `open_session(limits, *, unsafe, modules)` and `layers()`.
`process` (Linux) is the one there is; its docstring says what it does not cover.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from rolecraft import catalog
from rolecraft.errors import SettingsError
from rolecraft.types import ToolSpec

__all__ = ["Functions", "Limits", "Outcome", "Session", "layers", "open_session"]

_LARGEST = {"seconds": 86_400, "memory_mb": 1 << 20, "output_bytes": 1 << 26, "file_mb": 1 << 16, "processes": 256}
_SMALLEST = {"seconds": 0.01, "memory_mb": 8, "output_bytes": 1, "file_mb": 1, "processes": 0}


@dataclass(frozen=True, slots=True)
class Limits:
    """What a session may use; a step past one of them fails or ends the session.

    `seconds` is the wall time of one step. `memory_mb` is what the code may allocate beyond the interpreter itself,
    all its processes together. `output_bytes` of what a step prints are kept. `file_mb` bounds the scratch folder.
    `processes` counts the threads and child processes a session may have at a time beyond its first.
    """

    seconds: float = 5.0
    memory_mb: int = 512
    output_bytes: int = 8192
    file_mb: int = 16
    processes: int = 0

    def __post_init__(self) -> None:
        """Refuse limits that bound nothing."""
        for name, smallest in _SMALLEST.items():
            value, largest = getattr(self, name), _LARGEST[name]
            if not smallest <= value <= largest:
                raise SettingsError(f"Limits.{name} is {value!r}; it must lie in {smallest} to {largest}")


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one step did: the text it printed, and the last line of its traceback when it failed.

    `truncated`: it printed more than was kept. `timed_out`: it was stopped, and the session's variables are lost.
    `lost`: the variables are gone for this or any other reason (the code ended its process); the next step starts
    with none.
    """

    output: str
    error: str | None
    timed_out: bool = False
    truncated: bool = False
    lost: bool = False


@dataclass(frozen=True, slots=True)
class Functions:
    """What the host answers while a step runs: functions that its code may call, and who answers them.

    `answer` gets what a call says as JSON, `[name, arguments]`, and returns JSON, `[failed, value]`; None ends the
    session, which asked more often than anybody needs. The code may say anything: nothing of it has been checked. Time
    in `answer` is not the step's. A step that calls `final_answer` is over with it; that call is answered as any other.
    """

    specs: tuple[ToolSpec, ...]
    answer: Callable[[str], str | None] = field(compare=False)


class Session(Protocol):
    """A Python interpreter in the sandbox; variables stay between steps. Close it, or use it in a `with`."""

    def run(self, code: str, functions: Functions | None = None) -> Outcome:
        """Run one step and wait for it; the last expression's value is printed, as in an interactive session.

        The functions are there anew in each step that is given them, and in no other. Whatever the code does is an
        outcome. Raises SandboxError when the sandbox itself cannot go on.
        """
        ...

    def close(self) -> None:
        """End its processes and remove its files; safe to call twice."""
        ...

    def __enter__(self) -> Session: ...

    def __exit__(self, *error: object) -> None: ...


def layers(backend: str = "process") -> dict[str, bool]:
    """Return which layers hold here, tried out in a throw-away session."""
    found: dict[str, bool] = catalog.find("sandbox", backend).layers()
    return found


def open_session(
    limits: Limits | None = None,
    *,
    unsafe: bool = False,
    modules: tuple[str, ...] = (),
    backend: str = "process",
) -> Session:
    """Start a session; `modules` are imported beforehand, and are the only ones beyond the standard library.

    Raises SandboxError when no layer keeps the code from files and other processes, unless `unsafe` accepts that.
    """
    opened: Session = catalog.find("sandbox", backend).open_session(limits or Limits(), unsafe=unsafe, modules=modules)
    return opened
