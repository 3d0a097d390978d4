"""Calls that a model makes again: within one reply, and in later ones."""

import asyncio
from dataclasses import replace

import pytest

from rolecraft import agent, repeats, team, wire
from rolecraft.tools import Toolbox, ToolFailure, tool
from rolecraft.types import Completion, Environment, Message, Task, ToolCall, ToolSpec, Turn, Verdict


class Shop:
    """A world whose tools write down each time that they run."""

    def __init__(self):
        self.ran, self.closed = [], False

        @tool(description="pay back an order")
        def refund(order: int) -> str:
            """Pay back.

            Args:
                order: its number
            """
            self.ran.append(("refund", order))
            return f"refund {len(self.ran)}"

        @tool(description="cancel an order", repeatable=False)
        def cancel(order: int) -> str:
            """Cancel.

            Args:
                order: its number
            """
            self.ran.append(("cancel", order))
            if len(self.ran) == 1:
                raise ToolFailure("busy; try again")
            return "cancelled"

        @tool(description="read an order's status", pure=True)
        def status(order: int) -> str:
            """Read.

            Args:
                order: its number
            """
            self.ran.append(("status", order))
            return f"status {len(self.ran)}"

        @tool(description="roll a die", repeatable=True)
        def roll(sides: int) -> int:
            """Roll.

            Args:
                sides: of the die
            """
            self.ran.append(("roll", sides))
            return len(self.ran)

        self.box = Toolbox([refund, cancel, status, roll])


class Scripted:
    """Answers from a script."""

    def __init__(self, replies):
        self.replies = list(replies)

    async def complete(self, prompt):
        message = replace(self.replies.pop(0), speaker=prompt.speaker)
        return (Completion(message, Turn(message, prompt.speaker)),)


def calls(*named):
    arguments = {"roll": "sides"}
    made = (ToolCall(name, {arguments.get(name, "order"): value}) for name, value in named)
    return Message("assistant", tool_calls=tuple(made))


def play(*replies, skip=True):
    shop = Shop()
    world = Environment(Task("t", (Message("user", "?"),), shop.box.specs), shop.box, lambda record: Verdict(0.0))
    script = Scripted([*replies, Message("assistant", "done")])
    settings = agent.Settings(skip_repeats=skip, max_repeats=50)
    return shop, asyncio.run(agent.episode(world, team.find("single"), script, settings))


REFUND, STATUS = ("refund", 7), ("status", 7)


def test_a_call_that_stands_in_a_reply_seven_times_is_run_once_and_told_so():
    shop, record = play(calls(*[REFUND] * 7))
    assert shop.ran == [REFUND]
    assert len(record.messages[1].tool_calls) == 1
    said = [message.content for message in record.messages[2:-1]]
    assert said == ["refund 1", "note: the same call of refund stood in the reply 6 times more; it was run once"]


def test_calls_that_differ_in_an_argument_are_all_run():
    assert play(calls(REFUND, ("refund", 8)))[0].ran == [REFUND, ("refund", 8)]


def test_equal_calls_are_told_apart_by_no_order_of_arguments():
    assert repeats.key(ToolCall("f", {"a": 1, "b": 2})) == repeats.key(ToolCall("f", {"b": 2, "a": 1}))
    assert repeats.key(ToolCall("f", {"a": 1})) != repeats.key(ToolCall("f", {"a": True}))


def test_who_is_judged_by_calls_that_nobody_runs_is_told_nothing_of_twins():
    shop = Shop()
    world = Environment(Task("t", (Message("user", "?"),), shop.box.specs), shop.box, lambda record: Verdict(0.0))
    script = Scripted([calls(REFUND, STATUS, REFUND)])
    settings = agent.Settings(skip_repeats=True)
    record = asyncio.run(agent.episode(replace(world, calls_only=True), team.find("single"), script, settings))
    assert [call.name for call in record.messages[-1].tool_calls] == ["refund", "status"]
    assert len(record.messages) == 2
    assert wire.settled(record).messages == record.messages  # such a record may be trained on


def test_a_repeatable_tool_runs_as_often_as_it_is_called():
    assert play(calls(("roll", 6), ("roll", 6)), calls(("roll", 6)))[0].ran == [("roll", 6)] * 3


def test_a_reply_that_only_repeats_a_call_is_asked_for_again_as_text():
    shop, record = play(calls(REFUND), calls(REFUND))
    assert shop.ran == [REFUND]
    told = "Answer my question in a sentence, from the results above."
    assert [message.content for message in record.messages[1:]] == ["", "refund 1", told, "done"]
    assert record.messages[3].role == "user"
    assert len(record.turns) == 2


def test_a_role_that_can_but_call_is_told_the_answer_again():
    shop = Shop()
    world = Environment(Task("t", (Message("user", "?"),), shop.box.specs), shop.box, lambda record: Verdict(0.0))
    asks = Message("assistant", "Next: executor.")
    script = Scripted([asks, calls(REFUND), asks, calls(REFUND), *[Message("assistant", "Next: summarizer.")] * 2])
    record = asyncio.run(agent.episode(world, team.find("mor"), script, agent.Settings(skip_repeats=True)))
    assert shop.ran == [REFUND]
    again = [message for message in record.messages if message.content == "refund 1"]
    assert [message.tool_call_id is not None for message in again] == [True, True]
    assert any("refund was called just so before" in message.content for message in record.messages)


