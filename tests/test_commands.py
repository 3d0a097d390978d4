"""How a line of words is read: where overrides may stand, what a misspelt word is answered, and what `--help` says."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest

from rolecraft import catalog, commands
from rolecraft.commands.__main__ import page

PAGE = Path(__file__).parents[1] / "docs" / "command-line.md"


def read(words: list[str]) -> argparse.Namespace:
    return commands.read(words)[1]


@pytest.mark.parametrize(
    "line",
    [
        "train lora a.b=1 c.d=2 --base X --output Y",
        "train lora --base X a.b=1 --output Y c.d=2",
        "train a.b=1 --base X lora c.d=2 --output Y",
        "train --base X --output Y a.b=1 c.d=2 lora",
    ],
)
def test_overrides_may_stand_anywhere_after_the_verb(line):
    options = read(line.split())
    assert (options.recipe, options.set) == ("lora", ["a.b=1", "c.d=2"])
    assert (options.base, str(options.output)) == ("X", "Y")


@pytest.mark.parametrize(
    ("line", "name", "value"),
    [
        ("eval size=3", "benchmark", "toolworld"),
        ("eval --limit 2 size=3 other", "benchmark", "other"),
        ("nano size=3 check --json", "action", "check"),
        ("params --base nano --recipe lora size=3 --json", "recipe", "lora"),
    ],
)
def test_every_verb_with_overrides_takes_them_beside_its_own_word(line, name, value):
    options = read(line.split())
    assert getattr(options, name) == value
    assert options.set == ["size=3"]


@pytest.mark.parametrize("verb", ["eval", "run hi", "chat"])
def test_what_plays_can_be_constrained(verb):
    free, held = (read(f"{verb}{flags}".split()) for flags in ("", " --constrain --on-unsupported ignore"))
    assert (free.constrain, free.on_unsupported) == (False, "refuse")
    assert (held.constrain, held.on_unsupported) == (True, "ignore")


@pytest.mark.parametrize(("verb", "context"), [("eval", 1024), ("run hi", 1024), ("chat", 1024), ("serve", 4096)])
def test_what_opens_an_engine_can_be_bounded(verb, context):
    given = " --max-context 300 --memory-mb 64 --prefill-dtype auto"
    usual, bounded = (read(f"{verb}{flags}".split()) for flags in ("", given))
    assert (usual.max_context, usual.memory_mb, usual.prefill_dtype) == (context, None, "float32")
    assert (bounded.max_context, bounded.memory_mb, bounded.prefill_dtype) == (300, 64, "auto")


def test_an_options_value_is_no_override():
    options = read(["train", "lora", "--data", "rows=2.jsonl", "training.seed=1"])
    assert (options.data, options.set) == ("rows=2.jsonl", ["training.seed=1"])


def test_a_question_may_look_like_an_option_or_an_override():
    assert read(["run", "--", "--what?"]).question == "--what?"
    assert read(["run", "x=1"]).question == "x=1"


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("train lora --ouput x", "unknown option '--ouput'. Did you mean '--output'?"),
        ("train lora a.b=1 --proceses=2", "Did you mean '--processes'?"),
        ("run hi --tolls x", "Did you mean '--tools'?"),
        ("trian lora", "no verb 'trian'. Did you mean 'train'?"),
        ("train lora extra", "unexpected 'extra'"),
        ("run hi there", "unexpected 'there'"),
        ("train a.b=1", "required: recipe"),
        ("nano chek", "neither 'pretrain' nor 'check'"),
        ("nano steps=2", "required: action"),
    ],
)
def test_a_misspelt_line_is_answered_with_what_was_meant(capsys, line, told):
    with pytest.raises(SystemExit) as stop:
        read(line.split())
    assert stop.value.code == 2
    assert told in capsys.readouterr().err


def test_the_page_about_the_verbs_is_what_the_parsers_say():
    assert page() == PAGE.read_text(encoding="utf-8"), (
        "write it anew: python -m rolecraft.commands > docs/command-line.md"
    )


def test_the_page_about_the_verbs_is_the_same_on_every_terminal(monkeypatch):
    monkeypatch.setenv("COLUMNS", "30")
    narrow = page()
    monkeypatch.setenv("COLUMNS", "300")
    assert page() == narrow


def test_help_names_every_verb_under_the_group_it_belongs_to(capsys):
    with pytest.raises(SystemExit) as stop:
        read(["--help"])
    assert stop.value.code == 0
    told = capsys.readouterr().out
    for group, members in commands.by_group().items():
        listed = told.partition(f"\n{group}:\n")[2].partition("\n\n")[0]
        assert [line.split()[0] for line in listed.splitlines()] == list(members) != []
    assert sum(map(len, commands.by_group().values())) == len(catalog.names("commands"))


@pytest.mark.parametrize("line", ["", "--verbose", "absent.py", "_playing", "__main__"])
def test_what_names_no_verb_is_a_mistake_of_the_callers(capsys, line):
    with pytest.raises(SystemExit) as stop:
        read(line.split())
    assert stop.value.code == 2
    assert "rolecraft: error:" in capsys.readouterr().err
