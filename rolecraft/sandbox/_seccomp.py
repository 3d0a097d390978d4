"""Builds the system-call filter of a session: what is not listed here answers "operation not permitted".

Runs inside the fork server: standard library only. Not covered: a filter sees numbers, never what a pointer points to,
so paths are Landlock's and the mount namespace's business.
"""

from __future__ import annotations

import errno
import struct

# Triples: name, number on x86_64, number on aarch64 ("-": it has none). Calls here may have any arguments.
_ALLOWED = """
read 0 63 write 1 64 close 3 57 stat 4 - fstat 5 80 lstat 6 - poll 7 - lseek 8 62 mmap 9 222 mprotect 10 226
munmap 11 215 brk 12 214 rt_sigaction 13 134 rt_sigprocmask 14 135 rt_sigreturn 15 139 pread64 17 67 pwrite64 18 68
readv 19 65 writev 20 66 access 21 - pipe 22 - select 23 - sched_yield 24 124 mremap 25 216 msync 26 227 dup 32 23
dup2 33 - pause 34 - nanosleep 35 101 getitimer 36 102 alarm 37 - setitimer 38 103 getpid 39 172 recvfrom 45 207
shutdown 48 210 exit 60 93 wait4 61 260 uname 63 160 fsync 74 82 fdatasync 75 83 ftruncate 77 46 getcwd 79 17
chdir 80 49 fchdir 81 50 rename 82 - mkdir 83 - rmdir 84 - unlink 87 - umask 95 166 gettimeofday 96 169
getrlimit 97 163 getrusage 98 165 sysinfo 99 179 times 100 153 getuid 102 174 getgid 104 176 geteuid 107 175
getegid 108 177 getppid 110 173 getpgrp 111 - getgroups 115 158 getresuid 118 148 getresgid 120 150
rt_sigpending 127 136 rt_sigtimedwait 128 137 rt_sigsuspend 130 133 sigaltstack 131 132 statfs 137 43 fstatfs 138 44
gettid 186 178 time 201 - getdents64 217 61 set_tid_address 218 96 restart_syscall 219 128 exit_group 231 94
epoll_wait 232 - epoll_ctl 233 21 waitid 247 95 mkdirat 258 34 newfstatat 262 79 unlinkat 263 35 renameat 264 38
faccessat 269 48 pselect6 270 72 ppoll 271 73 set_robust_list 273 99 epoll_pwait 281 22 epoll_create1 291 20
dup3 292 24 pipe2 293 59 preadv 295 69 pwritev 296 70 getcpu 309 168 renameat2 316 276 getrandom 318 278 statx 332 291
rseq 334 293 close_range 436 436 faccessat2 439 439
"""

# These depend on their arguments.
_CHECKED = """
open 2 - ioctl 16 29 madvise 28 233 sendto 44 206 socketpair 53 199 clone 56 220 kill 62 129 fcntl 72 25 flock 73 32
getpgid 121 155 getsid 124 156 getpriority 140 141 sched_getparam 143 121 sched_getscheduler 145 120 futex 202 98
sched_getaffinity 204 123 clock_gettime 228 113 clock_getres 229 114 clock_nanosleep 230 115 tgkill 234 131
openat 257 56 prlimit64 302 261 preadv2 327 286 pwritev2 328 287 clone3 435 435 openat2 437 437
"""

_ARCHITECTURES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}

_LOAD, _AND, _EQUAL, _ANY_BIT, _RETURN = 0x20, 0x54, 0x15, 0x45, 0x06
_ALLOW, _KILL = 0x7FFF0000, 0x80000000
_REFUSE = 0x00050000 | errno.EPERM
_ABSENT = 0x00050000 | errno.ENOSYS
_PRETEND = 0x00050000  # answers 0, "done", and does nothing

