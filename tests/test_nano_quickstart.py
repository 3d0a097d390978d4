"""The tour on the embedded base; the long test is the promise that the README makes."""

import json

import claims
import pytest

import rolecraft.commands.quickstart as tour
from rolecraft import commands
from rolecraft.errors import UserError
from rolecraft.nano import quickstart


@pytest.mark.slow
def test_the_quickstart_keeps_its_promise(tmp_path):
    quickstart.quickstart(quickstart.Settings(), tmp_path / "tour")
    summary = json.loads((tmp_path / "tour" / "summary.json").read_text())
    scores = {split: found["score"] for split, found in summary["tuned"].items()}
    best = {split: max(row[split]["score"] for row in summary["untuned"].values()) for split in scores}
    assert all(found["n"] >= 210 for found in summary["tuned"].values())
    # What the README's table shows, less twice the standard error of 210 tasks.
    assert scores["test"] >= 0.82
    assert scores["tools"] >= 0.67
    assert scores["phrasing"] >= 0.40
    assert all(scores[split] - best[split] >= 0.4 for split in scores)


def test_the_command_line_and_the_settings_have_the_same_defaults():
    _, options = commands.read(["quickstart"])
    assert quickstart.Settings(**tour.NANO, processes=options.processes) == quickstart.Settings()


def test_the_real_profile_plays_a_base_tunes_it_plays_it_again_and_goes_on_where_it_was(tmp_path, monkeypatch, capsys):
    arms = {"untuned-0shot": {"base": "nano"}, "lora": {}, "other": {}}
    decides = [{"better": "lora/free", "than": "untuned-0shot/free", "decides": "toolworld:test"}]
    path = claims.on_columns(tmp_path, arms=arms, comparisons=decides)
    monkeypatch.setattr(tour, "CLAIM", str(path))
    given = ["quickstart", "--profile", "real", "--processes", "1", "--output", str(tmp_path / "real")]
    tour.run(commands.read(given)[1])
    played = {file: file.stat().st_mtime_ns for file in (tmp_path / "real" / "cells").rglob("*.json")}
    assert len(played) == 9  # two arms in two modes on two columns, and the tuning
    assert "lora" in (tmp_path / "real" / "report.md").read_text()
    tour.run(commands.read(given)[1])
    assert played == {file: file.stat().st_mtime_ns for file in (tmp_path / "real" / "cells").rglob("*.json")}
    assert "every cell is finished" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (["--profile", "real", "--n", "7"], "--n is of the nano profile"),
        (["--base", "smollm2=x.gguf"], "--base is of the real profile"),
    ],
)
def test_an_option_of_the_other_profile_is_refused(given, told):
    with pytest.raises(UserError, match=told):
        tour.run(commands.read(["quickstart", *given])[1])


def test_a_finished_tour_is_moved_aside_and_not_lost(tmp_path):
    old = tmp_path / "tour"
    old.mkdir()
    (old / "summary.json").write_text("old")
    quickstart._clear(old, resume=False)
    assert not old.exists()
    assert (tmp_path / "tour-1" / "summary.json").read_text() == "old"


def test_a_tour_that_is_resumed_stays_where_it_is(tmp_path):
    (tmp_path / "tour").mkdir()
    quickstart._clear(tmp_path / "tour", resume=True)
    assert (tmp_path / "tour").is_dir()
