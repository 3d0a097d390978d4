"""Takes rights away from a process, layer by layer: namespaces once for the server, everything else for each session.

Runs inside the fork server: standard library only. A layer that was planned and cannot be had is an OSError; which
plan is tried instead is `process`'s business.
"""

from __future__ import annotations

import contextlib
import os
import resource
import signal
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from rolecraft.sandbox import _kernel, _seccomp

SCRATCH = "/scratch"  # where a session's folder is when it has a file system of its own
_FIRST_USER, _USERS = 0x6A000000, 60_000  # user ids that no machine gives to people, one per session
_NOBODY = 65_534
_SCRATCH_FILES = 1024
_OPEN_FILES = 64
_CPU_STEPS = 100  # a session may use this many times the seconds of one step
_SYSTEM_LIBRARIES = ("/lib", "/usr/lib")


class Plan(NamedTuple):
    """Which layers to apply. `namespaces`: `user` (with a user namespace), `plain` (needs root), `none`."""

    namespaces: str
    switch_user: bool
    landlock: bool
    seccomp: bool
    started_by_root: bool

    def layers(self) -> dict[str, bool]:
        """Return the layers by the names that users are shown."""
        spaces = self.namespaces != "none"
        return {
            "userns": self.namespaces == "user",
            "mounts": spaces,
            "network": spaces,
            "pids": spaces,
            "landlock": self.landlock,
            "seccomp": self.seccomp,
            "rlimits": True,
            "unprivileged": self.switch_user or not self.started_by_root,
        }


class Place(NamedTuple):
    """What a session may touch: readable paths, the folder of its own, and the interpreter's own size in bytes."""

    readable: list[str]
    scratch: str
    size: int


def enter_namespaces(plan: Plan, readable: list[str]) -> None:
    """Move this process to namespaces of its own, with a file system of `readable` and nothing else.

    Its children are in a new process namespace. Raises OSError where the kernel or the container says no.
    """
    flags = _kernel.CLONE_NEWNS | _kernel.CLONE_NEWNET | _kernel.CLONE_NEWIPC | _kernel.CLONE_NEWUTS
    flags |= _kernel.CLONE_NEWPID
    if plan.namespaces == "user":
        with _mapping_users(plan.switch_user):
            _kernel.unshare(flags | _kernel.CLONE_NEWUSER)
    else:
        _kernel.unshare(flags)
    with contextlib.suppress(OSError), open("/proc/sys/kernel/hostname", "w", encoding="ascii") as name:
        name.write("sandbox")
    _build_root(readable)


@contextlib.contextmanager
def _mapping_users(switch_user: bool) -> Iterator[None]:
    """Have a helper outside write the user mappings of this process once the block has unshared.

    Root's helper maps root and a range of unused ids; anybody else's can map nothing but themselves, to root.
    """
    target, uid, gid = os.getpid(), os.getuid(), os.getgid()
    go, gone = os.pipe()
    helper = os.fork()
    if helper == 0:
        os.close(gone)
        os.read(go, 1)
        try:
            _write_mappings(f"/proc/{target}", uid, gid, switch_user)
        except OSError as error:
            os._exit(error.errno or 1)
        os._exit(0)
    os.close(go)
    try:
        yield
        os.write(gone, b"1")
    finally:
        os.close(gone)
        status = os.waitstatus_to_exitcode(os.waitpid(helper, 0)[1])
    if status:
        raise OSError(status, f"uid_map: {os.strerror(status)}")


def _write_mappings(process: str, uid: int, gid: int, switch_user: bool) -> None:
    if not switch_user:
        _write(f"{process}/setgroups", "deny")
        _write(f"{process}/uid_map", f"0 {uid} 1")
        _write(f"{process}/gid_map", f"0 {gid} 1")
        return
    try:
        _write(f"{process}/uid_map", f"0 {uid} 1\n1 {_FIRST_USER} {_USERS}")
        _write(f"{process}/gid_map", f"0 {gid} 1\n1 {_FIRST_USER} {_USERS}")
    except PermissionError:  # inside a container that has few users itself
        _write(f"{process}/uid_map", f"0 {uid} 1\n1 {_NOBODY} 1")
        _write(f"{process}/gid_map", f"0 {gid} 1\n1 {_NOBODY} 1")


def _write(path: str, text: str) -> None:
    descriptor = os.open(path, os.O_WRONLY)
    try:
        os.write(descriptor, text.encode())
    finally:
        os.close(descriptor)


def _build_root(readable: list[str]) -> None:
    _kernel.mount("none", "/", "none", _kernel.MS_REC | _kernel.MS_PRIVATE)
    sources = {path: os.open(path, os.O_PATH | os.O_CLOEXEC) for path in readable}
    root = next((path for path in ("/tmp", "/var/tmp", "/mnt", "/dev/shm") if os.path.isdir(path)), "/")
    _kernel.mount("tmpfs", root, "tmpfs", _kernel.MS_NOSUID | _kernel.MS_NODEV, "size=1m,nr_inodes=1024,mode=755")
    os.umask(0o022)
    for path, source in sources.items():
        _bind(f"/proc/self/fd/{source}", root + path)
        os.close(source)
    os.mkdir(root + SCRATCH)
    _kernel.become_root(root)
    _kernel.mount("none", "/", "none", _kernel.MS_REMOUNT | _kernel.MS_BIND | _kernel.MS_RDONLY | _kernel.MS_NOSUID)


