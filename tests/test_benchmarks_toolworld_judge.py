"""toolworld's judge: only the right answer, resting on calls that were made, counts."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rolecraft.benchmarks import toolworld
from rolecraft.benchmarks.toolworld import Settings
from rolecraft.benchmarks.toolworld.judge import executed, holds, judge, numbers
from rolecraft.types import Message, ToolCall, Trajectory

ANSWERED = tuple(family for family in toolworld.FAMILIES if family != "irrelevant")


def played(family: str, place: int = 0, split: str = "test") -> Trajectory:
    task = toolworld.tasks(Settings(size=place + 1, families=(family,)), split, 7)[place]
    return toolworld.reference(task, "mor")


def answering(trajectory: Trajectory, text: str) -> Trajectory:
    return replace(trajectory, messages=(*trajectory.messages[:-1], trajectory.messages[-1].edited(content=text)))


def without_calls(trajectory: Trajectory) -> Trajectory:
    kept = [m for m in trajectory.messages if m.role != "tool" and not m.tool_calls]
    return replace(trajectory, messages=tuple(kept))


@pytest.mark.parametrize("family", ANSWERED)
def test_an_answer_without_the_value_is_refused(family):
    assert judge(answering(played(family), "It is 1.")).score == 0


@pytest.mark.parametrize("family", ANSWERED)
def test_the_question_is_no_answer(family):
    trajectory = played(family)
    assert judge(answering(trajectory, trajectory.task.messages[0].content)).score == 0


@pytest.mark.parametrize("family", ANSWERED)
def test_saying_that_no_tool_fits_is_no_answer(family):
    assert judge(answering(played(family), "No tool fits.")).score == 0


@pytest.mark.parametrize("family", ANSWERED)
def test_the_right_answer_without_calls_is_refused(family):
    verdict = judge(without_calls(played(family)))
    assert verdict.parts == {"answer": 1.0, "calls": 0.0}


@pytest.mark.parametrize("family", [f for f in ANSWERED if f != "calc"])
def test_listing_other_candidates_is_no_answer(family):
    for place in range(12):
        trajectory = played(family, place)
        forbidden = trajectory.task.reference["forbidden"]
        text = trajectory.messages[-1].content
        assert all(judge(answering(trajectory, f"{text} Or {other}.")).score == 0 for other in forbidden)
        assert forbidden, trajectory.task.id


def test_a_dump_of_the_table_is_no_answer():
    for place in range(12):
        trajectory = played("records", place)
        (table,) = [t for t in trajectory.task.reference["world"] if t["tool"] == "table"]
        dump = "\n".join("|".join(map(str, row)) for row in table["rows"])
        assert judge(answering(trajectory, dump)).score == 0


def test_a_sum_must_be_the_last_number():
    trajectory = played("calc")
    value = trajectory.task.reference["answers"][0]
    assert judge(answering(trajectory, f"{value} or 17")).score == 0
    assert judge(answering(trajectory, f"17, then {value}")).score == 1


def test_a_sum_may_be_followed_by_numbers_of_the_question():
    trajectory = played("calc")
    value = trajectory.task.reference["answers"][0]
    assert judge(answering(trajectory, f"{value} is it: {trajectory.task.messages[0].content}")).score == 1


def test_swapped_values_are_refused():
    trajectory = played("parallel")
    reference = trajectory.task.reference
    pairs = zip(reference["labels"], reversed(reference["answers"]), strict=True)
    swapped = answering(trajectory, ", ".join(f"{label}: {value}" for label, value in pairs))
    assert "another order" in judge(swapped).reason


def test_the_first_step_of_a_chain_is_needed():
    trajectory = played("hop")
    first = next(i for i, m in enumerate(trajectory.messages) if m.tool_calls)
    kept = trajectory.messages[:first] + trajectory.messages[first + 2 :]
    assert "was not called" in judge(replace(trajectory, messages=kept)).reason


def test_going_straight_to_the_working_backup_is_right():
    trajectory = played("recover")
    first = next(i for i, m in enumerate(trajectory.messages) if m.tool_calls)
    kept = trajectory.messages[:first] + trajectory.messages[first + 2 :]
    assert judge(replace(trajectory, messages=kept)).score == 1


def test_two_calls_one_after_the_other_are_right():
    trajectory = played("parallel")
    messages = list[Message]()
    for call, seen in executed(trajectory.messages[1:]):
        messages += [Message("assistant", "", (call,), speaker="executor"), Message("tool", seen, tool_call_id=call.id)]
    split_up = (trajectory.messages[0], *messages, trajectory.messages[-1])
    assert judge(replace(trajectory, messages=split_up)).score == 1


def test_a_call_with_another_entity_does_not_count():
    trajectory = played("hub")
    changed = tuple(
        m.edited(tool_calls=tuple(replace(c, arguments=dict.fromkeys(c.arguments, "Nobody")) for c in m.tool_calls))
        for m in trajectory.messages
    )
    assert judge(replace(trajectory, messages=changed)).parts["calls"] == 0


def test_a_failed_call_does_not_count():
    trajectory = played("hub")
    failed = tuple(m.edited(content="error: service is down") if m.role == "tool" else m for m in trajectory.messages)
    assert judge(replace(trajectory, messages=failed)).score == 0


def test_a_refusal_must_say_that_no_tool_fits():
    trajectory = played("irrelevant")
    assert judge(answering(trajectory, "I do not know.")).score == 0
    assert judge(answering(trajectory, "None of the available tools can help.")).score == 1


def test_a_refusal_after_a_call_is_refused():
    trajectory = played("irrelevant")
    call = Message("assistant", "", (ToolCall("x", {}),), speaker="executor")
    tried = (*trajectory.messages[:-1], call, trajectory.messages[-1])
    assert judge(replace(trajectory, messages=tried)).parts["calls"] == 0


def test_an_unparsed_call_is_a_try_as_well():
    trajectory = played("irrelevant")
    broken = Message("assistant", unparsed='{"name":', speaker="executor")
    tried = (*trajectory.messages[:-1], broken, trajectory.messages[-1])
    assert judge(replace(trajectory, messages=tried)).score == 0


def test_an_episode_that_ran_out_has_no_answer():
    assert judge(replace(played("hub"), stop="max_turns")).reason == "there is no answer"


def test_an_episode_that_ends_in_an_observation_has_no_answer():
    trajectory = played("hub")
    last = max(i for i, m in enumerate(trajectory.messages) if m.role == "tool")
    assert judge(replace(trajectory, messages=trajectory.messages[: last + 1])).score == 0


def test_thinking_aloud_is_no_answer():
    trajectory = played("hub")
    value = trajectory.task.reference["answers"][0]
    assert judge(answering(trajectory, f"It may be {value}.</think>I do not know.")).score == 0


@pytest.mark.parametrize(
    ("text", "value", "expected"),
    [
        ("It is 3809.", "3809", True),
        ("It is 3,809 in all", "3809", True),
        ("It is 3809.0", "3809", True),
        ("$3809!", "3809", True),
        ("It is 13809", "3809", False),
        ("It is 3809.5", "3809", False),
        ("It is -3809", "3809", False),
        ("1,2,3809", "3809", True),
        ("ask PLALPLES", "Plalples", True),
        ("ask Plalplesor", "Plalples", False),
    ],
)
def test_values_count_as_whole_words(text, value, expected):
    assert holds(text, value) is expected


def test_numbers_are_read_without_separators():
    assert numbers("1,234,567 and 12.50 and 455.0, 3-2") == ["1234567", "12.50", "455", "3", "2"]


@settings(max_examples=60, deadline=None)
@given(st.text(max_size=300), st.sampled_from(toolworld.FAMILIES))
def test_any_text_is_judged(text, family):
    task = toolworld.tasks(Settings(size=1, families=(family,)), "test", 7)[0]
    said = (*task.messages, Message("assistant", text, speaker="summarizer"))
    verdict = judge(Trajectory("x", task, said))
    assert verdict.score in (0.0, 1.0)
    assert bool(verdict.reason) is (verdict.score == 0)
