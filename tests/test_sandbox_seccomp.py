"""The filter: its numbers are the kernel's, and only what is listed passes."""

from __future__ import annotations

import errno
import re
import struct
from pathlib import Path

import pytest

from rolecraft.sandbox import _seccomp

MACHINES = ("x86_64", "aarch64")
ALLOW, REFUSE, ABSENT, KILL = 0x7FFF0000, 0x50000 | errno.EPERM, 0x50000 | errno.ENOSYS, 0x80000000
PRETEND = 0x50000
PID = 4321


def decide(program: bytes, machine: str, number: int, arguments: tuple[int, ...] = ()) -> int:
    """Run the filter as the kernel would, on one call."""
    padded = (*arguments, *[0] * (6 - len(arguments)))
    architecture = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7, "i386": 0x40000003}[machine]
    data = struct.pack("<iIQ6Q", number, architecture, 0, *(value & (1 << 64) - 1 for value in padded))
    instructions = list(struct.iter_unpack("=HBBI", program))
    accumulator = place = 0
    while True:
        code, if_true, if_false, value = instructions[place]
        place += 1
        if code == 0x06:
            return value
        if code == 0x20:
            accumulator = struct.unpack_from("<I", data, value)[0]
        elif code == 0x54:
            accumulator &= value
        else:
            holds = {0x15: accumulator == value, 0x45: bool(accumulator & value)}[code]
            place += if_true if holds else if_false


def numbers(machine: str) -> dict[str, int]:
    column = MACHINES.index(machine)
    return {
        **_seccomp._numbers(_seccomp._ALLOWED, column),
        **_seccomp._numbers(_seccomp._CHECKED, column),
    }


def header(machine: str) -> dict[str, int]:
    """Return the kernel's numbers from this machine's headers."""
    places = {
        "x86_64": ("/usr/include/x86_64-linux-gnu/asm/unistd_64.h", "/usr/include/asm/unistd_64.h"),
        "aarch64": ("/usr/include/asm-generic/unistd.h",),
    }
    path = next((Path(place) for place in places[machine] if Path(place).is_file()), None)
    if path is None:
        pytest.skip(f"the kernel's headers for {machine} are not here")
    found = re.findall(r"#define __NR(?:3264)?_(\w+)\s+(\d+)", path.read_text())
    return {name.replace("fstatat", "newfstatat") if name == "fstatat" else name: int(n) for name, n in found}


@pytest.mark.parametrize("machine", MACHINES)
def test_numbers_are_the_kernels(machine: str):
    ours, theirs = numbers(machine), header(machine)
    assert {name: theirs.get(name) for name in ours} == ours


@pytest.mark.parametrize("machine", MACHINES)
def test_no_number_is_listed_twice(machine: str):
    ours = numbers(machine)
    assert len(set(ours.values())) == len(ours)


@pytest.mark.parametrize("machine", MACHINES)
def test_what_is_not_listed_is_refused(machine: str):
    program = _seccomp.build(machine, PID, 0)
    listed = set(numbers(machine).values())
    verdicts = {decide(program, machine, number) for number in range(-2, 1000) if number not in listed}
    assert verdicts == {REFUSE}


@pytest.mark.parametrize("number", [0, 1, 57, 90, 520, 547])
def test_the_x32_numbering_is_refused(number: int):
    assert decide(_seccomp.build("x86_64", PID, 0), "x86_64", 0x40000000 + number) == REFUSE


@pytest.mark.parametrize("machine", MACHINES)
def test_another_architectures_calls_kill(machine: str):
    assert decide(_seccomp.build(machine, PID, 0), "i386", 1) == KILL


