"""Whole episodes side by side, of which the most frequent answer stands."""

from __future__ import annotations

import asyncio

import pytest
from several import BROKEN, Counter, Several, calls, play, says, world

from rolecraft import agent, strategies, team
from rolecraft.errors import EngineError, NotForkable, SettingsError
from rolecraft.tools import tool
from rolecraft.types import Message, Sampling, Verdict

SEEDS_APART = 1 << 20


def by_episode(*scripts):
    """Return a script whose reply depends on which episode asks, and on its turn."""

    def reply(prompt):
        place, turn = divmod(prompt.sampling.seed, SEEDS_APART)
        return [scripts[place][turn]]

    return [reply]


def test_the_most_frequent_answer_is_taken_whatever_the_judge_says():
    scripts = by_episode([says("It is 7.")], [says("It is 5.0.")], [says("It is 5")])
    record, _, _ = play("best_of_n", scripts, n=3)
    assert record.messages[-1].content == "It is 5.0."
    assert (record.trials.tried, record.trials.failed, record.trials.agreement) == (3, 0, 2 / 3)


def test_of_as_many_the_likeliest_episode_is_taken():
    scripts = by_episode([says("7", -2.0)], [says("5", -1.0)])
    assert play("best_of_n", scripts, n=2)[0].messages[-1].content == "5"


def test_each_episode_has_a_state_of_its_own_and_the_chosen_ones_stays():
    def adds(by, answer):
        return [calls(("add", {"by": by})), says(answer)]

    counter = Counter(10)
    scripts = by_episode(adds(1, "x"), adds(2, "y"), adds(3, "y"))
    record, _, environment = play("best_of_n", scripts, counter, n=3)
    assert sorted(counter.log) == [11, 12, 13]
    assert record.final_state == environment.toolbox.state() == {"add": 12}
    environment.toolbox.close()
    assert all(copy.closed for copy in counter.copies)


def test_an_episode_without_an_answer_is_dropped_and_without_any_the_first_stands():
    many = [calls(("add", {"by": i})) for i in range(3)]
    bounded = agent.Settings(max_turns=2)
    record, _, _ = play("best_of_n", by_episode(many, [says("5")]), Counter(), n=2, playing=bounded)
    assert (record.messages[-1].content, record.trials.failed) == ("5", 1)
    record, _, _ = play("best_of_n", by_episode(many, [BROKEN, BROKEN]), Counter(), n=2, playing=bounded)
    assert (record.stop, record.trials.failed, record.trials.agreement) == ("max_turns", 2, None)
    assert record.messages[1].tool_calls


def test_the_first_episode_draws_as_a_plain_one_does():
    _, engine, _ = play("best_of_n", [[says("5")]], n=2, seed=3)
    assert engine.asked[0].sampling == Sampling(temperature=0.7, seed=3)
    assert engine.asked[1].sampling.seed == 3 + SEEDS_APART


def test_what_the_others_cost_is_counted_beside_the_record():
    two = [calls(("add", {"by": 1})), says("x")]
    record, _, _ = play("best_of_n", by_episode(two, two, [says("x")]), Counter(), n=3)
    assert len(record.turns) == 2
    assert (record.trials.model_calls, record.trials.tool_calls, record.trials.usage.completion) == (3, 1, 3)


def test_only_the_chosen_episode_is_shown():
    seen = []
    record, _, _ = play("best_of_n", by_episode([says("a")], [says("b")], [says("b")]), n=3, watch=seen)
    assert seen == [record.messages[-1]] == [Message("assistant", "b", speaker="assistant")]


def test_the_judge_is_asked_once_about_the_chosen_one():
    judged = []

    def judge(record):
        judged.append(record.messages[-1].content)
        return Verdict(1.0)

    play("best_of_n", by_episode([says("a")], [says("b")], [says("b")]), n=3, environment=world(judged=judge))
    assert judged == ["b"]


def test_a_broken_engine_ends_all_and_closes_the_states():
    counter = Counter()
    with pytest.raises(EngineError):
        play("best_of_n", [[calls(("add", {"by": 1}))], EngineError("down")], counter, n=3)
    assert all(copy.closed for copy in counter.copies[1:])


def test_a_function_that_may_change_something_is_refused():
    @tool
    def pay() -> str:
        """Pay."""
        return "paid"

    with pytest.raises(NotForkable, match="'pay'"):
        play("best_of_n", [[says("x")]], pay)


def test_impossible_settings_are_refused():
    with pytest.raises(SettingsError, match=r"best_of_n\.n is 0"):
        play("best_of_n", [[says("x")]], n=0)


def test_all_episodes_are_under_way_at_once():
    running, most = [0], [0]

    class Slow(Several):
        async def complete(self, prompt):
            running[0] += 1
            most[0] = max(most[0], running[0])
            await asyncio.sleep(0.01)
            running[0] -= 1
            return await super().complete(prompt)

    episode = agent.Episode(world(), team.find("single"), Slow([[says("x")]]))
    asyncio.run(strategies.choose("best_of_n", {"n": 4}).player()(episode))
    assert most[0] == 4
