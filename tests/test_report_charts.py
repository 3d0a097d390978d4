"""Drawings show what they are given, escape what is written on them, and survive odd numbers."""

from __future__ import annotations

import math
import re

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from rolecraft.report import charts
from rolecraft.scores import Score


def heights(html):
    """Return the y of each point of the last line, 0 at the top and 1000 at the bottom."""
    path = re.findall(r'points="([^"]*)"', html)[-1]
    return [float(pair.split(",")[1]) for pair in path.split()]


def test_a_bar_is_as_wide_as_its_share_and_its_whisker_as_its_interval():
    drawn = charts.Bar("tuned", 0.862, "86.2", interval=(0.809, 0.901)).html()
    assert 'width="86.20%"' in drawn
    assert 'x1="80.90%" x2="90.10%"' in drawn


@pytest.mark.parametrize(("share", "width"), [(-1, "0.00%"), (2, "100.00%")])
def test_a_bar_stays_in_its_track(share, width):
    assert f'class="k0" width="{width}"' in charts.Bar("a", share, "").html()


def test_what_is_written_on_a_drawing_is_escaped():
    bar = charts.Bar('<x1 a="">', 1, "<x2>", href='"><x3>')
    drawn = charts.bar_card("<x4>", [bar]) + charts.curve("<x5>", {"<x6>": [(0, 1), (1, 2)]})
    assert re.findall(r"&lt;(x\d)", drawn) == ["x4", "x3", "x1", "x2", "x5", "x6"]
    assert "<x" not in drawn


def test_a_shared_n_stands_in_the_title_and_others_beside_their_rows():
    a, b = Score(0.5, 210, (0.4, 0.6)), Score(0.5, 30, (0.3, 0.7))
    colours = {"x": 0, "y": 1}
    assert "<h3>test, n 210</h3>" in charts.score_card("test", {"x": a, "y": a}, colours)
    mixed = charts.score_card("test", {"x": a, "y": b}, colours)
    assert "<h3>test</h3>" in mixed
    assert "x, n 210" in mixed
    assert "y, n 30" in mixed


def test_metrics_become_series_of_their_numbers_by_step():
    rows = [
        {"step": 10, "epoch": 0.1, "loss": 2.0, "roles": {"reasoner": 1.5}, "note": "warm"},
        {"step": 20, "loss": math.nan, "roles": {"reasoner": 1.0}, "done": True},
    ]
    assert charts.series(rows) == {"loss": [(10, 2.0)], "roles/reasoner": [(10, 1.5), (20, 1.0)]}


def test_metrics_without_steps_are_counted():
    assert charts.series([{"loss": 2}, {"loss": 1}]) == {"loss": [(0, 2.0), (1, 1.0)]}


def test_a_falling_loss_is_drawn_downwards():
    drawn = heights(charts.curve("loss", {"loss": [(step, 5 - step / 10) for step in range(40)]}))
    assert drawn == sorted(drawn)


def test_a_long_curve_is_thinned_and_keeps_its_level():
    drawn = heights(charts.curve("loss", {"loss": [(step, 1.0 + step % 2) for step in range(100_000)]}))
    assert len(drawn) <= 400
    assert all(abs(y - 1000 * (1 - 1.5 / 2.1)) < 1 for y in drawn)


def test_roles_have_the_colours_of_their_messages():
    drawn = charts.curve("loss", {name: [(0, 1), (1, 1)] for name in ("loss", "loss/executor", "loss/summarizer")})
    assert re.findall(r'class="(k\d)" width="18"[^>]*/></svg>([^ ]+)', drawn) == [
        ("k9", "loss"),
        ("k1", "loss/executor"),
        ("k2", "loss/summarizer"),
    ]


finite = st.floats(allow_nan=True, allow_infinity=True)


@settings(deadline=None)
@example([(0, 5e-324)])
@given(st.lists(st.tuples(st.integers(0, 10**12), finite), min_size=1, max_size=50))
def test_any_metrics_can_be_drawn(points):
    found = charts.series([{"step": step, "loss": value} for step, value in points])
    if found:
        drawn = charts.curve("loss", found)
        assert "nan" not in drawn
        assert "inf" not in drawn
        assert all(0 <= y <= 1000 for y in heights(drawn))


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (0.004, "0.004"), (92.63, "92.6"), (999.6, "1,000"), (-571, "-571"), (12345.6, "12,346")],
)
def test_numbers_are_short(value, text):
    assert charts.number(value) == text
