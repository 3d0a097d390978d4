"""The verbs, as a user calls them."""

import asyncio
import errno
import json
import os
import re
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest
from rich.console import Console

from rolecraft import catalog, cli, commands, settings, team
from rolecraft.commands import _asking, _playing, doctor, serve
from rolecraft.errors import DataError, SettingsError
from rolecraft.store import Run
from rolecraft.types import Message, ToolCall

TOOLS = '''
from rolecraft.tools import tool


@tool
def stock(item: str) -> int:
    """stock of one item

    Args:
        item: the item's name
    """
    return 4
'''


def call(capsys, *arguments):
    """Run a verb in this process; returns the exit code, what it printed, and what it complained of."""
    try:
        code = cli.main(list(arguments))
    except SystemExit as stop:
        code = stop.code
    printed = capsys.readouterr()
    return code, printed.out, printed.err


@pytest.fixture
def tools(tmp_path):
    path = tmp_path / "my_tools.py"
    path.write_text(TOOLS)
    return str(path)


@pytest.mark.parametrize(
    ("line", "where"),
    [
        ("nano pretrain --help", "nano.pretrain"),
        ("eval --split tools --help", "benchmarks.toolworld"),
        ("eval other.py -h", "other.py"),
        ("eval absent --help", "benchmarks.toolworld"),
    ],
)
def test_help_lists_every_setting_with_its_default(capsys, tmp_path, monkeypatch, line, where):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "other.py").write_text(OTHER, encoding="utf-8")
    kind = (
        catalog.find(*where.split(".")).Settings
        if "." in where[:-3]
        else catalog.find("benchmarks", catalog.given(where)).Settings
    )
    _, out, _ = call(capsys, *line.split())
    listed = [text.strip() for text in out.partition("(here with their defaults):")[2].splitlines() if text.strip()]
    read = settings.override({}, [f"settings.{text}" for text in listed])["settings"]
    assert list(read) == [field.name for field in fields(kind)]
    assert settings.from_dict(kind, read) == kind()


OTHER = """
from dataclasses import dataclass, field

WORDS = ("a", "b c")


@dataclass(frozen=True)
class Settings:
    size: int = 1_000
    words: tuple[str, ...] = WORDS
    rates: dict[str, float] = field(default_factory=dict)
    none: int | None = None
"""


def test_help_tells_no_settings_of_what_it_cannot_read(capsys, tmp_path):
    (tmp_path / "broken.py").write_text("class Settings(:", encoding="utf-8")
    code, out, _ = call(capsys, "eval", str(tmp_path / "broken.py"), "--help")
    assert code == 0
    assert "defaults)" not in out


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


def test_params_are_counted_without_weights(capsys):
    code, out, _ = call(capsys, "params", "--base", "nano", "--recipe", "quickstart", "adapter.r=12", "--json")
    assert code == 0
    assert json.loads(out.splitlines()[-1])["trainable"] == 5 * 12 * (4 * 256 + 3 * (128 + 352))


def test_params_say_what_their_shares_are_of(capsys):
    _, out, _ = call(capsys, "params", "--base", "nano", "--recipe", "quickstart", "adapter.r=12")
    tuned, base = 147_840, 1_136_000
    assert f"{tuned:,} trainable parameters beside the base's {base:,}" in out
    assert f"{tuned / (tuned + base):.2%} of the two together, {tuned / base:.2%} of the base" in out


def test_the_doctor_tells_versions_devices_layers_and_extras(capsys):
    code, out, _ = call(capsys, "doctor", "--json")
    found = json.loads(out.splitlines()[-1])
    assert code == 0
    assert found["versions"]["torch"]
    assert found["devices"]["cpu_cores"] >= 1
    assert set(found["sandbox"]) >= {"landlock", "seccomp", "rlimits"}
    assert "wandb" in found["extras"]


def test_the_doctor_names_the_command_that_installs_an_extra(capsys):
    _, out, _ = call(capsys, "doctor")
    assert "sandbox" in out
    assert "rolecraft[wandb]" in " ".join(out.split()) or "wandb" in out


def test_eval_prints_one_json_object_and_resumes(capsys, tmp_path):
    arguments = ["eval", "--limit", "3", "--output", str(tmp_path / "run"), "--json", "--max-tokens", "8"]
    code, out, _ = call(capsys, *arguments)
    scores = json.loads(out.splitlines()[-1])
    assert code == 0
    assert set(scores) == {"score", "n", "interval", "families"}
    assert scores["n"] == 3
    before = (tmp_path / "run" / "trajectories.jsonl").read_bytes()
    assert call(capsys, *arguments)[0] == 0
    assert (tmp_path / "run" / "trajectories.jsonl").read_bytes() == before


def test_a_run_can_be_reported_and_compared(capsys, tmp_path):
    first, second = str(tmp_path / "a"), str(tmp_path / "b")
    call(capsys, "eval", "--limit", "2", "--output", first, "--max-tokens", "8")
    _, out, _ = call(capsys, "eval", "--limit", "2", "--output", second, "--against", first, "--max-tokens", "8")
    assert "exact McNemar" in " ".join(out.split())
    code, out, _ = call(capsys, "report", first, second, "--output", str(tmp_path / "page.html"))
    assert code == 0
    assert (tmp_path / "page.html").read_text().startswith("<!doctype html>")


