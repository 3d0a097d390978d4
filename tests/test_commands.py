"""How a line of words is read, what a misspelt word is answered, and what `--help` and docs/ say of the verbs."""

from __future__ import annotations

from pathlib import Path

import pytest
from verbs import read

from rolecraft import catalog, commands
from rolecraft.commands.__main__ import page

PAGE = Path(__file__).parents[1] / "docs" / "command-line.md"


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
