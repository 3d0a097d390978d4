"""A conversation that comes back gets the very messages that were written, and never those of another."""

from __future__ import annotations

from dataclasses import replace

import pytest

from rolecraft import team
from rolecraft.server import served
from rolecraft.server.protocol import Sent
from rolecraft.server.recall import Recall
from rolecraft.server.rounds import Played
from rolecraft.types import Message, ToolCall

MOR = served.Served("m:team", served.Player(engine=None), team.find("mor"))
ASKED = (Sent(Message("system", "Be brief.")), Sent(Message("user", "Hi")))
CALL = ToolCall("look", {"at": [1, {"b": None}]}, "call_1")
THOUGHT = Message("assistant", "Next: executor.", speaker="reasoner", ids=(1, 2))
ACTED = Message("assistant", tool_calls=(CALL,), speaker="executor", ids=(3, 4))
ANSWERED = Message("assistant", "So.", speaker="summarizer", ids=(5,))
RESULT = Sent(Message("tool", "seen", tool_call_id="call_1"))


def acted(trailing=()) -> Played:
    return Played(THOUGHT.content, "", (CALL,), "tool_calls", (THOUGHT, ACTED), (), trailing)


def answered(text="So.", ids=(5,)) -> Played:
    last = replace(ANSWERED, content=text, ids=ids)
    return Played(THOUGHT.content, text, (), "stop", (THOUGHT, last), ())


def echo(played: Played) -> Sent:
    """Return what a client sends back of an answer: content and calls."""
    return Sent(Message("assistant", played.content, tool_calls=played.calls))


def restored(recall: Recall, *sent: Sent, model=MOR) -> list[tuple[str | None, tuple[int, ...] | None]]:
    return [(one.speaker or one.role, one.ids) for one in recall.restore(model, (*ASKED, *sent)).messages[2:]]


def known(*played: Played) -> Recall:
    recall = Recall(10_000)
    for one in played:
        recall.keep(MOR, ASKED, one)
    return recall


def test_calls_come_back_as_they_were_written():
    assert restored(known(acted()), echo(acted()), RESULT) == [
        ("reasoner", (1, 2)),
        ("executor", (3, 4)),
        ("tool", None),
    ]


def test_an_answer_is_found_by_the_conversation_before_it():
    again = Sent(Message("user", "And?"))
    assert restored(known(answered()), echo(answered()), again) == [
        ("reasoner", (1, 2)),
        ("summarizer", (5,)),
        ("user", None),
    ]


def test_calls_are_found_though_earlier_messages_changed():
    recall = known(acted())
    messages = recall.restore(MOR, (Sent(Message("user", "Today is Monday. Hi")), echo(acted()), RESULT)).messages
    assert [one.ids for one in messages[1:3]] == [(1, 2), (3, 4)]


def test_calls_are_found_though_their_ids_were_renamed():
    renamed = Sent(Message("assistant", tool_calls=(replace(CALL, id="x"),)))
    assert restored(known(acted()), renamed, RESULT)[:2] == [("reasoner", (1, 2)), ("executor", (3, 4))]


def test_the_order_of_an_arguments_keys_does_not_matter():
    call = ToolCall("look", {"a": 1, "b": 2}, "call_1")
    played = replace(acted(), calls=(call,))
    turned = Sent(Message("assistant", tool_calls=(replace(call, arguments={"b": 2, "a": 1}),)))
    assert restored(known(played), turned, RESULT)[0] == ("reasoner", (1, 2))


@pytest.mark.parametrize(
    "changed",
    [
        Message("assistant", tool_calls=(replace(CALL, arguments={"at": [1, {"b": False}]}),)),
        Message("assistant", tool_calls=(replace(CALL, name="see"),)),
        Message("assistant", "Well.", tool_calls=(CALL,)),
        Message("assistant", tool_calls=(CALL, replace(CALL, id="call_2"))),
    ],
)
def test_calls_that_a_client_changed_are_read_as_sent(changed):
    assert restored(known(acted()), Sent(changed)) == [("executor", None)]


def test_one_and_true_are_different_arguments():
    played = replace(acted(), calls=(replace(CALL, arguments={"at": 1}),))
    changed = Sent(Message("assistant", tool_calls=(replace(CALL, arguments={"at": True}),)))
    assert restored(known(played), changed) == [("executor", None)]


def test_an_answer_to_another_conversation_is_not_found():
    recall = known(answered())
    messages = recall.restore(MOR, (Sent(Message("user", "Hello")), echo(answered()))).messages
    assert [one.ids for one in messages] == [None, None]


def test_another_model_does_not_find_it():
    alone = replace(MOR, id="m:executor", alone="executor")
    for played in (acted(), answered()):
        assert {ids for _, ids in restored(known(played), echo(played), model=alone)} == {None}


def test_of_equal_answers_the_newest_counts():
    assert restored(known(answered(ids=(5,)), answered(ids=(6,))), echo(answered()))[1] == ("summarizer", (6,))


def test_remarks_come_after_the_results():
    remark = Message("tool", "error: no such key")
    played = acted(trailing=(remark,))
    messages = known(played).restore(MOR, (*ASKED, echo(played), RESULT, Sent(Message("user", "And?")))).messages
    assert [one.content for one in messages[-3:]] == ["seen", "error: no such key", "And?"]


def test_what_was_unused_longest_is_forgotten_first():
    recall = Recall(500)
    for number in range(3):
        recall.keep(MOR, ASKED, answered(f"Answer {number}."))
    assert restored(recall, echo(answered("Answer 0.")))[-1] == ("summarizer", (5,))  # used: it stays
    recall.keep(MOR, ASKED, answered("Answer 3."))
    found = [restored(recall, echo(answered(f"Answer {number}.")))[-1][1] for number in range(4)]
    assert found == [(5,), None, (5,), (5,)]


def test_memory_stays_within_its_bound():
    recall = Recall(5_000)
    for number in range(200):
        call = replace(CALL, id=f"call_{number}")
        recall.keep(MOR, (Sent(Message("user", str(number))),), replace(acted(), calls=(call,)))
    assert recall.held <= 5_000
    assert len(recall) == 5_000 // (recall.held // len(recall))


def test_an_answer_larger_than_the_memory_is_not_kept():
    recall = Recall(100)
    recall.keep(MOR, ASKED, answered("So. " * 100))
    assert len(recall) == recall.held == 0


def test_a_conversation_goes_on_in_the_scope_of_its_last_answer():
    recall = Recall(10_000)
    first, again = acted(), Sent(Message("user", "And?"))
    recall.keep(MOR, ASKED, first, "one")
    recall.keep(MOR, (*ASKED, echo(first), RESULT), answered(), "two")
    assert recall.restore(MOR, (*ASKED, echo(first), RESULT)).scope == "one"
    assert recall.restore(MOR, (*ASKED, echo(first), RESULT, echo(answered()), again)).scope == "two"
    assert recall.restore(MOR, (*ASKED, again)).scope is None


def test_what_was_said_under_a_cache_key_is_not_found_without_it():
    recall = Recall(10_000)
    recall.keep(MOR, ASKED, answered(), "scope", "secret")
    sent = (*ASKED, echo(answered()))
    found = {key: recall.restore(MOR, sent, key).scope for key in ("", "guess", "secret")}
    assert found == {"": None, "guess": None, "secret": "scope"}
