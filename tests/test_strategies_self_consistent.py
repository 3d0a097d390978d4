"""Self-consistent action generation: the vote, the state, and the published rule with its two defects."""

from __future__ import annotations

import contextlib

import pytest
from several import BROKEN, Counter, calls, play, says, world

from rolecraft import agent
from rolecraft.errors import ContextFull, NotForkable, SandboxError, SettingsError
from rolecraft.tools import find, tool
from rolecraft.types import Message, Sampling, ToolCall


@tool(pure=True)
def look_up(name: str) -> str:
    """Look something up.

    Args:
        name: what
    """
    LOOKED.append(name)
    if name == "bad":
        raise ValueError("nothing")
    return {"a": "1.0", "b": "1", "c": "2"}.get(name, name)


LOOKED: list[str] = []


@pytest.fixture(autouse=True)
def nothing_looked_up():
    LOOKED.clear()


FINALS = [says("WRONG-1"), says("RIGHT"), says("RIGHT"), says("RIGHT")]


def test_final_answers_are_voted_on_by_what_they_say():
    record, _, _ = play("self_consistent", [FINALS], n=4)
    assert record.messages[-1].content == "RIGHT"


def test_by_the_published_rule_final_answers_are_one_outcome_and_the_first_is_taken():
    record, _, _ = play("self_consistent", [FINALS], n=4, mode="paper")
    assert record.messages[-1].content == "WRONG-1"


ADD = [[calls(("add", {"by": 1}))], [says("done")]]


def test_eight_replies_add_once_to_the_state():
    counter = Counter()
    record, _, environment = play("self_consistent", list(ADD), counter)
    assert record.final_state == {"add": 1}
    assert counter.log == [1]
    assert environment.toolbox.state() == {"add": 1}


def test_by_the_published_rule_eight_replies_add_eight_times_and_the_chosen_one_once_more():
    counter = Counter()
    record, _, _ = play("self_consistent", list(ADD), counter, mode="paper")
    assert counter.log == list(range(1, 10))
    assert record.final_state == {"add": 9}
    assert record.messages[2].content == "n is 9"
    assert record.trials.tool_calls == 8


def test_both_defects_show_in_a_real_interpreter():
    script = [
        [calls(("python", {"code": "n = 0"}))],
        [calls(("python", {"code": "n = n + 1\nprint(n)"}))],
        [says("ok")],
    ]
    try:
        ours, published = ({}, {"mode": "paper"})
        found = []
        for settings in (ours, published):
            with contextlib.closing(find("python")[0]) as python:
                record, _, environment = play("self_consistent", list(script), python, **settings)
                environment.toolbox.close()
            found.append([m.content for m in record.messages if m.role == "tool"][1])
    except SandboxError as error:
        pytest.skip(f"no sandbox here: {error}")
    assert found == ["1", "9"]


def test_observations_that_mean_the_same_agree():
    replies = [calls(("look_up", {"name": "c"})), calls(("look_up", {"name": "a"})), calls(("look_up", {"name": "b"}))]
    record, _, _ = play("self_consistent", [replies, [says("x")]], look_up, n=3)
    assert record.messages[1].tool_calls[0].arguments == {"name": "a"}


def test_equal_calls_of_a_step_run_once_whatever_is_said_beside_them():
    replies = [calls(("look_up", {"name": "a"}), text=str(i)) for i in range(8)]
    play("self_consistent", [replies, [says("x")]], look_up)
    assert LOOKED == ["a"]


def test_the_same_call_runs_again_in_the_next_step():
    play("self_consistent", [[calls(("look_up", {"name": "a"}))]] * 2 + [[says("x")]], look_up)
    assert LOOKED == ["a", "a"]


def test_a_call_that_is_meant_each_time_is_run_for_each_reply():
    rolled = []

    @tool(pure=True, repeatable=True)
    def roll() -> str:
        """Roll a die."""
        rolled.append(1)
        return str(len(rolled))

    play("self_consistent", [[calls(("roll", {}))], [says("x")]], roll, n=3)
    assert len(rolled) == 3


