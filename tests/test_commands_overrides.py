"""Overrides on the command line: where they may stand, and which ones `--help` lists."""

from __future__ import annotations

from dataclasses import fields

import pytest
from verbs import call, read

from rolecraft import catalog, settings


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


def test_an_options_value_is_no_override():
    options = read(["train", "lora", "--data", "rows=2.jsonl", "training.seed=1"])
    assert (options.data, options.set) == ("rows=2.jsonl", ["training.seed=1"])


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
