"""Starts fork servers for this application process, each under the strictest plan that works here.

Not covered: what a session is; that is `process`'s business.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import json
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
import weakref
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from rolecraft.errors import SandboxError

_log = logging.getLogger(__name__)

LAYERS = ("userns", "mounts", "network", "pids", "landlock", "seccomp", "rlimits", "cgroup", "unprivileged")
_START_SECONDS = 120.0
_END_SECONDS = 5.0
_READ = 65_536
# Datagrams elsewhere: only Linux keeps the borders of messages on a connected socket.
KIND = socket.SOCK_SEQPACKET if sys.platform == "linux" else socket.SOCK_DGRAM

# Loads the server without the package's own `__init__`, which may import anything.
_START = """
import os, socket, sys
for name in ("rolecraft", "rolecraft.sandbox"):
    module = sys.modules[name] = type(sys)(name)
    module.__path__ = [os.path.join(sys.argv[1], *name.split("."))]
from rolecraft.sandbox import _server
_server.main(socket.socket(fileno=int(sys.argv[2])))
"""
# Not `-I`, which would also ignore the hash seed: with it fixed, sets print the same in every run and replay.
# The environment holds nothing else, so nothing else could be read from it.
_FLAGS = ("-s", "-P", "-S", "-B", "-X", "utf8")
_ENVIRONMENT = {"PYTHONHASHSEED": "0", "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}


class Server:
    """One fork server and the socket that gives it orders."""

    def __init__(self, settings: Mapping[str, Any]) -> None:
        """Start it with what `_server.main` reads; raises SandboxError with its reason when it does not come up."""
        self.numbers = itertools.count(1)
        self._gone = False
        self._popen, self._control = _spawn()
        self._finalizer = weakref.finalize(self, _shut_down, os.getpid(), self._popen, self._control)
        self.layers: Mapping[str, bool] = self._greet(settings)

    def order(self, message: Mapping[str, Any], descriptors: tuple[int, ...] = ()) -> None:
        """Send an order to the keeper; raises SandboxError when it has gone."""
        try:
            # No lock: a message is sent whole or not at all, and a finalizer may come here in the midst of another.
            socket.send_fds(self._control, [json.dumps(message).encode()], descriptors)
        except OSError as error:
            self._gone = True
            raise SandboxError(f"the sandbox's server has gone ({error}); the next session starts another") from error

    def alive(self) -> bool:
        """Tell whether it still runs."""
        return not self._gone and self._popen.poll() is None

    def close(self) -> None:
        """End the server and every session of it."""
        self._finalizer()

    def _greet(self, settings: Mapping[str, Any]) -> Mapping[str, bool]:
        self._control.settimeout(_START_SECONDS)
        try:
            self._control.send(json.dumps(settings).encode())
            hello = json.loads(self._control.recv(_READ) or b'{"error": "it ended at once"}')
        except OSError as error:
            hello = {"error": f"{type(error).__name__}: {error}"}
        if "error" in hello:
            self.close()
            raise SandboxError(hello["error"])
        found: Mapping[str, bool] = hello["layers"]
        return found


class Pool:
    """The fork servers of one application process, by what they have imported."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._servers: dict[tuple[tuple[str, ...], frozenset[str]], Server] = {}

    def server(self, modules: tuple[str, ...], without: frozenset[str] = frozenset()) -> Server:
        """Return a running server with `modules` imported, a new one if there is none; raises SandboxError."""
        key = (modules, without)
        with self._lock:
            server = self._servers.get(key)
            if server is None or not server.alive():
                if server is not None:
                    server.close()
                server = self._servers[key] = _start_server(modules, without)
            return server


@functools.cache
def pool(pid: int) -> Pool:
    """Return this process's pool; a forked worker has another id and so starts with none of its parent's servers."""
    return Pool()


def _start_server(modules: tuple[str, ...], without: frozenset[str]) -> Server:
    """Start a server under the strictest plan that works here."""
    problems = []
    for namespaces, switch_user in _plans(without):
        settings = {
            "namespaces": namespaces,
            "switch_user": switch_user,
            "landlock": "landlock" not in without,
            "seccomp": "seccomp" not in without,
            "cgroup": "cgroup" not in without,
            "parent": os.getpid(),
            "modules": modules,
            "search": [os.path.abspath(path) for path in sys.path if path and os.path.isdir(path)] if modules else [],
        }
        try:
            server = Server(settings)
        except SandboxError as error:
            problems.append(f"namespaces={namespaces}, switch_user={switch_user}: {error}")
            continue
        for problem in problems:
            _log.info("sandbox plan not possible here: %s", problem)
        _log.info("sandbox layers: %s", listed(server.layers))
        return server
    raise SandboxError(f"the sandbox's server does not start: {'; '.join(problems)}")


def _plans(without: frozenset[str]) -> Iterator[tuple[str, bool]]:
    """Yield ways to isolate, strictest first: kind of namespaces, and whether sessions become another user."""
    root = os.getuid() == 0
    for namespaces in ("user", "plain"):
        if sys.platform == "linux" and "mounts" not in without and (root or namespaces == "user"):
            if "userns" in without and namespaces == "user":
                continue
            if root and "unprivileged" not in without:
                yield namespaces, True
            yield namespaces, False
    if root and "unprivileged" not in without:
        yield "none", True
    yield "none", False


def _spawn() -> tuple[subprocess.Popen[bytes], socket.socket]:
    """Start the server's process; return it with our end of its control socket."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, KIND)
    root = str(Path(__file__).parents[2])
    with theirs:
        try:
            popen = subprocess.Popen(
                [sys.executable, *_FLAGS, "-c", _START, root, str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                cwd="/",
                env=_ENVIRONMENT,
                pass_fds=(theirs.fileno(),),
                start_new_session=True,  # the terminal's Ctrl-C is the application's to handle
            )
        except OSError as error:
            ours.close()
            raise SandboxError(f"cannot start {sys.executable!r}: {error}") from error
    return popen, ours


def listed(held: Mapping[str, bool]) -> str:
    """Return which layers hold, as one line."""
    return ", ".join(f"{name} {'yes' if held.get(name) else 'NO'}" for name in LAYERS)


def _shut_down(owner: int, popen: subprocess.Popen[bytes], control: socket.socket) -> None:
    """Close the control socket, at which the server leaves by itself; be firm when it does not."""
    control.close()
    if os.getpid() != owner:
        popen.returncode = 0  # a forked copy: the process is not this one's child
        return
    try:
        popen.wait(_END_SECONDS)
    except subprocess.TimeoutExpired:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(popen.pid, signal.SIGKILL)
        popen.wait()
