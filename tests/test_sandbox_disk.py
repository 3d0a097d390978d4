"""Files on the host's disk, where a session has no file system of its own: bounded, removed, and nobody else's wait."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import tempfile
import threading
import time
from pathlib import Path

import pytest

from rolecraft.errors import SandboxError
from rolecraft.sandbox import Limits, Session, _scratch, layers, process
from rolecraft.sandbox._pool import KIND, pool

pytestmark = pytest.mark.skipif(not layers()["seccomp"], reason="no system-call filter on this machine")
NO_MOUNTS = frozenset(("mounts",))


def open_here(limits: Limits | None = None, without: frozenset[str] = NO_MOUNTS) -> Session:
    try:
        return process.open_session(limits or Limits(60.0), without=without)
    except SandboxError as error:
        pytest.skip(f"not here: {error}")


def folder_of(session: Session) -> Path:
    return Path(session.run("import os\nprint(os.getcwd())").output.strip())


def fill(folder: Path, number: int) -> None:
    """Make `number` folders in a session's folder while it is halted, when nobody measures it."""
    for outer in range(number // 1000):
        (folder / str(outer)).mkdir()
        for inner in range(1000):
            (folder / str(outer) / str(inner)).mkdir()


def wait_until(condition, seconds: float = 30.0) -> bool:
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.02)
    return condition()


def test_a_session_is_not_held_while_the_files_of_another_are_removed():
    with open_here() as full:
        folder = folder_of(full)
        fill(folder, 8_000)
        closing = threading.Thread(target=full.close)
        closing.start()
        assert wait_until(lambda: len(os.listdir(folder)) != 8)  # it has begun
        with open_here() as other:
            assert other.run("6 * 7").output == "42\n"
        assert folder.exists()
        closing.join()
    assert wait_until(lambda: not folder.exists())


def test_a_session_is_measured_while_the_files_of_another_are_removed():
    with open_here() as full, open_here(Limits(60.0, output_bytes=1 << 20)) as other:
        fill(folder_of(full), 20_000)
        closing = threading.Thread(target=full.close)
        closing.start()
        outcome = other.run("import os\nn = 0\nwhile True:\n    os.mkdir(str(n))\n    n += 1\n    n % 100 or print(n)")
        closing.join()
    assert "its files took more than 16 MB" in str(outcome.error)
    assert int(outcome.output.split()[-1]) < 20_000


def test_a_step_too_short_to_be_measured_is_measured_at_its_end():
    with open_here(Limits(60.0, file_mb=2)) as session:
        wrote = session.run(
            "import os\nfor n in range(4):\n    with open(str(n), 'wb') as file: file.write(os.urandom(1 << 20))"
        )
        # On a busy machine the step may take long enough to be measured while it runs, and is ended itself, or those
        # after it may be over before it is measured.
        ended = (outcome for _ in range(200) if (outcome := session.run("print('went on')")).error)
        outcome = wrote if wrote.error else next(ended, wrote)
        assert "its files took more than 2 MB" in str(outcome.error)
        assert session.run("import os\nos.listdir()").output == "[]\n"


def test_how_a_session_ended_is_read_behind_a_question_that_it_left_unread():
    ours, theirs = socket.socketpair(socket.AF_UNIX, KIND)
    with ours:
        ours.setblocking(False)
        ours.send(b"question")
        theirs.send(b"its files")
        theirs.close()
        assert [process._received(ours, 100) for _ in range(3)] == [b"its files", b"", b""]


def test_a_server_that_starts_removes_what_dead_ones_left():
    alive = open_here()
    kept = folder_of(alive).parent
    dying = open_here(without=frozenset(("mounts", "userns")))
    left = folder_of(dying).parent
    dying.run("os.makedirs('a/b/c')")
    server = pool(os.getpid()).server((), frozenset(("mounts", "userns")))
    os.killpg(server._popen.pid, signal.SIGKILL)
    server._popen.wait()
    assert left.exists()
    planted = Path(tempfile.mkdtemp(prefix="rolecraft-scratch-", dir=kept.parent))
    elsewhere = Path(tempfile.mkdtemp(prefix="elsewhere-"))
    link = kept.parent / "rolecraft-scratch-link"
    link.symlink_to(elsewhere)
    try:
        server.close()
        with open_here(without=frozenset(("mounts", "userns"))):
            assert wait_until(lambda: not left.exists() and not planted.exists())
        assert elsewhere.exists()
        assert alive.run("open('f', 'w').write('x')").output == "1\n"
    finally:
        alive.close()
        dying.close()
        link.unlink()
        elsewhere.rmdir()


def test_another_users_folder_is_not_a_leftover(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    if os.getuid() != 0:
        pytest.skip("only root can give a folder to somebody else")
    theirs, ours = tmp_path / "rolecraft-scratch-theirs", tmp_path / "rolecraft-scratch-ours"
    for folder in (theirs, ours):
        folder.mkdir()
    os.chown(theirs, 12345, 12345)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    _scratch.remove_leftovers()
    assert theirs.exists()
    assert not ours.exists()


def test_the_folder_of_a_server_is_locked_as_long_as_it_lives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    folder, lock = _scratch.make_for_server()
    _scratch.remove_leftovers()
    assert os.path.exists(folder)
    os.close(lock)
    _scratch.remove_leftovers()
    assert not os.path.exists(folder)


def test_a_folder_of_many_thousand_names_is_removed(tmp_path: Path):
    folder = tmp_path / "scratch"
    folder.mkdir()
    fill(folder, 3000)
    for number in range(2500):
        (folder / f"file{number}").touch()
    with contextlib.closing(os.scandir(folder)):
        _scratch.remove(str(folder))
    assert not folder.exists()