_FCNTL = (0, 1, 2, 3, 4, 5, 1030)  # duplicate, flags, look for a lock; none that sends a signal or holds a lease
_FCNTL_LOCKS = (6, 7, 37, 38)
_SHARED_WAITS = (0, 9, 0x100, 0x109)  # FUTEX_WAIT, FUTEX_WAIT_BITSET, by either clock
_PRIVATE_FUTEX = 0x80
_OWN_CLOCKS = tuple(range(12))  # other numbers stand for the processor time of some process
_ADVICE = (*range(5), 8, 10, 11, *range(14, 20))  # what concerns this process alone
_IOCTL = (0x5401, 0x541B, 0x5421, 0x5450, 0x5451)  # is it a terminal, bytes waiting, blocking, close-on-exec
_TRUNCATE, _ACCESS_MODE, _NAMELESS, _SPECIAL_MODE_BITS = 0o1000, 0o3, 0o20000000, 0o7000
_UNIX, _STREAM, _STREAM_FLAGS = 1, 1, (0, 0o4000, 0o2000000, 0o2004000)
# What threads and fork() ask for; absent: new namespaces, CLONE_PARENT, CLONE_PTRACE, CLONE_UNTRACED, CLONE_PIDFD.
_CLONE_FLAGS = 0x017D0F00 | 0xFF


def supported(machine: str) -> bool:
    """Tell whether there is a filter for this machine."""
    return machine in _ARCHITECTURES


def build(machine: str, pid: int, processes: int) -> bytes:
    """Return the filter as an array of `struct sock_filter` for a process with id `pid`.

    It may signal itself alone, and has threads and children only if `processes` is not 0.
    """
    column = list(_ARCHITECTURES).index(machine)
    checked = _numbers(_CHECKED, column)
    program = [
        _instruction(_LOAD, 4),
        _instruction(_EQUAL, _ARCHITECTURES[machine], 1, 0),
        _instruction(_RETURN, _KILL),
        _instruction(_LOAD, 0),
    ]
    program += [_case(number, [], _ALLOW) for number in _numbers(_ALLOWED, column).values()]
    for name, (checks, verdict) in _rules(pid, processes).items():
        if name in checked:
            program.append(_case(checked[name], checks, verdict))
    program.append(_instruction(_RETURN, _REFUSE))
    return b"".join(program)


def _rules(pid: int, processes: int) -> dict[str, tuple[list[bytes], int]]:
    open_flags_at = {"open": 1, "openat": 2}
    rules = {
        # Before its third version Landlock lets O_RDONLY|O_TRUNC empty a file that may only be read; a set-user-id bit
        # could be set while creating one; and a file that never had a name escapes the measuring of the folder.
        name: (
            [_no_truncation_by_readers(flags), _no_bits(flags, _NAMELESS), _no_bits(flags + 1, _SPECIAL_MODE_BITS)],
            _ALLOW,
        )
        for name, flags in open_flags_at.items()
    }
    own_process = ([_one_of(0, (0, pid))], _ALLOW)
    own_clock = ([_one_of(0, _OWN_CLOCKS)], _ALLOW)
    no_flags = ([_one_of(5, (0,))], _ALLOW)  # RWF_NOWAIT tells what others have read
    clone = ([_no_bits(0, 0xFFFFFFFF & ~_CLONE_FLAGS)], _ALLOW) if processes else ([], _REFUSE)
    return rules | {
        "ioctl": ([_one_of(1, _IOCTL)], _ALLOW),
        # A lock on a file of the host's could be held against its processes, and seen by every other session.
        "flock": ([], _PRETEND),
        "fcntl": ([_answer_if(1, _FCNTL_LOCKS, _PRETEND), _one_of(1, _FCNTL)], _ALLOW),
        # A futex that is not private is known by its file and place: who maps the same library could wake another.
        "futex": ([_has_bit(1, _PRIVATE_FUTEX, _SHARED_WAITS if processes else ())], _ALLOW),
        "getpgid": own_process,
        "getsid": own_process,
        "sched_getparam": own_process,
        "sched_getscheduler": own_process,
        "sched_getaffinity": own_process,
        "getpriority": ([_one_of(1, (0, pid))], _ALLOW),
        "clock_gettime": own_clock,
        "clock_getres": own_clock,
        "clock_nanosleep": own_clock,
        "preadv2": no_flags,
        "pwritev2": no_flags,
        "madvise": ([_one_of(2, _ADVICE)], _ALLOW),
        "prlimit64": ([_one_of(0, (0,)), _null(2)], _ALLOW),
        "kill": ([_one_of(0, (pid,))], _ALLOW),
        "tgkill": ([_one_of(0, (pid,))], _ALLOW),
        "clone": clone,
        # A pair of streams is what asyncio wakes itself with; without an address nothing leaves the process.
        "socketpair": ([_one_of(0, (_UNIX,)), _one_of(1, tuple(_STREAM | flag for flag in _STREAM_FLAGS))], _ALLOW),
        "sendto": ([_null(4)], _ALLOW),
        # Their flags are behind a pointer; callers fall back on clone and openat.
        "clone3": ([], _ABSENT),
        "openat2": ([], _ABSENT),
    }


