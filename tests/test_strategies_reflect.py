"""A failed try is reflected on and tried again on the state before it, and no judge is asked whether it failed."""

from __future__ import annotations

import dataclasses

import pytest
from several import Counter, calls, play, says, world

from rolecraft.errors import SettingsError
from rolecraft.tools import ToolFailure
from rolecraft.types import Verdict


class Picky(Counter):
    """A counter that refuses what is above 5, after it has added it."""

    def call(self, arguments):
        answer = super().call(arguments)
        if arguments.get("by", 1) > 5:
            raise ToolFailure("too much at once")
        return answer

    def fork(self):
        return Picky(self.value, self.log, self.copies)


FAILS = [[calls(("add", {"by": 9}))], [says("9")]]
WORKS = [[calls(("add", {"by": 2}))], [says("2")]]


def test_a_failed_try_is_reflected_on_and_leaves_no_state():
    tool = Picky()
    record, engine, _ = play("reflect", [*FAILS, [says("I add less at a time.")], *WORKS], tool)
    assert record.final_state == {"add": 2}
    assert record.messages[-1].content == "2"
    told = record.messages[1].content
    assert ["too much at once" in told, "I add less at a time." in told] == [True, True]
    assert (record.trials.tried, record.trials.failed, record.trials.model_calls) == (2, 1, 3)
    assert "too much at once" in engine.asked[2].messages[-1].content
    assert engine.asked[3].sampling.temperature > engine.asked[0].sampling.temperature


def test_independent_tries_are_told_nothing_of_each_other():
    record, engine, _ = play("reflect", [*FAILS, *WORKS], Picky(), reflects=False)
    assert [message.role for message in record.messages] == ["user", "assistant", "tool", "assistant"]
    assert engine.asked[0].messages == engine.asked[2].messages
    assert engine.asked[0].sampling.seed != engine.asked[2].sampling.seed


def test_a_try_without_a_failure_is_the_only_one_whatever_the_judge_would_say():
    asked = []

    def judged(record):
        asked.append(record)
        return Verdict(0.0, "wrong")

    tool = Counter()
    environment = dataclasses.replace(world(tool), judge=judged)
    record, engine, _ = play("reflect", list(WORKS), environment=environment)
    assert (record.trials.tried, len(engine.asked), len(asked)) == (1, 2, 1)


def test_the_checker_has_its_say_on_the_answer():
    wrong = [[says("5")], [says("no: two was asked for")]]
    script = [*wrong, *wrong, [says("I look again.")], [says("2")], [says("yes")]]
    record, _, _ = play("reflect", script, Counter(), players="cmat", checker="role", retries=1)
    assert record.messages[-1].content == "2"
    assert "two was asked for" in record.messages[1].content
    assert [(one.calls, one.right) for one in record.trials.checks] == [((), True)]


def test_where_every_try_fails_the_last_that_answered_counts():
    script = [*FAILS, [says("I try again.")], [calls(("add", {"by": 8}))], [says("8")]]
    record, _, environment = play("reflect", script, tool := Picky(), tries=2)
    assert (record.messages[-1].content, record.final_state) == ("8", {"add": 8})
    environment.toolbox.close()
    assert all(copy.closed for copy in tool.copies)


def test_no_tries_are_refused():
    with pytest.raises(SettingsError, match="tries"):
        play("reflect", [[says("x")]], tries=0)
