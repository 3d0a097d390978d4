"""Sessions: what they keep, how they end, and that nothing of them stays behind."""

from __future__ import annotations

import contextlib
import gc
import importlib.util
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from rolecraft.errors import SandboxError
from rolecraft.sandbox import Limits, Outcome, layers, open_session, process
from rolecraft.sandbox._pool import pool

ROOT = Path(__file__).parents[1]
PATIENT = Limits(seconds=60.0)

pytestmark = pytest.mark.skipif(not layers()["seccomp"], reason="no system-call filter on this machine")


@pytest.fixture
def session() -> Iterator[process.ProcessSession]:
    with process.open_session(PATIENT) as opened:
        yield opened


def children(pid: int) -> set[int]:
    """Return the ids of a process's children, their children and so on."""
    found: set[int] = set()
    for listed in Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(OSError):
            for child in map(int, listed.read_text().split()):
                found |= {child, *children(child)}
    return found


def wait_until(condition, seconds: float = 20.0) -> bool:
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.02)
    return condition()


def is_running(pid: int) -> bool:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    return False


# steps


def test_variables_stay_between_steps(session):
    assert session.run("a = 6\ndef double(x):\n    return 2 * x") == Outcome("", None)
    assert session.run("double(a)") == Outcome("12\n", None)


@pytest.mark.parametrize(
    ("code", "printed"),
    [
        ("1 + 1", "2\n"),
        ("None", ""),
        ("x = 5", ""),
        ("x = 5; x", "5\n"),
        ("'text'", "'text'\n"),
        ("print('a'); 'b'", "a\n'b'\n"),
        ("for i in range(2): print(i)", "0\n1\n"),
        ("", ""),
        ("# nothing", ""),
        ("'é→😀'", "'é→😀'\n"),
        ("import sys; print('err', file=sys.stderr); print('out')", "err\nout\n"),
        ("import os; os.system; os.write(1, b'raw') and None", "raw"),
        ("__name__", "'__main__'\n"),
        ("40 + 2\n_ + 1", "43\n"),
    ],
)
def test_the_last_value_is_printed_like_a_prompt_does(session, code: str, printed: str):
    session.run("_ = 42")
    assert session.run(code) == Outcome(printed, None)


@pytest.mark.parametrize(
    ("code", "error"),
    [
        ("1 / 0", "ZeroDivisionError: division by zero (line 1)"),
        ("x = 1\ny = z", "NameError: name 'z' is not defined (line 2)"),
        ("x = (", "SyntaxError: '(' was never closed (line 1)"),
        ("a\n\n  b", "IndentationError: unexpected indent (line 3)"),
        ("def f():\n    raise KeyError('k')\n\nf()", "KeyError: 'k' (line 2)"),
        ("raise ValueError", "ValueError (line 1)"),
        ("raise ValueError('two\\nlines')", "ValueError: two lines (line 1)"),
        ("import numpy_is_not_here", "ModuleNotFoundError: No module named 'numpy_is_not_here' (line 1)"),
        ("import json\njson.loads('{')", "JSONDecodeError: Expecting property name enclosed in double quotes"),
        ("exit(3)", "SystemExit: 3 (line 1)"),
        ("raise SystemExit(3)", "SystemExit: 3 (line 1)"),
        ("'\\0'.encode('x' * 3)", "LookupError: unknown encoding: xxx (line 1)"),
    ],
)
def test_an_error_is_one_line_with_its_place(session, code: str, error: str):
    outcome = session.run(code)
    assert outcome.error is not None
    assert outcome.error.startswith(error)
    assert "\n" not in outcome.error
    assert not outcome.lost


def test_an_error_in_an_earlier_steps_function_names_that_step(session):
    session.run("def f():\n    return 1 / 0")
    assert session.run("f()").error == "ZeroDivisionError: division by zero (step 1, line 2)"


def test_variables_survive_an_error(session):
    assert session.run("a = 1\nb = undefined").error is not None
    assert session.run("a") == Outcome("1\n", None)


def test_leaving_in_peace_is_no_error(session):
    assert session.run("print('done')\nimport sys\nsys.exit()") == Outcome("done\n", None)
    assert session.run("quit()") == Outcome("", None)


