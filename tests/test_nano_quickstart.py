"""The tour on the embedded base; the long test is the promise that the README makes."""

import json

import pytest

from rolecraft import commands
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
    (_, options), settings = commands.read(["quickstart"]), quickstart.Settings()
    asked = quickstart.Settings(options.recipe, options.n, options.seed, options.processes)
    assert asked == settings


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
