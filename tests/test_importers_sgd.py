"""A dialogue becomes calls, the questions before them and the answers after, with the types that its texts lost."""

from __future__ import annotations

import copy
import json
from collections import Counter
from typing import Any

import pytest
from public import FOLDER, needs

from rolecraft import store
from rolecraft.errors import DataError, NotFound
from rolecraft.importers import sgd
from rolecraft.judges import calls
from rolecraft.types import Trajectory


def row(**parameters: str) -> dict[str, Any]:
    """Return the example, its call with other parameters."""
    changed = copy.deepcopy(dict(sgd.EXAMPLE))
    if parameters:
        changed["turns"][3]["frames"][0]["service_call"]["parameters"] = parameters
    return changed


def called(dialogue: dict[str, Any]) -> dict[str, Any]:
    (call,) = [call for message in sgd.convert(dialogue).messages for call in message.tool_calls]
    return dict(call.arguments)


def test_values_have_their_types_in_calls_results_and_schemas():
    trajectory = sgd.convert(row())
    (tool,) = trajectory.task.tools
    assert called(row()) == {"date": "2019-03-02", "passengers": 2, "with_car": True}
    assert json.loads(trajectory.messages[5].content) == [{"date": "2019-03-02", "passengers": 2, "ship": "Kittiwake"}]
    assert tool.parameters == {
        "type": "object",
        "properties": {
            "date": {"type": "string", "format": "date", "description": "Day of the crossing (YYYY-MM-DD)"},
            "passengers": {"type": "integer", "description": "People on board", "enum": [1, 2, 3]},
            "with_car": {"type": "boolean", "description": "Whether a car comes along", "default": False},
        },
        "required": ["date", "passengers"],
    }


@pytest.mark.parametrize(
    ("slot", "description", "text", "value"),
    [
        ("pickup_time", "", "09:30", "09:30"),
        ("wait_time", "", "9", "9"),
        ("stay_length", "", "5", 5),
        ("crew", "Number of sailors", "12", 12),
        ("rating", "", "3.90", 3.9),
        ("amount", "", "89", 89),
        ("name", "", "1512", "1512"),
    ],
)
def test_a_slot_without_choices_has_the_kind_that_its_name_or_description_tells(slot, description, text, value):
    dialogue = row(date="2019-03-02", passengers="2", **{slot: text})
    described = {"name": slot, "description": description, "is_categorical": False, "possible_values": []}
    dialogue["schemas"][0]["slots"].append(described)
    dialogue["schemas"][0]["intents"][0]["optional_slots"][slot] = "dontcare"
    assert called(dialogue)[slot] == value
    assert type(called(dialogue)[slot]) is type(value)


@pytest.mark.parametrize(
    "wrong", [{"date": "next Friday"}, {"date": "2019-02-30"}, {"passengers": "some"}, {"with_car": "maybe"}]
)
def test_a_value_that_is_not_of_its_kind_is_told(wrong):
    with pytest.raises(DataError, match=f"slot '{next(iter(wrong))}'.* is no "):
        sgd.convert(row(**{"date": "2019-03-02", "passengers": "2", **wrong}))


def test_an_optional_argument_at_its_default_stays_only_if_the_user_gave_it():
    dialogue = row(date="2019-03-02", passengers="2", with_car="False")
    assert "with_car" in called(dialogue)
    dialogue["turns"][0]["frames"][0]["actions"] = []
    assert "with_car" not in called(dialogue)


def test_the_day_from_which_the_source_counts_is_told():
    assert sgd.convert(row()).messages[0].content == "Today is Friday, 2019-03-01."


def trained(trajectory: Trajectory) -> list[str]:
    return [m.content for m in trajectory.messages if m.role == "assistant" and m.weight != 0]


def test_trained_are_the_question_for_a_missing_slot_the_call_and_the_answer():
    assert trained(sgd.convert(row())) == ["On which day?", "", "Booked: the Kittiwake takes you."]


