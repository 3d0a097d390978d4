"""The search world: what its two references do, how far its splits reach, and that only searching answers it."""

from __future__ import annotations

import asyncio
import json
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from functools import partial

import pytest

from rolecraft import agent, team
from rolecraft.benchmarks import toolworld
from rolecraft.benchmarks.toolworld import Settings, names, policies, topics, world
from rolecraft.errors import DataError, SettingsError
from rolecraft.types import Message, Task

EVERYWHERE = (*toolworld.SPLITS, "hops", "numbers")


def drawn(split: str, size: int = 80, tools: bool = True) -> tuple[Task, ...]:
    return toolworld.tasks(Settings(size=size, families=("search",), tools=tools), split, 20_240)


def asked(task: Task) -> str:
    return task.messages[-1].content


def passages_of(task: Task) -> list[str]:
    (found,) = [tool["texts"] for tool in task.reference["world"] if tool["tool"] == "passages"]
    return list(found)


def hops_of(task: Task) -> int:
    """How many entities the right solution searches."""
    calls = [call["arguments"]["query"] for call in task.reference["calls"] if call["name"] == "search"]
    return len({query.rpartition(" of ")[2] for query in calls})


@pytest.mark.parametrize("tools", [True, False])
@pytest.mark.parametrize("split", EVERYWHERE)
def test_every_reference_is_accepted(split, tools):
    for task in drawn(split, tools=tools):
        for name in ("single", "mor"):
            played = toolworld.reference(task, name)
            assert played.verdict.score == 1, (task.id, name, played.verdict.reason)


def test_the_agent_searches_its_chain_and_hands_over_the_sum():
    for task in drawn("train"):
        calls = [call for message in toolworld.reference(task, "single").messages for call in message.tool_calls]
        assert [call.name for call in calls] == ["search"] * (len(calls) - 1) + ["calculator"]
        assert all(call.arguments["query"].rpartition(" of ")[2] in str(passages_of(task)) for call in calls[:-1])


@pytest.mark.parametrize("split", EVERYWHERE)
def test_both_teachers_are_asked_the_same_and_know_the_same(split):
    for agents, thoughts in zip(drawn(split), drawn(split, tools=False), strict=True):
        assert asked(agents) == asked(thoughts)
        assert agents.reference["answers"] == thoughts.reference["answers"]
        seen = [message.content for message in toolworld.reference(agents, "single").messages if message.role == "tool"]
        shown = thoughts.messages[0].content.splitlines()[1:]
        assert set(shown) == {line for text in seen[:-1] for line in text.splitlines()}
        assert len(set(shown)) == len(shown)


def test_the_shown_passages_are_in_no_telling_order():
    places = Counter[int]()
    for task in drawn("test", tools=False):
        first = task.reference["script"]["closing"].partition(".")[0].rpartition(" ")[2]
        lines = task.messages[0].content.splitlines()[1:]
        places[next(place for place, line in enumerate(lines) if re.search(rf"\b{first}\b", line))] += 1
    assert len(places) > 2
    assert places[0] < 60


def test_the_reach_of_each_split():
    assert {hops_of(task) for split in toolworld.SPLITS for task in drawn(split)} == {1, 2, 3}
    numbers = {
        split: [int(n) for task in drawn(split) for n in re.findall(r"\d+", asked(task))] for split in EVERYWHERE
    }
    assert max(numbers["train"] + numbers["test"] + numbers["hops"]) < 10
    assert max(numbers["numbers"]) > 90
    assert {hops_of(task) for task in drawn("hops")} == {4, 5}


def test_unseen_relations_and_topics_are_in_the_tools_split_alone():
    unseen = {*topics.HELD_OUT_RELATIONS, *topics.HELD_OUT_TOPICS}
    for split in EVERYWHERE:
        for task in drawn(split, 30):
            facts = {call["arguments"]["query"].partition(" of ")[0] for call in task.reference["calls"][:-1]}
            assert facts <= unseen if split == "tools" else not facts & unseen


def test_training_uses_no_held_out_word_and_no_name_of_the_test_splits():
    for task in drawn("train", 200):
        text = " ".join([asked(task), *passages_of(task)])
        assert not set(re.findall(r"[a-z]+", text.casefold())) & topics.HELD_OUT
        entities = {call["arguments"]["query"].rpartition(" of ")[2] for call in task.reference["calls"][:-1]}
        assert not [name for name in entities if names.held_out(name)]


def test_unseen_sentences_say_the_passages_of_the_phrasing_split():
    def frame(text: str) -> str:
        return re.sub(r"[A-Z][a-z]{3,}|\d+", "_", text)

    known = {frame(text).rpartition(" is ")[0][:4] for task in drawn("train") for text in passages_of(task)}
    unseen = [text for task in drawn("phrasing") for text in passages_of(task)]
    assert all(text.startswith(("For ", "As its ")) for text in unseen)
    assert not {"For ", "As i"} & known


def test_the_question_alone_does_not_hold_the_answer():
    for split in EVERYWHERE:
        for task in drawn(split):
            assert task.reference["answers"][0] not in re.findall(r"\d+", asked(task))


async def scores(policy: str, split: str) -> float:
    openers = [partial(toolworld.open, task) for task in drawn(split, 100)]
    single = team.find("single", instructions=False)
    played = [one async for one in agent.play(openers, single, policies.engine(policy))]
    return sum(one.verdict.score for one in played) / len(played)


@pytest.mark.parametrize("policy", policies.POLICIES)
def test_no_trivial_policy_gets_more_than_luck_with_small_numbers(policy):
    assert asyncio.run(scores(policy, "test")) <= 0.1
    assert asyncio.run(scores(policy, "numbers")) <= 0.02


def test_a_fact_that_was_not_looked_up_is_no_right_solution():
    task = drawn("test", 1)[0]
    episode = (*task.messages, Message("assistant", f"The result is {task.reference['answers'][0]}."))
    played = replace(toolworld.reference(task, "single"), messages=episode)
    assert "was not called" in toolworld.judge(played).reason


def test_a_task_survives_json_and_opens_again():
    task = drawn("train", 1)[0]
    again = replace(task, reference=json.loads(json.dumps(task.reference)))
    assert toolworld.reference(again, "single").messages == toolworld.reference(task, "single").messages


@pytest.mark.parametrize("wrong", [{"texts": []}, {"texts": [3]}, {"texts": [" "]}, {"top_k": "many"}])
def test_passages_that_are_none_are_told(wrong: Mapping[str, object]):
    with pytest.raises(DataError, match="task 'x'"):
        world.from_json({"tool": "passages", "description": "d", "texts": ["a"], "top_k": 1, **wrong}, "task 'x'")


def test_far_splits_are_of_search_alone():
    with pytest.raises(SettingsError, match="of the family search alone; families has 'calc'"):
        toolworld.tasks(Settings(size=1, families=("calc", "search")), "hops", 0)


def test_without_tools_other_families_are_refused_by_name():
    with pytest.raises(SettingsError, match="calc, search can be posed; got 'hub'"):
        Settings(families=("search", "hub"), tools=False)


def test_the_default_families_are_without_it():
    assert "search" not in toolworld.FAMILIES
    assert Settings().families == toolworld.FAMILIES
