"""Takes rights away from a process, layer by layer: namespaces once for the server, everything else for each session.

Runs inside the fork server: standard library only. A layer that was planned and cannot be had is an OSError; which
plan is tried instead is `process`'s business.
"""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import sys
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from rolecraft.sandbox import _kernel, _seccomp

SCRATCH = "/scratch"  # where a session's folder is when it has a file system of its own
_FIRST_USER, _USERS = 0x6A000000, 60_000  # user ids that no machine gives to people, one per session
_NOBODY = 65_534
_SCRATCH_FILES = 1024
_OPEN_FILES = 64
_CPU_STEPS = 100  # a session may use this many times the seconds of one step
_SYSTEM_LIBRARIES = ("/lib/", "/lib64/", "/usr/lib/", "/usr/lib64/")
_PACKAGES = ("site-packages", "dist-packages")  # may lie inside the standard library's folder
_READ_ONLY = _kernel.MS_REMOUNT | _kernel.MS_BIND | _kernel.MS_RDONLY | _kernel.MS_NOSUID | _kernel.MS_NODEV


class Plan(NamedTuple):
    """Which layers to apply. `namespaces`: `user` (with a user namespace), `plain` (needs root), `none`.

    With `switch_user` each session becomes one of `users` users from `first_user` on.
    """

    namespaces: str
    switch_user: bool
    landlock: bool
    seccomp: bool
    started_by_root: bool
    first_user: int
    users: int
    cgroup: bool = False

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
            "cgroup": self.cgroup,
            "unprivileged": self.switch_user or not self.started_by_root,
        }


class Place(NamedTuple):
    """What a session may touch: paths to read, folders to list, its own folder; and the interpreter's size in bytes."""

    readable: list[str]
    listable: list[str]
    scratch: str
    size: int


def spare_users() -> tuple[int, int]:
    """Return the first of some user ids that nobody has, and how many; fewer inside a container that has few itself."""
    for first, count in ((_FIRST_USER, _USERS), (_NOBODY, 1)):
        if _mapped("/proc/self/uid_map", first) and _mapped("/proc/self/gid_map", first):
            return first, count
    return 0, 0


def _mapped(path: str, number: int) -> bool:
    try:
        with open(path, encoding="ascii") as lines:
            ranges = [[int(field) for field in line.split()] for line in lines]
    except OSError:  # no user namespaces: nothing is hidden
        return True
    return any(inside <= number < inside + count for inside, _, count in ranges)


def enter_namespaces(plan: Plan, readable: list[str]) -> None:
    """Move this process to namespaces of its own, with a file system of `readable` and nothing else.

    Its children are in a new process namespace. Raises OSError where the kernel or the container says no.
    """
    flags = _kernel.CLONE_NEWNS | _kernel.CLONE_NEWNET | _kernel.CLONE_NEWIPC | _kernel.CLONE_NEWUTS
    flags |= _kernel.CLONE_NEWPID
    if plan.namespaces == "user":
        with _mapping_users(plan):
            _kernel.unshare(flags | _kernel.CLONE_NEWUSER)
    else:
        _kernel.unshare(flags)
    with contextlib.suppress(OSError), open("/proc/sys/kernel/hostname", "w", encoding="ascii") as name:
        name.write("sandbox")
    _build_root(readable)


@contextlib.contextmanager
def _mapping_users(plan: Plan) -> Iterator[None]:
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
            _write_mappings(f"/proc/{target}", uid, gid, plan)
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


def _write_mappings(process: str, uid: int, gid: int, plan: Plan) -> None:
    if not plan.switch_user:
        _write(f"{process}/setgroups", "deny")
    spare = f"\n1 {plan.first_user} {plan.users}" if plan.switch_user else ""
    _write(f"{process}/uid_map", f"0 {uid} 1{spare}")
    _write(f"{process}/gid_map", f"0 {gid} 1{spare}")


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
    covers = []
    for path, source in sources.items():  # sorted: a folder comes before what is inside it
        _bind(f"/proc/self/fd/{source}", root + path)
        os.close(source)
        if path == _library():
            covers = _hide_packages(root, path)
    for cover in covers:
        _kernel.mount("none", cover, "none", _READ_ONLY)
    os.mkdir(root + SCRATCH)
    _kernel.become_root(root)
    _kernel.mount("none", "/", "none", _READ_ONLY)


def _hide_packages(root: str, library: str) -> list[str]:
    """Cover the packages installed in the standard library's folder; return the covers, still writable."""
    hidden = [f"{root}{library}/{name}" for name in _PACKAGES]
    covers = [folder for folder in hidden if os.path.isdir(folder)]
    for cover in covers:
        _kernel.mount("tmpfs", cover, "tmpfs", _kernel.MS_NOSUID | _kernel.MS_NODEV, "size=1m,nr_inodes=1024,mode=755")
    return covers


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
    _kernel.mount("none", target, "none", _READ_ONLY | _mount_flags(kept))


def _mount_flags(flags: int) -> int:
    """Return `statvfs` flags as mount flags: they differ in one of the four."""
    relative = 1 << 21 if flags & os.ST_RELATIME else 0
    return (flags & ~os.ST_RELATIME) | relative


