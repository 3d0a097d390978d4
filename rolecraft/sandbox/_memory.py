"""Bounds what all processes of a session take together: by a control group, or by adding it up again and again.

Runs inside the fork server: standard library only. The limit of an address space bounds one process, so a session that
may have several needs this. Not covered, without a control group: what is taken and given back between two looks.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

_PREFIX = "rolecraft-sandbox"
_SLACK = 8 << 20  # what the kernel itself keeps for a session: page tables, pipes
# The file with a group's limit, the files that keep it from swapping, the file with its count of killed processes.
_VERSIONS = {
    2: ("memory.max", ("memory.swap.max",), "memory.events"),
    1: ("memory.limit_in_bytes", ("memory.memsw.limit_in_bytes",), "memory.oom_control"),
}


class Groups(NamedTuple):
    """Where control groups can be made: a descriptor of the folder, the version, and what our groups are called."""

    folder: int
    version: int
    name: str

    def make(self, number: int, most_bytes: int) -> None:
        """Make the group of session `number`; raises OSError."""
        limit, swap, _ = _VERSIONS[self.version]
        os.mkdir(f"{self.name}-{number}", 0o700, dir_fd=self.folder)
        self._write(number, limit, most_bytes)
        for file in swap:
            with contextlib.suppress(OSError):  # a kernel without swap has no such file
                self._write(number, file, most_bytes if self.version == 1 else 0)

    def join(self, number: int) -> None:
        """Move the calling process to the group of session `number`; its children are born there."""
        self._write(number, "cgroup.procs", 0)

    def killed(self, number: int) -> bool:
        """Tell whether the kernel killed a process of the group for its memory."""
        with contextlib.suppress(OSError):
            text = _read(f"{self.name}-{number}/{_VERSIONS[self.version][2]}", self.folder)
            return any(line.split()[0] == "oom_kill" and line.split()[1] != "0" for line in text.splitlines())
        return False

    def remove(self, number: int) -> bool:
        """Remove the group of session `number`; False while one of its processes is still ending."""
        try:
            os.rmdir(f"{self.name}-{number}", dir_fd=self.folder)
        except OSError as error:
            return error.errno != errno.EBUSY
        return True

    def remove_all(self) -> None:
        """Remove every group of ours."""
        for name in os.listdir(self.folder):
            if name.startswith(f"{self.name}-"):
                with contextlib.suppress(OSError):
                    os.rmdir(name, dir_fd=self.folder)

    def _write(self, number: int, file: str, value: int) -> None:
        descriptor = os.open(f"{self.name}-{number}/{file}", os.O_WRONLY, dir_fd=self.folder)
        try:
            os.write(descriptor, str(value).encode())
        finally:
            os.close(descriptor)


def find_groups() -> Groups | None:
    """Return where this process may make groups that bound memory, else None; remove those of dead servers."""
    for folder, version in _candidates():
        try:
            groups = Groups(os.open(folder, os.O_RDONLY | os.O_DIRECTORY), version, f"{_PREFIX}-{os.getpid()}")
        except OSError:
            continue
        if _works(groups):
            _remove_leftovers(groups)
            return groups
        os.close(groups.folder)
    return None


def _candidates() -> Iterator[tuple[str, int]]:
    """Yield our own group's folder and the one above it, for each version that bounds memory."""
    try:
        ours = [line.rstrip("\n").split(":", 2) for line in _read("/proc/self/cgroup").splitlines()]
        mounts = [line.split(" - ") for line in _read("/proc/self/mountinfo").splitlines()]
    except OSError:
        return
    for _, controllers, path in ours:
        kind, version = ("cgroup2", 2) if not controllers else ("cgroup", 1)
        if version == 1 and "memory" not in controllers.split(","):
            continue
        for place, source in mounts:
            root, point = place.split()[3:5]
            if source.split()[0] == kind and (version == 2 or "memory" in source.split()[2].split(",")):
                below = os.path.relpath(path, root)
                own = point if below.startswith("..") else os.path.normpath(f"{point}/{below}")  # a container's view
                yield own, version
                if own != point:
                    yield os.path.dirname(own), version


