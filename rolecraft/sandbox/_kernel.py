"""The Linux calls that the standard library lacks, each as one small function that raises OSError.

Runs inside the fork server: standard library only. Nothing here decides anything; `_confine` does.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import os
import struct
import sys
from collections.abc import Iterator

CLONE_NEWNS, CLONE_NEWUTS, CLONE_NEWIPC = 0x00020000, 0x04000000, 0x08000000
CLONE_NEWUSER, CLONE_NEWPID, CLONE_NEWNET = 0x10000000, 0x20000000, 0x40000000

MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_REMOUNT = 1, 2, 4, 8, 32
MS_BIND, MS_REC, MS_PRIVATE = 4096, 16384, 1 << 18

_NUMBERS = {
    "x86_64": {"capset": 126, "pivot_root": 155, "unshare": 272, "mount": 165, "umount2": 166, "prctl": 157},
    "aarch64": {"capset": 91, "pivot_root": 41, "unshare": 97, "mount": 40, "umount2": 39, "prctl": 167},
}
_LANDLOCK_CREATE, _LANDLOCK_ADD, _LANDLOCK_RESTRICT = 444, 445, 446  # the same everywhere
_MNT_DETACH = 2
_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE, _PR_SET_SECCOMP, _PR_CAPBSET_DROP, _PR_SET_NO_NEW_PRIVS = 1, 4, 22, 24, 38
_PR_GET_SECCOMP, _PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL, _SECCOMP_MODE_FILTER = 21, 47, 4, 2
_CAPABILITY_VERSION = 0x20080522

# Landlock: what may be done to files, by the version that brought it.
_READ_FILE, _READ_DIR = 1 << 2, 1 << 3
_WRITE, _MAKE = 1 << 1, 1 << 7 | 1 << 8  # make a folder, make a file
_REMOVE, _REFER, _TRUNCATE, _DEVICE_CONTROL = 1 << 4 | 1 << 5, 1 << 13, 1 << 14, 1 << 15
_ALL_NET, _ALL_SCOPES = 0b11, 0b11


def known_machine() -> bool:
    """Tell whether this is a Linux machine whose call numbers are known."""
    return sys.platform == "linux" and os.uname().machine in _NUMBERS


def unshare(flags: int) -> None:
    """Leave the namespaces in `flags` for new ones."""
    _call("unshare", flags)


def mount(source: str, target: str, kind: str, flags: int, data: str = "") -> None:
    """Mount `source` of file system `kind` on `target`."""
    _call("mount", os.fsencode(source), os.fsencode(target), kind.encode(), flags, data.encode())


def become_root(folder: str) -> None:
    """Make `folder` the root of the file system and forget the old one."""
    os.chdir(folder)
    _call("pivot_root", b".", b".")
    _call("umount2", b".", _MNT_DETACH)
    os.chdir("/")


def die_with_parent(signal_number: int) -> None:
    """Have this process sent `signal_number` when its parent's thread ends; a change of user undoes it."""
    _prctl(_PR_SET_PDEATHSIG, signal_number)


def hide_from_ptrace() -> None:
    """Keep processes of the same user from tracing this one or reading its memory, and crashes from leaving a core."""
    _prctl(_PR_SET_DUMPABLE, 0)


def bound_capabilities() -> None:
    """Make every capability one that no program started from here on can have; needs CAP_SETPCAP, silent without."""
    with contextlib.suppress(OSError):  # EINVAL past the last one that this kernel has
        for capability in range(64):
            _prctl(_PR_CAPBSET_DROP, capability)


def drop_capabilities() -> None:
    """Give up every capability."""
    with contextlib.suppress(OSError):  # older kernels have no ambient ones
        _prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL)
    _call("capset", struct.pack("=Ii", _CAPABILITY_VERSION, 0), bytes(24))


def forbid_new_privileges() -> None:
    """Make set-user-id files and file capabilities powerless for this process; the filter and Landlock ask for it."""
    _prctl(_PR_SET_NO_NEW_PRIVS, 1)


def has_seccomp() -> bool:
    """Tell whether the kernel has system-call filters."""
    try:
        _prctl(_PR_GET_SECCOMP)
    except OSError:
        return False
    return True


def filter_calls(program: bytes) -> None:
    """Put this process under a filter: an array of `struct sock_filter`."""
    instructions = ctypes.create_string_buffer(program, len(program))
    header = struct.pack("@HP", len(program) // 8, ctypes.addressof(instructions))
    _prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, header)


def landlock_version() -> int:
    """Return the kernel's Landlock version, 0 where there is none."""
    try:
        return _syscall(_LANDLOCK_CREATE, None, 0, 1)
    except OSError:
        return 0


def restrict_files(readable: list[str], listable: list[str], writable: str, removable: bool) -> None:
    """Leave this process reading in `readable`, reading and writing in the folder `writable`, and listing `listable`.

    Files in it can be removed and renamed if `removable`. Where the version has it, TCP, abstract sockets and signals
    to others are denied as well.
    """
    version = landlock_version()
    optional = ((2, _REFER), (3, _TRUNCATE), (5, _DEVICE_CONTROL))
    handled = (1 << 13) - 1 | sum(bit for since, bit in optional if version >= since)
    fields = [handled] + [_ALL_NET] * (version >= 4) + [_ALL_SCOPES] * (version >= 6)
    attributes = struct.pack(f"={len(fields)}Q", *fields)
    rules = _syscall(_LANDLOCK_CREATE, attributes, len(attributes), 0)
    try:
        for path in readable:
            _allow(rules, path, _READ_FILE | (_READ_DIR if os.path.isdir(path) else 0))
        for path in listable:
            _allow(rules, path, _READ_DIR)
        changes = _WRITE | _MAKE | _TRUNCATE | (_REMOVE | _REFER if removable else 0)
        _allow(rules, writable, handled & (_READ_FILE | _READ_DIR | changes))
        _syscall(_LANDLOCK_RESTRICT, rules, 0)
    finally:
        os.close(rules)


def _allow(rules: int, path: str, rights: int) -> None:
    with _path(path) as place:
        _syscall(_LANDLOCK_ADD, rules, 1, struct.pack("=Qi", rights, place), 0)


@contextlib.contextmanager
def _path(path: str) -> Iterator[int]:
    place = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        yield place
    finally:
        os.close(place)


def _prctl(option: int, *arguments: int | bytes) -> None:
    _call("prctl", option, *arguments, *([0] * (4 - len(arguments))))


def _call(name: str, *arguments: int | bytes) -> None:
    try:
        _syscall(_NUMBERS[os.uname().machine][name], *arguments)
    except OSError as error:
        raise OSError(error.errno, f"{name}: {os.strerror(error.errno or 0)}") from error


def _syscall(number: int, *arguments: int | bytes | None) -> int:
    """Return what the kernel answers; raises OSError for a failure."""
    # A bare int would be passed as 32 bits.
    values = [ctypes.c_long(value) if isinstance(value, int) else ctypes.c_char_p(value) for value in arguments]
    answer: int = _libc().syscall(ctypes.c_long(number), *values)
    if answer == -1:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return answer


@functools.cache
def _libc() -> ctypes.CDLL:
    library = ctypes.CDLL(None, use_errno=True)
    library.syscall.restype = ctypes.c_long
    return library