def confine(plan: Plan, place: Place, limits: Mapping[str, Any], number: int) -> None:
    """Make this fresh child session `number`: its own scratch folder, user, limits, files and calls.

    Nothing can be undone by the process afterwards. Raises OSError when a planned layer cannot be had.
    """
    if plan.namespaces != "none":
        _own_scratch(plan, limits["file_mb"], number)
    os.chdir(place.scratch)
    os.umask(0o077)
    if limits["processes"] and plan.namespaces == "user" and not plan.switch_user:
        _kernel.unshare(_kernel.CLONE_NEWUSER)  # processes are counted per user and user namespace
    _limit(limits, place.size)
    if _kernel.known_machine():
        _kernel.bound_capabilities()  # before a change of user takes the right to
    if plan.switch_user:
        owner = _owner(plan, number)
        os.setgroups([])
        os.setresgid(owner, owner, owner)
        os.setresuid(owner, owner, owner)
    if _kernel.known_machine():
        _kernel.drop_capabilities()
        _kernel.hide_from_ptrace()
        _kernel.die_with_parent(signal.SIGKILL)
        _kernel.forbid_new_privileges()
    if plan.landlock:
        # On the host's disk a file that is removed but still mapped would escape the measuring of the folder.
        removable = plan.namespaces != "none"
        _kernel.restrict_files(place.readable, place.listable, place.scratch, removable=removable)
    if plan.seccomp:
        _kernel.filter_calls(_seccomp.build(os.uname().machine, os.getpid(), limits["processes"]))


def _own_scratch(plan: Plan, file_mb: int, number: int) -> None:
    _kernel.unshare(_kernel.CLONE_NEWNS)
    owner = _owner(plan, number)
    options = f"size={file_mb}m,nr_inodes={_SCRATCH_FILES},mode=700,uid={owner},gid={owner}"
    flags = _kernel.MS_NOSUID | _kernel.MS_NODEV | _kernel.MS_NOEXEC
    _kernel.mount("tmpfs", SCRATCH, "tmpfs", flags, options)


def _owner(plan: Plan, number: int) -> int:
    """Return the user id of session `number`, as this process sees it."""
    if not plan.switch_user:
        return os.getuid()
    return number % plan.users + (1 if plan.namespaces == "user" else plan.first_user)


def make_scratch(plan: Plan, folder: str, number: int) -> str:
    """Make the scratch folder of session `number` inside `folder`, for a plan without a file system of its own."""
    # A name that no other session can guess: without a mount namespace it could watch the folder's size and times.
    path = os.path.join(folder, os.urandom(16).hex())
    os.mkdir(path, 0o700)
    if plan.switch_user:
        owner = _owner(plan, number)
        os.chown(path, owner, owner)
    return path


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
    if sys.platform == "linux":
        wanted |= {resource.RLIMIT_SIGPENDING: _OPEN_FILES, resource.RLIMIT_MSGQUEUE: 0}
    for kind, most in wanted.items():
        hard = resource.getrlimit(kind)[1]
        bound = most if hard == resource.RLIM_INFINITY else min(most, hard)
        try:
            resource.setrlimit(kind, (bound, bound))
        except (OSError, ValueError):
            if sys.platform == "linux":
                raise  # other systems have names for limits that they do not keep


def readable_paths(modules: list[str]) -> list[str]:
    """Return what the interpreter reads: the standard library, shared libraries, the folders of `modules`."""
    paths = {_library(), *modules}
    with open("/proc/self/maps", encoding="utf-8", errors="surrogateescape") as maps:
        mapped = {line.split(maxsplit=5)[5].strip() for line in maps if line.count(" ") >= 5 and "/" in line}
    for path in sorted(mapped):
        if ".so" in os.path.basename(path):
            folder = os.path.dirname(path)
            paths.add(folder if f"{folder}/".startswith(_SYSTEM_LIBRARIES) else path)
    return sorted(path for path in paths if os.path.exists(path) and not _is_inside(path, paths))


def _is_inside(path: str, others: Iterable[str]) -> bool:
    """Tell whether one of `others` already shows `path`; the library's folder, whose packages are hidden, stays."""
    library = _library()
    hidden = path.startswith(tuple(f"{library}/{name}/" for name in _PACKAGES))
    shown = (other for other in others if not (hidden and f"{library}/".startswith(f"{other}/")))
    return path != library and any(path.startswith(f"{other}/") for other in shown)


def without_packages(readable: list[str]) -> tuple[list[str], list[str]]:
    """Return `readable` with the standard library's folder replaced by what is in it, less the installed packages.

    The second list is that folder, which importing must list. Only needed where nothing covers the packages.
    """
    library = _library()
    parts = [f"{library}/{name}" for name in os.listdir(library) if name not in _PACKAGES]
    return [path for path in readable if path != library] + parts, [library]


def _library() -> str:
    return os.path.dirname(os.__file__)


def own_size() -> int:
    """Return the address space of this process in bytes, 0 where it cannot be read."""
    try:
        with open("/proc/self/statm", encoding="ascii") as statm:
            return int(statm.read().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0
