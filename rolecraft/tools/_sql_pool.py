"""Starts the sql tool's fork servers, one for each application process and set of functions, and talks to databases.

Not covered: what a database is and may do; `_sql_worker` and `_sql_query` have that.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import os
import socket
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from rolecraft.errors import SandboxError
from rolecraft.tools._sql_worker import ANY, GRACE, OPEN_SECONDS, STARTED, receive, send

_START_SECONDS = 60.0
_END_SECONDS = 5.0
_PATIENCE = 5.0  # beyond the time after which a process is killed: a loaded machine may be late to say so
_ANSWER_BYTES = 1 << 26

# Loads the server without the package's own `__init__`, which imports more than a fork should carry.
_START = """
import os, socket, sys
for name in ("rolecraft", "rolecraft.tools"):
    module = sys.modules[name] = type(sys)(name)
    module.__path__ = [os.path.join(sys.argv[1], *name.split("."))]
from rolecraft.tools._sql_worker import main
main(socket.socket(fileno=int(sys.argv[2])), sys.argv[3])
"""
_FLAGS = ("-I", "-S", "-B", "-X", "utf8")


class Gone(Exception):
    """A database's processes have ended, or did not answer in time and were ended."""


class Link:
    """The way to one database's processes, which end with it. One request at a time; its owner sees to that."""

    def __init__(self) -> None:
        """Make the sockets; `open` or another link's `fork` puts a database behind them."""
        self.owner = os.getpid()
        self.gone = False
        self._requests = itertools.count(1)
        self._channel, self._theirs = socket.socketpair()
        self._lifeline, self._end = socket.socketpair()
        self._finalizer = weakref.finalize(self, _close, self.owner, self._lifeline, self._channel)

    def open(self, order: Mapping[str, Any], register: str) -> list[Any]:
        """Have a new database opened; return what its keeper says first. Raises Gone, and SandboxError without server.

        `register` names a function as `file.py:name`, or none when it is empty.
        """
        with self._theirs, self._end:
            _pool(os.getpid()).send(register, (self._theirs.fileno(), self._end.fileno()))
        with self._closed_on_error():
            send(self._channel, [order])
            return self._receive(ANY, _deadline(OPEN_SECONDS))

    def ask(self, do: str, text: str, seconds: float, descriptors: tuple[int, ...] = ()) -> list[Any]:
        """Return the answer to a request, for which the processes have so long; raises Gone."""
        number, deadline = next(self._requests), _deadline(seconds)
        with self._closed_on_error():
            self._channel.settimeout(deadline - time.monotonic())
            send(self._channel, [number, do, text, seconds], descriptors)
            return self._receive(number, deadline)

    def fork(self, seconds: float) -> tuple[Link, list[Any]]:
        """Return a link to a copy of the database, and what its keeper says first; raises Gone."""
        copy = Link()
        with copy._theirs, copy._end, copy._closed_on_error():
            answer = self.ask("fork", "", seconds, (copy._theirs.fileno(), copy._end.fileno()))
        if answer[0] == "forked":
            with copy._closed_on_error():
                answer = copy._receive(ANY, _deadline(OPEN_SECONDS))
        return copy, answer

    def close(self) -> None:
        """End the processes, whatever they do; a request that waits in another thread raises Gone. Safe to repeat."""
        self.gone = True
        if self.owner == os.getpid():
            _shut(self._lifeline, self._channel)

    def release(self) -> None:
        """Close the sockets too, which no thread may be using."""
        self._finalizer()

    def _receive(self, number: int, deadline: float) -> list[Any]:
        """Return the answer to request `number`, passing over one that was not waited for."""
        while True:
            received = receive(self._channel, 0, deadline, _ANSWER_BYTES)
            if received is None:
                raise EOFError
            (answered, *answer), _ = received
            if answered in (number, ANY):
                return answer

    @contextlib.contextmanager
    def _closed_on_error(self) -> Iterator[None]:
        """Let nothing go on running behind our back, also at the user's Ctrl-C."""
        try:
            yield
        except (OSError, EOFError, ValueError) as error:
            self.close()
            raise Gone from error
        except BaseException:
            self.close()
            raise