def _works(groups: Groups) -> bool:
    """Make a group and have a child join it."""
    try:
        groups.make(0, 1 << 30)
    except OSError:
        groups.remove(0)
        return False
    pid = os.fork()
    if pid == 0:
        try:
            groups.join(0)
        except OSError:
            os._exit(1)
        os._exit(0)
    joined = os.waitpid(pid, 0)[1] == 0
    groups.remove(0)
    return joined


def _remove_leftovers(groups: Groups) -> None:
    for name in os.listdir(groups.folder):
        if name.startswith(f"{_PREFIX}-"):
            owner = name.removeprefix(f"{_PREFIX}-").partition("-")[0]
            if not os.path.exists(f"/proc/{owner}"):
                with contextlib.suppress(OSError):
                    os.rmdir(name, dir_fd=groups.folder)


class Memory(NamedTuple):
    """What a keeper bounds memory with: control groups, or else the host's /proc; and what each process copies."""

    groups: Groups | None
    proc: int | None
    own: int


def find_memory(use_groups: bool) -> Memory:
    """Return what there is here, while the host's files are in sight."""
    groups = find_groups() if use_groups else None
    proc = None
    with contextlib.suppress(OSError):
        proc = os.open("/proc", os.O_RDONLY | os.O_DIRECTORY)
    return Memory(groups, proc, own_pages())


class Watch(NamedTuple):
    """Adds up what processes take, through the /proc of the host: a descriptor of it, and the keeper's id there."""

    proc: int
    keeper: int

    def taken(self) -> dict[int, int]:
        """Return the bytes of their own that the processes of each session take, by its first process's id.

        The id is the one in the keeper's process namespace. Pages that a parent and its children share count for each.
        """
        sums: dict[int, int] = {}
        names: dict[int, int] = {}
        for pid in self._below(self.keeper):
            with contextlib.suppress(OSError, IndexError, ValueError):  # it has ended
                session = int(_read(f"{pid}/stat", self.proc).rpartition(")")[2].split()[3])
                resident, shared = map(int, _read(f"{pid}/statm", self.proc).split()[1:3])
                sums[session] = sums.get(session, 0) + (resident - shared) * os.sysconf("SC_PAGE_SIZE")
                if pid == session:
                    ids = next(line for line in _read(f"{pid}/status", self.proc).splitlines() if "NSpid:" in line)
                    names[session] = int(ids.split()[-1])
        return {names[session]: total for session, total in sums.items() if session in names}

    def _below(self, pid: int) -> Iterator[int]:
        with contextlib.suppress(OSError):
            for thread in _list(f"{pid}/task", self.proc):
                for child in _read(f"{pid}/task/{thread}/children", self.proc).split():
                    yield int(child)
                    yield from self._below(int(child))


def watch_keeper(memory: Memory) -> Watch | None:
    """Return the watch of the calling process's children, None where groups do it or nothing tells of them."""
    if memory.groups is not None or memory.proc is None:
        return None
    proc = memory.proc
    try:
        watch = Watch(proc, int(os.readlink("self", dir_fd=proc)))
        _read(f"{watch.keeper}/task/{watch.keeper}/children", proc)
    except (OSError, ValueError):
        return None
    return watch


def most_bytes(limits: Mapping[str, Any], own: int) -> int:
    """Return what a session may take: its memory and files, and for each process the interpreter's own pages."""
    return (int(limits["memory_mb"] + limits["file_mb"]) << 20) + int(limits["processes"] + 1) * own + _SLACK


def own_pages() -> int:
    """Return what this process takes of its own in bytes, which each of its children may come to copy."""
    try:
        resident, shared = map(int, _read("/proc/self/statm").split()[1:3])
    except (OSError, ValueError):
        return 64 << 20
    return (resident - shared) * os.sysconf("SC_PAGE_SIZE")


def _read(path: str, folder: int | None = None) -> str:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC, dir_fd=folder)
    with open(descriptor, encoding="utf-8", errors="replace") as file:
        return file.read()


def _list(path: str, folder: int) -> list[str]:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY, dir_fd=folder)
    try:
        return os.listdir(descriptor)
    finally:
        os.close(descriptor)
