"""Tasks played for training: which ones a step takes, in what order episodes come back, and what is told of them."""

from __future__ import annotations

from dataclasses import replace

import pytest

from rolecraft import agent, team
from rolecraft.benchmarks import toolworld
from rolecraft.benchmarks._scripted import Scripted
from rolecraft.errors import SettingsError
from rolecraft.recipe import DataSettings
from rolecraft.train import collecting
from rolecraft.types import Message, ToolCall

HUB = DataSettings(benchmark="toolworld", seed=3, options={"families": ["hub"], "mixed": 0.0})
SINGLE = team.find("single", instructions=False)


def test_a_step_goes_on_where_the_one_before_ended_and_from_the_first_again():
    told = collecting.world(HUB, 5)
    assert told.of_step(1, 2) == told.tasks[:2]
    assert told.of_step(3, 2) == (told.tasks[4], told.tasks[0])


def test_another_seed_gives_other_tasks_of_the_same_split():
    ours, theirs = (collecting.world(HUB, 3, seed).tasks for seed in (None, 8))
    assert ours == toolworld.tasks(toolworld.Settings(3, ("hub",), mixed=0.0), "train", 3)
    assert theirs == toolworld.tasks(toolworld.Settings(3, ("hub",), mixed=0.0), "train", 8)


def test_without_a_benchmark_there_is_nothing_to_play():
    with pytest.raises(SettingsError, match=r"set data\.benchmark"):
        collecting.world(DataSettings(path="rows.jsonl"), 3)


def test_episodes_come_back_in_the_order_of_the_tasks():
    told = collecting.world(HUB, 6)
    engine = Scripted(lambda prompt: Message("assistant", "I do not know."))
    found = collecting.collect(told, told.tasks, engine, SINGLE, agent.Settings(2), 0)
    assert [episode.id for episode in found] == [task.id for task in told.tasks]


def test_over_calling_is_told_where_the_right_calls_are_known():
    (task,) = collecting.world(HUB, 1).tasks
    right = toolworld.reference(task, "single")
    (call,) = [call for message in right.messages for call in message.tool_calls]
    again = Message("assistant", tool_calls=(ToolCall(call.name, call.arguments), call), speaker="assistant")
    more = replace(right, messages=(*right.messages[:-1], again, right.messages[-1]))
    assert collecting.measure([right])["over_calls"] == 0
    told = collecting.measure([right, more])
    assert (told["calls"], told["over_calls"], told["score"]) == (2, 0.5, 1.0)
    unknown = replace(right, task=replace(task, reference={}))
    assert "over_calls" not in collecting.measure([unknown])
