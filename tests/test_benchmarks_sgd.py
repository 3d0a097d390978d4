"""sgd asks for the next call with services that training never saw, judged whole and slot by slot, and runs nothing."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from public import FOLDER, needs

from rolecraft import evaluate, store
from rolecraft.benchmarks import sgd
from rolecraft.errors import DataError, NotFound, SettingsError
from rolecraft.importers import NO_TOOL_FITS
from rolecraft.types import Message, Task, ToolCall, ToolSpec, Trajectory

SPEC = ToolSpec(
    "BookFerry",
    "",
    {
        "type": "object",
        "properties": {
            "to": {"type": "string"},
            "seats": {"type": "integer", "default": 1},
            "car": {"type": "boolean", "default": False},
        },
        "required": ["to"],
    },
)


def posed(**reference: Any) -> Task:
    call = {"name": "BookFerry", "arguments": {"to": "St. John's", "seats": 2}}
    known = {"family": "call", "calls": [call], "accepted": {"to": ["the harbour"]}, **reference}
    return Task("t", (Message("user", "Two to St. John's"),), (SPEC,), known)


def judged(*calls: ToolCall, task: Task | None = None, content: str = "", unparsed: str | None = None):
    task = task or posed()
    reply = Message("assistant", content, calls, unparsed=unparsed)
    return sgd.judge(Trajectory("t", task, (*task.messages, reply), stop="answered"))


def book(**arguments: Any) -> ToolCall:
    return ToolCall("BookFerry", arguments)


@pytest.mark.parametrize(
    "call",
    [
        book(to="St. John's", seats=2),
        book(to="st johns", seats=2),
        book(to="The Harbour", seats=2.0),
        book(to="St. John's", seats=2, car=False),
    ],
)
def test_the_call_is_right_in_the_dialogues_own_words_and_with_a_default_told(call):
    assert judged(call).score == 1


@pytest.mark.parametrize(
    ("calls", "function", "slots", "asked_for"),
    [
        ([book(to="Oban", seats=2)], 1, 0.5, 1),
        ([book(to="St. John's")], 1, 0.5, 1),
        ([book(to="St. John's", seats="2")], 1, 0.5, 1),
        ([book(to="St. John's", seats=True)], 1, 0.5, 1),
        ([book(to="St. John's", seats=2, car=True)], 1, 1, 0),
        ([book(to="St. John's", seats=2, deck=1)], 1, 1, 0),
        ([ToolCall("FindFerry", {"to": "St. John's", "seats": 2})], 0, 0, 0),
        ([book(to="St. John's", seats=2)] * 2, 0, 0, 0),
        ([], 0, 0, 0),
    ],
)
def test_a_wrong_call_is_told_by_its_parts(calls, function, slots, asked_for):
    verdict = judged(*calls, content="I do.")
    assert verdict.score == 0
    assert verdict.parts == {"parsed": 1, "function": function, "slots": slots, "asked for": asked_for}
    assert verdict.reason


@pytest.mark.parametrize(
    ("given", "value", "same"),
    [
        ("3.5", "35", False),
        ("-5", "5", False),
        ("1/2", "12", False),
        ("3-5", "35", False),
        ("at -5", "at 5", False),
        ("2019/03/01", "2019-03-01", True),
        ("925-254-9800", "9252549800", True),
        ("2019-03-02", "2019-03-01", False),
        ("1,200", "1200", True),
        ("pier-5", "Pier 5", True),
        ("St. 5", "st 5", True),
        ("5 p.m.", "5 pm", True),
        ("3.5", " 3.5.", True),
    ],
)
def test_punctuation_does_not_matter_but_in_numbers(given, value, same):
    task = posed(calls=[{"name": "BookFerry", "arguments": {"to": value}}], accepted={})
    assert judged(book(to=given), task=task).score == same


def test_a_slot_at_its_default_may_be_left_out():
    one = posed(calls=[{"name": "BookFerry", "arguments": {"to": "Oban", "seats": 1}}])
    assert judged(book(to="Oban"), task=one).score == 1


def test_a_call_that_cannot_be_read_is_wrong_beside_a_right_one():
    assert judged(book(to="St. John's", seats=2), unparsed="{").reason == "a call could not be read"


@pytest.mark.parametrize(
    "value", [None, [], {}, "x" * 100_000, float("nan"), 10**400, json.loads("[" * 400 + "]" * 400)]
)
def test_hostile_values_are_wrong(value):
    verdict = judged(book(to=value, seats=2))
    assert verdict.score == 0
    assert len(verdict.reason) < 400


def test_where_the_user_must_be_asked_any_words_are_right_and_any_call_wrong():
    ask = posed(family="ask", calls=[], said="Where to?")
    assert judged(task=ask, content="Where to?").parts == {"parsed": 1, "question": 1}
    assert judged(task=ask, content="Tell me where to.").score == 1
    assert judged(book(to="Oban"), task=ask, content="Where to?").score == 0
    assert judged(task=ask).score == 0
    assert judged(task=ask, content="Hm?", unparsed="{").score == 0


def test_a_task_of_another_benchmark_does_not_open():
    with pytest.raises(DataError, match="only tasks of sgd"):
        sgd.open(Task("other", (Message("user", "?"),)))


@pytest.mark.parametrize("wrong", [{"size": 0}, {"results": -1}])
def test_settings_that_ask_nothing_are_refused(wrong):
    with pytest.raises(SettingsError, match="at least"):
        sgd.Settings(**wrong)


def test_without_the_data_it_is_told_where_they_come_from(monkeypatch, tmp_path):
    monkeypatch.setenv("ROLECRAFT_DATA", str(tmp_path))
    with pytest.raises(NotFound, match=r"dstc8-schema-guided-dialogue.*ROLECRAFT_DATA"):
        sgd.tasks(sgd.Settings(), "test", 0)


@pytest.fixture
def public(monkeypatch):
    monkeypatch.setenv("ROLECRAFT_DATA", str(FOLDER))


@needs("sgd")
@pytest.mark.usefixtures("public")
@pytest.mark.parametrize(
    ("split", "count", "services"), [("test", 2710, 17), ("ask", 2020, 15), ("seen", 951, 4), ("dev", 1321, 4)]
)
def test_the_public_splits_are_whole_and_their_solutions_accepted(split, count, services):
    tasks = sgd.tasks(sgd.Settings(size=10_000), split, 0)
    assert len(tasks) == len({task.id for task in tasks}) == count
    assert len({name for task in tasks for name in task.reference["services"]}) == services
    assert [t.id for t in tasks if sgd.reference(t, "single").verdict.score < 1] == []
    assert all(task.messages[-1].role == "user" for task in tasks)


@needs("sgd")
@pytest.mark.usefixtures("public")
def test_no_service_of_a_test_is_in_a_training_dialogue_nor_a_held_out_one_in_a_test():
    trained = {
        name for row in store.read_trajectories(FOLDER / "sgd/train", "sgd") for name in row.task.reference["services"]
    }
    for split in ("test", "ask"):
        asked = {name for t in sgd.tasks(sgd.Settings(size=10_000), split, 0) for name in t.reference["services"]}
        assert not asked & trained
    with pytest.raises(SettingsError, match="no service 'Boats_9'"):
        sgd.tasks(sgd.Settings(held_out=("Boats_9",)), "dev", 0)


@needs("sgd")
@pytest.mark.usefixtures("public")
def test_results_are_cut_to_the_first_ones():
    for most in (0, 2):
        tasks = sgd.tasks(replace(sgd.Settings(), results=most), "test", 0)
        told = [len(json.loads(m.content)) for task in tasks for m in task.messages if m.role == "tool"]
        assert max(told) == most


@needs("sgd")
@pytest.mark.usefixtures("public")
def test_examples_are_solved_first_turns_of_training_dialogues():
    asked = sgd.tasks(sgd.Settings(size=4), "test", 0)
    for task, before in zip(sgd.few_shot(asked, "single", 3), asked, strict=True):
        assert task.messages[0] == before.messages[0]
        shown = task.messages[1 : len(task.messages) - len(before.messages) + 1]
        called = ["user", "assistant", "tool", "assistant"]
        assert [m.role for m in shown] == [*called, "user", "assistant", *called]
        assert task.messages[-1] == before.messages[-1]


@needs("sgd")
@pytest.mark.usefixtures("public")
def test_trivial_policies_get_what_the_splits_allow_them_and_the_tables_tell_how_they_call():
    settings = evaluate.Settings(benchmark="sgd", split="test+ask", options={"size": 40})
    found = evaluate.baselines(settings)
    assert {name: scores.score for name, scores in found["never calls"].items()} == {"test": 0, "ask": 1}
    assert found["always calls"]["ask"].score == 0
    assert found["always calls"]["test"].score < 0.1
    assert evaluate.splits("sgd") == "test+ask"
    played = [replied(task, NO_TOOL_FITS) for task in sgd.tasks(sgd.Settings(size=3), "test", 0)]
    called = [replied(task, "", ToolCall("x", {})) for task in sgd.tasks(sgd.Settings(size=3), "ask", 0)]
    habits = [list(column.cells) for column in evaluate.calling_table({"test": played, "ask": called}).columns]
    assert habits[1:] == [["call", "ask"], ["3", "3"], ["0.0", "0.0"], ["-", "100.0"], ["100.0", "-"]]
    parts = evaluate.parts_table({"test": played, "ask": called})
    assert [column.header for column in parts.columns] == [
        *("split", "family", "parsed", "function", "slots", "asked for", "question"),
    ]  # fmt: skip


def replied(task: Task, content: str, *calls: ToolCall) -> Trajectory:
    record = Trajectory(task.id, task, (*task.messages, Message("assistant", content, calls)), stop="answered")
    return replace(record, verdict=sgd.judge(record))
