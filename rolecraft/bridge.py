"""Runs an episode's code in the sandbox with its tools as plain functions: every call comes to the host and is checked.

The code may ask anything over its session's pipe, in any order and as often as it likes, whether through the functions
or by hand; here each request is read as data, held to its size, its tool and the limits of a step, and answered with
data. Nothing that a tool answers is executed on either side. A fork runs the earlier steps again, their calls answered
as before; where that goes otherwise, its first step is told that their variables are lost. Not covered: what `sandbox`
does not cover, and what a tool does with arguments that fit its schema.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import hashlib
import threading
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from rolecraft import wire
from rolecraft.codeblocks import CODE, ENDING, callable_names
from rolecraft.errors import DataError, SandboxError, SettingsError
from rolecraft.sandbox import Functions, Limits, Outcome, Session, open_session
from rolecraft.types import Environment, Json, Message, Observation, ToolCall, Toolset, ToolSpec

_MOST_DEPTH = 32
_RESULT_BYTES = 30_000  # what one answer over the pipe may take
_REQUEST_BYTES = 250_000  # what the calls of a step may say: all of it stays in the episode's record
_REFUSALS = 200  # refused calls of a step after which its session ends
_SHOWN_BEFORE_ERROR = 240


@dataclass(frozen=True, slots=True)
class Settings:
    """What a step of code may use: see `sandbox.Limits`; `calls` and `call_seconds` bound the tools that it calls.

    `output_chars` of what it prints are told, and of an answer as many. `modules` may be imported beyond the standard
    library. `unsafe` accepts a machine on which nothing keeps the code from the user's files.
    """

    seconds: float = 5.0
    memory_mb: int = 512
    output_chars: int = 2000
    calls: int = 32
    call_seconds: float = 60.0
    modules: tuple[str, ...] = ()
    unsafe: bool = False

    def __post_init__(self) -> None:
        """Raise SettingsError for bounds that bound nothing; `sandbox.Limits` refuses its own."""
        for name in ("output_chars", "calls", "call_seconds"):
            if not getattr(self, name) > 0:
                raise SettingsError(f"bridge.{name} is {getattr(self, name)!r}; give a number above 0")


@dataclass(slots=True)
class _Step:
    """One step while it runs and after it: its code, the calls it made, and the answer that it ended with."""

    code: str
    calls: list[tuple[ToolCall, Observation]] = field(default_factory=list)
    exchanges: list[tuple[bytes, str]] = field(default_factory=list)  # digests of requests, and what was replied
    answer: str | None = None
    refused: int = 0
    said: int = 0
    waited: float = 0.0


class CodeBox:
    """The toolset of a team that acts by code: one tool, `python`, whose code calls the tools of another toolset.

    The other toolset belongs to whoever opened it; `close` ends only the interpreter. Forks and branches own theirs.
    """

    def __init__(
        self, inner: Toolset, settings: Settings = Settings(), steps: Sequence[_Step] = (), *, owns: bool = False
    ) -> None:
        """Hold `inner`, closed with this box if it `owns` it; before the first code that it runs, `steps` are run."""
        self._inner = inner
        self._owns = owns
        self._settings = settings
        self._steps = list(steps)
        self._session: Session | None = None
        self._source: CodeBox | None = None
        self._lock = threading.Lock()

    @property
    def specs(self) -> tuple[ToolSpec, ...]:
        """The one tool."""
        return (CODE,)

    async def call(self, call: ToolCall) -> Observation:
        """Run one step of code and return what it printed, the calls it made, and the answer if it gave one.

        Raises NotForkable where a tool cannot be copied, SandboxError without isolation.
        """
        code = call.arguments.get("code")
        if call.name != CODE.name or not isinstance(code, str):
            return Observation(f"error: there is only {CODE.name}(code)", failed=True)
        step = _Step(code)
        host = _Host(self._inner, self._settings, step, asyncio.get_running_loop())
        try:
            outcome = await _in_own_thread(lambda: self._run(step, host))
        except asyncio.CancelledError:
            host.leave()
            raise
        text, failed = told(outcome, self._settings.output_chars)
        return Observation(text, failed and step.answer is None, tuple(step.calls), step.answer)

    def fork(self) -> CodeBox:
        """Return an independent copy; raises NotForkable where a tool cannot be copied."""
        return CodeBox(self._inner.fork(), self._settings, self._steps, owns=True)

    def branch(self) -> CodeBox:
        """Return a copy whose interpreter starts once it is called; see `Toolset.branch`."""
        branch = CodeBox(self._inner.branch(), self._settings, self._steps, owns=True)
        branch._source = self
        return branch

    def commit(self) -> None:
        """Let the box that this is a branch of go on with this one's variables and tools."""
        if self._source is None:
            return
        if self._session is not None:
            self._source._end()
            self._source._session, self._session = self._session, None
        self._source._steps = self._steps
        self._inner.commit()
        self._source.commit()

    def state(self) -> Mapping[str, Json]:
        """Return the tools' state: variables are scratch work, nothing that a judge compares."""
        return self._inner.state()

    def close(self) -> None:
        """End the interpreter, and close the tools that are this box's own; safe to call twice."""
        self._end()
        if self._owns:
            self._inner.close()

    def _end(self) -> None:
        with self._lock:
            session, self._session = self._session, None
        if session is not None:
            session.close()

    def _run(self, step: _Step, host: _Host) -> Outcome:
        with self._lock:
            if host.left:  # a session that was opened now would be closed by nobody
                return Outcome("", "the episode is over")
            lost = None if self._session is not None else self._open()
            if lost is not None:
                return Outcome("", f"this step did not run: the variables of those before it are lost ({lost})")
            assert self._session is not None
            outcome = self._session.run(step.code, Functions(callable_names(self._inner.specs), host.answer))
            self._steps = [] if outcome.lost else [*self._steps, step]
        return outcome

    def _open(self) -> str | None:
        """Open the session and run the steps again; where that goes otherwise, return why: it has no variables then."""
        limits = Limits(self._settings.seconds, self._settings.memory_mb, 4 * self._settings.output_chars)
        session = open_session(limits, unsafe=self._settings.unsafe, modules=self._settings.modules)
        lost = None
        try:
            for step in self._steps:
                _replay(session, step, callable_names(self._inner.specs))
        except _NotAgain as problem:
            self._steps, lost = [], str(problem)
        except SandboxError:
            session.close()
            raise
        self._session = session
        return lost


