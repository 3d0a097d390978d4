"""Makes, measures and removes scratch folders on the host's disk, whatever sessions have built in them.

Runs inside the fork server: standard library only. Not covered: a link or a mount in the folder; a session can make
neither.
"""

from __future__ import annotations

import contextlib
import fcntl
import itertools
import os
import stat
import tempfile

_PREFIX = "rolecraft-scratch-"
_AT_ONCE = 1000  # names of a folder that are held in memory


def make_for_server() -> tuple[str, int]:
    """Make the folder that one server keeps its sessions' folders in; return it, and its lock for as long as it lives.

    The lock is what `remove_leftovers` asks for: it is free once no process of the server has it open any longer.
    """
    while True:
        folder = tempfile.mkdtemp(prefix=_PREFIX)
        with contextlib.suppress(FileNotFoundError):  # another server took it for a dead one's before it was locked
            lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
            fcntl.flock(lock, fcntl.LOCK_EX)
            if os.path.exists(folder):
                return folder, lock
            os.close(lock)


def remove_leftovers() -> None:
    """Remove the folders of this user's servers that were killed before they could."""
    place = tempfile.gettempdir()
    for name in os.listdir(place):
        if name.startswith(_PREFIX):
            with contextlib.suppress(OSError):  # another user's, or its server lives
                _remove_if_unlocked(os.path.join(place, name))


def _remove_if_unlocked(folder: str) -> None:
    lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        if os.fstat(lock).st_uid == os.getuid():
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            remove(folder)
    finally:
        os.close(lock)


def overflows(folder: str, most_bytes: int, most_files: int = 1024) -> bool:
    """Tell whether the files under `folder` take more than `most_bytes`, are more than `most_files`, or hide."""
    files, size, folders = 0, 0, [folder]
    while folders:
        try:
            with os.scandir(folders.pop()) as entries:
                for entry in entries:
                    files += 1
                    size += entry.stat(follow_symlinks=False).st_blocks * 512
                    if entry.is_dir(follow_symlinks=False):
                        folders.append(entry.path)
                    if files > most_files or size > most_bytes:
                        return True
        except FileNotFoundError:  # removed meanwhile
            continue
        except OSError:  # a path too long or a folder that cannot be listed would hide what is in it
            return True
    return False


def remove(folder: str) -> None:
    """Remove `folder` and all below it, however deep and whatever the modes; links are removed, never followed.

    Folders in folders are moved up before they are emptied, so that neither a path nor the stack grows with the depth;
    names are read a thousand at a time, so that memory does not grow with their number.
    """
    top = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        while names := _some_names(top):
            for name in names:
                if not _unlink(top, name):
                    _move_up(top, name)
    finally:
        os.close(top)
    os.rmdir(folder)


def _some_names(place: int) -> list[str]:
    with os.scandir(place) as entries:
        return [entry.name for entry in itertools.islice(entries, _AT_ONCE)]


def _unlink(place: int, name: str) -> bool:
    """Remove a file or an empty folder; False for a folder with something in it, which is made accessible."""
    if not stat.S_ISDIR(os.lstat(name, dir_fd=place).st_mode):
        os.unlink(name, dir_fd=place)
        return True
    try:
        os.rmdir(name, dir_fd=place)
    except OSError:
        os.chmod(name, 0o700, dir_fd=place)
        return False
    return True


def _move_up(top: int, name: str) -> None:
    """Remove the folder `name` after moving the folders in it to `top`."""
    below = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=top)
    try:
        while names := _some_names(below):
            for child in names:
                if not _unlink(below, child):
                    os.rename(child, os.urandom(16).hex(), src_dir_fd=below, dst_dir_fd=top)
    finally:
        os.close(below)
    os.rmdir(name, dir_fd=top)


def remove_quietly(folder: str) -> None:
    """Remove `folder` as far as that goes."""
    with contextlib.suppress(OSError):  # a full or broken disk must not take the other sessions down
        remove(folder)
