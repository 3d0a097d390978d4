"""The keeper of a fork server's sessions: forks, halts, continues and ends them, and removes what they leave.

Runs inside the fork server: standard library only. It never runs a model's code, and it never waits for a disk on
behalf of one session while others need it: folders are removed by processes of their own.
"""

from __future__ import annotations

import contextlib
import fcntl
import gc
import json
import os
import random
import select
import signal
import socket
import sys
from collections.abc import Callable
from typing import Any, NoReturn

from rolecraft.sandbox import _bridge, _confine, _kernel, _memory, _runner, _scratch

_WATCH_SECONDS = 0.05  # how often scratch folders on the host's disk are measured
_MESSAGE = 65_536
_CHANNEL = 3


class _Child:
    """A session as its keeper sees it."""

    def __init__(
        self, pid: int, channel: socket.socket, scratch: str | None, limits: dict[str, Any], most_bytes: int
    ) -> None:
        self.pid = pid
        self.channel = channel
        self.scratch = scratch
        self.forks = limits["processes"] > 0
        self.file_bytes = limits["file_mb"] << 20
        self.memory_mb = limits["memory_mb"]
        self.most_bytes = most_bytes
        self.running = True
        self.reason = ""


class Keeper:
    """Forks, stops, continues and ends sessions as the parent says, and tells it how each one ended."""

    def __init__(
        self, control: socket.socket, plan: _confine.Plan, place: _confine.Place, memory: _memory.Memory
    ) -> None:
        self._control = control
        self._plan = plan
        self._shared = place
        if plan.namespaces == "none":
            readable, listable = _confine.without_packages(place.readable)
            self._shared = place._replace(readable=readable, listable=listable)
        self._memory = memory
        self._watch: _memory.Watch | None = None
        self._spent: set[int] = set()  # control groups in which a process is still ending
        self._children: dict[int, _Child] = {}
        self._removers: dict[int, socket.socket] = {}  # by process id; whose channel closes when it has finished
        self._folder: str | None = None
        self._lock = -1

    def run(self) -> NoReturn:
        """Serve until the parent closes its end; then end every session and remove every file."""
        try:
            self._serve()
        except Exception as error:  # noqa: BLE001  whatever it is, the parent is told and nothing stays behind
            with contextlib.suppress(OSError):
                self._control.send(json.dumps({"error": f"{type(error).__name__}: {error}"}).encode())
        finally:
            self._leave()

    def _serve(self) -> None:
        if _kernel.known_machine():
            _kernel.die_with_parent(signal.SIGKILL)
        if self._plan.namespaces == "none":
            self._folder, self._lock = _scratch.make_for_server()
            os.chmod(self._folder, 0o711 if self._plan.switch_user else 0o700)
            self._fork_to(_scratch.remove_leftovers)
        self._watch = _memory.watch_keeper(self._memory)
        wake = self._watch_signals()
        gc.collect()
        gc.freeze()  # children share these objects' memory as long as nothing touches them
        self._say_hello()
        poller = select.poll()
        poller.register(self._control, select.POLLIN)
        poller.register(wake, select.POLLIN)
        while True:
            watched = any(self._is_watched(child) for child in self._children.values())
            events = dict(poller.poll(_WATCH_SECONDS * 1000 if watched else None))
            if wake in events and signal.SIGTERM in os.read(wake, 512):
                return
            self._reap()
            if self._control.fileno() in events and not self._obey():
                return
            if watched:
                self._measure()

    def _watch_signals(self) -> int:
        wake, woken = os.pipe()
        os.set_blocking(woken, False)
        for number in (signal.SIGCHLD, signal.SIGTERM):
            signal.signal(number, lambda *_: None)
        signal.set_wakeup_fd(woken, warn_on_full_buffer=False)
        return wake

    def _say_hello(self) -> None:
        error = self._try_out()
        if error:
            raise OSError(error)
        self._control.send(json.dumps({"layers": self._plan.layers()}).encode())

    def _try_out(self) -> str:
        """Confine a throw-away child and let it test the walls; return what is wrong with them."""
        ours, theirs = socket.socketpair()
        scratch = self._make_scratch(0)
        pid = os.fork()
        if pid == 0:
            try:
                limits = {"seconds": 5.0, "memory_mb": 64, "file_mb": 1, "processes": 0}
                _confine.confine(self._plan, self._place(scratch), limits, 0)
                theirs.send(_test_walls(self._plan).encode())
            except BaseException as error:  # noqa: BLE001  it is the keeper's to judge
                theirs.send(f"{type(error).__name__}: {error}".encode())
            os._exit(0)
        theirs.close()
        with ours:
            found = ours.recv(_MESSAGE).decode()
        os.waitpid(pid, 0)
        if scratch:
            _scratch.remove_quietly(scratch)
        return "" if found == "good" else found or "a trial session was killed"

    def _place(self, scratch: str | None) -> _confine.Place:
        return self._shared._replace(scratch=scratch or _confine.SCRATCH)

    def _make_scratch(self, number: int) -> str | None:
        return None if self._folder is None else _confine.make_scratch(self._plan, self._folder, number)

    def _obey(self) -> bool:
        """Carry out one order of the parent; False when there will be no more."""
        try:
            message, descriptors, _, _ = socket.recv_fds(self._control, _MESSAGE, 2)
        except ConnectionError:
            return False
        if not message:
            return False
        order = json.loads(message)
        if order["do"] == "open":
            self._open(order["number"], order["limits"], descriptors)
        elif order["number"] in self._children:
            self._signal(self._children[order["number"]], order["do"])
        return True

    def _open(self, number: int, limits: dict[str, Any], descriptors: list[int]) -> None:
        if len(descriptors) != 2:  # the kernel dropped them for want of room: the parent sees its end closed
            for descriptor in descriptors:
                os.close(descriptor)
            return
        channel, output = descriptors
        try:
            scratch = self._make_scratch(number)
            most_bytes = _memory.most_bytes(limits, self._memory.own)
            if limits["processes"] and self._memory.groups:
                self._memory.groups.make(number, most_bytes)
            pid = os.fork()
        except OSError as error:
            with socket.socket(fileno=channel) as answer:
                _answer(answer, _runner.BROKEN, f"cannot make its process, folder and control group: {error}")
            os.close(output)
            return
        if pid == 0:
            self._become_session(number, limits, scratch, channel, output)
        os.close(output)
        self._children[number] = _Child(pid, socket.socket(fileno=channel), scratch, limits, most_bytes)

    def _become_session(
        self, number: int, limits: dict[str, Any], scratch: str | None, channel: int, output: int
    ) -> NoReturn:
        """Turn this fresh child into session `number` and never return."""
        try:
            signal.set_wakeup_fd(-1)
            for number_caught in (signal.SIGCHLD, signal.SIGTERM):
                signal.signal(number_caught, signal.SIG_DFL)
            os.setsid()
            if limits["processes"] and self._memory.groups:
                self._memory.groups.join(number)
            _keep_four_descriptors(channel, output)
            _confine.confine(self._plan, self._place(scratch), limits, number)
            random.seed(0)  # replaying a session's steps draws the same numbers
            for name in [name for name in sys.modules if name.startswith("rolecraft.sandbox.")]:
                del sys.modules[name]
            _runner.serve(_CHANNEL, _bridge.Bridge(_CHANNEL).bind)
        except BaseException as error:  # noqa: BLE001  a child must never return into the keeper's loop
            with contextlib.suppress(OSError):
                text = f"{type(error).__name__}: {error}".encode("utf-8", "replace")
                os.write(_CHANNEL, _runner.ANSWER.pack(_runner.NONE, _runner.BROKEN) + text[: _runner.TEXT])
        finally:
            os._exit(1)

    def _signal(self, child: _Child, order: str) -> None:
        number = {"stop": signal.SIGSTOP, "go": signal.SIGCONT, "end": signal.SIGKILL}[order]
        child.running = order == "go"
        for send in (os.killpg, os.kill):  # the group is not there yet when it has only just been forked
            with contextlib.suppress(ProcessLookupError, PermissionError):
                send(child.pid, number)
        if order == "stop":
            self._end_if_too_large(child)

    def _reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                pid = 0
            if pid == 0:
                break
            number = next((key for key, child in self._children.items() if child.pid == pid), None)
            if pid in self._removers:
                self._removers.pop(pid).close()
            elif number is not None:
                self._bury(number, os.waitstatus_to_exitcode(status))

        if self._memory.groups:
            self._spent -= {number for number in self._spent if self._memory.groups.remove(number)}

    def _bury(self, number: int, code: int) -> None:
        """Tell the parent at once how a session ended, and close its channel when its files are gone."""
        child = self._children.pop(number)
        if child.forks:  # only with process ids of our own, where the group's number is not yet somebody else's
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)
        if child.forks and self._memory.groups:
            self._spent.add(number)
            if self._memory.groups.killed(number):
                child.reason = child.reason or _took_memory(child)
        _answer(child.channel, _runner.EXIT, child.reason or _how_it_ended(code))
        folder = child.scratch
        if folder is None:
            child.channel.close()
            return
        try:
            self._removers[self._fork_to(lambda: _scratch.remove_quietly(folder))] = child.channel
        except OSError:  # no process to be had: it is removed when we leave
            child.channel.close()

    def _fork_to(self, work: Callable[[], None]) -> int:
        """Have a process of its own do `work` while sessions go on, and return its id."""
        pid = os.fork()
        if pid == 0:
            try:
                signal.set_wakeup_fd(-1)
                for number in (signal.SIGCHLD, signal.SIGTERM):
                    signal.signal(number, signal.SIG_DFL)
                os.closerange(
                    _CHANNEL, self._lock
                )  # other sessions' channels; the lock outlasts a keeper that is killed
                os.closerange(self._lock + 1, os.sysconf("SC_OPEN_MAX"))
                work()
            finally:
                os._exit(0)
        return pid

    def _is_watched(self, child: _Child) -> bool:
        return child.running and bool(child.scratch or (child.forks and self._watch))

    def _measure(self) -> None:
        running = [child for child in self._children.values() if child.running]
        taken = self._watch.taken() if self._watch and any(child.forks for child in running) else {}
        for child in running:
            self._end_if_too_large(child)
            if child.forks and taken.get(child.pid, 0) > child.most_bytes:
                child.reason = _took_memory(child)
                self._signal(child, "end")

    def _end_if_too_large(self, child: _Child) -> None:
        if child.scratch and _scratch.overflows(child.scratch, child.file_bytes):
            child.reason = f"its files took more than {child.file_bytes >> 20} MB"
            self._signal(child, "end")

    def _leave(self) -> NoReturn:
        for child in self._children.values():
            self._signal(child, "end")
        for child in self._children.values():
            with contextlib.suppress(ChildProcessError):
                os.waitpid(child.pid, 0)
        for pid in self._removers:
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, 0)
        if self._folder:
            _scratch.remove_quietly(self._folder)
        os._exit(0)