class _NotAgain(Exception):
    """A step that did not run again as before. The model's doing, or a slow machine's: no reason to end a run."""


@contextlib.asynccontextmanager
async def opened(environment: Environment, settings: Settings = Settings()) -> AsyncIterator[Environment]:
    """Give the environment with a box around its toolset, whose interpreter ends with the block."""
    box = CodeBox(environment.toolbox, settings)
    try:
        yield replace(environment, toolbox=box)
    finally:
        await asyncio.shield(asyncio.to_thread(box.close))


class _Host:
    """Answers what the code of one step asks."""

    def __init__(self, tools: Toolset, settings: Settings, step: _Step, loop: asyncio.AbstractEventLoop) -> None:
        self._tools, self._settings, self._step, self._loop = tools, settings, step, loop
        self._asking: asyncio.Task[Observation] | None = None
        self.left = False

    def leave(self) -> None:
        """Call nothing any more, for an episode that is over; the event loop's alone to say."""
        self.left = True
        if self._asking is not None:
            self._asking.cancel()

    def answer(self, request: str) -> str | None:
        """Return the answer to one request; None where the step was refused far too often, or nobody waits for it."""
        failed, value = (True, None) if self.left else self._answered(request)
        if failed:
            self._step.refused += 1
        if self.left or self._step.refused > _REFUSALS:
            return None
        reply = _reply(failed, value)
        self._step.exchanges.append((_digest(request), reply))
        return reply

    def _answered(self, request: str) -> tuple[bool, Json]:
        """Return whether a request failed, and its value or the reason."""
        try:
            asked = wire.loads(request)
        except DataError as error:
            return True, f"the call is no JSON: {str(error)[:200]}"
        if not _is_call(asked):
            return True, f"a call is a name and its arguments, nested at most {_MOST_DEPTH} deep"
        name, arguments = asked
        step = self._step
        if step.answer is not None:
            return True, f"the task has ended with {ENDING}; nothing can be called any more"
        if name == ENDING:
            step.answer = as_answer(arguments.get("answer"), self._settings.output_chars)
            return False, None
        if len(step.calls) >= self._settings.calls:
            return True, f"this step has made its {self._settings.calls} calls; go on in the next"
        if step.waited >= self._settings.call_seconds:
            return True, f"the calls of this step have taken {self._settings.call_seconds:g} s; go on in the next"
        step.said += len(request.encode("utf-8", "replace"))
        if step.said > _REQUEST_BYTES:
            return True, f"this step has sent more than {_REQUEST_BYTES} bytes in its calls; go on in the next"
        return self._called(ToolCall(name, arguments))

    async def _ask(self, call: ToolCall) -> Observation:
        """Call a tool, in the event loop: what `leave` says there holds for every call that has not begun."""
        self._asking = asyncio.current_task()
        if self.left:
            raise asyncio.CancelledError
        return await self._tools.call(call)

    def _called(self, call: ToolCall) -> tuple[bool, Json]:
        if call.name not in {spec.name for spec in callable_names(self._tools.specs)}:
            return True, f"no function {call.name[:60]!r}"
        began, left = time.monotonic(), self._settings.call_seconds - self._step.waited
        wanted = self._ask(call)
        try:
            asking = asyncio.run_coroutine_threadsafe(wanted, self._loop)
        except RuntimeError:  # the loop is closed: the episode is over, and nobody waits for this
            wanted.close()
            return True, "the episode is over"
        try:
            found = asking.result(left)
        except (TimeoutError, concurrent.futures.CancelledError):
            asking.cancel()
            found = Observation(f"error: {call.name} did not answer in time", failed=True)
        self._step.waited += time.monotonic() - began
        self._step.calls.append((call, found))
        return found.failed, found.text.removeprefix("error: ") if found.failed else _value(found.text)