@pytest.mark.parametrize(
    "code",
    [
        "import asyncio\nasync def f():\n    await asyncio.sleep(0.001)\n    return 3\nasyncio.run(f())",
        "import sqlite3\nsqlite3.connect(':memory:').execute('select 3').fetchone()[0]",
        "open('f', 'w').write('abc')",
        "import os\nos.makedirs('a/b')\nlen(list(os.walk('.'))) and 3",
        "import tempfile\nlen(tempfile.mkdtemp(dir='.')) and 3",
        "import hashlib, zlib, decimal, fractions, statistics, random, heapq, string, csv, uuid\n3",
        "import datetime, time\ntime.sleep(0.001)\n3",
        "from dataclasses import dataclass\n@dataclass\nclass P:\n    x: int\nP(3).x",
        "import pickle\nclass C: pass\nisinstance(pickle.loads(pickle.dumps(C())), C) and 3",
        "from signal import *\nsignal(SIGALRM, lambda *_: None)\nsetitimer(ITIMER_REAL, 0.01)\npause()\n3",
        "import os\nlen(os.urandom(3))",
        "import sys\nsys.stdout.close()\n",
    ],
)
def test_ordinary_code_works(session, code: str):
    assert session.run(code).error is None
    assert session.run("1 + 2").output == "3\n"


def test_a_module_of_its_own_can_be_imported(session):
    session.run("with open('mine.py', 'w') as file: file.write('x = 3')")
    assert session.run("import mine\nmine.x") == Outcome("3\n", None)


# bounds


def test_output_is_cut_and_said_to_be():
    with open_session(Limits(60.0, output_bytes=10)) as session:
        assert session.run("print('a' * 9)") == Outcome("aaaaaaaaa\n", None)
        assert session.run("print('b' * 1_000_000)") == Outcome("b" * 10, None, truncated=True)
        assert session.run("'c'") == Outcome("'c'\n", None)


def test_a_step_that_takes_too_long_is_stopped_and_keeps_what_it_printed():
    with open_session(Limits(60.0)) as session:
        session.run("a = 1")
    with open_session(Limits(1.0)) as session:
        outcome = session.run("print('begun')\nwhile True: pass")
    error = "timed out after 1 s; the session starts anew, its variables are lost"
    assert outcome == Outcome("begun\n", error, timed_out=True, lost=True)


def test_a_session_that_ended_starts_anew(session):
    session.run("a = 1\nopen('f', 'w').close()")
    outcome = session.run("import os\nprint('bye')\nos._exit(3)")
    error = "the process ended (exit status 3); the session starts anew, its variables are lost"
    assert outcome == Outcome("bye\n", error, lost=True)
    assert session.run("a").error == "NameError: name 'a' is not defined (line 1)"
    assert session.run("import os\nos.listdir()") == Outcome("[]\n", None)


def test_code_beyond_all_measure_is_not_run(session):
    assert session.run("a = 1\n" + "#" * 999_990 + "\na") == Outcome("1\n", None)
    assert session.run("#" * 1_000_001).error == "the code is 1000001 bytes long; at most 1000000 are run"


def test_code_that_is_no_text_does_not_stop_the_parent(session):
    assert session.run("'\ud800'") == Outcome("'?'\n", None)
    assert session.run("a\0b").error is not None
    assert session.run("1") == Outcome("1\n", None)


def test_a_session_does_nothing_between_steps(session):
    session.run(
        "import signal, time\ncount = 0\ndef tick(*_):\n    global count\n    count += 1\n"
        "signal.signal(signal.SIGALRM, tick)\nsignal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)"
    )
    before = int(session.run("signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)\ncount").output.split()[-1])
    time.sleep(0.5)
    assert int(session.run("count").output) - before < 100


def test_processes_are_counted():
    if not layers()["pids"]:
        pytest.skip("no process namespace on this machine")
    with open_session(Limits(60.0, processes=3)) as session:
        several = (
            "import threading\nt = [threading.Thread(target=time.sleep, args=(100,), daemon=True) for _ in range(3)]"
        )
        assert session.run(f"import time\n{several}\nfor one in t: one.start()").error is None
        assert "can't start new thread" in str(session.run("threading.Thread(target=print).start()").error)


