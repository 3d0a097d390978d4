"""Sessions share the host's files and its kernel, and can tell each other nothing by them."""

from __future__ import annotations

import fcntl
import os
import threading
from collections.abc import Iterator

import pytest

from rolecraft.errors import SandboxError
from rolecraft.sandbox import Limits, Session, layers, process

pytestmark = pytest.mark.skipif(not layers()["seccomp"], reason="no system-call filter on this machine")
WITHOUT = {"everything": frozenset[str](), "no mounts": frozenset(("mounts",))}


def open_without(without: frozenset[str], processes: int = 0) -> Session:
    try:
        return process.open_session(Limits(60.0, processes=processes), without=without)
    except SandboxError as error:
        pytest.skip(f"not here: {error}")


@pytest.fixture(params=WITHOUT.values(), ids=WITHOUT)
def pair(request: pytest.FixtureRequest) -> Iterator[tuple[Session, Session]]:
    with open_without(request.param) as one, open_without(request.param) as other:
        yield one, other


LOCK = {
    "flock": "fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)",
    "a record": "fcntl.lockf(file, fcntl.LOCK_SH | fcntl.LOCK_NB)",
    "an open file": "fcntl.fcntl(file, 37, struct.pack('hhqqi', fcntl.F_RDLCK, 0, 0, 0, 0))",
    "a lease": "fcntl.fcntl(file, fcntl.F_SETLEASE, fcntl.F_RDLCK)",
    "a folder's changes": "fcntl.fcntl(os.open(os.path.dirname(os.__file__), 0), fcntl.F_NOTIFY, fcntl.DN_ACCESS)",
}