def _test_walls(plan: _confine.Plan) -> str:
    """Return `good`, or what this confined process can do and should not, or cannot and should."""
    os.listdir(os.path.dirname(os.__file__))
    with open("trial", "w", encoding="ascii") as file:
        file.write("x")
    if plan.landlock and _works(os.listdir, "/"):
        return "Landlock lets a session list /"
    if plan.namespaces != "none" and _works(os.stat, "/proc/self"):
        return "the session sees /proc"
    if plan.seccomp and (_works(os.chmod, "trial", 0o777) or _works(socket.socket)):
        return "seccomp lets a session change modes or open sockets"
    return "good"


def _works(function: Any, *arguments: Any) -> bool:
    try:
        function(*arguments)
    except OSError:
        return False
    return True


def _keep_four_descriptors(channel: int, output: int) -> None:
    """Leave an empty input, the output twice, and the channel; close everything else."""
    empty, writer = os.pipe()
    os.close(writer)
    above = [fcntl.fcntl(descriptor, fcntl.F_DUPFD, _CHANNEL + 1) for descriptor in (empty, output, channel)]
    for target, descriptor in enumerate((above[0], above[1], above[1], above[2])):
        os.dup2(descriptor, target, inheritable=False)
    os.closerange(_CHANNEL + 1, os.sysconf("SC_OPEN_MAX"))


def _answer(channel: socket.socket, kind: bytes, text: str) -> None:
    with contextlib.suppress(OSError):  # the parent has gone, or the session filled the queue
        channel.send(_runner.ANSWER.pack(_runner.NONE, kind) + text.encode(), socket.MSG_DONTWAIT)


def _took_memory(child: _Child) -> str:
    return f"its processes took more than {child.memory_mb} MB together"


def _how_it_ended(code: int) -> str:
    if code >= 0:
        return f"exit status {code}"
    try:
        return f"signal {signal.Signals(-code).name}"
    except ValueError:
        return f"signal {-code}"