def test_children_end_with_their_session():
    if not layers()["pids"]:
        pytest.skip("no process namespace on this machine")
    before = children(os.getpid())
    with open_session(Limits(60.0, processes=2)) as session:
        session.run("import os, time\nif os.fork() == 0:\n    time.sleep(1000)")
        assert len(children(os.getpid()) - before) >= 2
    assert wait_until(lambda: children(os.getpid()) <= before)


def test_a_child_that_answers_in_its_parents_place_does_no_harm():
    if not layers()["pids"]:
        pytest.skip("no process namespace on this machine")
    with open_session(Limits(60.0, processes=2)) as session:
        session.run("import os\nos.fork()")  # both answer
        assert isinstance(session.run("1"), Outcome)
        assert isinstance(session.run("2"), Outcome)
        session.run("import os\nos._exit(0)")
        assert wait_until(lambda: session.run("3").output == "3\n")


def test_processes_need_a_namespace_to_be_counted_in():
    with pytest.raises(SandboxError, match=r"processes=2 needs the layer 'pids'.*use processes=0"):
        process.open_session(Limits(processes=2), without=frozenset(("mounts",)), unsafe=True)


# refusal


def test_a_machine_without_isolation_is_refused():
    with pytest.raises(SandboxError, match=r"no isolation here: userns NO, .*unsafe=True"):
        process.open_session(PATIENT, without=frozenset(("mounts", "landlock")))
    with pytest.raises(SandboxError, match="seccomp NO"):
        process.open_session(PATIENT, without=frozenset(("seccomp",)))


def test_unsafe_accepts_a_machine_without_isolation():
    nothing = frozenset(("mounts", "landlock", "seccomp"))
    with process.open_session(PATIENT, without=nothing, unsafe=True) as session:
        assert session.run("open('/etc/passwd').read(1)").error is None


@pytest.mark.parametrize("layer", ["userns", "mounts", "landlock", "seccomp", "unprivileged"])
def test_a_layer_that_is_left_out_is_not_claimed(layer: str):
    held = pool(os.getpid()).server((), frozenset((layer,))).layers
    assert held[layer] is (layer == "unprivileged" and os.getuid() != 0)


def test_a_session_as_root_is_somebody_else():
    if os.getuid() != 0 or not layers()["unprivileged"]:
        pytest.skip("not root, or nobody else to become here")
    with open_session(PATIENT) as one, open_session(PATIENT) as other:
        users = [int(session.run("import os\nos.getuid()").output) for session in (one, other)]
    assert 0 not in users
    assert users[0] != users[1]


@pytest.mark.parametrize("without", ["", "mounts"])
def test_the_kernel_says_that_a_session_has_no_rights(without: str):
    def status(pid: int) -> dict[str, str]:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
        return {key: value.strip() for key, _, value in (line.partition(":") for line in lines)}

    left_out = frozenset([without] if without else [])
    process.open_session(PATIENT, without=left_out).close()
    before = children(os.getpid())
    with process.open_session(PATIENT, without=left_out):
        (pid,) = children(os.getpid()) - before
        found = status(pid)
        names = "mnt net pid user".split() if os.getuid() == 0 else ()  # others may not look
        spaces = {name: os.readlink(f"/proc/{pid}/ns/{name}") for name in names}
        ours = {name: os.readlink(f"/proc/self/ns/{name}") for name in spaces}
    assert {int(found[name], 16) for name in ("CapEff", "CapPrm", "CapInh", "CapAmb")} == {0}
    assert (found["NoNewPrivs"], found["Seccomp"], found["TracerPid"], found["Threads"]) == ("1", "2", "0", "1")
    if os.getuid() == 0:
        assert int(found["CapBnd"], 16) == 0
    held = pool(os.getpid()).server((), left_out).layers
    layer = {"mnt": "mounts", "net": "network", "pid": "pids", "user": "userns"}
    assert {name: spaces[name] != ours[name] for name in names} == {name: held[layer[name]] for name in names}


@pytest.mark.parametrize("without", ["", "mounts"])
def test_memory_is_counted_beyond_the_interpreter(without: str):
    with process.open_session(Limits(60.0, memory_mb=64), without=frozenset([without] if without else [])) as session:
        assert session.run("x = bytearray(50 << 20)").error is None
        assert session.run("y = bytearray(50 << 20)").error == "MemoryError (line 1)"


# modules


def test_a_module_that_is_not_asked_for_is_not_there(session):
    assert "No module named 'yaml'" in str(session.run("import yaml").error)


