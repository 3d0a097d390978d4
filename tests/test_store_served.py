"""Served answers on disk: exact, private, and whole whatever was cut short."""

from __future__ import annotations

import dataclasses
import stat

import pytest

from rolecraft.errors import DataError
from rolecraft.store import served
from rolecraft.types import Drawn, Message, Task, ToolCall, ToolSpec, Trajectory, Turn, Usage

CALL = ToolCall("find", {"of": "Quil", "n": 2}, "call_1")
THOUGHT = Message("assistant", "I look.", speaker="reasoner", ids=(7, 8))


def answer(name: str = "chatcmpl-1", **changes) -> served.Answer:
    """The second answer of a conversation, whose words are those of the first."""
    before = (
        Message("user", "Who?"),
        THOUGHT,
        Message("assistant", tool_calls=(CALL,), speaker="executor", ids=(9, 1)),
        Message("tool", "nobody", tool_call_id="call_1"),
    )
    again = dataclasses.replace(THOUGHT, ids=(3, 4, 8))
    turn = Turn(again, "reasoner", (1, 2, 7), (3, 4, 8), (-0.5, -1.25, float("-inf")), (False,) * 3, usage=Usage(3))
    record = Trajectory(name, Task("t", before, (ToolSpec("find", "finds"),)), (*before, again), (turn,))
    told = {"episode": "e", "task": "t", "model": "nano:team", "temperature": 1.0, "record": record}
    return served.Answer(name, **{**told, **changes})


def test_what_is_kept_is_read_back_with_the_tokens_of_every_message(tmp_path):
    served.append(tmp_path / "run", answer())
    (back,) = served.answers(tmp_path / "run")
    assert back == answer()
    assert back.record.turns == answer().record.turns
    assert [one.ids for one in back.record.messages] == [None, (7, 8), (9, 1), None, (3, 4, 8)]
    assert back.record.task.messages == back.record.messages[:4]


def test_only_their_owner_reads_the_answers(tmp_path):
    served.append(tmp_path / "run", answer())
    assert stat.S_IMODE((tmp_path / "run" / served.FILE).stat().st_mode) == 0o600


def test_a_line_that_a_kill_cut_short_is_left_out_and_then_dropped(tmp_path):
    taken = served.append(tmp_path, answer("one"))
    served.append(tmp_path, answer("two"))
    path = tmp_path / served.FILE
    path.write_bytes(path.read_bytes()[: taken + 40])
    assert [one.id for one in served.answers(tmp_path)] == ["one"]
    served.append(tmp_path, answer("three"))
    assert [one.id for one in served.answers(tmp_path)] == ["one", "three"]
    assert served.size(tmp_path) == path.stat().st_size


def test_how_a_held_token_was_drawn_is_kept(tmp_path):
    one = answer(temperature=0.7)
    drawn = (Drawn(-0.5, 0.7), Drawn(-1.5, 0.7, b"mask", b"more", 5), None)
    (turn,) = one.record.turns
    held = dataclasses.replace(one.record, turns=(dataclasses.replace(turn, drawn=drawn),))
    served.append(tmp_path, dataclasses.replace(one, record=held))
    (back,) = served.answers(tmp_path)
    assert back.record.turns[0].drawn == drawn
    path = tmp_path / served.FILE
    path.write_text(path.read_text().replace("bWFzaw==", "?"))
    with pytest.raises(DataError, match="'drawn' is damaged"):
        list(served.answers(tmp_path))


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ('"temperature":1.0', '"temperature":"hot"', "'temperature' is str 'hot'; write a number"),
        ('"1":[7,8]', '"9":[7,8]', "'ids' has '9', and the conversation before the answer has 4 messages"),
        ('"1":[7,8]', '"1":[7,-8]', "'ids' of message 1 are not all token ids"),
    ],
)
def test_a_damaged_line_is_told_with_its_place(tmp_path, old, new, told):
    served.append(tmp_path, answer())
    path = tmp_path / served.FILE
    text = path.read_text().replace('": ', '":').replace(", ", ",")
    assert old in text
    path.write_text(text.replace(old, new))
    with pytest.raises(DataError, match=rf"answers\.jsonl:1: .*{told.replace('[', '.')}; delete the line") as caught:
        list(served.answers(tmp_path))
    assert str(path) in str(caught.value)


def test_what_answered_is_written_beside_the_answers(tmp_path):
    policy = served.Policy("nano", "abc", "mor", False, "runs/a", "def")
    assert served.policy(tmp_path) is None
    served.write_policy(tmp_path, policy)
    assert served.policy(tmp_path) == policy