def _bind(source: str, target: str) -> None:
    """Show `source` at `target`, read-only."""
    if os.path.isdir(source):
        os.makedirs(target, exist_ok=True)
    else:
        os.makedirs(os.path.dirname(target), exist_ok=True)
        os.close(os.open(target, os.O_CREAT | os.O_WRONLY, 0o644))
    _kernel.mount(source, target, "none", _kernel.MS_BIND | _kernel.MS_REC)
    # A mount's restrictions are locked in a user namespace: they must be repeated.
    kept = os.statvfs(target).f_flag & (os.ST_NOEXEC | os.ST_NOATIME | os.ST_NODIRATIME | os.ST_RELATIME)
    hardened = _kernel.MS_RDONLY | _kernel.MS_NOSUID | _kernel.MS_NODEV
    _kernel.mount("none", target, "none", _kernel.MS_REMOUNT | _kernel.MS_BIND | hardened | _mount_flags(kept))


def _mount_flags(flags: int) -> int:
    """Return `statvfs` flags as mount flags: they differ in one of the four."""
    relative = 1 << 21 if flags & os.ST_RELATIME else 0
    return (flags & ~os.ST_RELATIME) | relative


def confine(plan: Plan, place: Place, limits: Mapping[str, Any], number: int) -> None:
    """Make this fresh child session `number`: its own scratch folder, user, limits, files and calls.

    Nothing can be undone by the process afterwards. Raises OSError when a planned layer cannot be had.
    """
    user = number % _USERS
    if plan.namespaces != "none":
        _own_scratch(plan, limits["file_mb"], user)
    os.chdir(place.scratch)
    os.umask(0o077)
    if limits["processes"] and plan.namespaces == "user" and not plan.switch_user:
        _kernel.unshare(_kernel.CLONE_NEWUSER)  # processes are counted per user and user namespace
    _limit(limits, place.size)
    if plan.switch_user:
        os.setgroups([])
        _switch_user(plan, user)
    if _kernel.known_machine():
        _kernel.drop_capabilities()
        _kernel.hide_from_ptrace()
        _kernel.die_with_parent(signal.SIGKILL)
        _kernel.forbid_new_privileges()
    if plan.landlock:
        # On the host's disk a file that is removed but still mapped would escape the measuring of the folder.
        _kernel.restrict_files(place.readable, place.scratch, removable=plan.namespaces != "none")
    if plan.seccomp:
        _kernel.filter_calls(_seccomp.build(os.uname().machine, os.getpid(), limits["processes"]))


def _own_scratch(plan: Plan, file_mb: int, user: int) -> None:
    _kernel.unshare(_kernel.CLONE_NEWNS)
    owner = f",uid={_owner(plan, user)},gid={_owner(plan, user)}" if plan.switch_user else ""
    flags = _kernel.MS_NOSUID | _kernel.MS_NODEV | _kernel.MS_NOEXEC
    size = f"size={file_mb}m,nr_inodes={_SCRATCH_FILES},mode=700"
    try:
        _kernel.mount("tmpfs", SCRATCH, "tmpfs", flags, size + owner)
    except OSError:  # few users are mapped here
        _kernel.mount("tmpfs", SCRATCH, "tmpfs", flags, size + (",uid=1,gid=1" if owner else ""))


def _owner(plan: Plan, user: int) -> int:
    return user + (1 if plan.namespaces == "user" else _FIRST_USER)


def make_scratch(plan: Plan, folder: str, number: int) -> str:
    """Make the scratch folder of session `number` inside `folder`, for a plan without a file system of its own."""
    path = os.path.join(folder, str(number))
    os.mkdir(path, 0o700)
    if plan.switch_user:
        owner = _owner(plan, number % _USERS)
        os.chown(path, owner, owner)
    return path


def _switch_user(plan: Plan, user: int) -> None:
    few = 1 if plan.namespaces == "user" else _NOBODY
    for candidate in (_owner(plan, user), few):
        try:
            os.setresgid(candidate, candidate, candidate)
            os.setresuid(candidate, candidate, candidate)
        except OSError:
            if candidate == few:
                raise
            continue
        return


def _limit(limits: Mapping[str, Any], size: int) -> None:
    file_bytes = limits["file_mb"] << 20
    wanted = {
        resource.RLIMIT_CPU: int(limits["seconds"] * _CPU_STEPS) + 1,
        resource.RLIMIT_AS: size + (limits["memory_mb"] << 20),
        resource.RLIMIT_FSIZE: file_bytes,
        resource.RLIMIT_NOFILE: _OPEN_FILES,
        resource.RLIMIT_NPROC: limits["processes"] + 1,
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_MEMLOCK: 0,
    }
    for kind, most in wanted.items():
        hard = resource.getrlimit(kind)[1]
        bound = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(kind, (bound, bound))


def readable_paths(modules: list[str]) -> list[str]:
    """Return what the interpreter reads: the standard library, shared libraries, the folders of `modules`."""
    library = os.path.dirname(os.__file__)
    paths = {library, *modules}
    with open("/proc/self/maps", encoding="utf-8", errors="surrogateescape") as maps:
        mapped = {line.split(maxsplit=5)[5].strip() for line in maps if line.count(" ") >= 5 and "/" in line}
    for path in sorted(mapped):
        if ".so" not in os.path.basename(path) or any(path.startswith(known + "/") for known in paths):
            continue
        folder = os.path.dirname(path)
        paths.add(folder if folder.startswith(_SYSTEM_LIBRARIES) else path)
    return sorted(path for path in paths if os.path.exists(path))


def own_size() -> int:
    """Return the address space of this process in bytes, 0 where it cannot be read."""
    try:
        with open("/proc/self/statm", encoding="ascii") as statm:
            return int(statm.read().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0