class _Server:
    """One fork server, and the socket over which databases' descriptors reach it."""

    def __init__(self, register: str) -> None:
        """Start it; raises SandboxError with its reason when it does not come up."""
        ours, theirs = socket.socketpair()
        command = [
            sys.executable,
            *_FLAGS,
            "-c",
            _START,
            str(Path(__file__).parents[2]),
            str(theirs.fileno()),
            register,
        ]
        temporary = {name: os.environ[name] for name in ("SQLITE_TMPDIR", "TMPDIR") if name in os.environ}
        with theirs:
            try:
                self._popen = subprocess.Popen(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                    cwd="/",
                    env=temporary,
                    pass_fds=(theirs.fileno(),),
                    start_new_session=True,  # the terminal's Ctrl-C is the application's to handle
                )
            except OSError as error:
                ours.close()
                raise SandboxError(f"cannot start {sys.executable!r} for the sql tool: {error}") from error
        self._control = ours
        self._finalizer = weakref.finalize(self, _shut_down, os.getpid(), self._popen, ours)
        self._greet()

    def send(self, descriptors: tuple[int, ...]) -> None:
        """Have a keeper forked that takes these descriptors; raises OSError when the server has gone."""
        socket.send_fds(self._control, [b"+"], descriptors)

    def close(self) -> None:
        """End the server; the databases that it forked stay."""
        self._finalizer()

    def _greet(self) -> None:
        self._control.settimeout(_START_SECONDS)
        try:
            hello = self._control.recv(4096) or b"it ended at once"
        except OSError as error:
            hello = str(error).encode()
        if hello != STARTED:
            self.close()
            raise SandboxError(f"the sql tool's server does not start: {hello.decode('utf-8', 'replace')}")
        self._control.settimeout(None)


class _Pool:
    """The fork servers of one application process, by the functions that they have loaded."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._servers: dict[str, _Server] = {}

    def send(self, register: str, descriptors: tuple[int, ...]) -> None:
        """Give the descriptors to the server that has `register`, a new one if it has gone; raises SandboxError."""
        with self._lock:
            if (server := self._servers.get(register)) is not None:
                try:
                    return server.send(descriptors)
                except OSError:  # it was killed from outside
                    server.close()
            server = self._servers[register] = _Server(register)
            return server.send(descriptors)


@functools.cache
def _pool(pid: int) -> _Pool:
    """Return this process's pool; a forked worker has another id and so starts with none of its parent's servers."""
    return _Pool()


def _deadline(seconds: float) -> float:
    """Return the time after which processes that have `seconds`, and are then killed, are not waited for."""
    return time.monotonic() + seconds + GRACE + _PATIENCE


def _shut(*sockets: socket.socket) -> None:
    for each in sockets:
        with contextlib.suppress(OSError):  # closed before, or the other side has gone
            each.shutdown(socket.SHUT_RDWR)


def _close(owner: int, *sockets: socket.socket) -> None:
    """Close sockets; a forked copy of them must not end the processes behind them, which are its parent's."""
    if os.getpid() == owner:
        _shut(*sockets)
    for each in sockets:
        each.close()


def _shut_down(owner: int, popen: subprocess.Popen[bytes], control: socket.socket) -> None:
    """Close the control socket, at which the server leaves by itself; be firm when it does not."""
    _close(owner, control)  # shut down too: a forked worker may still hold a copy
    if os.getpid() != owner:
        popen.returncode = 0  # a forked copy: the process is not this one's child
        return
    try:
        popen.wait(_END_SECONDS)
    except subprocess.TimeoutExpired:
        popen.kill()
        popen.wait()