@pytest.mark.parametrize(
    ("name", "arguments", "verdict"),
    [
        ("read", (0, 0, 0), ALLOW),
        ("kill", (PID, 9), ALLOW),
        ("kill", (PID + 1, 9), REFUSE),
        ("kill", (-1, 9), REFUSE),
        ("kill", (0, 9), REFUSE),
        ("kill", (-PID, 9), REFUSE),
        ("tgkill", (PID, 7, 9), ALLOW),
        ("tgkill", (7, PID, 9), REFUSE),
        ("fcntl", (0, 1030), ALLOW),
        ("fcntl", (0, 8), REFUSE),
        ("fcntl", (0, 10), REFUSE),
        ("fcntl", (0, 1024), REFUSE),
        ("fcntl", (0, 1026), REFUSE),
        ("fcntl", (0, 5), ALLOW),
        ("fcntl", (0, 6), PRETEND),
        ("fcntl", (0, 38), PRETEND),
        ("flock", (0, 2), PRETEND),
        ("futex", (1 << 40, 0x80), ALLOW),
        ("futex", (1 << 40, 0x189), ALLOW),
        ("futex", (1 << 40, 0), REFUSE),
        ("futex", (1 << 40, 1), REFUSE),
        ("getpgid", (PID,), ALLOW),
        ("getpgid", (PID + 1,), REFUSE),
        ("clock_gettime", (11,), ALLOW),
        ("clock_gettime", (~PID << 3 | 2,), REFUSE),
        ("preadv2", (0, 1 << 40, 1, 0, 0, 8), REFUSE),
        ("madvise", (1 << 40, 4096, 4), ALLOW),
        ("madvise", (1 << 40, 4096, 12), REFUSE),
        ("ioctl", (0, 0x5401), ALLOW),
        ("ioctl", (0, 0x5412), REFUSE),
        ("ioctl", (0, 0x8901), REFUSE),
        ("prlimit64", (0, 9, 0, 1 << 40), ALLOW),
        ("prlimit64", (0, 9, 1 << 40, 0), REFUSE),
        ("prlimit64", (PID, 9, 0, 1 << 40), REFUSE),
        ("socketpair", (1, 1 | 0o2000000, 0), ALLOW),
        ("socketpair", (1, 2, 0), REFUSE),
        ("socketpair", (2, 1, 0), REFUSE),
        ("sendto", (3, 1 << 40, 1, 0, 0, 0), ALLOW),
        ("sendto", (3, 1 << 40, 1, 0, 1 << 40, 16), REFUSE),
        ("sendto", (3, 1 << 40, 1, 0, 1, 16), REFUSE),
        ("openat", (-100, 1 << 40, 0o1101, 0o666), ALLOW),
        ("openat", (-100, 1 << 40, 0o1000, 0), REFUSE),
        ("openat", (-100, 1 << 40, 0o101, 0o4755), REFUSE),
        ("openat", (-100, 1 << 40, 0o20200002, 0o600), REFUSE),
        ("clone", (17,), REFUSE),
        ("clone3", (), ABSENT),
        ("openat2", (), ABSENT),
    ],
)
@pytest.mark.parametrize("machine", MACHINES)
def test_arguments_decide(machine: str, name: str, arguments: tuple[int, ...], verdict: int):
    assert decide(_seccomp.build(machine, PID, 0), machine, numbers(machine)[name], arguments) == verdict


@pytest.mark.parametrize(
    ("operation", "verdict"), [(0, ALLOW), (0x109, ALLOW), (0x81, ALLOW), (1, REFUSE), (3, REFUSE)]
)
@pytest.mark.parametrize("machine", MACHINES)
def test_threads_may_wait_for_each_others_end(machine: str, operation: int, verdict: int):
    program = _seccomp.build(machine, PID, 4)
    assert decide(program, machine, numbers(machine)["futex"], (1 << 40, operation)) == verdict


@pytest.mark.parametrize(
    ("flags", "verdict"),
    [
        (17, ALLOW),  # fork
        (0x01200011, ALLOW),  # the C library's fork
        (0x003D0F00, ALLOW),  # a thread
        (0x10000011, REFUSE),  # a user namespace
        (0x00020011, REFUSE),  # a mount namespace
        (0x00008011, REFUSE),  # a sibling
        (0x00002011, REFUSE),  # traced along with its parent
        (0x00001011, REFUSE),  # a descriptor of the process
    ],
)
@pytest.mark.parametrize("machine", MACHINES)
def test_children_stay_in_their_place(machine: str, flags: int, verdict: int):
    assert decide(_seccomp.build(machine, PID, 4), machine, numbers(machine)["clone"], (flags,)) == verdict