@pytest.mark.parametrize("kind", LOCK)
def test_a_session_holds_no_lock_on_a_file_of_the_hosts(pair: tuple[Session, Session], kind: str):
    one, _ = pair
    one.run(f"import fcntl, os, struct\nfile = open(os.__file__)\n{LOCK[kind]}")
    with open(os.__file__, "rb+" if os.access(os.__file__, os.W_OK) else "rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if file.writable():
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


@pytest.mark.parametrize(
    "look", ["fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)", "fcntl.fcntl(file, 5, any_lock)[:2]"]
)
def test_a_session_does_not_see_what_another_locks(pair: tuple[Session, Session], look: str):
    seen = []
    for held in (False, True):
        one, other = pair
        if held:
            one.run("import fcntl, os\nfile = open(os.__file__)\nfcntl.flock(file, fcntl.LOCK_SH)")
            one.run("fcntl.lockf(file, fcntl.LOCK_SH)")
        prepare = "import fcntl, os, struct\nfile = open(os.__file__)\nany_lock = struct.pack('hhqqi', 1, 0, 0, 0, 0)\n"
        seen.append(other.run(prepare + look))
    assert seen[0] == seen[1]


@pytest.mark.parametrize(
    ("layers_held", "mode"), [("everything", "delete"), ("everything", "wal"), ("no mounts", "truncate")]
)
def test_locks_of_its_own_files_are_granted(layers_held: str, mode: str):
    steps = [
        f"import sqlite3\nd = sqlite3.connect('a.db')\nd.execute('pragma journal_mode={mode}').fetchone()[0]",
        "with d:\n    d.execute('create table t (x)')\n    d.execute('insert into t values (7)')",
        "sqlite3.connect('a.db').execute('select x from t').fetchone()[0]",
    ]
    with open_without(WITHOUT[layers_held]) as session:
        assert [session.run(step).output for step in steps] == [f"'{mode}'\n", "", "7\n"]


FUTEX = """
import ctypes, mmap, os
libc = ctypes.CDLL(None, use_errno=True)
size = os.path.getsize(os.__file__)
region = mmap.mmap(os.open(os.__file__, 0), size, mmap.{sharing}, mmap.PROT_READ)
class Buffer(ctypes.Structure):
    _fields_ = [('data', ctypes.c_void_p), ('owner', ctypes.py_object), ('rest', ctypes.c_size_t * 12)]
view = Buffer()
ctypes.pythonapi.PyObject_GetBuffer(ctypes.py_object(region), ctypes.byref(view), 0)
word = ctypes.c_uint.from_address(view.data).value
number = 202 if os.uname().machine == 'x86_64' else 98
def futex(operation, value, wait=None):
    place, operation, value = ctypes.c_void_p(view.data), ctypes.c_int(operation), ctypes.c_uint(value)
    return libc.syscall(ctypes.c_long(number), place, operation, value, wait, None, 0)
"""
WAKE = """
import time
woken = 0
for _ in range(100):
    woken += max(0, futex(1, 1))
    time.sleep(0.01)
woken
"""


@pytest.mark.parametrize("sharing", ["MAP_SHARED", "MAP_PRIVATE"])
@pytest.mark.parametrize("processes", [0, 2])
@pytest.mark.parametrize("without", WITHOUT.values(), ids=WITHOUT)
def test_a_session_wakes_nobody_through_a_file_that_both_map(without: frozenset[str], processes: int, sharing: str):
    with open_without(without, processes) as one, open_without(without, processes) as other:
        for session in (one, other):
            assert session.run(FUTEX.format(sharing=sharing)).error is None
        wait = "(ctypes.c_long * 2)(3, 0)\nfutex(0, word, ctypes.byref(seconds))"
        waiter = threading.Thread(target=one.run, args=(f"seconds = {wait}",))
        waiter.start()
        woken = other.run(WAKE)
        waiter.join()
    assert woken.output == "0\n"


@pytest.mark.parametrize(
    "look",
    [
        "os.getpgid({pid})",
        "os.getsid({pid})",
        "os.sched_getscheduler({pid})",
        "os.sched_getparam({pid})",
        "os.sched_getaffinity({pid})",
        "os.getpriority(os.PRIO_PROCESS, {pid})",
        "time.clock_gettime(~{pid} << 3 | 2)",
        "time.clock_getres(~{pid} << 3 | 2)",
        "os.kill({pid}, 0)",
    ],
)
def test_a_session_cannot_tell_whether_another_runs(pair: tuple[Session, Session], look: str):
    one, other = pair
    pid = int(one.run("import os\nos.getpid()").output)
    found = {other.run(f"import os, time\n{look.format(pid=number)}").error for number in (pid, 4_000_000)}
    assert found == {"PermissionError: [Errno 1] Operation not permitted (line 2)"}


@pytest.mark.parametrize(
    "look",
    [
        "os.getpgid(0) > 0 and os.getsid(os.getpid()) > 0",
        "len(os.sched_getaffinity(0)) > 0",
        "os.getpriority(os.PRIO_PROCESS, 0) >= 0",
        "time.process_time() > 0 and time.thread_time() > 0 and time.clock_getres(time.CLOCK_MONOTONIC) > 0",
    ],
)
def test_a_session_may_look_at_itself(pair: tuple[Session, Session], look: str):
    assert pair[0].run(f"import os, time\n{look}").output == "True\n"


def test_a_session_cannot_watch_the_folder_of_another():
    with open_without(WITHOUT["no mounts"]) as one, open_without(WITHOUT["no mounts"]) as other:
        folders = [session.run("import os\nprint(os.getcwd())").output.strip() for session in (one, other)]
        parents = {os.path.dirname(folder) for folder in folders}
        names = [os.path.basename(folder) for folder in folders]
        assert len(parents) == 1
        assert all(len(name) == 32 for name in names)
        assert str(one.run(f"os.listdir({parents.pop()!r})").error).startswith("PermissionError")


WAITING = """
import threading
lock, flag = threading.Lock(), threading.Event()
lock.acquire(timeout=0.01), lock.acquire(timeout=0.01)
"""
JOINED = """
import concurrent.futures
thread = threading.Thread(target=flag.set)
thread.start()
with concurrent.futures.ThreadPoolExecutor(2) as threads:
    print(list(threads.map(abs, [-1, -2])), flag.wait(20), thread.join())
"""


def test_threads_wait_for_each_other_where_they_are_allowed():
    with open_without(WITHOUT["everything"]) as alone, open_without(WITHOUT["everything"], processes=3) as several:
        assert alone.run(WAITING).output == several.run(WAITING).output == "(True, False)\n"
        assert several.run(JOINED).output == "[1, 2] True None\n"
