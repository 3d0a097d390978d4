"""What a tool is, how a function becomes one, and the toolbox that runs an episode's calls within bounds.

To add a tool, write `tools/x.py` with a `@tool` function, or, for one with state, a `Settings` dataclass and
`open(settings)` that returns a `ToolLike`. Every parameter is annotated and described. Where the default settings open
nothing, `EXAMPLE` holds settings for the contract test.

Not covered here: a plain `@tool` function is the caller's own code and runs in this process with all its rights. The
toolbox stops waiting for one that hangs, but cannot stop its thread. Code that a model wrote belongs in `python.py`.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import contextvars
import inspect
import json
import logging
import threading
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol, runtime_checkable

from rolecraft import catalog
from rolecraft.errors import NotFound, RolecraftError, UserError
from rolecraft.settings import from_dict
from rolecraft.tools._schema import convert, describe, misfit, without_nulls
from rolecraft.types import Json, Observation, ToolCall, ToolSpec

__all__ = ["Tool", "ToolFailure", "ToolLike", "Toolbox", "find", "load_tools", "misfit", "tool"]

_log = logging.getLogger(__name__)
_MAX_HANGS = 3  # each hang leaves a thread behind and costs the episode its whole time bound
_ERROR_CHARS = 300


class ToolFailure(Exception):
    """A tool's own error, for the model to read: one short line that says what to do instead."""


@runtime_checkable
class ToolLike(Protocol):
    """The contract of a tool. Calls may come from several threads: one with state locks it itself."""

    @property
    def spec(self) -> ToolSpec:
        """The tool as the model is told of it."""
        ...

    def call(self, arguments: Mapping[str, Json]) -> str:
        """Return the observation for arguments that fit the spec; raises ToolFailure for the model's mistakes."""
        ...

    def fork(self) -> ToolLike:
        """Return an independent copy with the same state; raises NotForkable where that cannot be had."""
        ...

    def state(self) -> Json:
        """Return what a judge may compare of the state, or None when there is none."""
        ...

    def close(self) -> None:
        """Free what the tool holds; safe to call twice."""
        ...


@dataclass(frozen=True, slots=True)
class Tool:
    """A stateless tool: its spec and the function, plain or async, that is called with its arguments by name."""

    spec: ToolSpec
    function: Callable[..., Any]

    def __call__(self, *positional: Any, **named: Any) -> Any:
        """Call the function itself, so that a decorated function stays usable in Python."""
        return self.function(*positional, **named)

    def call(self, arguments: Mapping[str, Json]) -> str:
        """Return what the function answers as text: strings as they are, everything else as JSON."""
        answer = self.function(**convert(self.spec.parameters, arguments))
        if inspect.iscoroutine(answer):
            answer = asyncio.run(answer)  # the toolbox calls from a thread that has no loop of its own
        return _as_text(answer)

    def fork(self) -> Tool:
        """Return itself: there is no state to copy."""
        return self

    def state(self) -> Json:
        """Return None: there is no state."""
        return None

    def close(self) -> None:
        """Do nothing: there is nothing to free."""


def tool(function: Callable[..., Any]) -> Tool:
    """Turn a typed, documented function into a tool.

    The description is the docstring's text before its first section; a parameter's is its line under `Args:` or the
    string in `Annotated[type, "..."]`. Parameters with a default are optional. Raises UserError naming the parameter
    that has no type or no description.
    """
    return Tool(describe(function), function)


class Toolbox:
    """The tools of one episode: checks each call against its spec, runs it off the event loop, bounds time and text."""

    def __init__(self, tools: Sequence[ToolLike], *, seconds: float = 10.0, output_chars: int = 2000) -> None:
        """Hold `tools`; a call may take `seconds` and answer `output_chars` characters. Raises UserError on twins."""
        names = collections.Counter(member.spec.name for member in tools)
        twins = [name for name, count in names.items() if count > 1]
        if twins:
            raise UserError(f"two tools are called {twins[0]!r}; rename one")
        if seconds <= 0 or output_chars < 1:
            raise UserError(f"a toolbox needs time and room; got seconds={seconds!r}, output_chars={output_chars!r}")
        self._tools = {member.spec.name: member for member in tools}
        self._seconds = seconds
        self._output_chars = output_chars
        self._hangs: collections.Counter[str] = collections.Counter()

    @property
    def specs(self) -> tuple[ToolSpec, ...]:
        """The tools as the model is told of them, in order."""
        return tuple(member.spec for member in self._tools.values())

    async def call(self, call: ToolCall) -> Observation:
        """Run one call; whatever goes wrong is an observation with `failed` set, never an exception."""
        member = self._tools.get(call.name)
        if member is None:
            return _failure(self._no_such_tool(call.name))
        if self._hangs[call.name] >= _MAX_HANGS:
            return _failure(f"{call.name} is off: it did not answer {_MAX_HANGS} times; go on without it")
        answer = _in_daemon_thread(lambda: self._answer(member, call.arguments))
        try:
            return await asyncio.wait_for(answer, self._seconds)
        except TimeoutError:
            self._hangs[call.name] += 1
            return _failure(f"{call.name} did not answer within {self._seconds:g} seconds")

    def fork(self) -> Toolbox:
        """Return a toolbox with a fork of every tool; raises NotForkable where one cannot, leaving nothing open."""
        with contextlib.ExitStack() as opened:
            forks = []
            for member in self._tools.values():
                forks.append(member.fork())
                opened.callback(forks[-1].close)
            opened.pop_all()
        return Toolbox(forks, seconds=self._seconds, output_chars=self._output_chars)

    def state(self) -> dict[str, Json]:
        """Return the state of each tool that has one, by name."""
        states = {name: member.state() for name, member in self._tools.items()}
        return {name: state for name, state in states.items() if state is not None}

    def close(self) -> None:
        """Close every tool, the rest too when one fails; safe to call twice."""
        with contextlib.ExitStack() as closing:
            for member in self._tools.values():
                closing.callback(member.close)

    def _no_such_tool(self, name: str) -> str:
        shown = list(self._tools)[:12]
        more = [f"... ({len(self._tools)} in all)"] if len(self._tools) > len(shown) else []
        return f"no tool {name[:60]!r}; tools: {', '.join(shown + more) or 'none'}"

    def _answer(self, member: ToolLike, arguments: Mapping[str, Json]) -> Observation:
        try:
            given = without_nulls(member.spec, arguments) if isinstance(arguments, Mapping) else arguments
            problem = misfit(member.spec, given)
            if problem:
                return _failure(problem)
            return Observation(_bounded(member.call(given), self._output_chars))
        except ToolFailure as failure:
            return _failure(str(failure))
        except BaseException as error:  # noqa: BLE001  the tool boundary: not even sys.exit() may end the episode
            _log.info("tool %r raised", member.spec.name, exc_info=True)
            return _failure(f"{type(error).__name__}: {error}" if str(error) else type(error).__name__)


