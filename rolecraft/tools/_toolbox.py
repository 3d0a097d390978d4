"""The toolbox, which runs an episode's calls within bounds."""

from __future__ import annotations

import asyncio
import collections
import concurrent.futures
import contextlib
import contextvars
import logging
import threading
from collections.abc import Callable, Mapping, Sequence

from rolecraft.errors import UserError
from rolecraft.tools._arguments import misfit, without_nulls
from rolecraft.tools._contract import ToolFailure, ToolLike
from rolecraft.tools._function import Tool
from rolecraft.types import Json, Observation, ToolCall, ToolSpec

_log = logging.getLogger(__name__)
_MAX_HANGS = 3  # each hang leaves a thread behind and costs the episode its whole time bound
_ERROR_CHARS = 300


class Toolbox:
    """The tools of one episode: checks each call against its spec, runs it off the event loop, bounds time and text."""

    def __init__(self, tools: Sequence[ToolLike], *, seconds: float = 10.0, output_chars: int = 2000) -> None:
        """Hold `tools`; a call may take `seconds` and answer `output_chars` characters. Raises UserError on twins."""
        names = collections.Counter(member.spec.name for member in tools)
        twins = [name for name, count in names.items() if count > 1]
        if twins:
            raise UserError(f"two tools are called {twins[0]!r}; rename one")
        if not seconds > 0 or output_chars < 1:
            raise UserError(f"a toolbox needs time and room; got seconds={seconds!r}, output_chars={output_chars!r}")
        self._tools = {member.spec.name: member for member in tools}
        self._specs = {name: member.spec for name, member in self._tools.items()}
        self._seconds = seconds
        self._output_chars = output_chars
        self._hangs: collections.Counter[str] = collections.Counter()
        self._source: Toolbox | None = None
        self._copying = threading.Lock()

    @property
    def specs(self) -> tuple[ToolSpec, ...]:
        """The tools as the model is told of them, in order."""
        return tuple(self._specs.values())

    async def call(self, call: ToolCall) -> Observation:
        """Run one call; whatever goes wrong is an observation with `failed` set, never an exception.

        Only a branch raises, NotForkable for a tool that cannot be copied: that is no mistake of the model.
        """
        if call.name not in self._specs:
            return _failure(self._no_such_tool(call.name))
        if self._hangs[call.name] >= _MAX_HANGS:
            return _failure(f"{call.name} is off: it did not answer {_MAX_HANGS} times; go on without it")
        member = self._tools.get(call.name) or await self._member(call.name)
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
            for name in self._specs:
                forks.append(self._seen(name).fork())
                opened.callback(forks[-1].close)
            opened.pop_all()
        return Toolbox(forks, seconds=self._seconds, output_chars=self._output_chars)

    def branch(self) -> Toolbox:
        """Return a fork whose tools are copied once they are called; while it is open these here are not called.

        Raises NotForkable at once for a function that is not known to be pure, and in a call for a tool that has no
        copy of its state. A branch of a branch copies what that has copied.
        """
        for name in self._specs:
            if isinstance(member := self._seen(name), Tool):
                member.fork()
        branch = Toolbox((), seconds=self._seconds, output_chars=self._output_chars)
        branch._specs, branch._source, branch._hangs = self._specs, self, self._hangs.copy()
        return branch

    def commit(self) -> None:
        """Let the toolbox that this is a branch of, and the one before it, go on with the state that this has.

        What they held instead is closed, and this branch is of no use any more. Nothing where this is no branch.
        """
        source, tools = self._source, self._tools
        if source is None:
            return
        self._tools = {}
        with contextlib.ExitStack() as closing:
            for name, member in tools.items():
                before = source._tools.get(name)
                source._tools[name] = member
                if before is not None and before is not member:
                    closing.callback(before.close)
        source._hangs = self._hangs
        source.commit()

    def state(self) -> dict[str, Json]:
        """Return the state of each tool that has one, by name; `{"missed": why}` of one that failed or came too late.

        It waits as long as a call may take, so an event loop asks for it in a thread.
        """
        asked = {name: _ask_state(self._seen(name)) for name in self._specs}
        concurrent.futures.wait(asked.values(), self._seconds)
        states = {name: self._told(future) for name, future in asked.items()}
        return {name: state for name, state in states.items() if state is not None}

    def close(self) -> None:
        """Close every tool, the rest too when one fails; safe to call twice."""
        with contextlib.ExitStack() as closing:
            for member in self._tools.values():
                closing.callback(member.close)

    def _seen(self, name: str) -> ToolLike:
        """Return the tool whose state is this toolbox's: its own, or its source's as long as it has copied none."""
        if name in self._tools or self._source is None:
            return self._tools[name]
        return self._source._seen(name)

    async def _member(self, name: str) -> ToolLike:
        """Return what this branch calls: its source's tool where that changes nothing, else a copy of its own."""
        return self._seen(name) if self._specs[name].pure else await asyncio.to_thread(self._own, name)

    def _own(self, name: str) -> ToolLike:
        """Return this branch's own copy of a tool, made when it is first needed; raises NotForkable."""
        with self._copying:
            if name not in self._tools:
                self._tools[name] = self._seen(name).fork()
            return self._tools[name]

    def _no_such_tool(self, name: str) -> str:
        shown = list(self._specs)[:12]
        more = [f"... ({len(self._specs)} in all)"] if len(self._specs) > len(shown) else []
        return f"no tool {name[:60]!r}; tools: {', '.join(shown + more) or 'none'}"

    def _told(self, asked: concurrent.futures.Future[Json]) -> Json:
        if not asked.done():
            return {"missed": f"no state within {self._seconds:g} seconds"}
        error = asked.exception()
        return asked.result() if error is None else {"missed": _bounded(_words(error), _ERROR_CHARS)}

    def _answer(self, member: ToolLike, arguments: Mapping[str, Json]) -> Observation:
        try:
            given = without_nulls(member.spec, arguments) if isinstance(arguments, Mapping) else arguments
            problem = misfit(member.spec, given)
            if problem:
                return _failure(problem)
            return Observation(_bounded(member.call(given), self._output_chars))
        except ToolFailure as failure:
            return _failure(str(failure) or f"{member.spec.name} failed and does not say why")
        except BaseException as error:  # noqa: BLE001  the tool boundary: not even sys.exit() may end the episode
            _log.info("tool %r raised", member.spec.name, exc_info=True)
            return _failure(_words(error))


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


def _ask_state(member: ToolLike) -> concurrent.futures.Future[Json]:
    """Ask for a tool's state in a daemon thread: one that never tells it must not keep the process from ending."""
    future: concurrent.futures.Future[Json] = concurrent.futures.Future()

    def run() -> None:
        try:
            future.set_result(member.state())
        except BaseException as error:  # noqa: BLE001  the tool boundary
            _log.info("the state of tool %r raised", member.spec.name, exc_info=True)
            future.set_exception(error)

    threading.Thread(target=run, name="rolecraft-state", daemon=True).start()
    return future


def _words(error: BaseException) -> str:
    """Return the error's kind and text; an error whose text cannot be had is told by its kind."""
    try:
        text = str(error)
    except Exception:  # noqa: BLE001  an error of a tool's own class may fail even here
        text = ""
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


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
