"""A conversation that comes back gets the very messages that were written, and never those of another."""

from __future__ import annotations

from dataclasses import replace

import pytest

from rolecraft import team
from rolecraft.server import models
from rolecraft.server.answer_memory import AnswerMemory
from rolecraft.server.requests import SentMessage
from rolecraft.server.turns import FinishedChoice
from rolecraft.types import Message, ToolCall

MOR = models.ServedModel("m:team", models.LoadedEngine(engine=None), team.find("mor"))
ASKED = (SentMessage(Message("system", "Be brief.")), SentMessage(Message("user", "Hi")))
CALL = ToolCall("look", {"at": [1, {"b": None}]}, "call_1")
THOUGHT = Message("assistant", "Next: executor.", speaker="reasoner", ids=(1, 2))
ACTED = Message("assistant", tool_calls=(CALL,), speaker="executor", ids=(3, 4))
ANSWERED = Message("assistant", "So.", speaker="summarizer", ids=(5,))
RESULT = SentMessage(Message("tool", "seen", tool_call_id="call_1"))


def acted(trailing=()) -> FinishedChoice:
    return FinishedChoice(THOUGHT.content, "", (CALL,), "tool_calls", (THOUGHT, ACTED), (), trailing)


def answered(text="So.", ids=(5,)) -> FinishedChoice:
    last = replace(ANSWERED, content=text, ids=ids)
    return FinishedChoice(THOUGHT.content, text, (), "stop", (THOUGHT, last), ())


def echo(played: FinishedChoice) -> SentMessage:
    """Return what a client sends back of an answer: content and calls."""
    return SentMessage(Message("assistant", played.content, tool_calls=played.calls))


def restored(memory: AnswerMemory, *sent: SentMessage, model=MOR) -> list[tuple[str | None, tuple[int, ...] | None]]:
    return [(one.speaker or one.role, one.ids) for one in memory.restore(model, (*ASKED, *sent)).messages[2:]]


def known(*played: FinishedChoice) -> AnswerMemory:
    memory = AnswerMemory(10_000)
    for one in played:
        memory.remember(MOR, ASKED, one)
    return memory


def test_calls_come_back_as_they_were_written():
    assert restored(known(acted()), echo(acted()), RESULT) == [
        ("reasoner", (1, 2)),
        ("executor", (3, 4)),
        ("tool", None),
    ]


def test_an_answer_is_found_by_the_conversation_before_it():
    again = SentMessage(Message("user", "And?"))
    assert restored(known(answered()), echo(answered()), again) == [
        ("reasoner", (1, 2)),
        ("summarizer", (5,)),
        ("user", None),
    ]


def test_calls_are_found_though_earlier_messages_changed():
    memory = known(acted())
    messages = memory.restore(
        MOR, (SentMessage(Message("user", "Today is Monday. Hi")), echo(acted()), RESULT)
    ).messages
    assert [one.ids for one in messages[1:3]] == [(1, 2), (3, 4)]


def test_calls_are_found_though_their_ids_were_renamed():
    renamed = SentMessage(Message("assistant", tool_calls=(replace(CALL, id="x"),)))
    assert restored(known(acted()), renamed, RESULT)[:2] == [("reasoner", (1, 2)), ("executor", (3, 4))]


def test_the_order_of_an_arguments_keys_does_not_matter():
    call = ToolCall("look", {"a": 1, "b": 2}, "call_1")
    played = replace(acted(), calls=(call,))
    turned = SentMessage(Message("assistant", tool_calls=(replace(call, arguments={"b": 2, "a": 1}),)))
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
    assert restored(known(acted()), SentMessage(changed)) == [("executor", None)]


def test_one_and_true_are_different_arguments():
    played = replace(acted(), calls=(replace(CALL, arguments={"at": 1}),))
    changed = SentMessage(Message("assistant", tool_calls=(replace(CALL, arguments={"at": True}),)))
    assert restored(known(played), changed) == [("executor", None)]


def test_an_answer_to_another_conversation_is_not_found():
    memory = known(answered())
    messages = memory.restore(MOR, (SentMessage(Message("user", "Hello")), echo(answered()))).messages
    assert [one.ids for one in messages] == [None, None]


def test_another_model_does_not_find_it():
    alone = replace(MOR, id="m:executor", single_role="executor")
    for played in (acted(), answered()):
        assert {ids for _, ids in restored(known(played), echo(played), model=alone)} == {None}


def test_of_equal_answers_the_newest_counts():
    assert restored(known(answered(ids=(5,)), answered(ids=(6,))), echo(answered()))[1] == ("summarizer", (6,))


def test_remarks_come_after_the_results():
    remark = Message("tool", "error: no such key")
    played = acted(trailing=(remark,))
    messages = known(played).restore(MOR, (*ASKED, echo(played), RESULT, SentMessage(Message("user", "And?")))).messages
    assert [one.content for one in messages[-3:]] == ["seen", "error: no such key", "And?"]


def test_what_was_unused_longest_is_forgotten_first():
    memory = AnswerMemory(500)
    for number in range(3):
        memory.remember(MOR, ASKED, answered(f"Answer {number}."))
    assert restored(memory, echo(answered("Answer 0.")))[-1] == ("summarizer", (5,))  # used: it stays
    memory.remember(MOR, ASKED, answered("Answer 3."))
    found = [restored(memory, echo(answered(f"Answer {number}.")))[-1][1] for number in range(4)]
    assert found == [(5,), None, (5,), (5,)]


def test_memory_stays_within_its_bound():
    memory = AnswerMemory(5_000)
    for number in range(200):
        call = replace(CALL, id=f"call_{number}")
        memory.remember(MOR, (SentMessage(Message("user", str(number))),), replace(acted(), calls=(call,)))
    assert memory.held <= 5_000
    assert len(memory) == 5_000 // (memory.held // len(memory))


def test_an_answer_larger_than_the_memory_is_not_kept():
    memory = AnswerMemory(100)
    memory.remember(MOR, ASKED, answered("So. " * 100))
    assert len(memory) == memory.held == 0


def test_a_conversation_goes_on_in_the_scope_of_its_last_answer():
    memory = AnswerMemory(10_000)
    first, again = acted(), SentMessage(Message("user", "And?"))
    memory.remember(MOR, ASKED, first, "one")
    memory.remember(MOR, (*ASKED, echo(first), RESULT), answered(), "two")
    assert memory.restore(MOR, (*ASKED, echo(first), RESULT)).scope == "one"
    assert memory.restore(MOR, (*ASKED, echo(first), RESULT, echo(answered()), again)).scope == "two"
    assert memory.restore(MOR, (*ASKED, again)).scope is None


def test_what_was_said_under_a_cache_key_is_not_found_without_it():
    memory = AnswerMemory(10_000)
    memory.remember(MOR, ASKED, answered(), "scope", "secret")
    sent = (*ASKED, echo(answered()))
    found = {key: memory.restore(MOR, sent, key).scope for key in ("", "guess", "secret")}
    assert found == {"": None, "guess": None, "secret": "scope"}
