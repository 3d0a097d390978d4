"""Strategies by name: their settings, a user's own, and that the plain one is the plain episode."""

from __future__ import annotations

import asyncio
import pickle
from pathlib import Path

import pytest
from several import Counter, Several, calls, play, says, world

from rolecraft import agent, strategies, team
from rolecraft.errors import NotFound, SettingsError

OWN = """
from dataclasses import dataclass

from rolecraft import agent


@dataclass(frozen=True)
class Settings:
    times: int = 2


async def play(episode, settings):
    for _ in range(settings.times - 1):
        await agent.greedily(episode)
    return await agent.greedily(episode)
"""


def test_greedy_is_the_plain_episode():
    script = [[calls(("add", {"by": 2}))], [says("2")]]
    record, _, _ = play("greedy", list(script), Counter(), seed=4)
    plain = agent.episode(world(Counter()), team.find("single", instructions=False), Several(list(script)), seed=4)
    assert record == asyncio.run(plain)
    assert record.trials is None


def test_a_misspelt_name_or_setting_is_told_with_the_nearest():
    with pytest.raises(NotFound, match="Did you mean 'self_consistent'"):
        strategies.choose("self_consistant")
    with pytest.raises(SettingsError, match=r"unknown key 'temprature' in strategy self_consistent. Did you mean"):
        strategies.choose("self_consistent", {"temprature": 1.0})


def test_a_strategy_is_written_as_a_name_with_settings():
    chosen = strategies.parse("self_consistent, n=3,temperature=0.7,mode=paper")
    assert chosen == strategies.choose("self_consistent", {"n": 3, "temperature": 0.7, "mode": "paper"})
    assert (chosen.width, chosen.needs) == (3, ("n", "logprobs"))
    assert (strategies.parse("greedy").width, strategies.parse("greedy").needs) == (1, ())
    with pytest.raises(SettingsError, match=r"has 'paper'; write NAME,KEY=VALUE"):
        strategies.parse("self_consistent,paper")


def test_a_users_own_file_plays_where_it_is_typed_and_nowhere_else(tmp_path: Path):
    own = tmp_path / "own.py"
    own.write_text(OWN, encoding="utf-8")
    chosen = strategies.parse(f"{own},times=3", files=True)
    engine = Several([[says("x")]])
    episode = agent.Episode(world(), team.find("single"), engine)
    assert asyncio.run(chosen.player()(episode)).messages[-1].content == "x"
    assert len(engine.asked) == 3
    with pytest.raises(NotFound, match="no file is run because another one names it"):
        strategies.parse(f"{own},times=3")


def test_a_file_that_changed_is_another_strategy(tmp_path: Path):
    own = tmp_path / "own.py"
    own.write_text(OWN, encoding="utf-8")
    before = strategies.choose(own)
    own.write_text(OWN + "\n", encoding="utf-8")
    assert strategies.choose(own) != before


def test_a_file_without_play_is_no_strategy(tmp_path: Path):
    own = tmp_path / "own.py"
    own.write_text("from dataclasses import dataclass\n\n\n@dataclass\nclass Settings:\n    n: int = 1\n", "utf-8")
    with pytest.raises(NotFound, match="has no function 'play'"):
        strategies.choose(own)


def test_a_chosen_strategy_can_be_sent_to_a_worker():
    chosen = strategies.choose("depth_first", {"nodes": 3})
    assert pickle.loads(pickle.dumps(chosen)) == chosen


def test_the_strategy_in_the_documentation_plays(tmp_path: Path):
    page = (Path(__file__).parents[1] / "docs" / "strategies.md").read_text(encoding="utf-8")
    own = tmp_path / "again.py"
    own.write_text(page.partition("```python\n")[2].partition("```")[0], encoding="utf-8")
    bounded = agent.Settings(max_turns=1)
    script = [[calls(("add", {"by": 5}))], [calls(("add", {"by": 5}))], [says("done")]]
    counter = Counter()
    record, engine, _ = play(own, script, counter, playing=bounded)
    assert (record.messages[-1].content, len(engine.asked), record.final_state) == ("done", 3, {"add": 0})
    assert play(own, [[calls(("add", {"by": 5}))]], Counter(), playing=bounded, times=2)[0].final_state == {"add": 5}
