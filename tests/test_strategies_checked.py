"""The checker sends back what is wrong before it runs, nothing of it happens, and the last action counts as it is."""

from __future__ import annotations

import asyncio
import math
from dataclasses import replace

import pytest
from several import BROKEN, Counter, Several, calls, play, says, world

from rolecraft import agent, model, strategies, team
from rolecraft.engine import LocalEngine
from rolecraft.errors import ContextFull, NotForkable, SettingsError
from rolecraft.step import Episode
from rolecraft.tools import ToolFailure
from rolecraft.types import Message, ToolCall

RARE = 1e-4
"""How likely the words are in themselves: a model that is free would hardly begin with a quotation mark."""


class Picky(Counter):
    """A counter that changes its number and then fails for what is above 5."""

    def call(self, arguments):
        answer = super().call(arguments)
        if arguments.get("by", 1) > 5:
            raise ToolFailure("too much at once")
        return answer

    def fork(self):
        return Picky(self.value, self.log, self.copies)


def contents(record):
    return [message.content for message in record.messages]


@pytest.mark.parametrize("checker", ["rules", "dry_run"])
@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        (("sub", {}), "no tool 'sub'"),
        (("add", {"by": "two"}), "by"),
    ],
)
def test_a_call_that_does_not_fit_is_sent_back_and_not_run(checker, wrong, why):
    tool = Counter()
    record, engine, _ = play(
        "checked", [[calls(wrong)], [calls(("add", {"by": 2}))], [says("2")]], tool, checker=checker
    )
    assert contents(record)[-1] == "2"
    assert [call.arguments for message in record.messages for call in message.tool_calls] == [{"by": 2}]
    assert why in engine.asked[1].messages[-1].content
    assert engine.asked[1].messages[-1] in record.messages
    assert record.final_state == {"add": 2}
    assert (record.trials.tried, record.trials.failed, record.trials.model_calls) == (3, 1, 1)


def test_a_call_that_fails_when_tried_out_has_changed_nothing():
    script = [[calls(("add", {"by": 9}))], [calls(("add", {"by": 2}))], [says("done")]]
    record, engine, environment = play("checked", script, tool := Picky())
    assert record.final_state == {"add": 2}
    assert tool.log == [9, 2]
    assert "too much at once" in engine.asked[1].messages[-1].content
    assert "add" in engine.asked[1].messages[-1].content
    environment.toolbox.close()
    assert all(copy.closed for copy in tool.copies)


def test_an_objection_may_be_told_as_the_result_of_the_call_which_changed_nothing():
    script = [[calls(("add", {"by": 9}), ("add", {"by": 1}))], [calls(("add", {"by": 2}))], [says("done")]]
    record, engine, _ = play("checked", script, tool := Picky(), as_result=True)
    assert contents(record)[-5:-3] == ["error: too much at once", "error: not run, for another call was wrong"]
    assert record.messages[-5].failed
    assert [len(message.tool_calls) for message in record.messages if message.role == "assistant"] == [2, 1, 0]
    assert engine.asked[1].messages == record.messages[:-3]
    assert record.final_state == {"add": 2}
    assert (len(tool.log), tool.log[-1]) == (3, 2)
    assert len(record.turns) == 3
    assert (record.trials.tried, record.trials.failed, record.trials.model_calls) == (3, 1, 0)


def test_told_as_results_the_last_retry_counts_as_it_is_and_the_count_begins_anew():
    script = [[calls(("sub", {"n": n}))] for n in range(4)] + [[says("x")]]
    record, _, _ = play("checked", script, Counter(), retries=2, as_result=True)
    results = [message.content for message in record.messages if message.role == "tool"]
    sent_back = [text.startswith("error: there is no tool 'sub'") for text in results]
    assert sent_back == [True, True, False, True]  # the third went to the toolbox, which says it in other words


def test_where_a_call_ends_the_episode_an_objection_is_told_in_words():
    environment = replace(world(Counter()), calls_only=True)
    engine = Several([[calls(("sub", {}))], [calls(("add", {"by": 2}))]])
    episode = Episode(environment, team.find("single", instructions=False), engine)
    record = asyncio.run(strategies.choose("checked", {"checker": "rules", "as_result": True}).player()(episode))
    assert [call.name for message in record.messages for call in message.tool_calls] == ["add"]
    assert "was not run" in engine.asked[1].messages[-1].content


def test_a_call_that_cannot_be_read_is_no_failure_of_the_one_beside_it():
    half = (Message("assistant", "", (ToolCall("add", {"by": 2}),), unparsed="{"), -1.0)
    record, engine, _ = play("checked", [[half], [says("2")]], tool := Counter())
    assert tool.log == [2]
    assert (record.trials.failed, len(engine.asked)) == (0, 2)


def test_what_was_tried_out_and_accepted_runs_once():
    tool = Counter()
    play("checked", [[calls(("add", {"by": 2}))], [says("2")]], tool)
    assert tool.log == [2]


def test_after_the_retries_the_last_action_counts_as_it_is():
    script = [[calls(("add", {"by": 9}))], [calls(("add", {"by": 8}))], [says("x")]]
    record, engine, _ = play("checked", script, Picky(), retries=1)
    assert record.final_state == {"add": 8}
    assert any(message.failed and "too much" in message.content for message in record.messages)
    assert len(engine.asked) == 3


def test_text_and_what_cannot_be_read_go_their_usual_way():
    record, engine, _ = play("checked", [[BROKEN], [says("fine")]], Counter())
    assert contents(record)[-1] == "fine"
    assert len(engine.asked) == 2
    assert record.messages[2].failed