def find(name: str, settings: Mapping[str, Any] | None = None) -> tuple[ToolLike, ...]:
    """Return the tools of a member of this folder, or of a user's `.py` file; `settings` go to its `Settings`.

    Raises NotFound for a misspelt name and SettingsError for settings that it does not have.
    """
    module = _run_file(Path(name)) if name.endswith(".py") else catalog.find("tools", name)
    return _tools_in(module, settings)


def load_tools(path: Path) -> tuple[ToolLike, ...]:
    """Return every tool in a user's own `.py` file, in the order written.

    Raises NotFound when the file is absent and UserError, with file and line, when it does not run or has no tool.
    """
    if path.suffix != ".py":
        raise NotFound(f"{str(path)!r} is no Python file; give a path that ends in .py")
    return find(str(path))


def _run_file(path: Path) -> ModuleType:
    try:
        return catalog.find("tools", str(path))
    except RolecraftError as error:
        if isinstance(error, NotFound) and not path.is_file():
            raise
        raise UserError(f"{_place(path, error)}: {error}") from error
    except (Exception, SystemExit) as error:  # the user's file may raise anything
        raise UserError(f"{_place(path, error)}: {type(error).__name__}: {error}") from error


def _place(path: Path, error: BaseException) -> str:
    """Return `file, line n` for the deepest line of `path` that led to `error`."""
    if isinstance(error, SyntaxError) and error.filename == str(path):
        return f"{path}, line {error.lineno}"
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
    return f"{path}, line {lines[-1]}" if lines else str(path)


def _tools_in(module: ModuleType, settings: Mapping[str, Any] | None) -> tuple[ToolLike, ...]:
    written = {id(value): value for value in vars(module).values() if _is_tool(value)}
    found = list(written.values())
    kind, opener = vars(module).get("Settings"), vars(module).get("open")
    if kind is not None and opener is not None:
        found.append(opener(from_dict(kind, settings, module.__name__.rpartition(".")[2])))
    elif settings:
        raise UserError(f"{module.__name__!r} takes no settings; got {', '.join(map(repr, settings))}")
    if not found:
        functions = [name for name, value in vars(module).items() if inspect.isfunction(value)]
        remedy = f"put it above {functions[0]!r}" if functions else "write a function and put it above"
        raise UserError(f"no @tool in {module.__file__}: {remedy} (from rolecraft.tools import tool)")
    return tuple(found)


def _is_tool(value: object) -> bool:
    return not isinstance(value, type) and isinstance(value, ToolLike)


def _in_daemon_thread(work: Callable[[], Observation]) -> asyncio.Future[Observation]:
    """Run `work` in a thread of its own: a pool's threads would be waited for at exit, a hung one for ever."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[Observation] = loop.create_future()
    context = contextvars.copy_context()

    def settle(observation: Observation) -> None:
        if not future.done():
            future.set_result(observation)

    def run() -> None:
        observation = context.run(work)
        with contextlib.suppress(RuntimeError):  # the loop was closed while the tool went on
            loop.call_soon_threadsafe(settle, observation)

    threading.Thread(target=run, name="rolecraft-tool", daemon=True).start()
    return future


def _as_text(answer: Any) -> str:
    if isinstance(answer, str):
        return answer
    return "done" if answer is None else json.dumps(answer, ensure_ascii=False, default=str)


def _failure(reason: str) -> Observation:
    line = " ".join(reason.split())
    line = line if line.startswith("error: ") else f"error: {line}"
    return Observation(_bounded(line, _ERROR_CHARS), failed=True)


def _bounded(text: str, length: int) -> str:
    """Return `text` cut to `length` with a note, and without the lone surrogates that no file can hold."""
    whole = text.encode("utf-8", "replace").decode("utf-8") if len(text) <= length else ""
    if whole or not text:
        return whole
    note = f"... (cut, {len(text)} characters)"
    kept = text[: max(0, length - len(note))]
    return (kept + note).encode("utf-8", "replace").decode("utf-8")
