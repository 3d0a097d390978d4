"""Measures and removes scratch folders on the host's disk, whatever the session has built in them.

Runs inside the fork server: standard library only. Not covered: a link or a mount in the folder; a session can make
neither.
"""

from __future__ import annotations

import contextlib
import os
import stat


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

    Folders in folders are moved up before they are emptied, so that neither a path nor the stack grows with the depth.
    """
    top = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        while folders := [name for name in os.listdir(top) if not _unlink(top, name)]:
            for name in folders:
                _move_up(top, name)
    finally:
        os.close(top)
    os.rmdir(folder)


def _unlink(place: int, name: str) -> bool:
    """Remove a file; False for a folder, which is made accessible."""
    if not stat.S_ISDIR(os.lstat(name, dir_fd=place).st_mode):
        os.unlink(name, dir_fd=place)
        return True
    os.chmod(name, 0o700, dir_fd=place)
    return False


def _move_up(top: int, name: str) -> None:
    """Remove the folder `name` after moving the folders in it to `top`."""
    below = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=top)
    try:
        for child in os.listdir(below):
            if not _unlink(below, child):
                os.rename(child, os.urandom(16).hex(), src_dir_fd=below, dst_dir_fd=top)
    finally:
        os.close(below)
    os.rmdir(name, dir_fd=top)


def remove_quietly(folder: str) -> None:
    """Remove `folder` as far as that goes."""
    with contextlib.suppress(OSError):  # a full or broken disk must not take the other sessions down
        remove(folder)
