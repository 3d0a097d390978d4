"""The limit of memory holds for all processes of a session together."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from rolecraft.errors import SandboxError
from rolecraft.sandbox import Limits, Session, _memory, layers, process
from rolecraft.sandbox._pool import pool

pytestmark = pytest.mark.skipif(not layers()["pids"], reason="no process namespace on this machine")
WITHOUT = {"a control group": frozenset[str](), "a watch": frozenset(("cgroup",))}

SEVERAL = """
import os, signal, time
pids = []
for _ in range(8):
    pid = os.fork()
    if pid == 0:
        x = bytearray({megabytes} << 20)
        time.sleep(20)
        os._exit(0)
    pids.append(pid)
time.sleep({seconds})
for pid in pids:
    print(os.waitpid(pid, os.WNOHANG)[0] == 0)
"""


def open_with(without: frozenset[str], memory_mb: int) -> Session:
    if "cgroup" not in without and not layers()["cgroup"]:
        pytest.skip("no control group can be made here")
    try:
        return process.open_session(Limits(60.0, memory_mb=memory_mb, processes=8), without=without)
    except SandboxError as error:
        pytest.skip(f"not here: {error}")


@pytest.mark.parametrize("without", WITHOUT.values(), ids=WITHOUT)
def test_processes_take_no_more_together_than_one_may(without: frozenset[str]):
    with open_with(without, 64) as session:
        outcome = session.run(SEVERAL.format(megabytes=55, seconds=3))
        assert "its processes took more than 64 MB together" in str(outcome.error) or "False" in outcome.output
        assert outcome.lost or outcome.output.count("True") * 55 < 128


@pytest.mark.parametrize("without", WITHOUT.values(), ids=WITHOUT)
def test_processes_within_the_limit_go_on(without: frozenset[str]):
    with open_with(without, 256) as session:
        assert session.run(SEVERAL.format(megabytes=10, seconds=1)).output == "True\n" * 8


def test_a_control_group_goes_with_its_session():
    with open_with(frozenset(), 64) as session:
        session.run("import os, time\nif os.fork() == 0: time.sleep(100)")
        server = pool(os.getpid()).server(())._popen.pid
        found = list(Path("/sys/fs/cgroup").rglob(f"rolecraft-sandbox-{server}-*"))
        assert len(found) == 1
    deadline = time.monotonic() + 20
    while found[0].exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not found[0].exists()


def test_groups_are_looked_for_where_control_groups_are_mounted():
    mounted = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines() if " - cgroup" in line]
    assert all(any(f"{folder}/".startswith(f"{point}/") for point in mounted) for folder, _ in _memory._candidates())


def test_the_bound_leaves_room_for_files_and_interpreters():
    limits = {"memory_mb": 64, "file_mb": 4, "processes": 3}
    assert _memory.most_bytes(limits, 10 << 20) == (64 + 4 + 40 + 8) << 20