def test_a_reply_with_the_same_call_twice_runs_it_twice_on_its_own_state():
    counter = Counter()
    twice = calls(("add", {"by": 1}), ("add", {"by": 1}))
    record, _, _ = play("self_consistent", [[twice], [says("x")]], counter)
    assert sorted(m.content for m in record.messages if m.role == "tool") == ["n is 1", "n is 2"]
    assert record.final_state == {"add": 2}


def test_replies_with_other_calls_are_tried_on_states_of_their_own():
    replies = [calls(("add", {"by": 5})), calls(("add", {"by": 2})), calls(("add", {"by": 2}))]
    counter = Counter(10)
    record, _, _ = play("self_consistent", [replies, [says("x")]], counter, n=3)
    assert sorted(counter.log) == [12, 15]
    assert record.final_state == {"add": 12}
    assert record.messages[2].content == "n is 12"


def test_every_copy_is_closed_but_the_one_that_goes_on():
    counter = Counter()
    replies = [calls(("add", {"by": by})) for by in (1, 2, 3, 3)]
    _, _, environment = play("self_consistent", [replies, replies, [says("x")]], counter, n=4)
    assert [copy.value for copy in counter.copies if not copy.closed] == [6]
    environment.toolbox.close()
    assert all(copy.closed for copy in counter.copies)


def test_what_fails_is_dropped():
    replies = [calls(("look_up", {"name": "bad"})), BROKEN, calls(("look_up", {"name": "bad"})), says("41")]
    record, _, _ = play("self_consistent", [replies], look_up, n=4)
    assert record.messages[-1].content == "41"
    assert (record.trials.tried, record.trials.failed, record.trials.agreement) == (4, 3, 1.0)


def test_where_all_fail_the_first_is_taken_and_its_error_told():
    replies = [calls(("look_up", {"name": "bad"})), BROKEN]
    record, _, _ = play("self_consistent", [replies, [says("x")]], look_up, n=2)
    assert record.messages[2].content == "error: ValueError: nothing"


def test_of_as_many_the_likeliest_is_taken_then_the_first():
    record, _, _ = play("self_consistent", [[says("a", -2.0), says("b", -1.0)]], n=2)
    assert record.messages[-1].content == "b"
    record, _, _ = play("self_consistent", [[says("a"), says("b")]], n=2)
    assert record.messages[-1].content == "a"


def test_a_role_without_calls_is_voted_on_by_whom_it_names():
    script = [
        [says("Next: summarizer."), says("I add. Next: executor."), says("Let me add. Next: executor.")],
        [calls(("look_up", {"name": "a"}))],
        [says("Next: summarizer.")],
        [says("1")],
    ]
    record, _, _ = play("self_consistent", script, look_up, players="mor", n=3)
    assert [turn.speaker for turn in record.turns] == ["reasoner", "executor", "reasoner", "summarizer"]
    assert record.turns[0].message.content == "I add. Next: executor."


def test_an_executor_that_calls_nothing_has_failed():
    script = [[says("Next: executor.")], [says("um"), calls(("look_up", {"name": "a"}))], [says("Next: summarizer.")]]
    record, _, _ = play("self_consistent", [*script, [says("1")]], look_up, players="mor", n=2)
    assert record.messages[2].tool_calls


def test_calls_that_nobody_runs_are_voted_on_as_they_are():
    told = world(look_up)
    judged = type(told)(told.task, told.toolbox, told.judge, calls_only=True)
    replies = [calls(("look_up", {"name": "c"})), calls(("look_up", {"name": "a"})), calls(("look_up", {"name": "a"}))]
    record, _, _ = play("self_consistent", [replies], environment=judged, n=3)
    assert record.messages[-1].tool_calls[0].arguments == {"name": "a"}
    assert LOOKED == []


