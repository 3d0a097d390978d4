"""The command line: a mistake or an error is one line and an exit code."""

from __future__ import annotations

import errno
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from verbs import call

from rolecraft import settings
from rolecraft.commands import doctor
from rolecraft.errors import DataError

MISTAKES = (
    "train absent.yaml",
    "train lora",
    "train lora training.learning_rat=1",
    "train lora adapter.rank=1",
    "train lora team.preset=mro",
    "train lora data.benchmark=toolwrold",
    "train lora --data absent.jsonl",
    "train lora --data absent.jsonl --output .",
    "train mor --data absent.jsonl",
    "train lora --data here.jsonl --importer glaiv",
    "train lora --data here.jsonl --base ./absent",
    "quickstart --recipe absent",
    "params --base ./absent --recipe lora",
    "params --base nano --recipe lor",
    "params --base nano --recipe lora adapter.rank=1",
    "eval toolwrold",
    "eval toolworld sizes=3",
    "eval --split tests",
    "eval --adapter absent",
    "run hi --tools absent.py",
    "run hi --base ./absent",
    "chat --adapter absent",
    "nano check --base ./absent",
    "serve --base ./absent",
    "serve --host 0.0.0.0",
    "serve --memory absent.db",
    "train grpo --from absent",
    "train grpo --rewards absent.jsonl",
)


def test_mistakes_are_told_before_torch_is_loaded(tmp_path):
    (tmp_path / "here.jsonl").write_text("{}")
    program = f"""
import sys
from rolecraft import cli
for line in {MISTAKES!r}:
    code = cli.main(line.split())
    print(code, line, [name for name in ("torch", "transformers", "peft") if name in sys.modules])
"""
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=tmp_path)
    assert done.stdout.splitlines() == [f"2 {line} []" for line in MISTAKES]
    assert done.stderr.count("\n") == len(MISTAKES)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["run", "hi", "--tools", "absent.py"], "no file 'absent.py'"),
        (["run", "hi", "--adapter", "absent"], "no adapter in 'absent'"),
        (["run", "hi", "--base", "./absent"], "absent"),
        (["eval", "toolwrold"], "Did you mean 'toolworld'?"),
        (["eval", "toolworld", "sizes=3"], "Did you mean 'size'?"),
        (["eval", "--split", "tests"], "'tests'"),
        (["eval", "--team", "mro"], "Did you mean 'mor'?"),
        (["train", "absent.yaml"], "no recipe 'absent.yaml'"),
        (["train", "lora", "training.learning_rat=1"], "Did you mean 'learning_rate'?"),
        (["train", "lora", "--base", "nano", "training.learning_rat=1"], "Did you mean 'learning_rate'?"),
        (["eval", "--split", "tools", "sizes=3", "--limit", "2"], "Did you mean 'size'?"),
        (["params", "--base", "absent.json", "--recipe", "lora"], "absent.json"),
        (["report", "absent"], "absent"),
        (["reproduce", "mor-count-of"], "Did you mean 'mor-count'?"),
        (["serve", "--host", "0.0.0.0"], "no API key is set"),
        (["serve", "--api-key-file", "absent"], "no file 'absent'"),
        (["serve", "--adapter", "absent"], "no adapter in 'absent'"),
    ],
)
def test_a_user_error_is_one_line_with_exit_code_2(capsys, tmp_path, monkeypatch, arguments, says):
    monkeypatch.chdir(tmp_path)
    code, _, err = call(capsys, *arguments)
    assert code == 2
    assert says in err
    assert err.count("\n") == 1


def fail(monkeypatch, error):
    """Let a verb end by an error."""

    def run(_):
        raise error

    monkeypatch.setattr(doctor, "run", run)


def test_an_interrupt_is_told_and_exits_130(capsys, monkeypatch):
    fail(monkeypatch, KeyboardInterrupt())
    code, _, err = call(capsys, "doctor")
    assert code == 130
    assert "interrupted" in err


