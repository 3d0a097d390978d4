"""No attempt of `escapes` gets out of a session, and the host is the same afterwards."""

from __future__ import annotations

import contextlib
import os
import re
import resource
import shutil
import signal
import socket
import stat
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from escapes import ENDLESS, ESCAPES, FILES, NETWORK, PRELUDE, PROCESSES, Escape

from rolecraft.errors import SandboxError
from rolecraft.sandbox import Limits, Session, layers, process

ALL, NO_NAMESPACES, NO_LANDLOCK = frozenset[str](), frozenset(("mounts",)), frozenset(("landlock",))


def open_without(limits: Limits, without: frozenset[str]) -> Session:
    try:
        return process.open_session(limits, without=without)
    except SandboxError as error:
        pytest.skip(f"this machine cannot isolate without {sorted(without)}: {error}")


@pytest.fixture(scope="module")
def canary() -> Iterator[Path]:
    """A folder that anybody may read and change, so that only the sandbox keeps a session from it."""
    folder = Path(tempfile.mkdtemp(prefix="canary-"))
    (folder / "folder").mkdir()
    for name in ("secret", "secret.py", "secret.so"):
        (folder / name).write_text("CANARY = 1\n")
        (folder / name).chmod(0o666)
    (folder / "folder").chmod(0o777)
    folder.chmod(0o777)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(folder / "socket"))
        listener.listen()
        (folder / "socket").chmod(0o777)
        yield folder
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]
        server.settimeout(0)
        with pytest.raises(BlockingIOError):  # nobody ever connected
            server.accept()


LASTING: set[int] = set()
"""The processes that were there before any attempt, the sandbox's servers among them."""


def look_at(path: Path) -> tuple[object, ...]:
    seen = path.lstat()
    content = path.read_bytes() if stat.S_ISREG(seen.st_mode) else sorted(os.listdir(path)) if path.is_dir() else None
    return (
        str(path),
        seen.st_mode,
        seen.st_uid,
        seen.st_gid,
        seen.st_nlink,
        seen.st_mtime_ns,
        seen.st_ctime_ns,
        content,
    )


def host(canary: Path) -> dict[str, Any]:
    """Return what an escape would change: files here and there, names, limits, processes, signals."""
    library = Path(os.__file__)
    watched = [canary, *sorted(canary.rglob("*")), library, Path("/etc/passwd")]
    return {
        "files": [look_at(path) for path in watched],
        "library": sorted(os.listdir(library.parent)),
        "attributes": [os.listxattr(path) for path in (library, canary / "secret")],
        "host": (socket.gethostname(), os.getcwd()),
        "limits": [resource.getrlimit(kind) for kind in range(10)],
        "process": (os.sched_getaffinity(0), os.getpriority(os.PRIO_PROCESS, 0), os.getpgrp(), signal.sigpending()),
        "processes": descendants(),
    }


def settled(canary: Path, there: set[int], seconds: float = 60.0) -> dict[str, Any]:
    """Return the host once no process is left but those that were there: files may take long to be removed."""
    deadline = time.monotonic() + seconds
    while not descendants() <= there and time.monotonic() < deadline:
        time.sleep(0.05)
    return host(canary)


def descendants(pid: str = "self") -> set[int]:
    """Return the ids of a process's children, their children and so on."""
    found: set[int] = set()
    for children in Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(OSError):
            for child in children.read_text().split():
                found |= {int(child), *descendants(child)}
    return found


def attempt(escape: Escape, without: frozenset[str], canary: Path, port: int) -> None:
    """Run one attempt; check that it failed as expected, that the session still answers and the host is unchanged."""
    limits = Limits(escape.seconds, escape.memory_mb, file_mb=escape.file_mb)
    before = host(canary)
    with open_without(limits, without) as session:
        outcome = session.run(
            PRELUDE + f"CANARY, PARENT, PORT = {str(canary)!r}, {os.getpid()}, {port}\n" + escape.code
        )
        seen = outcome.output + (f"error: {outcome.error}" if outcome.error else "")
        assert "ESCAPED" not in seen, seen
        assert re.search(escape.seen, seen, re.DOTALL), seen[:2000]
        assert len(outcome.output) <= limits.output_bytes
        # A session that broke its own interpreter says something; one that starts anew is whole, if given the time.
        answers = [session.run("print('alive')") for _ in range(4 if outcome.lost else 1)]
        assert not outcome.lost or "alive\n" in [answer.output for answer in answers], answers
    after = settled(canary, before["processes"])
    there, left = before.pop("processes"), after.pop("processes")
    assert left <= there  # what removes an earlier session's files may have ended meanwhile, but nothing that lasts
    assert LASTING & there <= left
    assert after == before


def keyed(escapes: tuple[Escape, ...]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("escape", escapes, ids=lambda escape: escape.name)


@pytest.fixture(autouse=True, scope="module")
def _servers() -> None:
    """Start the servers first, so that they are no attempt's new processes."""
    if not layers()["seccomp"]:
        pytest.skip("no system-call filter on this machine")
    for without in (ALL, NO_NAMESPACES, NO_LANDLOCK):
        with contextlib.suppress(SandboxError):
            process.open_session(Limits(), without=without).close()
    LASTING.update(descendants())


@keyed(ESCAPES)
def test_escape_fails_behind_every_layer(escape: Escape, canary: Path, port: int):
    attempt(escape, ALL, canary, port)


@keyed((*FILES, *PROCESSES, *NETWORK, *(escape for escape in ENDLESS if escape.name.startswith("disk"))))
def test_escape_fails_where_namespaces_are_denied(escape: Escape, canary: Path, port: int):
    attempt(escape, NO_NAMESPACES, canary, port)


# Without Landlock a session may list its own root, in which there is nothing of the host's.
LISTINGS = ("files: list the root", "files: list root's home", "files: a generator's file name")


@keyed(tuple(escape for escape in FILES if escape.name not in LISTINGS))
def test_escape_fails_without_landlock(escape: Escape, canary: Path, port: int):
    attempt(escape, NO_LANDLOCK, canary, port)