def _numbers(table: str, column: int) -> dict[str, int]:
    words = table.split()
    numbers = zip(words[::3], words[1 + column :: 3], strict=True)
    return {name: int(number) for name, number in numbers if number != "-"}


def _instruction(code: int, value: int, if_true: int = 0, if_false: int = 0) -> bytes:
    return struct.pack("=HBBI", code, if_true, if_false, value)


def _case(number: int, checks: list[bytes], verdict: int) -> bytes:
    """Return instructions that decide this call and skip themselves for any other."""
    body = b"".join(checks) + _instruction(_RETURN, verdict)
    return _instruction(_EQUAL, number, 0, len(body) // 8) + body


# A check falls through when it passes and returns the refusal when it does not. Arguments that the kernel reads as int
# are compared in their low half alone, as the kernel does; both machines are little-endian.


def _low(argument: int) -> bytes:
    return _instruction(_LOAD, 16 + 8 * argument)


def _one_of(argument: int, values: tuple[int, ...]) -> bytes:
    jumps = [_instruction(_EQUAL, value, len(values) - i, 0) for i, value in enumerate(values)]
    return _low(argument) + b"".join(jumps) + _instruction(_RETURN, _REFUSE)


def _answer_if(argument: int, values: tuple[int, ...], verdict: int) -> bytes:
    last = len(values) - 1
    jumps = [_instruction(_EQUAL, value, last - i, int(i == last)) for i, value in enumerate(values)]
    return _low(argument) + b"".join(jumps) + _instruction(_RETURN, verdict)


def _has_bit(argument: int, bit: int, exempt: tuple[int, ...]) -> bytes:
    jumps = [_instruction(_EQUAL, value, len(exempt) - i, 0) for i, value in enumerate(exempt)]
    has = _instruction(_ANY_BIT, bit, len(exempt) + 1, 0)
    return _low(argument) + has + b"".join(jumps) + _instruction(_RETURN, _REFUSE)


def _null(argument: int) -> bytes:
    halves = (_low(argument), _instruction(_LOAD, 20 + 8 * argument))
    return b"".join(half + _instruction(_EQUAL, 0, 1, 0) + _instruction(_RETURN, _REFUSE) for half in halves)


def _no_bits(argument: int, mask: int) -> bytes:
    return _low(argument) + _instruction(_ANY_BIT, mask, 0, 1) + _instruction(_RETURN, _REFUSE)


def _no_truncation_by_readers(argument: int) -> bytes:
    return (
        _low(argument)
        + _instruction(_ANY_BIT, _TRUNCATE, 0, 3)
        + _instruction(_AND, _ACCESS_MODE)
        + _instruction(_EQUAL, 0, 0, 1)
        + _instruction(_RETURN, _REFUSE)
    )
