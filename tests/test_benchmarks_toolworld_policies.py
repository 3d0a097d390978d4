"""Trivial policies get from toolworld what its design allows them, and no more."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from functools import partial

import pytest

from rolecraft import agent, team
from rolecraft.benchmarks import toolworld
from rolecraft.benchmarks.toolworld import Settings, policies
from rolecraft.types import Message, Prompt

SIZE = 210


async def play(name: str, split: str) -> dict[str, float]:
    """Return each family's mean score."""
    tasks = toolworld.tasks(Settings(size=SIZE), split, 11)
    openers = [partial(toolworld.open, task) for task in tasks]
    single = team.find("single", instructions=False)
    totals = dict.fromkeys(toolworld.FAMILIES, 0.0)
    async for trajectory in agent.play(openers, single, policies.engine(name)):
        totals[trajectory.task.reference["family"]] += trajectory.verdict.score
    return {family: total * len(totals) / SIZE for family, total in totals.items()}


def others(scores: Mapping[str, float], *families: str) -> set[float]:
    return {score for name, score in scores.items() if name not in families}


@pytest.mark.parametrize("split", ["test", "tools", "phrasing"])
def test_never_calling_gets_the_irrelevant_share_and_no_more(split):
    scores = asyncio.run(play("refuse", split))
    assert scores["irrelevant"] == 1
    assert others(scores, "irrelevant") == {0}


def test_echoing_gets_nothing():
    assert set(asyncio.run(play("echo", "test")).values()) == {0}


def test_dumping_every_observation_gets_only_sums_that_are_code_already():
    scores = asyncio.run(play("shotgun", "test"))
    assert scores["calc"] < 0.1
    assert others(scores, "calc") == {0}


def test_calling_the_first_tool_gets_what_luck_gives_in_a_single_look_up():
    scores = asyncio.run(play("first_tool", "test"))
    assert scores["calc"] < 0.1
    assert 0.05 < scores["hub"] < 0.4
    assert 0.05 < scores["recover"] < 0.4
    assert others(scores, "calc", "hub", "recover") == {0}


def test_a_policy_streams_its_whole_reply():
    async def collect() -> list[str]:
        engine = policies.engine("echo")
        return [delta.text async for delta in engine.stream(Prompt((Message("user", "Hello."),)))]

    assert asyncio.run(collect()) == ["Hello."]
