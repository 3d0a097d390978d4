"""Runs sessions as confined Linux processes, forked from a small clean server that each application process starts.

Layers, each on top of the others where the machine has it: namespaces (a file system with the standard library and a
scratch folder, no network, no other processes), an unprivileged user, Landlock, a system-call allow-list, limits, a
control group, an empty environment. `layers` tells which hold. A session that ends early starts anew, empty, with its
next step.

What is not covered: faults of the kernel itself, and what shared hardware gives away (caches, timing). A session sees
the kernel's version, the clock and the machine's load, and may influence the load that others see. A package in
`modules` is readable as a whole. A file lock is granted and not taken: it would be held against the host's processes
and seen by other sessions. Without `mounts` a session also sees whether a path exists (in /proc: which processes run)
and its size, times and modes, by which sessions can tell each other something, but no content; its files are then on
the host's disk, measured every twentieth of a second, and cannot be removed or renamed. Memory is bounded per session,
not for all sessions together; for a session with `processes` by a control group, and without `cgroup` by adding up what
they take every twentieth of a second (if /proc lists a process's children), in which pages that processes share count
for each, and more may be taken meanwhile. Code in a session can lie about what a step of that session printed or
raised, and may print control characters: about its own step, and about a later one through what it left in the
interpreter (a replaced function, a hook, a step that answered and goes on), since variables stay. What would act on a
later step without that ends with its step: timers, tracing, answers written in advance; not so with `processes`:
threads and child processes stay, halted between steps. On systems other than Linux nothing but rlimits holds, and only
`unsafe=True` runs there.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.util
import json
import os
import secrets
import select
import socket
import threading
import time
import weakref

from rolecraft.errors import SandboxError
from rolecraft.sandbox import Functions, Limits, Outcome
from rolecraft.sandbox._pool import KIND, LAYERS, Pool, Server, listed, pool
from rolecraft.sandbox._runner import ANSWER, ASK, CALL, CALL_BYTES, DONE, EXIT, NONE, PIECE, READY, RESULT, TEXT
from rolecraft.types import ToolSpec

_START_SECONDS = 60.0
_END_SECONDS = 5.0
_CODE_BYTES = 1_000_000
_FLOOD_BYTES = 16_000_000  # a step that prints more than this is stopped: reading costs time too
_READ = 65_536
_PIPE_BYTES = 1 << 20
# Our own verdicts, beside the kinds of an answer; longer than one on the wire, so that nobody can send them.
_GONE, _LATE, _FLOOD, _FORGED, _ASKED = b"gone", b"late", b"flood", b"forged", b"asked"


def layers() -> dict[str, bool]:
    """Return which layers hold here, as a trial session found them; all False where no server can start."""
    try:
        return dict(pool(os.getpid()).server(()).layers)
    except SandboxError:
        return dict.fromkeys(LAYERS, False)


def open_session(
    limits: Limits, *, unsafe: bool = False, modules: tuple[str, ...] = (), without: frozenset[str] = frozenset()
) -> ProcessSession:
    """Start a session with `modules` imported; `without` leaves out layers, for tests of the others.

    Raises SandboxError when neither Landlock nor a mount namespace, with seccomp, keeps code from the host's files,
    unless `unsafe`; when `limits.processes` cannot be counted; when a module cannot be imported.
    """
    _check_modules(modules)
    servers = pool(os.getpid())
    held = servers.server(modules, without).layers
    if not unsafe and not (held["seccomp"] and (held["landlock"] or held["mounts"])):
        raise SandboxError(
            f"no isolation here: {listed(held)}. Model-written code would have all your rights. Use Linux 5.13 or "
            "newer with seccomp and Landlock or user namespaces, or accept the danger with unsafe=True"
        )
    if limits.processes and not held["pids"]:
        raise SandboxError(f"processes={limits.processes} needs the layer 'pids', which does not hold; use processes=0")
    return ProcessSession(servers, limits, modules, without)


class ProcessSession:
    """A `Session` in a process of its own. Usable from any thread, one step at a time, but not after a fork."""

    def __init__(self, servers: Pool, limits: Limits, modules: tuple[str, ...], without: frozenset[str]) -> None:
        """Start the process; raises SandboxError when it does not come up."""
        self._servers = servers
        self._limits = limits
        self._kind = (modules, without)
        self._lock = threading.Lock()
        self._owner = os.getpid()
        self._closed = False
        self._process: _Process | None = self._start()

    def run(self, code: str, functions: Functions | None = None) -> Outcome:
        """Run one step; see `Session.run`."""
        if self._owner != os.getpid():
            raise SandboxError("a session does not survive a fork of its application; open another in this process")
        with self._lock:
            if self._closed:
                raise SandboxError("this session is closed; open another")
            raw = code.encode("utf-8", "replace")
            if len(raw) > _CODE_BYTES:
                return Outcome("", f"the code is {len(raw)} bytes long; at most {_CODE_BYTES} are run")
            if self._process is None:
                self._process = self._start()
            try:
                outcome = self._process.step(raw, self._limits, functions)
            except BaseException:  # also the user's Ctrl-C: nothing may go on running behind our back
                self._end()
                raise
            if outcome.lost:
                self._end()
            return outcome

    def close(self) -> None:
        """End the process and remove its folder; safe to call twice."""
        with self._lock:
            self._closed = True
            if self._owner == os.getpid():
                self._end()

    def __enter__(self) -> ProcessSession:
        """Return itself."""
        return self

    def __exit__(self, *error: object) -> None:
        """Close the session."""
        self.close()

    def _start(self) -> _Process:
        server = self._servers.server(*self._kind)
        try:
            return _Process(server, self._limits)
        except SandboxError:
            if server.alive():
                raise
        return _Process(self._servers.server(*self._kind), self._limits)  # it was killed from outside

    def _end(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.end()


class _Process:
    """One life of a session: its channel, its output, and the orders to its keeper."""

    def __init__(self, server: Server, limits: Limits) -> None:
        self._server = server
        self._number = next(server.numbers)
        self._steps = 0
        self._channel, channel = socket.socketpair(socket.AF_UNIX, KIND)
        self._output, output = os.pipe()
        self._channel.setblocking(False)
        os.set_blocking(self._output, False)
        self._finalizer = weakref.finalize(
            self, _abandon, os.getpid(), server, self._number, self._channel, self._output
        )
        try:
            with channel:
                order = {"do": "open", "number": self._number, "limits": dataclasses.asdict(limits)}
                server.order(order, (channel.fileno(), output))
        finally:
            os.close(output)
        kind, text = self._first_answer()
        if kind != READY:
            self.end()
            raise SandboxError(f"a session did not start: {text}")

    def step(self, code: bytes, limits: Limits, functions: Functions | None) -> Outcome:
        """Send `code`, collect what it prints, and wait until it answers, ends or runs out of time."""
        self._steps += 1
        deadline = time.monotonic() + limits.seconds
        printed = _Printed(limits.output_bytes)
        try:
            self._server.order({"do": "go", "number": self._number})
            kind, text = self._converse(code, printed, deadline, functions)
            self._server.order({"do": "stop" if kind == DONE else "end", "number": self._number})
        except SandboxError as problem:
            kind, text = _GONE, str(problem)
        self._drain(printed)
        if kind == DONE:
            return printed.outcome(text or None)
        if kind == _LATE:
            error = f"timed out after {limits.seconds:g} s"
        elif kind == _FLOOD:
            error = f"printed more than {_FLOOD_BYTES // 1_000_000} MB"
        elif kind == _FORGED:
            error = "wrote to the channel of the sandbox"
        elif kind == _ASKED:
            error = "called functions far too often"
        else:
            error = f"the process ended ({text})"
        return printed.outcome(f"{error}; the session starts anew, its variables are lost", kind)

    def end(self) -> None:
        """Kill the process, wait until its keeper has buried it, and close this side."""
        with contextlib.suppress(SandboxError):
            self._server.order({"do": "end", "number": self._number})
            deadline = time.monotonic() + _END_SECONDS
            while (answer := self._receive(deadline)) is not None and answer[1] != _GONE:
                continue
        self._finalizer.detach()
        self._channel.close()
        os.close(self._output)

    def _drain(self, printed: _Printed) -> None:
        """Take what is left in the pipe, and no more than one holds: nobody writes any longer who should."""
        with contextlib.suppress(BlockingIOError):
            for _ in range(_PIPE_BYTES // _READ):
                printed.add(os.read(self._output, _READ))

    def _first_answer(self) -> tuple[bytes, str]:
        answer = self._receive(time.monotonic() + _START_SECONDS)
        if answer is None:
            return _LATE, f"no answer after {_START_SECONDS:g} s"
        return answer[1:]

    def _receive(self, deadline: float) -> tuple[bytes, bytes, str] | None:
        """Return the next message, None when there is none in time."""
        poller = select.poll()
        poller.register(self._channel, select.POLLIN)
        if not poller.poll(max(0.0, deadline - time.monotonic()) * 1000):
            return None
        return self._read_answer()

    def _converse(
        self, code: bytes, printed: _Printed, deadline: float, functions: Functions | None
    ) -> tuple[bytes, str]:
        """Return how the step ended: DONE with its error, EXIT with the reason, or one of our own verdicts."""
        # Nothing that was written to the channel before this question can have its nonce.
        nonce = secrets.token_bytes(len(NONE))
        unsent = _question(self._steps, nonce, code, functions)
        poller = select.poll()
        poller.register(self._output, select.POLLIN)
        while (left := deadline - time.monotonic()) > 0:
            poller.register(self._channel, select.POLLIN | (select.POLLOUT if unsent else 0))
            events = dict(poller.poll(left * 1000))
            if self._output in events and not printed.add(os.read(self._output, _READ)):
                poller.unregister(self._output)  # it closed its output
            if printed.total > _FLOOD_BYTES:
                return _FLOOD, ""
            happened = events.get(self._channel.fileno(), 0)
            if happened & ~select.POLLOUT:
                answered, kind, text = self._read_answer()
                if kind in (EXIT, _GONE) or (kind == DONE and answered == nonce):
                    return kind, text
                if kind != CALL or answered != nonce or functions is None or unsent:
                    # The runner says nothing else: the session's code has found the channel.
                    return _FORGED, ""
                began = time.monotonic()
                reply = self._answered(text, functions)
                deadline += time.monotonic() - began
                if reply is None:
                    return _ASKED, ""
                unsent = [ANSWER.pack(nonce, RESULT) + reply.encode("utf-8", "replace")]
                continue
            if happened:
                unsent = self._send(unsent)
        return _LATE, ""

    def _answered(self, text: str, functions: Functions) -> str | None:
        """Return what the host answers; the session halts meanwhile: that time is not the step's to compute in."""
        self._server.order({"do": "stop", "number": self._number})
        reply = functions.answer(text)
        self._server.order({"do": "go", "number": self._number})
        return reply

    def _send(self, unsent: list[bytes]) -> list[bytes]:
        """Send the last of these messages, and return those that are left."""
        try:
            self._channel.send(unsent[-1])
        except BlockingIOError:
            return unsent
        except ConnectionError:  # nobody reads any longer: to try again would fail at once, again and again
            return []
        return unsent[:-1]

    def _read_answer(self) -> tuple[bytes, bytes, str]:
        """Read one message; whatever a session sends, the answer is a nonce, a kind and text of bounded length."""
        raw = _received(self._channel, ANSWER.size + CALL_BYTES + 1)
        if not raw:
            return NONE, _GONE, "its server has gone"
        if len(raw) < ANSWER.size:
            return NONE, _FORGED, ""
        nonce, kind = ANSWER.unpack_from(raw)
        most = CALL_BYTES if kind == CALL else TEXT
        if len(raw) > ANSWER.size + most and kind == CALL:
            return NONE, _FORGED, ""
        return nonce, kind, raw[ANSWER.size : ANSWER.size + most].decode("utf-8", "replace")