ESCAPED = (
    (OSError(errno.ENOSPC, "No space left on device", "runs/a.jsonl"), "'runs/a.jsonl': No space left on device; make"),
    (OSError(errno.ENOSPC, "No space left on device"), "No space left on device; make room and repeat the command (in"),
    (PermissionError(errno.EACCES, "Permission denied", Path("a")), "'a': Permission denied; check its permissions"),
    (IsADirectoryError(errno.EISDIR, "Is a directory", b"a"), "'a': Is a directory"),
    (OSError("no such\n\nmodel"), "OSError: no such model (in "),
    (
        UnicodeDecodeError("utf-8", b"\xff" * 9000, 0, 1, "invalid start byte"),
        "not valid in its encoding: 'utf-8' codec",
    ),
    (RecursionError("maximum depth"), "nested too deeply: maximum depth (in "),
    (OverflowError("too large"), "a number is out of range: too large (in "),
    (MemoryError(), "out of memory (in "),
    (KeyError("name"), "KeyError: 'name' (in "),
    (ValueError("x" * 100_000), "ValueError: xxx"),
)


@pytest.mark.parametrize(("error", "says"), ESCAPED, ids=lambda value: type(value).__name__)
def test_an_error_that_nobody_foresaw_is_one_line_with_exit_code_1(capsys, monkeypatch, error, says):
    fail(monkeypatch, error)
    code, _, err = call(capsys, "doctor")
    assert code == 1
    assert err.startswith("rolecraft: ")
    assert says in err
    assert err.count("\n") == 1
    assert len(err) < 3000


def test_an_error_names_the_innermost_line_of_ours(capsys, monkeypatch):
    monkeypatch.setattr(doctor, "run", lambda _: settings.override({}, [None]))
    _, _, err = call(capsys, "doctor")
    assert re.search(r"\(in rolecraft/settings\.py:\d+; ROLECRAFT_TRACEBACK=1 shows where it came from\)", err)


def test_what_an_error_quotes_cannot_steer_the_terminal(capsys, monkeypatch):
    fail(monkeypatch, DataError("a row says \x1b[2J\x07\nand more"))
    _, _, err = call(capsys, "doctor")
    assert err == "rolecraft: a row says \\x1b[2J\\x07\nand more\n"


@pytest.mark.parametrize(("value", "shown"), [("1", True), ("0", False), ("", False)])
def test_a_traceback_is_shown_to_who_asks_for_it(capsys, monkeypatch, value, shown):
    monkeypatch.setenv("ROLECRAFT_TRACEBACK", value)
    fail(monkeypatch, DataError("a bad row"))
    code, _, err = call(capsys, "doctor")
    assert code == 2
    assert ("Traceback" in err) == shown
    assert err.endswith("rolecraft: a bad row\n")


FULL = Path("/dev/full")


@pytest.mark.skipif(not FULL.exists(), reason="no /dev/full here")
@pytest.mark.parametrize(("line", "unbuffered"), [("run --help", ""), ("doctor --json", "1")])
def test_output_onto_a_full_disk_is_one_line(line, unbuffered):
    command = [sys.executable, "-m", "rolecraft.cli", *line.split()]
    environment = {**os.environ, "PYTHONUNBUFFERED": unbuffered}
    with FULL.open("w") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False, env=environment)
    assert done.returncode == 1
    assert done.stderr.startswith("rolecraft: No space left on device; make room")
    assert done.stderr.count("\n") == 1


def test_a_reader_that_went_away_is_no_error():
    command = [sys.executable, "-m", "rolecraft.cli", "run", "--help"]
    reader, writer = os.pipe()
    os.close(reader)
    try:
        environment = {**os.environ, "PYTHONUNBUFFERED": ""}
        done = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, text=True, check=False, env=environment)
    finally:
        os.close(writer)
    assert (done.returncode, done.stderr) == (1, "")
