"""Failures stand side by side in one table: the listed classes always, the others where there are any."""

from __future__ import annotations

from rolecraft.judges import failures
from rolecraft.report import classes


def test_the_listed_classes_are_classes_and_come_first_even_where_none_failed_so():
    assert failures.LISTED.keys() <= failures.CLASSES.keys()
    heading, rows = classes.shares({"before": ({"wrong tool": 3, "ran out": 1}, 8), "after": ({"wrong tool": 1}, 8)})
    assert heading == ("tasks", "failed", *failures.LISTED, "ran out")
    before, after = (dict(zip(("way", *heading), row, strict=True)) for row in rows)
    assert (before["failed"], before["wrong tool"], before["ran out"]) == ("50.0", "37.5", "12.5")
    assert (after["failed"], after["wrong tool"], after["ran out"], after["wrong order"]) == (
        "12.5",
        "12.5",
        "0.0",
        "0.0",
    )


def test_where_nothing_was_played_no_share_is_told():
    _, ((_, n, failed, *_),) = classes.shares({"before": ({}, 0)})
    assert (n, failed) == ("0", "-")
