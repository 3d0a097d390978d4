"""One process at a time writes a folder; who it is is told, and a killed one is in nobody's way."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest

from rolecraft import agent, evaluate, team, train
from rolecraft.errors import UserError
from rolecraft.store import Run, lock

HOLDER = """
import os, sys
from pathlib import Path
from rolecraft.store import lock
with lock(Path(sys.argv[1])):
    if sys.argv[2:] == ["child"] and os.fork() == 0:
        import time
        time.sleep(1)  # the lock is this process's, too
        os._exit(0)
    print("held", flush=True)
    sys.stdin.read()
"""


@contextmanager
def holder(folder: Path, *arguments: str):
    """Hold the lock of `folder` in a process of its own."""
    command = [sys.executable, "-c", HOLDER, str(folder), *arguments]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def test_a_second_writer_is_refused_and_told_who_the_first_is(tmp_path):
    with (
        holder(tmp_path) as process,
        pytest.raises(UserError, match=rf"written by process {process.pid} on .*--output"),
        lock(tmp_path),
    ):
        pass


def test_two_writers_in_one_process_are_refused_too(tmp_path):
    with lock(tmp_path), pytest.raises(UserError, match=f"written by process {os.getpid()} "), lock(tmp_path):
        pass


def test_the_lock_of_a_killed_process_is_taken_over(tmp_path):
    with holder(tmp_path) as process:
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    assert (tmp_path / "run.lock").exists()
    with lock(tmp_path):
        pass


def test_children_that_outlive_a_killed_holder_are_waited_for(tmp_path):
    with holder(tmp_path, "child") as process:
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        with lock(tmp_path):
            pass


def test_a_lock_leaves_nothing_behind(tmp_path):
    (tmp_path / "old").mkdir()
    for name in ("old", "new/er", "filled"):
        with lock(tmp_path / name):
            (tmp_path / "filled" / "x").touch() if name == "filled" else None
    assert sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*")) == [
        "filled",
        "filled/x",
        "new",
        "old",
    ]


def test_a_refused_writer_does_not_free_the_lock(tmp_path):
    with lock(tmp_path):
        for _ in range(2):
            with pytest.raises(UserError, match="being written"), lock(tmp_path):
                pass


@pytest.mark.parametrize("left", [b"", b"[]", b"{", b'{"pid": "x"}', b'{"pid": 99999999999999999999}'])
def test_whatever_a_lock_file_holds_it_is_taken_when_nobody_has_it(tmp_path, left):
    (tmp_path / "run.lock").write_bytes(left)
    with lock(tmp_path):
        assert f'"pid": {os.getpid()}' in (tmp_path / "run.lock").read_text()


def test_an_evaluation_is_refused_where_another_process_writes(tmp_path):
    settings = evaluate.Settings(options={"size": 7})
    with holder(tmp_path), pytest.raises(UserError, match="being written by process"):
        evaluate.run(settings, team.find("single"), not_opened, Run(tmp_path), agent.Settings())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run.lock"]


def test_training_is_refused_where_another_process_writes(tmp_path):
    recipe = train.load_recipe(train.find_recipe("lora"), [f"data.path={tmp_path / 'absent.jsonl'}"])
    with holder(tmp_path / "run"), pytest.raises(UserError, match="being written by process"):
        train.train(recipe, tmp_path / "run")


def not_opened():
    raise AssertionError("the engine is not opened for a folder that is taken")