def test_what_a_pure_tool_reads_between_does_not_let_a_call_run_again():
    assert play(calls(REFUND), calls(STATUS), calls(REFUND))[0].ran == [REFUND, STATUS]


def test_a_call_runs_again_once_another_may_have_changed_the_state():
    assert play(calls(REFUND), calls(("refund", 8)), calls(REFUND))[0].ran == [REFUND, ("refund", 8), REFUND]
    assert play(calls(STATUS), calls(REFUND), calls(STATUS))[0].ran == [STATUS, REFUND, STATUS]


def test_a_failed_call_may_be_tried_again():
    shop, record = play(calls(("cancel", 7)), calls(("cancel", 7)))
    assert shop.ran == [("cancel", 7)] * 2
    assert [message.failed for message in record.messages if message.role == "tool"] == [True, False]


def test_a_reply_of_several_calls_made_again_runs_none_of_them():
    both = calls(REFUND, ("refund", 8))
    assert play(both, both)[0].ran == [REFUND, ("refund", 8)]


def test_what_a_pure_tool_read_beside_a_change_is_read_again():
    assert play(calls(STATUS, REFUND), calls(STATUS))[0].ran[-1] == STATUS
    assert play(calls(STATUS), calls(REFUND, STATUS))[0].ran.count(STATUS) == 2


def test_unless_asked_for_every_call_is_run():
    assert play(calls(REFUND, REFUND), calls(REFUND), skip=False)[0].ran == [REFUND] * 3


def test_no_model_is_told_what_a_tool_is_marked_as():
    @tool(pure=True, repeatable=True, description="read")
    def read(a: int) -> int:
        """Read.

        Args:
            a: what
        """
        return a

    assert (read.spec.pure, read.spec.repeatable) == (True, True)
    assert read.spec == ToolSpec("read", "read", read.spec.parameters)
    renamed = tool(read, name="other")
    assert renamed.spec.pure
    assert not tool(read, pure=False).spec.pure


def test_who_only_repeats_calls_has_to_answer():
    choices = []

    class Noting(Scripted):
        async def complete(self, prompt):
            choices.append(prompt.choice)
            return await super().complete(prompt)

    script = Noting([calls(STATUS), calls(STATUS), calls(REFUND), Message("assistant", "done")])
    shop = Shop()
    world = Environment(Task("t", (Message("user", "?"),), shop.box.specs), shop.box, lambda record: Verdict(0.0))
    asyncio.run(agent.episode(world, team.find("single"), script, agent.Settings(skip_repeats=True)))
    assert choices == ["auto", "auto", "none", "auto"]


class Doubting(Scripted):
    """Writes text after the call, as an engine does that took no call from the model."""

    def __init__(self, replies):
        super().__init__(replies)
        self.asked = []

    async def complete(self, prompt):
        self.asked.append((prompt.choice, prompt.messages[-1].role))
        (completion,) = await super().complete(prompt)
        doubted = not completion.message.tool_calls and prompt.choice != "none"
        return (replace(completion, turn=replace(completion.turn, doubted=doubted)),)


@pytest.mark.parametrize(
    ("replies", "asked"),
    [
        (
            [calls(REFUND), Message("assistant", "I would call it.")],
            [("auto", "user"), ("auto", "tool"), ("none", "user")],
        ),
        ([Message("assistant", "I would call it.")], [("auto", "user")]),
    ],
)
def test_who_after_results_would_call_what_there_is_not_has_to_answer_from_them(replies, asked):
    shop = Shop()
    world = Environment(Task("t", (Message("user", "?"),), shop.box.specs), shop.box, lambda record: Verdict(0.0))
    script = Doubting([*replies, Message("assistant", "done")])
    record = asyncio.run(agent.episode(world, team.find("single"), script, agent.Settings(skip_repeats=True)))
    assert script.asked == asked
    assert record.messages[-1].content == ("done" if len(asked) == 3 else "I would call it.")


@pytest.mark.parametrize(("team_name", "speakers"), [("single", {"assistant"}), ("mor", set())])
def test_the_first_reply_of_a_role_that_may_call_can_be_held_to_a_call(team_name, speakers):
    asked = []

    class Noting(Scripted):
        async def complete(self, prompt):
            asked.append((prompt.speaker, prompt.choice))
            return await super().complete(prompt)

    replies = [Message("assistant", "Next: summarizer."), *[Message("assistant", "done")] * 3]
    shop = Shop()
    world = Environment(Task("t", (Message("user", "?"),), shop.box.specs), shop.box, lambda record: Verdict(0.0))
    settings = agent.Settings(first_call="required")
    asyncio.run(agent.episode(world, team.find(team_name), Noting(replies), settings))
    assert {speaker for speaker, choice in asked if choice == "required"} == speakers