def test_run_answers_with_a_users_tools_and_prints_the_record(capsys, tools):
    _, out, _ = call(capsys, "run", "What is the stock of Lamp?", "--tools", tools, "--json", "--max-tokens", "8")
    record = json.loads(out.splitlines()[-1])
    assert record["tools"][0]["function"]["name"] == "stock"
    assert record["messages"][0] == {"role": "user", "content": "What is the stock of Lamp?"}


def test_constrained_a_team_of_an_untuned_base_names_roles_and_calls_tools(capsys, tools):
    words = ("--tools", tools, "--team", "mor", "--bare", "--constrain", "--json", "--max-turns", "4")
    _, out, _ = call(capsys, "run", "What is the stock of Lamp?", *words, "--max-tokens", "60")
    record = json.loads(out.splitlines()[-1])
    replies = [message for message in record["messages"] if message["role"] == "assistant"]
    for reply in replies:
        if reply["speaker"] == "reasoner":
            assert reply["content"].endswith(("Next: executor.", "Next: summarizer."))
        assert {made["function"]["name"] for made in reply.get("tool_calls", ())} <= {"stock"}
    assert replies[0]["speaker"] == "reasoner"


def test_a_constrained_eval_of_an_untuned_base_writes_calls_of_its_tools_alone(capsys, tmp_path):
    words = ["eval", "--limit", "3", "--team", "mor", "--bare", "--max-turns", "3", "--max-tokens", "80"]
    words += ["--output", str(tmp_path / "run")]
    assert call(capsys, *words, "--constrain")[0] == 0
    made = []
    for record in Run(tmp_path / "run").trajectories():
        whole = [turn.message for turn in record.turns if turn.stop == "end"]
        assert [message.unparsed for message in whole] == [None] * len(whole)
        made += [(one.name, record.task.tools) for message in whole for one in message.tool_calls]
    assert made
    assert all(name in {tool.name for tool in tools} for name, tools in made)
    code, _, err = call(capsys, *words)
    assert code == 2
    assert "holds another evaluation: playing was" in err


PICK = """
from rolecraft.tools import Tool
from rolecraft.types import ToolSpec

things = {"type": "array", "items": {"type": "string"}, "uniqueItems": True}
spec = ToolSpec("pick", "pick one", {"type": "object", "properties": {"things": things}})
pick = Tool(spec, lambda things: things[0])
"""


def test_a_schema_keyword_that_no_grammar_keeps_is_refused_or_ignored(capsys, tmp_path):
    path = tmp_path / "pick.py"
    path.write_text(PICK, encoding="utf-8")
    words = ("run", "Pick.", "--tools", str(path), "--max-tokens", "4")
    code, _, err = call(capsys, *words, "--constrain")
    assert code == 2
    assert "tools[0].parameters.properties.things.uniqueItems" in err
    with pytest.warns(UserWarning, match="not held to"):
        _, out, _ = call(capsys, *words, "--constrain", "--on-unsupported", "ignore")
    assert "assistant" in out


BOUNDED = ("--max-context", "3000", "--memory-mb", "1", "--prefill-dtype", "bfloat16")


@pytest.mark.parametrize("verb", ["eval", "run hi", "chat", "serve"])
def test_the_engine_is_opened_as_its_flags_say(verb):
    opened = _playing.engine_settings(commands.read([*verb.split(), *BOUNDED])[1])
    assert (opened.max_context, opened.memory_mb, opened.prefill_dtype) == (3000, 1, "bfloat16")


def test_keys_and_values_beyond_the_bound_are_refused_before_anything_is_answered(capsys):
    code, _, err = call(capsys, "run", "hi", *BOUNDED)
    assert code == 2
    assert "engine.memory_mb is 1, and the keys and values of 1 x" in err
    _, options = commands.read(["serve", *BOUNDED])
    with pytest.raises(SettingsError, match="memory_mb is 1"), serve.open_models("nano", team.find("single"), options):
        pass


def test_the_users_tools_are_bounded_as_the_flags_say(tmp_path):
    path = tmp_path / "slow.py"
    text = 'import time\nfrom rolecraft.tools import tool\n@tool\ndef slow() -> str:\n    """Wait."""\n'
    path.write_text(text + "    time.sleep(0.3)\n    return 'x' * 99\n", encoding="utf-8")
    for words, seen in (
        ("--tool-seconds 0.05", "error: slow did not answer"),
        ("--tool-chars 40", "x... (cut, 99 char"),
    ):
        for verb in ("run hi", "chat"):
            _, options = commands.read([*verb.split(), "--tools", str(path), *words.split()])
            with _asking.open_toolbox(options) as box:
                observation = asyncio.run(box.call(ToolCall("slow", {})))
            assert seen in observation.text


def test_a_failed_observation_is_shown_as_one(capsys):
    console = Console(width=80)
    _asking.show(Message("tool", "error: 42", failed=True), console)
    _asking.show(Message("tool", "error: 42"), console)
    assert capsys.readouterr().out == "tool failed error: 42\n       tool error: 42\n"


def test_chat_goes_on_until_an_empty_line(capsys, monkeypatch, tools):
    questions = iter(["What is the stock of Lamp?", "And of Cup?", ""])
    monkeypatch.setattr("rich.console.Console.input", lambda *_: next(questions))
    code, out, _ = call(capsys, "chat", "--tools", tools, "--max-tokens", "8", "--max-turns", "2")
    assert code == 0
    assert next(questions, None) is None
    assert "assistant" in out


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