def test_replies_are_drawn_as_the_paper_does_from_one_prompt():
    _, engine, _ = play(
        "self_consistent", [[says("x")]], playing=agent.Settings(sampling=Sampling(max_tokens=7)), seed=5
    )
    (prompt,) = engine.asked
    assert prompt.sampling == Sampling(n=8, temperature=0.4, top_p=0.8, seed=5, max_tokens=7)


def test_tokens_of_all_candidates_are_counted():
    record, _, _ = play("self_consistent", [[calls(("look_up", {"name": "a"}))], [says("x")]], look_up, n=4)
    trials = record.trials
    assert (trials.strategy, trials.tried, trials.model_calls) == ("self_consistent", 8, 6)
    assert (trials.usage.prompt, trials.usage.cached, trials.usage.completion) == (60, 24, 6)
    assert trials.usage.seconds == 0.0  # they were written at the same time as the chosen one
    assert sum(turn.usage.completion for turn in record.turns) == 2


def test_only_what_was_chosen_is_shown_and_recorded():
    seen = []
    replies = [calls(("look_up", {"name": n})) for n in "abc"]
    record, _, _ = play("self_consistent", [replies, [says("x")]], look_up, n=3, watch=seen)
    assert tuple(seen) == record.messages[1:]


def test_turns_and_the_context_are_bounded():
    script = [[calls(("add", {"by": i}))] for i in range(9)]
    record, _, _ = play("self_consistent", script, Counter(), playing=agent.Settings(max_turns=2), n=2)
    assert record.stop == "max_turns"
    assert play("self_consistent", [ContextFull("full")])[0].stop == "length"


def test_a_model_that_repeats_itself_is_asked_once_more_for_those_replies_alone():
    again = calls(("look_up", {"name": "a"}))
    script = [[again], [again, says("one", -0.5), again], [says("1")]]
    record, engine, _ = play("self_consistent", script, look_up, n=3, playing=agent.Settings(skip_repeats=True))
    assert [prompt.sampling.n for prompt in engine.asked] == [3, 3, 2]
    assert record.messages[-1].content == "1"
    assert record.messages[-2].role == "user"


def test_a_function_that_may_change_something_is_refused_before_anything_is_asked():
    @tool
    def pay(amount: int) -> str:
        """Pay.

        Args:
            amount: how much
        """
        return str(amount)

    engine = []
    with pytest.raises(NotForkable, match=r"'pay' may change something.*pure=True"):
        play("self_consistent", [lambda prompt: engine.append(prompt)], pay)
    assert engine == []


def test_a_state_that_cannot_be_copied_is_no_mistake_of_the_model():
    class Stuck(Counter):
        def fork(self):
            raise NotForkable("tool 'add' has no copy")

    with pytest.raises(NotForkable, match="'add' has no copy"):
        play("self_consistent", list(ADD), Stuck())


def test_by_the_published_rule_a_function_that_changes_something_is_run_each_time():
    paid = []

    @tool
    def pay() -> str:
        """Pay."""
        paid.append(1)
        return "paid"

    play("self_consistent", [[calls(("pay", {}))], [says("x")]], pay, n=3, mode="paper")
    assert len(paid) == 4


def test_ids_of_calls_are_those_of_a_plain_episode():
    record, _, _ = play("self_consistent", [[calls(("look_up", {"name": "a"}))], [says("x")]], look_up)
    assert record.messages[1].tool_calls == (ToolCall("look_up", {"name": "a"}, "call_0"),)
    assert record.messages[2] == Message("tool", "1.0", tool_call_id="call_0", name="look_up")


@pytest.mark.parametrize("settings", [{"n": 0}, {"temperature": -1.0}, {"mode": "best"}])
def test_impossible_settings_are_refused(settings):
    with pytest.raises(SettingsError):
        play("self_consistent", [[says("x")]], **settings)