def _received(channel: socket.socket, size: int) -> bytes:
    """Return the next message, b"" where there will be none.

    An end that is closed with a question unread is told first, and once; how the session ended is behind that.
    """
    for _ in range(2):
        with contextlib.suppress(ConnectionError):
            return channel.recv(size)
    return b""


class _Printed:
    """What a step printed, as far as it is kept."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._kept = bytearray()
        self.total = 0

    def add(self, data: bytes) -> bool:
        """Take what was read; False at the end of the output."""
        self.total += len(data)
        self._kept += data[: self._most - len(self._kept)]
        return bool(data)

    def outcome(self, error: str | None, kind: bytes = DONE) -> Outcome:
        """Return the step's outcome with this output."""
        text = self._kept.decode("utf-8", "replace")
        return Outcome(text, error, kind == _LATE, self.total > self._most, kind != DONE)


def _question(number: int, nonce: bytes, code: bytes, functions: Functions | None) -> list[bytes]:
    """Return the messages that ask for a step, the first one last."""
    told = b"" if functions is None else json.dumps([_described(spec) for spec in functions.specs]).encode()
    sent = code + told
    pieces = [sent[i : i + PIECE] for i in range(0, len(sent), PIECE)]
    return [*reversed(pieces), ASK.pack(number, nonce, len(code), len(told))]


def _described(spec: ToolSpec) -> dict[str, object]:
    return {"name": spec.name, "parameters": list(spec.parameters.get("properties", ())), "text": spec.description}


def _check_modules(modules: tuple[str, ...]) -> None:
    for name in modules:
        if importlib.util.find_spec(name) is None:
            raise SandboxError(f"cannot import {name!r} for the sandbox; install it here, or leave it out of modules")


def _abandon(owner: int, server: Server, number: int, channel: socket.socket, output: int) -> None:
    """End a process whose session was dropped without being closed."""
    if os.getpid() == owner:
        with contextlib.suppress(SandboxError):
            server.order({"do": "end", "number": number})
    channel.close()
    os.close(output)
