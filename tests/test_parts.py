"""Data are divided by what rows ask, wherever the rows lie."""

from __future__ import annotations

import pytest

from rolecraft import parts
from rolecraft.errors import SettingsError
from rolecraft.types import Message, Task, Trajectory


def row(place: int, asked: str) -> Trajectory:
    messages = (Message("user", asked), Message("assistant", f"answer {place}"))
    return Trajectory(f"t{place}", Task(f"t{place}", messages[:1]), messages)


def test_each_row_is_of_one_part_and_parts_are_about_as_large():
    rows = [row(place, f"What is {place}?") for place in range(600)]
    for of in (2, 3):
        sizes = [sum(parts.belongs(one, f"{number}/{of}") for one in rows) for number in range(1, of + 1)]
        assert sum(sizes) == 600
        assert min(sizes) > 600 / of * 0.8


def test_rows_that_ask_the_same_are_of_the_same_part():
    for place in range(50):
        one, other = row(place, f"What is {place}?"), row(1000 + place, f"What  is\n{place}?")
        assert parts.belongs(one, "1/2") == parts.belongs(other, "1/2")


def test_another_draw_divides_otherwise():
    rows = [row(place, f"What is {place}?") for place in range(100)]
    halves = [[parts.place(one, name) < 0.5 for one in rows] for name in ("part", "validation")]
    assert halves[0] != halves[1]


@pytest.mark.parametrize("part", ["0/2", "3/2", "1", "1/", "one/two", "1/2/3"])
def test_a_part_that_cannot_be_is_refused(part):
    with pytest.raises(SettingsError, match=r"data\.part"):
        parts.read(part)
