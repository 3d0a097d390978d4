"""Rows of different tools in groups that are offered the same."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from rolecraft import augment, curate, wire
from rolecraft.curate import Source
from rolecraft.errors import NotFound
from rolecraft.importers import NO_TOOL_FITS
from rolecraft.types import Message, Task, ToolCall, ToolSpec, Trajectory

WORDS = "ferry boat gull crop soil map harbour depth sail rope anchor".split()
KEY = {"type": "object", "properties": {"key": {"type": "string"}}, "required": ["key"]}


def spec(name: str) -> ToolSpec:
    return ToolSpec(name, f"does {name}", KEY)


def row(number: int, *names: str, offered: tuple[str, ...] = (), reply: str = "") -> Trajectory:
    question = Message("user", f"question {number}")
    calls = tuple(ToolCall(name, {"key": str(number)}, f"call_{place}") for place, name in enumerate(names))
    task = Task(str(number), (question,), tuple(map(spec, dict.fromkeys((*names, *offered)))))
    return Trajectory(str(number), task, (question, Message("assistant", reply, calls)))


def names(rows: list[Trajectory]) -> set[tuple[str, ...]]:
    return {tuple(tool.name for tool in one.task.tools) for one in rows}


def test_rows_of_a_group_are_offered_what_all_of_them_need_and_no_more():
    rows = [row(0, "getFerry", offered=("getCrop",)), row(1, "weighBoat", "feedGull"), row(2, "mapHarbour")]
    (group,) = augment.together(rows, 4)
    assert [one.id for one in group] == ["0", "1", "2"]
    assert names(group) == {("getFerry", "weighBoat", "feedGull", "mapHarbour")}
    assert [one.messages for one in group] == [one.messages for one in rows]


def test_a_group_has_no_two_rows_whose_tools_are_about_the_same():
    rows = [row(0, "getFerry"), row(1, "bookFerry"), row(2, "getFerry"), row(3, "feedGull")]
    groups = augment.together(rows, 4)
    assert [[one.id for one in group] for group in groups] == [["0", "3"], ["1"], ["2"]]


def test_groups_are_as_large_as_they_may_be_and_every_row_is_in_one():
    rows = [row(number, word) for number, word in enumerate(WORDS)]
    groups = augment.together(rows, 4)
    assert [len(group) for group in groups] == [4, 4, 3]
    assert sorted(one.id for group in groups for one in group) == sorted(one.id for one in rows)


def test_a_row_to_which_no_tool_fits_stays_alone_as_it_is():
    none = row(0, offered=("getFerry", "feedGull"), reply=NO_TOOL_FITS)
    assert augment.together([none, row(1, "mapHarbour")], 4) == [[none], [row(1, "mapHarbour")]]


def test_a_mix_draws_rows_of_different_tools_together_only_where_it_is_told(tmp_path: Path):
    rows = "".join(
        json.dumps(wire.trajectory_to_json(row(number, word))) + "\n" for number, word in enumerate(WORDS[:4])
    )
    (tmp_path / "rows.jsonl").write_text(rows, encoding="utf-8")
    for together, offered in ((True, 4), (False, 1)):
        source = Source(str(tmp_path / "rows.jsonl"), together=together)
        mixed, _ = curate.mix([source], None, 0, group=4)
        assert [len(one.task.tools) for one in mixed] == [offered] * 4


def test_a_path_that_is_not_here_is_looked_for_among_the_public_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("ROLECRAFT_DATA", str(tmp_path))
    source = Source("own/rows.jsonl")
    with pytest.raises(NotFound, match=r"'own/rows.jsonl', nor .*own/rows.jsonl'; .*ROLECRAFT_DATA"):
        curate.check([source])
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "rows.jsonl").write_text(
        '{"messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "ho"}]}\n', encoding="utf-8"
    )
    curate.check([source])
    mixed, _ = curate.mix([source], None, 0)
    assert [one.messages[0].content for one in mixed] == ["hi"]
