"""A request becomes its calls at once, values typed; the source's other tools are distractors."""

from __future__ import annotations

import copy
import json

import pytest
from public import FOLDER, needs

from rolecraft import store
from rolecraft.errors import DataError
from rolecraft.importers import seal_tools
from rolecraft.judges import calls


def with_call(**parameters):
    row = copy.deepcopy(dict(seal_tools.EXAMPLE))
    row["calling"][0]["parameters"] = parameters
    return row


@pytest.mark.parametrize(("given", "value"), [("40.7", 40.7), ("3", 3), (2, 2), (0.5, 0.5)])
def test_values_have_their_parameters_type(given, value):
    found = seal_tools.convert(with_call(length=given)).messages[-1].tool_calls[0].arguments["length"]
    assert (found, type(found)) == (value, type(value))


@pytest.mark.parametrize(
    ("parameters", "said"),
    [
        ({"length": "API_call_0"}, "result of another call"),
        ({"length": ["API_call_0", 2]}, "result of another call"),
        ({"length": "per month"}, "is no number"),
        ({"length": True}, "is no number"),
        ({"length": 1, "depth": 2}, "no parameter 'depth'"),
        ({}, "'length' is required"),
    ],
)
def test_a_call_that_cannot_be_made_is_told(parameters, said):
    with pytest.raises(DataError, match=said):
        seal_tools.convert(with_call(**parameters))


def test_tools_are_found_beside_the_requests_and_all_of_them_told(tmp_path):
    row = copy.deepcopy(dict(seal_tools.EXAMPLE))
    tools = [*row.pop("tools"), {**seal_tools.EXAMPLE["tools"][0], "api_name": "getPM2.5 Level"}]
    (tmp_path / "tool.jsonl").write_text("".join(json.dumps(tool) + "\n" for tool in tools))
    (tmp_path / "dev.jsonl").write_text(json.dumps(row) + "\n")
    (read,) = store.read_trajectories(tmp_path, "seal_tools")
    assert read.task.tools == seal_tools.convert(seal_tools.EXAMPLE).task.tools
    assert [tool.name for tool in seal_tools.tools(tmp_path)] == ["weighBoat", "getBerthPrice", "getPM2_5_Level"]


@needs("seal_tools")
def test_the_public_requests_convert_but_for_those_that_nest_calls_or_give_no_number():
    told = store.BadRows()
    read = list(store.read_trajectories(FOLDER / "seal_tools", "seal_tools", "skip", told))
    assert (told.total, len(read)) == (700, 668)
    assert told.reasons["a value is the result of another call, which nobody knows yet"] == 28
    assert [t.id for t in read if calls.judge(t).score < 1] == []
    assert len({tool.name for tool in seal_tools.tools(FOLDER / "seal_tools")}) == 4076
