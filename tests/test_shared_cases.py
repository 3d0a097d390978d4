"""Rows that broke other tools, after their public bug reports: each is read with the right value, or told as bad."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rolecraft import examples, renderers, store, team, wire
from rolecraft.errors import DataError
from rolecraft.server import requests
from rolecraft.server.errors import Refused

CASES = Path(__file__).parents[2] / "shared/cases"
FILES = sorted(CASES.glob("*.jsonl"))
pytestmark = pytest.mark.skipif(not FILES, reason="needs the public cases in ../shared/cases")


def read(name: str) -> tuple[list[Any], store.BadRows]:
    """Return the trajectories of a case and what is told of its bad rows."""
    bad_rows = store.BadRows()
    try:
        return list(store.read_trajectories(CASES / name, on_bad_row="skip", bad_rows=bad_rows)), bad_rows
    except DataError:  # every row is bad
        return [], bad_rows


def values(value: Any) -> Iterator[Any]:
    yield value
    for item in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from values(item)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_row_is_read_or_told_with_its_reason(path):
    trajectories, bad_rows = read(path.name)
    assert len(trajectories) + bad_rows.count == bad_rows.total > 0
    assert all(reason.startswith(f"{path}:") and len(reason) > len(str(path)) + 20 for reason in bad_rows.first)


def test_a_call_without_its_result_makes_a_bad_row():
    _, bad_rows = read("d12_missing_result.jsonl")
    assert bad_rows.count == bad_rows.total
    assert "messages[1]: the call 'a' (price) has no result" in bad_rows.first[0]


@pytest.mark.parametrize("key", ["properties", "required"])
def test_a_tool_whose_schema_is_null_in_a_place_of_weight_makes_a_bad_row(key):
    trajectories, bad_rows = read(f"d13_null_{key}.jsonl")
    assert (len(trajectories), bad_rows.count) == (3, 1)
    assert f"tools[0]: parameters.{key} is null" in bad_rows.first[0]


def test_an_empty_list_of_properties_is_none():
    trajectories, bad_rows = read("d13_list_properties.jsonl")
    assert (len(trajectories), bad_rows.count) == (4, 0)
    assert trajectories[2].task.tools[0].parameters == {"type": "object", "properties": {}}


@pytest.mark.parametrize("key", ["properties", "required"])
def test_the_server_answers_such_a_tool_with_400(key):
    (row,) = (row for row in store.read_jsonl(CASES / f"d13_null_{key}.jsonl") if "tools" in row)
    with pytest.raises(Refused, match=f"parameters.{key} is null") as refused:
        requests.read(json.dumps({"model": "m", **row}).encode(), 512)
    assert (refused.value.status, refused.value.param) == (400, "tools[0]")


def test_calls_spelled_out_in_content_are_never_trained_as_split_text(hermes_tokenizer):
    trajectories, _ = read("d2_tags_in_content.jsonl")
    renderer = renderers.find(hermes_tokenizer)
    for trajectory in trajectories:
        with pytest.raises(DataError, match=r"message 1 spells out '<tool_call>'.*write calls as 'tool_calls'"):
            examples.build(trajectory, team.find("single"), renderer)
    assert trajectories


def test_padded_nulls_are_left_out_of_arguments_and_schemas():
    trajectories, bad_rows = read("d6_arrow_nulls.jsonl")
    assert trajectories
    assert not bad_rows.count
    for trajectory in trajectories:
        row = wire.trajectory_to_json(trajectory, "object")
        assert row["messages"][1].pop("content") is None  # OpenAI's own null, beside calls
        assert None not in list(values(row))