def record(message: Message, call: ToolCall, found: Observation) -> tuple[Message, ...]:
    """Return what an episode's record has of a reply that acted by code: its calls, their results, what it printed.

    The reply has the calls that its code made. An answer closes the episode as a message of its own, which no model
    wrote and nobody is trained on.
    """
    made = [replace(one, id=f"{call.id}_{place}") for place, (one, _) in enumerate(found.calls)]
    results = [
        Message("tool", result.text, tool_call_id=one.id, name=one.name, failed=result.failed)
        for one, (_, result) in zip(made, found.calls, strict=True)
    ]
    printed = [Message("tool", found.text, failed=found.failed)] if found.text and found.answer is None else []
    closing = [] if found.answer is None else [Message("assistant", found.answer, speaker=message.speaker, weight=0.0)]
    return (replace(message, tool_calls=tuple(made)), *results, *printed, *closing)


def as_answer(value: Json, most: int) -> str:
    """Return an answer as text: text as it is but for half characters, which no file holds; all else as JSON."""
    text = value if isinstance(value, str) else "" if value is None else wire.dumps(value)
    text = text.encode("utf-8", "replace").decode("utf-8")
    return text if len(text) <= most else f"{text[:most]} ..."


def told(outcome: Outcome, most: int) -> tuple[str, bool]:
    """Return what a step's author is told of it, and whether it failed: the error first, then what was printed."""
    printed = outcome.output.removesuffix("\n")
    if outcome.error is not None:
        before = " ".join(printed.split())[-_SHOWN_BEFORE_ERROR:]
        return f"error: {outcome.error}"[:most] + (f"; printed before it: {before}" if before else ""), True
    if not printed:
        return "nothing printed; print() what you want to see", False
    if len(printed) > most or outcome.truncated:
        return f"{printed[:most]}\n... (cut at {most} characters)", False
    return printed, False


def _is_call(asked: Json) -> bool:
    shape = isinstance(asked, list) and len(asked) == 2 and isinstance(asked[0], str) and isinstance(asked[1], dict)
    return shape and wire.depth_within(asked[1], _MOST_DEPTH)


def _value(text: str) -> Json:
    """Return what a tool answered as a value, where it is JSON that is no text, else the text itself."""
    try:
        value = wire.loads(text)
    except DataError:
        return text
    return value if not isinstance(value, str) and wire.depth_within(value, _MOST_DEPTH) else text


def _reply(failed: bool, value: Json) -> str:
    """Return the answer to a request, small enough for the pipe whatever a tool told."""
    reply = wire.dumps([failed, value])
    if len(reply.encode("utf-8", "replace")) <= _RESULT_BYTES:
        return reply
    text = value if isinstance(value, str) else wire.dumps(value)
    return wire.dumps([failed, f"{text[: _RESULT_BYTES // 8]} ... (cut, {len(text)} characters)"])


def _digest(request: str) -> bytes:
    """Return what a request is known again by: a box keeps hundreds of each step, for as long as it may be copied."""
    return hashlib.sha256(request.encode("utf-8", "replace")).digest()


async def _in_own_thread(work: Callable[[], Outcome]) -> Outcome:
    """Wait for `work` in a thread of its own: what the tools need to answer it must not wait for the loop's pool."""
    pool = concurrent.futures.ThreadPoolExecutor(1, "rolecraft-code")
    working = asyncio.get_running_loop().run_in_executor(pool, work)
    pool.shutdown(wait=False)  # the thread ends with the work
    return await working


def _replay(session: Session, step: _Step, specs: tuple[ToolSpec, ...]) -> None:
    """Run a step again, its calls answered as they were; raises _NotAgain where it asks for others, or for fewer."""
    known = iter(step.exchanges)

    def answer(request: str) -> str | None:
        before, reply = next(known, (None, None))
        return reply if _digest(request) == before else None

    outcome = session.run(step.code, Functions(specs, answer))
    if outcome.lost:
        raise _NotAgain(f"a step did not run again as before: {outcome.error}")
    if left := sum(1 for _ in known):
        raise _NotAgain(f"a step did not run again as before: {left} of its {len(step.exchanges)} calls were not made")