def test_a_question_for_what_is_known_or_not_required_is_context():
    for slot in ("with_car", "passengers"):
        dialogue = row()
        dialogue["turns"][0]["frames"][0]["state"]["slot_values"]["passengers"] = ["2"]
        dialogue["turns"][1]["frames"][0]["actions"][0]["slot"] = slot
        assert trained(sgd.convert(dialogue)) == ["", "Booked: the Kittiwake takes you."]


def test_a_system_turn_that_says_nothing_is_no_message_and_a_users_is_told():
    dialogue = row()
    dialogue["turns"][3]["utterance"] = ""
    assert [m.role for m in sgd.convert(dialogue).messages][-2:] == ["assistant", "tool"]
    dialogue["turns"][2]["utterance"] = ""
    with pytest.raises(DataError, match="no 'utterance'"):
        sgd.convert(dialogue)


def test_a_confirmation_and_a_farewell_are_context():
    for act in ("CONFIRM", "GOODBYE", "REQ_MORE"):
        dialogue = row()
        dialogue["turns"][1]["frames"][0]["actions"][0]["act"] = act
        assert "On which day?" not in trained(sgd.convert(dialogue))


def test_steps_tell_the_calls_and_the_questions_and_what_else_the_dialogue_allows():
    asked, called_for = sgd.convert(row()).task.reference["steps"]
    assert (asked["at"], asked["calls"]) == (2, [])
    assert called_for["at"] == 4
    assert called_for["calls"][0]["name"] == "BookFerry"
    assert called_for["accepted"] == {"date": [], "passengers": [], "with_car": []}


def test_intents_of_one_name_bear_their_services():
    dialogue = row()
    other = {**copy.deepcopy(dialogue["schemas"][0]), "service_name": "Ferries_2"}
    dialogue["services"].append("Ferries_2")
    dialogue["schemas"].append(other)
    trajectory = sgd.convert(dialogue)
    assert [tool.name for tool in trajectory.task.tools] == ["Ferries_1_BookFerry", "Ferries_2_BookFerry"]
    assert calls.judge(trajectory).score == 1


def test_schemas_are_found_beside_the_dialogues(tmp_path):
    dialogue = row()
    (tmp_path / "schema.json").write_text(json.dumps(dialogue.pop("schemas")))
    (tmp_path / "dialogues_001.json").write_text(json.dumps([dialogue, {**dialogue, "services": ["Boats_9"]}]))
    told = store.BadRows()
    (read,) = store.read_trajectories(tmp_path, "sgd", "skip", told)
    assert called(row()) == dict(read.messages[4].tool_calls[0].arguments)
    assert list(told.reasons) == ["no schema of service ...; schema.json must lie beside the dialogues"]
    assert sgd.services(tmp_path) == {"Ferries_1", "Boats_9"}


def test_a_file_that_is_cut_is_told_with_its_name_after_the_dialogues_before(tmp_path):
    path = tmp_path / "dialogues_001.json"
    text = json.dumps([row(), row()])
    path.write_text(text[: len(text) // 2 + 400])
    found = store.read_trajectories(path, "sgd", "skip")
    assert next(found).id == "7_00001"
    with pytest.raises(DataError, match=r"dialogues_001\.json.*not closed"):
        next(found)


def test_a_folder_without_dialogues_is_told(tmp_path):
    with pytest.raises(NotFound, match="dialogues_"):
        list(store.read_trajectories(tmp_path, "sgd"))


@needs("sgd")
@pytest.mark.parametrize(("split", "rows", "made", "asked"), [("train", 3830, 8029, 5891), ("test", 1459, 3661, 2618)])
def test_the_public_dialogues_convert_whole_with_every_call_fitting_its_typed_tool(split, rows, made, asked):
    read = list(store.read_trajectories(FOLDER / "sgd" / split, "sgd"))
    steps = Counter(bool(step["calls"]) for t in read for step in t.task.reference["steps"])
    assert (len(read), steps[True], steps[False]) == (rows, made, asked)
    assert [t.id for t in read if calls.judge(t).score < 1] == []
    kinds = Counter(type(v) for t in read for m in t.messages for c in m.tool_calls for v in c.arguments.values())
    assert kinds[int] > rows / 2
    assert kinds[bool] > 100