@pytest.mark.parametrize(("yes", "ran"), [(0.9, True), (0.2, False)])
def test_a_ranking_checker_goes_by_the_probability_of_yes(yes, ran):
    tool = Counter()

    def answer(prompt):
        if prompt.schema:
            assert "add({" in prompt.messages[-1].content
            (word,) = prompt.schema["properties"]["right"]["enum"]
            return [says(f'{{"right": "{word}"}}', math.log(RARE * {"yes": yes, "no": 1 - yes}[word]))]
        done = prompt.messages[-1].role == "tool" or "not run" in prompt.messages[-1].content
        return [says("ok")] if done else [calls(("add", {"by": 2}))]

    record, _, _ = play("checked", [answer], tool, checker="ranking")
    assert bool(tool.log) == ran
    assert record.stop == "answered"
    assert record.trials.model_calls == 2 + (not ran)


class Mixed(Several):
    """Answers by its script, but for what is asked under a schema: that goes to an engine with a model."""

    def __init__(self, script, local):
        super().__init__(script)
        self.local, self.scored = local, []

    async def complete(self, prompt):
        if prompt.schema is None:
            return await super().complete(prompt)
        found = await self.local.complete(prompt)
        self.scored.append((found[0].message.content, math.fsum(found[0].turn.logprobs)))
        return found


@pytest.mark.parametrize("sure", [-0.01, 0.01])
def test_a_model_is_held_to_each_word_and_the_threshold_lies_between_them(sure):
    def ran(threshold):
        tool = Counter()
        script = [[calls(("add", {"by": 2}))], [says("ok")]]
        with LocalEngine(model.load("nano")) as local:
            engine = Mixed(script, local)
            episode = Episode(world(tool), team.find("single", instructions=False), engine)
            player = strategies.choose("checked", {"checker": "ranking", "threshold": threshold}).player()
            asyncio.run(player(episode))
        return tool.log, sorted(engine.scored)

    _, [(no, unlikely), (yes, likely)] = ran(0.0)
    assert ("no" in no, "yes" in yes) == (True, True)
    assert ran(1 / (1 + math.exp(unlikely - likely)) + sure)[0] == ([2] if sure < 0 else [])


def test_where_there_is_no_room_to_ask_the_action_is_accepted():
    tool = Counter()

    def answer(prompt):
        if prompt.schema:
            raise ContextFull("no room")
        return [says("ok")] if prompt.messages[-1].role == "tool" else [calls(("add", {"by": 2}))]

    record, _, _ = play("checked", [answer], tool, checker="ranking")
    assert (tool.log, record.stop) == ([2], "answered")


def test_a_ranking_checker_is_shown_what_the_role_that_acts_sees():
    seen = []

    def answer(prompt):
        if prompt.schema:
            seen.append(prompt)
        if prompt.schema or prompt.messages[-1].role == "tool":
            return [says("ok")]
        return [says("I add. Next: executor.")] if prompt.speaker == "reasoner" else [calls(("add", {"by": 2}))]

    environment = world(Counter())
    players = team.find("mor")
    episode = Episode(environment, players, Several([answer]), agent.Settings(max_turns=2))
    asyncio.run(strategies.choose("checked", {"checker": "ranking"}).player()(episode))
    assert {prompt.speaker for prompt in seen} == {"executor"}
    assert seen[0].messages[0].content.startswith(players.role("executor").instructions)


def test_a_tool_without_copies_is_refused_by_name_before_anything_is_asked():
    class Alone(Counter):
        def fork(self):
            raise NotForkable("add has no copy")

        forkable = False

    script = [[calls(("add", {}))], [says("x")]]
    with pytest.raises(NotForkable, match="add"):
        play("checked", list(script), Alone())
    record, _, _ = play("checked", list(script), Alone(), checker="rules")
    assert record.final_state == {"add": 1}


@pytest.mark.parametrize("wrong", [{"retries": 0}, {"threshold": -1.0}, {"checker": "vibes"}])
def test_settings_that_check_nothing_are_refused(wrong):
    with pytest.raises(SettingsError):
        play("checked", [[says("x")]], **wrong)


@pytest.mark.parametrize("count", [1, 9])
def test_refused_actions_are_counted_however_many_calls_they_have_and_are_no_repeated_calls(count):
    script = [[calls(*[("sub", {})] * count)] for _ in range(5)] + [[says("x")]]
    record, engine, _ = play("checked", script, Counter(), retries=4, as_result=True)
    kept = [check.at for check in record.trials.checks if check.kept]
    assert len(kept) == 4
    assert all(record.messages[place].tool_calls for place in kept)
    assert record.stop in ("answered", "repeated_call")  # nine equal calls at once, the last time, are run
    assert (record.stop == "answered") == (count == 1)
    assert len(engine.asked) == 5 + (count == 1)


def test_each_call_that_was_tried_out_is_answered_in_its_own_words():
    class Telling(Picky):
        def call(self, arguments):
            if arguments.get("by", 1) > 5:
                raise ToolFailure(f"{arguments['by']} is too much")
            return super().call(arguments)

        def fork(self):
            return Telling(self.value, self.log, self.copies)

    script = [[calls(("add", {"by": 8}), ("add", {"by": 9}), ("add", {"by": 1}))], [says("done")]]
    record, _, _ = play("checked", script, Telling(), as_result=True)
    told = [message.content for message in record.messages if message.role == "tool"]
    assert told == ["error: 8 is too much", "error: 9 is too much", "error: not run, for another call was wrong"]
