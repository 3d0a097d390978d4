"""Several processes of one machine: who they are told to be, how they end, and whose error is told."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from rolecraft import workers
from rolecraft.errors import NotFound, RolecraftError

TARGETS = """
import os, signal, sys, time
from pathlib import Path
from rolecraft.errors import NotFound

def note(folder):
    names = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "OMP_NUM_THREADS")
    Path(folder, os.environ["RANK"]).write_text(" ".join(os.environ[name] for name in names))

def finds_the_disk_full():
    raise OSError(28, "No space left on device", "checkpoint")


def one_misses_a_file(folder):
    if os.environ["RANK"] == "1":
        raise NotFound("no file 'x'; give one that exists")
    time.sleep(60)

def one_is_killed(folder):
    if os.environ["RANK"] == "0":
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(60)

def wait(folder):
    Path(folder, f"pid{os.environ['RANK']}").write_text(str(os.getpid()))
    try:
        time.sleep(60)
    except KeyboardInterrupt:
        Path(folder, f"stopped{os.environ['RANK']}").touch()
        raise
"""


@pytest.fixture
def targets(tmp_path, monkeypatch) -> Path:
    """A folder that the workers may write to, with the functions above importable in them."""
    (tmp_path / "targets.py").write_text(TARGETS)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(workers, "_GRACE", 0.2)
    return tmp_path


def parent_of_waiting_workers(folder: Path) -> subprocess.Popen[bytes]:
    """Start a parent of two workers; return it once both wait."""
    script = textwrap.dedent(f"""
        from rolecraft import workers
        workers.launch("targets:wait", [{str(folder)!r}], 2)
    """)
    parent = subprocess.Popen([sys.executable, "-c", script], stderr=subprocess.DEVNULL)
    assert within(60, lambda: all((folder / f"pid{rank}").exists() for rank in (0, 1)))
    return parent


def within(seconds: float, happened) -> bool:
    end = time.monotonic() + seconds
    while not happened() and time.monotonic() < end:
        time.sleep(0.02)
    return happened()


def is_gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return Path(f"/proc/{pid}/stat").exists() and Path(f"/proc/{pid}/stat").read_text().split(")")[1].split()[0] == "Z"


def test_each_worker_is_told_its_rank_and_gets_one_thread(targets):
    workers.launch("targets:note", [str(targets)], 2)
    assert [(targets / rank).read_text() for rank in "01"] == ["0 0 2 127.0.0.1 1", "1 1 2 127.0.0.1 1"]


def test_this_process_is_no_worker():
    assert not workers.is_worker()


def test_an_error_made_on_purpose_in_a_worker_is_raised_here(targets):
    with pytest.raises(NotFound, match="no file 'x'; give one that exists"):
        workers.launch("targets:one_misses_a_file", [str(targets)], 2)


def test_an_error_that_nobody_foresaw_in_a_worker_is_told_in_a_line(targets, capfd):
    with pytest.raises(RolecraftError, match=r"workers failed \(worker 0: 1\)"):
        workers.launch("targets:finds_the_disk_full", [], 1)
    line = "rolecraft: 'checkpoint': No space left on device; make room and repeat the command\n"
    assert capfd.readouterr().err == line


def test_a_killed_worker_ends_the_others_and_is_told(targets):
    with pytest.raises(RolecraftError, match="worker 0: -9"):
        workers.launch("targets:one_is_killed", [str(targets)], 2)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_reaches_every_worker(targets, number):
    parent = parent_of_waiting_workers(targets)
    parent.send_signal(number)
    assert within(30, lambda: all((targets / f"stopped{rank}").exists() for rank in (0, 1)))
    assert parent.wait(timeout=30) != 0


def test_workers_do_not_outlive_their_parent(targets):
    parent = parent_of_waiting_workers(targets)
    parent.kill()
    parent.wait(timeout=30)
    pids = [int((targets / f"pid{rank}").read_text()) for rank in (0, 1)]
    assert within(30, lambda: all(map(is_gone, pids)))
