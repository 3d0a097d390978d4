"""The search: where it goes back to, what it tells, and when it ends."""

from __future__ import annotations

import pytest
from several import Counter, calls, play, says, world

from rolecraft import agent
from rolecraft.errors import ContextFull, NotForkable, SettingsError
from rolecraft.tools import tool
from rolecraft.types import Message

NOTE = "From here this was tried already, and led to no answer:"


def add(by):
    return [calls(("add", {"by": by}))]


def bounded(turns):
    return agent.Settings(max_turns=turns, max_repeats=99)


def tried(record):
    """Return what the record's calls added, and where it was told of other tries."""
    return [
        "note" if message.content.startswith(NOTE) else message.tool_calls[0].arguments["by"]
        for message in record.messages[1:]
        if message.tool_calls or message.role == "user"
    ]


def test_the_first_answer_ends_the_search():
    record, engine, _ = play("depth_first", [add(1), [says("5")]], Counter())
    assert [m.role for m in record.messages] == ["user", "assistant", "tool", "assistant"]
    assert (len(engine.asked), record.stop, record.trials.tried, record.trials.failed) == (2, "answered", 1, 0)


def test_after_a_failed_end_the_step_before_the_last_is_tried_another_way():
    # three calls in a row run out of turns: the third is the end, its parent is left, its grandparent goes on
    script = [add(1), add(2), add(3), add(4), [says("done")]]
    record, _, environment = play("depth_first", script, Counter(), playing=bounded(3))
    assert tried(record) == [1, "note", 4]
    assert record.messages[-1].content == "done"
    assert environment.toolbox.state() == {"add": 5}


def test_back_by_one_tries_the_last_step_another_way():
    script = [add(1), add(2), add(3), [says("done")]]
    record, _, _ = play("depth_first", script, Counter(), playing=bounded(3), back=1)
    assert tried(record) == [1, 2, "note"]


def test_the_first_step_of_all_is_tried_another_way_too():
    script = [add(1), ContextFull("full"), add(2), [says("done")]]
    record, _, _ = play("depth_first", script, Counter())
    assert tried(record) == ["note", 2]


def test_a_further_step_is_told_the_former_actions_and_its_children_see_it():
    script = [add(1), ContextFull("full"), add(2), [says("done")]]
    record, engine, _ = play("depth_first", script, Counter())
    note = Message("user", f'{NOTE}\n- add({{"by": 1}})\nDo something else now.')
    assert engine.asked[2].messages == (Message("user", "?"), note)
    assert note in engine.asked[3].messages
    assert note in record.messages


def test_a_position_has_no_more_children_than_the_width():
    record, engine, _ = play("depth_first", [add(1)], Counter(), playing=bounded(1), width=3)
    assert len(engine.asked) == 3
    assert (record.stop, record.trials.tried, record.trials.failed) == ("max_turns", 3, 3)


def test_where_there_is_no_room_for_a_first_reply_the_search_is_over():
    record, engine, _ = play("depth_first", [ContextFull("full")], Counter())
    assert (len(engine.asked), record.stop, record.turns) == (1, "length", ())


def test_a_search_without_an_answer_is_recorded_by_its_first_end():
    record, _, environment = play("depth_first", [add(by) for by in range(1, 99)], Counter(), playing=bounded(2))
    assert (record.stop, tried(record)) == ("max_turns", [1, 2])
    assert environment.toolbox.state() == {"add": 3}


def test_the_nodes_are_bounded():
    record, engine, _ = play("depth_first", [add(by) for by in range(1, 99)], Counter(), nodes=4)
    assert len(engine.asked) == 4
    assert (record.stop, tried(record)) == ("max_turns", [1, 2, 3, 4])


def test_no_state_leaks_from_one_try_to_another():
    counter = Counter(100)
    script = [add(1), add(2), add(3), add(40), [says("done")]]
    record, _, environment = play("depth_first", script, counter, playing=bounded(3))
    assert counter.log == [101, 103, 106, 141]
    assert record.final_state == {"add": 141}
    environment.toolbox.close()
    assert all(copy.closed for copy in counter.copies)


def test_a_level_of_a_team_is_all_that_its_roles_say_until_tools_have_answered():
    thinks, ends = [says("Next: executor.")], [says("Next: summarizer.")]
    script = [thinks, add(1), thinks, [says("um")], thinks, add(2), ends, [says("done")]]
    record, _, _ = play("depth_first", script, Counter(), players="mor", playing=bounded(4))
    assert [turn.speaker for turn in record.turns] == ["reasoner", "executor", "reasoner", "summarizer"]
    assert tried(record) == ["note", 2]


def test_what_was_given_up_is_counted_beside_the_record():
    script = [add(1), add(2), add(3), add(4), [says("done")]]
    record, _, _ = play("depth_first", script, Counter(), playing=bounded(3))
    trials = record.trials
    assert len(record.turns) == 3
    assert (trials.model_calls, trials.tool_calls, trials.usage.completion, trials.usage.seconds) == (2, 2, 2, 1.0)


def test_equal_prompts_draw_other_replies():
    _, engine, _ = play("depth_first", [add(1), ContextFull("full")], Counter())
    seeds = [prompt.sampling.seed for prompt in engine.asked]
    assert len(set(seeds)) == len(seeds)
    assert {prompt.sampling.temperature for prompt in engine.asked} == {0.5}


def test_only_the_chosen_way_is_shown():
    seen = []
    record, _, _ = play("depth_first", [add(1), ContextFull("full"), add(2), [says("x")]], Counter(), watch=seen)
    assert tuple(seen) == record.messages[1:]


def test_a_function_that_may_change_something_is_refused_before_anything_is_asked():
    @tool
    def pay() -> str:
        """Pay."""
        return "paid"

    asked = []
    with pytest.raises(NotForkable, match="'pay'"):
        play("depth_first", [lambda prompt: asked.append(prompt)], environment=world(pay))
    assert asked == []


@pytest.mark.parametrize("settings", [{"width": 0}, {"back": 0}, {"nodes": 0}, {"temperature": -1.0}])
def test_impossible_settings_are_refused(settings):
    with pytest.raises(SettingsError, match="depth_first"):
        play("depth_first", [[says("x")]], **settings)