def test_an_unknown_module_is_told():
    with pytest.raises(SandboxError, match="cannot import 'nonesuch' for the sandbox; install it here"):
        open_session(PATIENT, modules=("nonesuch",))


LIBRARIES = ("numpy", "sympy")


@pytest.fixture
def library_session() -> Iterator[process.ProcessSession]:
    for name in LIBRARIES:
        if importlib.util.find_spec(name) is None:
            pytest.skip(f"{name} is not installed")
    with process.open_session(Limits(120.0), modules=LIBRARIES) as opened:
        yield opened


def test_libraries_that_are_asked_for_work(library_session):
    assert library_session.run("import numpy as np\nint(np.arange(4).sum())").output == "6\n"
    assert library_session.run("import sympy\nx = sympy.Symbol('x')\nsympy.solve(x**2 - 4, x)").output == "[-2, 2]\n"


@pytest.mark.parametrize(
    "code",
    [
        'import sympy\nsympy.sympify(\'__import__("os").mkdir("{0}")\')',
        'from sympy.parsing.sympy_parser import parse_expr as p\np(\'open("{0}", "w")\')',
        "import numpy as np, os\nclass Run:\n    def __reduce__(self):\n        return os.mkdir, ('{0}',)\n"
        "np.save('x.npy', np.array([Run()], dtype=object), allow_pickle=True)\nnp.load('x.npy', allow_pickle=True)",
        "import numpy as np\nnp.fromfile('/etc/hostname', dtype='u1')",
        "import numpy as np\nnp.memmap('{0}', mode='w+', shape=(10,))",
        "import numpy as np\nnp.zeros(3).tofile('{0}')",
        "import numpy as np\nnp.lib.format.open_memmap('{0}', mode='w+', shape=(3,))",
        "import numpy as np\nnp.ones(1 << 36)",
        "import numpy as np\nnp.ctypeslib.load_library('{0}', '/')",
    ],
)
def test_libraries_do_not_open_a_way_out(library_session, tmp_path: Path, code: str):
    target = tmp_path / "new"
    outcome = library_session.run(code.format(target))
    assert outcome.error is not None
    assert not target.exists()


# the same again


def test_runs_repeat_themselves(session):
    code = "import random\nprint({str(i) for i in range(20)}, hash('x'), random.random())"
    with process.open_session(PATIENT) as other:
        assert session.run(code) == other.run(code)
    pool(os.getpid()).server(()).close()
    with process.open_session(PATIENT) as later:
        assert later.run(code) == other_run(code)


def other_run(code: str) -> Outcome:
    with process.open_session(PATIENT, without=frozenset(("userns",))) as session:
        return session.run(code)


# life and death


def test_close_leaves_neither_processes_nor_files():
    open_session(PATIENT).close()
    before, files = children(os.getpid()), len(os.listdir("/proc/self/fd"))
    for _ in range(5):
        session = open_session(PATIENT)
        session.run("open('f', 'w').write('x')")
        session.close()
        session.close()
    assert children(os.getpid()) == before
    assert len(os.listdir("/proc/self/fd")) == files


def test_a_closed_session_says_so(session):
    session.close()
    with pytest.raises(SandboxError, match="this session is closed; open another"):
        session.run("1")


def test_a_session_that_is_forgotten_is_ended():
    before = children(os.getpid())
    session = open_session(PATIENT)
    session.run("1")
    assert len(children(os.getpid()) - before) == 1
    del session
    gc.collect()
    assert wait_until(lambda: children(os.getpid()) <= before)


def test_files_on_the_hosts_disk_go_with_their_session():
    with process.open_session(PATIENT, without=frozenset(("mounts",))) as session:
        folder = Path(session.run("import os\nprint(os.getcwd())").output.strip())
        session.run("os.makedirs('a/b')\nopen('a/b/c', 'w').write('x')\nos.mkdir('d', 0)")
        assert folder.is_dir()
        assert folder.parent.stat().st_mode & 0o066 == 0
    assert not folder.exists()
    server = pool(os.getpid()).server((), frozenset(("mounts",)))
    server.close()
    assert not folder.parent.exists()


