"""A user's question to a model with the user's tools: `run` and `chat`."""

from __future__ import annotations

import asyncio
import json
import re

import pytest
from rich.console import Console
from verbs import call, stock_tools

from rolecraft import commands
from rolecraft.commands import _asking
from rolecraft.types import Message, ToolCall


@pytest.fixture
def tools(tmp_path):
    return stock_tools(tmp_path)


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
    assert capsys.readouterr().out == "tool error  error: 42\n      tool  error: 42\n"


def test_what_a_model_writes_steers_no_terminal_and_half_a_character_is_spelled_out(capsys):
    text = "\x1b[31mred\x1b]0;title\x07 [bold]x[/bold] \ud800\tna\u00efve \u0926\u094d\u200d\n\x9bnext"
    call = ToolCall("f", {"a": "\x9b2J\ud800"})
    _asking.show(Message("assistant", text, (call,), unparsed="\x1b[2J"), Console(width=200))
    out = capsys.readouterr().out
    out.encode()
    assert not set(out) & set("\x1b\x07\x9b")
    for kept in (
        r"\x1b[31mred\x1b]0;title\x07 [bold]x[/bold] \ud800",
        "na\u00efve \u0926\u094d\u200d",
        r"\x9bnext",
        r"\x9b2J\ud800",
    ):
        assert kept in out


def test_chat_goes_on_until_an_empty_line(capsys, monkeypatch, tools):
    questions = iter(["What is the stock of Lamp?", "And of Cup?", ""])
    monkeypatch.setattr("rich.console.Console.input", lambda *_: next(questions))
    code, out, _ = call(capsys, "chat", "--tools", tools, "--max-tokens", "8", "--max-turns", "2")
    assert code == 0
    assert next(questions, None) is None
    assert "assistant" in out


def test_run_says_by_how_much_a_context_is_too_small(capsys, tools):
    code, _, err = call(capsys, "run", "What is the stock of Lamp? " * 9, "--tools", tools, "--max-context", "40")
    assert code == 1
    assert re.search(r"no answer: the context is full: the prompt .* has \d+ tokens and the context holds 40;", err)
    assert "--max-context" in err


@pytest.mark.parametrize(
    ("words", "why"),
    [
        ("--max-tokens 3", "a reply was cut after 3 tokens; allow longer ones (--max-tokens)"),
        ("--max-tokens 900 --max-context 80", "tokens, where the context ends; allow more (--max-context)"),
        ("--max-turns 1 --max-tokens 80 --constrain --team mor --bare", "model calls have been made; allow more"),
    ],
)
def test_run_says_why_there_is_no_answer(capsys, tools, words, why):
    code, _, err = call(capsys, "run", "Why?", "--tools", tools, *words.split())
    assert code == 1
    assert why in err


def test_a_chat_whose_context_is_full_goes_on_without_its_oldest_questions(capsys, monkeypatch):
    questions = iter([*(f"What is the stock of Lamp number {i}? " * 2 for i in range(6)), ""])
    monkeypatch.setattr("rich.console.Console.input", lambda *_: next(questions))
    code, out, err = call(capsys, "chat", "--bare", "--max-context", "120", "--max-tokens", "8")
    assert code == 0
    assert "the oldest question is left out" in " ".join(out.split())
    assert out.count("assistant") == 6
    assert "the context is full" not in err


def test_a_chat_says_that_a_question_is_too_long_and_goes_on(capsys, monkeypatch):
    questions = iter(["What is the stock of Lamp? " * 20, "Hi.", ""])
    monkeypatch.setattr("rich.console.Console.input", lambda *_: next(questions))
    _, out, err = call(capsys, "chat", "--bare", "--max-context", "100", "--max-tokens", "8")
    assert err.count("no answer: the context is full") == 1
    assert "assistant" in out


def test_run_plays_by_a_strategy_and_tells_what_it_tried(capsys, tmp_path):
    words = ("--strategy", "self_consistent,n=3,temperature=1.0", "--json", "--max-tokens", "8", "--max-turns", "2")
    _, out, told = call(capsys, "run", "What is 2 + 3?", "--tools", "calculator", *words)
    record = json.loads(out.splitlines()[-1])
    assert record["trials"]["strategy"] == "self_consistent"
    assert record["trials"]["tried"] in (3, 6)
    assert re.search(r"self_consistent: \d tried, \d failed", told)


def test_a_function_that_may_change_something_is_refused_by_name(capsys, tools):
    code, _, told = call(capsys, "run", "Stock of Lamp?", "--tools", tools, "--strategy", "best_of_n")
    assert code == 1
    assert "tool 'stock' may change something" in told
    assert "@tool(pure=True)" in told


@pytest.mark.parametrize(
    ("given", "told"),
    [("self_consistant", "Did you mean 'self_consistent'"), ("greedy,n=2", "unknown key 'n' in strategy greedy")],
)
def test_a_misspelt_strategy_is_told(capsys, given, told):
    code, _, said = call(capsys, "run", "Hello?", "--strategy", given)
    assert code == 2
    assert told in said
