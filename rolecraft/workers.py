"""Runs one function in several processes of this machine that find each other on 127.0.0.1, as torchrun would.

Not covered: several machines (use torchrun itself; the function reads the same variables), and restarts: a worker that
dies ends the run, which then resumes from its last checkpoint.
"""

from __future__ import annotations

import atexit
import importlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from rolecraft import errors
from rolecraft.errors import RolecraftError
from rolecraft.telling import tell

_FAULT = "ROLECRAFT_WORKER_FAULT"
_GRACE = 10.0
"""Seconds that the other workers get to end by themselves once one has failed."""
_INTERRUPTED = 130


def is_worker() -> bool:
    """Return whether this process was started as one of several, by `launch` or by torchrun."""
    return "RANK" in os.environ and "WORLD_SIZE" in os.environ


def is_first() -> bool:
    """Return whether this process is alone, or the first of several: the one that writes what all share."""
    return os.environ.get("RANK", "0") == "0"


def launch(target: str, arguments: Sequence[str], processes: int) -> None:
    """Run `module:function` with string `arguments` in `processes` workers, each with one CPU thread, and wait.

    Ctrl-C or SIGTERM here reaches each worker once, as SIGINT; a second one kills them. If this process dies, so do
    they. Raises the error that a worker raised on purpose, else RolecraftError with the workers' exit codes.
    """
    with tempfile.TemporaryDirectory(prefix="rolecraft-") as folder:
        fault = Path(folder) / "fault.json"
        workers: list[subprocess.Popen[bytes]] = []
        try:
            with _signals_passed_to(workers):
                port = _free_port()
                for rank in range(processes):
                    workers.append(_start(target, arguments, _environment(rank, processes, port, fault)))
                codes = _wait(workers)
        finally:
            for worker in workers:
                worker.kill()
                worker.communicate()
        _raise_for(codes, fault)


def work() -> None:
    """Be one worker: run the target and arguments in `sys.argv`; leave an error made on purpose for the parent."""
    threading.Thread(target=_die_with_parent, daemon=True).start()
    target, *arguments = sys.argv[1:]
    module, _, name = target.partition(":")
    fault = Path(os.environ[_FAULT])
    code = 0
    try:
        getattr(importlib.import_module(module), name)(*arguments)
    except RolecraftError as error:
        _leave(error, fault)
        code = error.exit_code
    except KeyboardInterrupt:
        code = _INTERRUPTED
    except Exception as error:  # noqa: BLE001  # the process ends here: what it says is all that is left of it
        time.sleep(0.5)
        if not fault.exists():  # else this worker only lost its connection to the one that left its reason
            tell(error)
        code = 1
    _end(code)


def _end(code: int) -> None:
    """End at once, as forked processes do, after what was registered for the end.

    The interpreter's own end takes seconds with a run's data in memory, and threads that torch leaves abort it now and
    then ("terminate called without an active exception").
    """
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _environment(rank: int, processes: int, port: int, fault: Path) -> dict[str, str]:
    given = {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(processes),
        "LOCAL_WORLD_SIZE": str(processes),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "OMP_NUM_THREADS": "1",
        _FAULT: str(fault),
    }
    if sys.platform == "linux":  # the machine's own name may lead to an interface that a firewall shuts
        given["GLOO_SOCKET_IFNAME"] = os.environ.get("GLOO_SOCKET_IFNAME", "lo")
    return {**os.environ, **given}


def _start(target: str, arguments: Sequence[str], environment: dict[str, str]) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-c", "from rolecraft.workers import work; work()", target, *arguments]
    # A session of its own: the terminal's Ctrl-C comes to the parent alone, who passes it on once.
    return subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, start_new_session=True)


def _wait(workers: Sequence[subprocess.Popen[bytes]]) -> list[int | None]:
    """Wait until all have ended, or `_GRACE` seconds after one has failed; None is the code of one still running."""
    limit = float("inf")
    while any(worker.poll() is None for worker in workers) and time.monotonic() < limit:
        if limit == float("inf") and any(worker.poll() for worker in workers):
            limit = time.monotonic() + _GRACE
        time.sleep(0.05)
    return [worker.poll() for worker in workers]


@contextmanager
def _signals_passed_to(workers: Sequence[subprocess.Popen[bytes]]) -> Iterator[None]:
    """Pass the first SIGINT or SIGTERM on as SIGINT, kill the workers at the second."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    came = threading.Event()

    def pass_on(number: int, frame: FrameType | None) -> None:
        for worker in workers:
            worker.send_signal(signal.SIGKILL if came.is_set() else signal.SIGINT)
        came.set()

    before = {number: signal.signal(number, pass_on) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _raise_for(codes: Sequence[int | None], fault: Path) -> None:
    if fault.exists():
        left = json.loads(fault.read_text(encoding="utf-8"))
        kind = getattr(errors, left["kind"], RolecraftError)
        error = RolecraftError.__new__(kind)
        Exception.__init__(error, left["message"])  # a subclass may have other parameters than a message
        raise error
    if _INTERRUPTED in codes:
        raise KeyboardInterrupt
    if any(codes):
        told = ", ".join(f"worker {rank}: {code}" for rank, code in enumerate(codes) if code)
        raise RolecraftError(f"workers failed ({told}), reasons above; start the same again with --resume")


def _leave(error: RolecraftError, fault: Path) -> None:
    partial = fault.with_suffix(f".{os.getpid()}")
    partial.write_text(json.dumps({"kind": type(error).__name__, "message": str(error)}), encoding="utf-8")
    partial.replace(fault)


def _die_with_parent() -> None:
    # The parent holds the other end of our stdin and never writes: it can be read only once the parent is gone.
    while os.read(0, 1):
        pass
    os._exit(1)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
