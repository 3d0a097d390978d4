"""The processes behind the sql tool: a small fork server, and for each database a keeper whose child runs the queries.

The keeper holds the database and runs no statement of a model. A child that it forks does, under limits that the
kernel enforces; when one is killed, the keeper still has the database as it was, and forks another. A child that
has changed a database in memory becomes its keeper. Standard library only; `_sql_pool` starts and addresses them.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import gc
import importlib.util
import json
import os
import resource
import signal
import socket
import sqlite3
import struct
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

from rolecraft.tools._sql_query import Queries, QueryError, Register, Rules, build, copy_file, open_file

OPEN_SECONDS = 60.0
GRACE = 0.25  # what a statement has, beyond the time after which it is interrupted, before its process is killed
NO_MEMORY = 77  # the exit code of a child whose memory limit was reached
ANY = 0  # in the place of a request's number: what a keeper says answers whatever was asked
STARTED = b"+"

_HEAD = struct.Struct(">I")
_MESSAGE_BYTES = 1 << 30
_SPILL_BYTES = 1 << 29  # what sorting may write to a temporary file
_PR_SET_CHILD_SUBREAPER = 36
_DONE = b"."


def send(channel: socket.socket, message: Sequence[Any], descriptors: Sequence[int] = ()) -> None:
    """Send one message, and descriptors with it."""
    raw = json.dumps(message).encode()
    head = _HEAD.pack(len(raw))
    if descriptors:
        socket.send_fds(channel, [head], descriptors)
        head = b""
    channel.sendall(head + raw)


def receive(
    channel: socket.socket, descriptors: int = 0, deadline: float | None = None, most: int = _MESSAGE_BYTES
) -> tuple[list[Any], list[int]] | None:
    """Return the next message with at most so many descriptors, None when the other side has gone.

    Raises TimeoutError at the deadline, ValueError for a message of more than `most` bytes.
    """
    _hurry(channel, deadline)
    head, found, _, _ = socket.recv_fds(channel, _HEAD.size, descriptors)
    head += _exactly(channel, _HEAD.size - len(head), deadline) if head else b""
    if len(head) < _HEAD.size:
        return None
    (size,) = _HEAD.unpack(head)
    if size > most:
        raise ValueError(f"a message of {size} bytes")
    raw = _exactly(channel, size, deadline)
    return None if len(raw) < size else (json.loads(raw), found)


def _exactly(channel: socket.socket, size: int, deadline: float | None) -> bytes:
    """Return `size` bytes, fewer where the other side has gone."""
    pieces, missing = [], size
    while missing:
        _hurry(channel, deadline)
        piece = channel.recv(min(missing, 1 << 20))
        if not piece:
            break
        pieces.append(piece)
        missing -= len(piece)
    return b"".join(pieces)


def _hurry(channel: socket.socket, deadline: float | None) -> None:
    if deadline is not None:
        channel.settimeout(max(0.001, deadline - time.monotonic()))


def main(control: socket.socket, register: str) -> NoReturn:
    """Fork a keeper for each pair of descriptors that comes, until the application has gone."""
    try:
        add = _load(register)
        _warm_up(add)
    except Exception as error:  # noqa: BLE001  whatever the module raises, the application must be told
        control.sendall(f"{type(error).__name__}: {error}".encode("utf-8", "replace")[:4000])
        os._exit(1)
    _forget_the_application()
    gc.collect()
    gc.freeze()  # children share these objects' memory as long as nothing touches them
    control.sendall(STARTED)
    while _fork_keeper(control, add):
        continue
    with contextlib.suppress(ChildProcessError):
        os.wait()  # until the last one has ended: process 1 need not bury any
    os._exit(0)


def _fork_keeper(control: socket.socket, register: Register) -> bool:
    """Fork one keeper; False when the application has gone. One that cannot be had is told by its closed ends."""
    try:
        order, descriptors, _, _ = socket.recv_fds(control, 1, 2)
    except ConnectionError:
        return False
    with contextlib.suppress(OSError):  # no more processes
        if len(descriptors) == 2 and os.fork() == 0:  # fewer: no room for descriptors
            control.close()
            _become_keeper(descriptors, register)
    for descriptor in descriptors:
        os.close(descriptor)
    return bool(order)


def _warm_up(register: Register) -> None:
    """Do once what every child does, so that it finds the work of a first time done."""
    queries = Queries(build("CREATE TABLE t (x); INSERT INTO t VALUES (1)", register), Rules(True, 1, 100, 1.0))
    json.loads(json.dumps([ANY, queries.tables(), queries.answer("SELECT x FROM t")]))
    queries.connection.close()


def _load(register: str) -> Register:
    """Return the function at `file.py:name`, its file run on its own, without the package that it lies in."""
    if not register:
        return lambda connection: None
    path, _, name = register.rpartition(":")
    spec = importlib.util.spec_from_file_location("_sql_register", path)
    if spec is None or spec.loader is None:
        raise ImportError(f"{path!r} is no Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[module.__name__] = module
    spec.loader.exec_module(module)
    found: Register = getattr(module, name)
    return found


def _forget_the_application() -> None:
    """Undo what a process inherits, and have the kernel bury the children."""
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    for number in (signal.SIGALRM, signal.SIGIO, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
    if sys.platform == "linux":  # elsewhere process 1 buries a keeper whose own keeper has gone
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def _become_keeper(descriptors: Sequence[int], register: Register) -> NoReturn:
    """Open the database that the first message describes, and keep it."""
    try:
        channel = _adopt(descriptors)
        if (received := receive(channel)) is not None:
            (order,), _ = received
            _Keeper(channel, descriptors[1], order, register).serve()
    finally:
        os._exit(1)


def _adopt(descriptors: Sequence[int]) -> socket.socket:
    """Lead a process group of its own, which the kernel ends when the application closes the lifeline or dies."""
    channel, lifeline = descriptors
    os.setpgid(0, 0)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    # A signal that nobody handles: it ends whoever is in the group, in the midst of a statement too.
    fcntl.fcntl(lifeline, fcntl.F_SETOWN, -os.getpid())
    fcntl.fcntl(lifeline, fcntl.F_SETFL, fcntl.fcntl(lifeline, fcntl.F_GETFL) | os.O_ASYNC)
    return socket.socket(fileno=channel)


class _Keeper:
    """Holds one database, or the address of its file, and has each request carried out by a child."""

    def __init__(
        self,
        channel: socket.socket,
        lifeline: int,
        order: Mapping[str, Any],
        register: Register,
        copied: sqlite3.Connection | None = None,
    ) -> None:
        """Open what `order` describes, or take `copied`; tell the application its tables, or why there are none."""
        self._channel = channel
        self._lifeline = lifeline
        self._order = order
        self._register = register
        self._rules = Rules(**order["rules"])
        self._in_memory = copied is not None or order["address"] is None or self._rules.read_only
        self._queries: Queries | None = None
        _end_after(OPEN_SECONDS)
        try:
            connection = copied or self._open()
        except QueryError as error:
            send(channel, [ANY, "refused", str(error)])
            os._exit(0)
        queries = Queries(connection, self._rules)
        send(channel, [ANY, "opened", queries.tables()])
        if self._in_memory:
            self._queries = queries
        else:  # a connection to a file does not survive a fork: each child has its own
            connection.close()
        _end_after(0)

    def serve(self) -> NoReturn:
        """Have a child answer requests, and another one when it was killed, of which the application is told."""
        while True:
            reader, writer = os.pipe()
            child = os.fork()
            if child == 0:
                os.close(reader)
                self._work(writer)
                continue  # as the keeper, in the place of the old one
            os.close(writer)
            if os.read(reader, 1):
                os._exit(0)  # the child has taken over, or nobody asks any more
            os.close(reader)
            _, status = os.waitpid(child, 0)
            send(self._channel, [ANY, "ended", os.waitstatus_to_exitcode(status)])

    def _open(self) -> sqlite3.Connection:
        address = self._order["address"]
        if address is None:
            return build(self._order["script"], self._register)
        return (copy_file if self._rules.read_only else open_file)(address, self._register)

    def _work(self, keeper: int) -> None:
        """Answer requests in this fresh child; return when it must be the keeper, of which the old one is told."""
        _limit(self._order["memory_mb"], self._order["file_bytes"])
        while (received := receive(self._channel, 2)) is not None:
            (number, do, text, seconds), descriptors = received
            _end_after(seconds + GRACE)
            try:
                answer, wrote = self._carry_out(do, text, descriptors, keeper)
            except MemoryError:
                os._exit(NO_MEMORY)
            _end_after(0)
            succeeds = wrote and self._in_memory
            if succeeds:
                os.write(keeper, _DONE)
                os.close(keeper)
            send(self._channel, [number, *answer])
            if succeeds:
                return
        os.write(keeper, _DONE)
        os._exit(0)

    def _carry_out(self, do: str, text: str, descriptors: list[int], keeper: int) -> tuple[list[Any], bool]:
        """Return the answer, and whether the database may have changed."""
        if do == "fork":
            self._fork(descriptors, keeper)
            return ["forked", ""], False
        try:
            if self._queries is None:
                self._queries = Queries(open_file(self._order["address"], self._register), self._rules)
            if do == "digest":
                return ["digest", self._queries.digest()], False
            if do == "rows":
                return ["rows", self._queries.rows(text)], False
            answer = ["answer", self._queries.answer(text)]
        except (QueryError, sqlite3.Error) as error:
            answer = ["mistake", str(error)]
        return answer, self._queries is not None and self._queries.wrote

    def _fork(self, descriptors: list[int], keeper: int) -> None:
        """Leave a copy of this process behind as the keeper of another database with the same content."""
        child = os.fork()
        if child == 0:
            if os.fork() == 0:
                self._become_another(descriptors, keeper)
            os._exit(0)  # the copy is then the fork server's to bury
        os.waitpid(child, 0)
        for descriptor in descriptors:
            os.close(descriptor)

    def _become_another(self, descriptors: list[int], keeper: int) -> NoReturn:
        try:
            for descriptor in (keeper, self._lifeline):
                os.close(descriptor)
            self._channel.close()
            _unlimit()
            channel = _adopt(descriptors)
            if self._in_memory and self._queries is not None:
                copied = self._queries.connection
            else:
                copied = copy_file(self._order["address"], self._register)
            _Keeper(channel, descriptors[1], self._order, self._register, copied).serve()
        finally:
            os._exit(1)


def _end_after(seconds: float) -> None:
    """Have the kernel kill this process after so many seconds, 0 for never; SQL cannot put that off."""
    signal.setitimer(signal.ITIMER_REAL, seconds)


def _limit(memory_mb: int, file_bytes: int) -> None:
    """Bound what this process may have beyond what it has now, and the files that it writes."""
    _set_soft(resource.RLIMIT_FSIZE, file_bytes + _SPILL_BYTES)
    size = _own_size()
    if size:
        _set_soft(resource.RLIMIT_AS, size + (memory_mb << 20))


def _unlimit() -> None:
    for kind in (resource.RLIMIT_FSIZE, resource.RLIMIT_AS):
        _set_soft(kind, resource.getrlimit(kind)[1])


def _set_soft(kind: int, value: int) -> None:
    hard = resource.getrlimit(kind)[1]
    resource.setrlimit(kind, (value if hard == resource.RLIM_INFINITY else min(value, hard), hard))


def _own_size() -> int:
    """Return the address space of this process in bytes, 0 where it cannot be read."""
    try:
        statm = os.open("/proc/self/statm", os.O_RDONLY)
    except OSError:
        return 0
    pages = os.read(statm, 100).split()[0]
    os.close(statm)
    return int(pages) * resource.getpagesize()