def test_sessions_do_not_see_each_others_files():
    with process.open_session(PATIENT, without=frozenset(("mounts",))) as one:
        secret = one.run("import os\nopen('secret', 'w').write('x')\nprint(os.path.abspath('secret'))").output.split()[
            -1
        ]
        with process.open_session(PATIENT, without=frozenset(("mounts",))) as other:
            assert "PermissionError" in str(other.run(f"open({secret!r})").error)


def test_a_server_that_was_killed_is_replaced(session):
    session.run("a = 1")
    server = pool(os.getpid()).server(())
    for pid in children(server._popen.pid) | {server._popen.pid}:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    outcome = session.run("a")
    assert outcome.lost
    assert "the session starts anew" in str(outcome.error)
    assert session.run("1 + 1") == Outcome("2\n", None)


def test_a_server_that_dies_while_a_step_runs_is_told():
    with open_session(PATIENT) as session:
        server = pool(os.getpid()).server(())
        killer = threading.Timer(0.5, server._popen.kill)
        killer.start()
        outcome = session.run("import time\ntime.sleep(60)")
        killer.join()
        assert outcome.lost
        assert not outcome.timed_out
        assert wait_until(lambda: session.run("1").output == "1\n")


def test_threads_may_share_the_server():
    results: dict[int, str] = {}

    def work(number: int) -> None:
        with open_session(PATIENT) as session:
            session.run(f"a = {number}")
            for _ in range(5):
                session.run("a += 100")
            results[number] = session.run("a").output

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == {number: f"{number + 500}\n" for number in range(8)}


