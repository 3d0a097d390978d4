"""One writer per folder: a file lock that names the process that holds it, and that no kill leaves behind.

The kernel frees the lock when its process ends, however it ends; the file that a kill leaves is taken over. Not
covered: folders on network file systems that keep no locks, which are written without one and a warning.
"""

from __future__ import annotations

import errno
import fcntl
import json
import logging
import os
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from rolecraft.errors import UserError

FILE = "run.lock"
_HELD = (errno.EAGAIN, errno.EACCES)
_ORPHANS = 5.0
"""Seconds to wait for the children of a holder that is dead: they may have its lock a little longer."""
_log = logging.getLogger(__name__)


@contextmanager
def lock(folder: Path) -> Iterator[None]:
    """Be the only process, and the only one in this process, that writes `folder` while the block runs.

    Makes the folder, and takes it away again if nothing came into it. Raises UserError, which names the process that
    is writing there, at once.
    """
    made = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / FILE
    handle = _take(path)
    try:
        yield
    finally:
        if handle is not None:
            path.unlink(missing_ok=True)  # before it is freed: a file that others hold is never removed
            os.close(handle)
        if made:
            with suppress(OSError):  # it is not empty
                folder.rmdir()


def _take(path: Path) -> int | None:
    """Return the descriptor that holds the lock; None where the file system has no locks."""
    give_up = time.monotonic() + _ORPHANS
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(handle)
            if error.errno not in _HELD:
                _log.warning("%s is written without a lock: %s", path.parent, error)
                return None
            holder = _read(path)
            if _may_be_alive(holder) or time.monotonic() > give_up:
                raise UserError(_refusal(path.parent, holder)) from error
            time.sleep(0.05)
        else:
            if _is_at(path, handle):
                _sign(handle)
                return handle
            os.close(handle)  # its holder has ended, and removed the file, between our two calls


def _is_at(path: Path, handle: int) -> bool:
    try:
        return os.path.samestat(os.fstat(handle), os.stat(path))
    except FileNotFoundError:
        return False


def _sign(handle: int) -> None:
    told = {
        "pid": os.getpid(),
        "host": socket.gethostname(),
        "since": time.strftime("%Y-%m-%d %H:%M:%S"),
        "command": " ".join(sys.argv)[:500],
    }
    os.ftruncate(handle, 0)
    os.pwrite(handle, (json.dumps(told) + "\n").encode("utf-8", "replace"), 0)


def _read(path: Path) -> dict[str, object]:
    try:
        told = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):  # it is being signed, or was removed meanwhile
        return {}
    return told if isinstance(told, dict) else {}


def _may_be_alive(holder: dict[str, object]) -> bool:
    pid = holder.get("pid")
    if not isinstance(pid, int) or holder.get("host") != socket.gethostname():
        return bool(holder)
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        return True
    return True


def _refusal(folder: Path, holder: dict[str, object]) -> str:
    who = "another process"
    if holder:
        who = "process {pid} on {host} ({command}), since {since}".format_map(
            {key: holder.get(key, "?") for key in ("pid", "host", "command", "since")}
        )
    return f"{str(folder)!r} is being written by {who}; wait until it ends, stop it, or name another folder (--output)"