def test_one_session_may_be_shared_by_threads(session):
    session.run("total = 0")
    threads = [threading.Thread(target=session.run, args=("total += 1",)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert session.run("total").output == "8\n"


def test_a_server_outlives_the_thread_that_started_it():
    pool(os.getpid()).server(()).close()
    opened: list[process.ProcessSession] = []
    thread = threading.Thread(target=lambda: opened.append(process.open_session(PATIENT)))
    thread.start()
    thread.join()
    time.sleep(0.1)
    with opened[0] as session:
        assert session.run("1") == Outcome("1\n", None)


SCRIPT = """
import os, sys
sys.path.insert(0, {root!r})
from rolecraft.sandbox import Limits, open_session
"""


def run_script(body: str, **options) -> subprocess.CompletedProcess[str]:
    script = SCRIPT.format(root=str(ROOT)) + body
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", script],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        **options,
    )


def test_a_forked_worker_has_sessions_of_its_own():
    done = run_script("""
session = open_session(Limits(60))
session.run("a = 1")
pid = os.fork()
if pid == 0:
    try:
        session.run("a = 2")
    except Exception as error:
        print(error)
    with open_session(Limits(60)) as own:
        print(own.run("'own'").output.strip(), flush=True)
    sys.exit()
os.waitpid(pid, 0)
print(session.run("a").output.strip())
session.close()
""")
    assert done.stderr == ""
    assert done.stdout.splitlines() == [
        "a session does not survive a fork of its application; open another in this process",
        "'own'",
        "1",
    ]


def test_an_application_that_just_ends_leaves_nothing_and_says_nothing():
    done = run_script("""
session = open_session(Limits(60))
print(session.run("import os\\nprint(os.getcwd())").output)
""")
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("without", ["", "mounts"])
def test_nothing_outlives_an_application_that_is_killed(without: str):
    script = f"""
from rolecraft.sandbox import process
session = process.open_session(Limits(600), without=frozenset({[without] if without else []}))
print(session.run("import os\\nprint(os.getcwd())").output.strip(), flush=True)
session.run("while True: pass")
"""
    with subprocess.Popen(
        [sys.executable, "-c", SCRIPT.format(root=str(ROOT)) + script], stdout=subprocess.PIPE, text=True
    ) as application:
        assert application.stdout is not None
        folder = Path(application.stdout.readline().strip())
        below = children(application.pid)
        assert len(below) == 3  # server, keeper, session
        application.kill()
    assert wait_until(lambda: not any(map(is_running, below)))
    assert wait_until(lambda: not folder.exists())


@pytest.mark.parametrize(
    "setting",
    [
        "signal.signal(signal.SIGCHLD, signal.SIG_IGN)",
        "signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())",
        "os.umask(0o777)",
        "os.chdir('/proc')",
        "os.environ.update(PYTHONSTARTUP='/x', LD_LIBRARY_PATH='/x', SECRET='hidden', PYTHONHASHSEED='7')",
        "resource.setrlimit(resource.RLIMIT_NOFILE, (32, 4096))",
        "sys.stdin.close(), sys.stdout.flush(), os.close(0)",
    ],
)
@pytest.mark.parametrize("without", ["", "mounts"])
def test_sessions_do_not_depend_on_what_the_application_did(setting: str, without: str):
    done = run_script(f"""
import resource, signal
from rolecraft.sandbox import process
{setting}
with process.open_session(Limits(60), without=frozenset({[without] if without else []})) as session:
    print(session.run("import os\\nopen('f', 'w').write('x')\\n'hidden' in str(os.environ)").output.strip())
    print("os._exit" and session.run("os._exit(2)").lost, session.run("1").output.strip())
""")
    assert (done.stdout, done.stderr) == ("False\nTrue 1\n", "")


def test_an_interrupt_ends_the_session_that_was_running():
    done = run_script("""
import signal, threading
session = open_session(Limits(600))
session.run("a = 1")
threading.Timer(0.5, lambda: os.kill(os.getpid(), signal.SIGINT)).start()
try:
    session.run("while True: pass")
except KeyboardInterrupt:
    print("interrupted", session.run("'a' in globals()").output.strip())
session.close()
""")
    assert (done.stdout, done.stderr) == ("interrupted False\n", "")


# another user


def readable_python() -> str | None:
    """Return an interpreter that an unprivileged user can run."""
    for name in (os.path.realpath(sys.executable), shutil.which("python3", path="/usr/bin:/usr/local/bin")):
        if name and all(parent.stat().st_mode & 1 for parent in Path(name).parents):
            version = subprocess.run(
                [name, "-c", "import sys; print(sys.version_info >= (3, 11))"], capture_output=True
            )
            if version.stdout == b"True\n":
                return name
    return None


UNPRIVILEGED = """
import os, sys
assert os.getuid() == 65534
for name in ("rolecraft", "rolecraft.sandbox"):
    module = sys.modules[name] = type(sys)(name)
    module.__path__ = [os.path.join({root!r}, *name.split("."))]
import importlib.util
spec = importlib.util.spec_from_file_location("rolecraft.sandbox", {root!r} + "/rolecraft/sandbox/__init__.py",
    submodule_search_locations=[{root!r} + "/rolecraft/sandbox"])
module = sys.modules["rolecraft.sandbox"] = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
from rolecraft.sandbox import Limits, process
for without in ([], ["mounts"], ["landlock"]):
    try:
        session = process.open_session(Limits(60), without=frozenset(without))
    except Exception as error:
        print("cannot", without, error)
        continue
    with session:
        print(session.run("6 * 7").output.strip())
        for code in {codes!r}:
            error = session.run(code).error
            print("refused" if error and "Error" in error else "ESCAPED " + code)
"""

ATTEMPTS = [
    "open('/etc/passwd')",
    "open('{canary}')",
    "import os; os.chmod('{canary}', 0)",
    "import os; os.chmod(os.__file__, 0o777)",
    "import os; os.kill(os.getppid(), 9)",
    "import os; os.kill({pid}, 9)",
    "import os; os.fork()",
    "import socket; socket.socket()",
    "import subprocess; subprocess.run(['id'])",
    "open('/proc/self/environ')",
]


def test_an_ordinary_user_is_as_safe(tmp_path: Path):
    if os.getuid() != 0:
        pytest.skip("the other tests run as an ordinary user already")
    python = readable_python()
    if python is None:
        pytest.skip("no Python that an unprivileged user can run")
    if any(not parent.stat().st_mode & 1 for parent in ROOT.parents):
        pytest.skip("an unprivileged user cannot read the source")
    codes = [code.format(canary="/etc/hostname", pid=os.getpid()) for code in ATTEMPTS]
    done = subprocess.run(
        [python, "-c", UNPRIVILEGED.format(root=str(ROOT), codes=codes)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        user=65534,
        group=65534,
        extra_groups=[],
        env={},
        cwd="/",
    )
    assert done.stderr == ""
    lines = [line for line in done.stdout.splitlines() if not line.startswith("cannot")]
    assert lines
    assert lines == ["42", *["refused"] * len(codes)] * (len(lines) // (1 + len(codes)))
