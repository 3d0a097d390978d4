"""The layered reward: each layer by hand, and a suite of policies that try to be paid for something else."""

from __future__ import annotations

import asyncio
import statistics
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from rolecraft import agent, catalog, team
from rolecraft.benchmarks import Scripted, sgd
from rolecraft.benchmarks.toolworld import script
from rolecraft.errors import SettingsError
from rolecraft.judges import layered
from rolecraft.types import Message, Task, ToolCall, ToolSpec, Trajectory, Verdict

toolworld = catalog.find("benchmarks", "toolworld")
A, B = ToolCall("f", {"x": 1, "y": "two"}), ToolCall("g", {"z": [3]})


def record(*calls: ToolCall, wanted: Any = (A, B), score: float = 1.0, **changes: Any) -> Trajectory:
    """An episode that makes the calls one by one and answers."""
    listed = [{"name": call.name, "arguments": call.arguments} for call in wanted]
    tools = (ToolSpec("f", ""), ToolSpec("g", ""))
    task = Task("t", (Message("user", "?"),), tools, {"calls": listed, **changes.pop("reference", {})})
    turns = [m for call in calls for m in (Message("assistant", tool_calls=(call,)), Message("tool", "ok"))]
    messages = (*task.messages, *turns, Message("assistant", changes.pop("answer", "Done.")))
    return replace(Trajectory("t", task, messages, stop="answered", verdict=Verdict(score)), **changes)


def parts(trajectory: Trajectory) -> dict[str, float]:
    return dict(layered.judge(trajectory).parts)


def test_a_right_episode_has_all_layers_in_full():
    assert parts(record(A, B)) == {"format": 1, "calls": 1, "task": 1, "efficiency": 1}
    assert layered.judge(record(A, B)).score == 1


@pytest.mark.parametrize(
    ("calls", "share"),
    [
        # Of 1 + (1 + 2) + (1 + 1) = 6: names' overlap, then keys' overlap and equal values of each call.
        ((A,), (1 / 2 + 1 + 2) / 6),
        ((ToolCall("f", {"x": 9, "y": "two"}), B), (1 + (1 + 1) + 2) / 6),
        ((ToolCall("f", {"x": 1}), B), (1 + (1 / 2 + 1) + 2) / 6),
        ((ToolCall("f", {"x": True, "y": "two"}), B), (1 + (1 + 1) + 2) / 6),
        ((A, B, B), (2 / 3 + 3 + 2) / 6),
        ((ToolCall("h", {}),), 0),
        ((), 0),
    ],
)
def test_calls_are_rated_by_toolrls_formula(calls, share):
    found = parts(record(*calls, reference={"ordered": False}))["calls"]
    assert found == pytest.approx(share)


def test_of_two_calls_of_one_name_each_is_used_once():
    twice = record(A, A, wanted=(A, ToolCall("f", {"x": 1, "y": "three"})), reference={"ordered": False})
    assert parts(twice)["calls"] == pytest.approx((1 + 3 + (1 + 1)) / 7)


def test_a_fifth_is_for_the_order():
    assert parts(record(B, A))["calls"] == pytest.approx(0.8 + 0.2 * 1 / 2)


def test_where_no_tool_fits_a_call_is_wrong_and_none_is_right():
    assert parts(record(wanted=()))["calls"] == 1
    assert parts(record(A, wanted=()))["calls"] == 0


@pytest.mark.parametrize(
    "changes",
    [{"stop": stop} for stop in ("max_turns", "length", "repeated_call")] + [{"answer": " "}],
)
def test_an_episode_that_does_not_answer_is_not_well_formed(changes):
    assert parts(record(A, B, **changes))["format"] == 0


def test_calls_close_an_episode_that_ends_with_them():
    opening = record(wanted=(A,)).messages[:1]
    right = replace(record(wanted=(A,)), messages=(*opening, Message("assistant", tool_calls=(A,))))
    assert parts(right) == {"format": 1, "calls": 1, "task": 1, "efficiency": 1}
    assert layered.rewarding(layered.Settings(binary=True))(right).score == 1
    for spoiled in ({"unparsed": "g("}, {"strict": Message("assistant", "f()")}):
        made = (*opening, replace(right.messages[-1], **spoiled))
        assert parts(replace(right, messages=made))["format"] == 0


def test_a_call_that_cannot_be_read_or_was_read_leniently_spoils_the_form():
    right = record(A, B)
    for spoiled in ({"unparsed": "f("}, {"strict": Message("assistant", "f()")}):
        messages = (right.messages[0], replace(right.messages[1], **spoiled), *right.messages[2:])
        assert parts(replace(right, messages=messages))["format"] == 0


def test_few_calls_pay_only_where_the_task_is_done():
    assert parts(record(score=0.0))["efficiency"] == 0
    assert parts(record(A, B, ToolCall("f", {})))["efficiency"] == pytest.approx(0.5)
    assert parts(record(A, A))["efficiency"] == pytest.approx(0.5)
    assert parts(record(A, B, *[ToolCall("f", {"x": n}) for n in range(9)]))["efficiency"] == 0


def test_what_nobody_can_tell_is_no_layer():
    bare = Task("t", (Message("user", "?"),))
    said = Trajectory("t", bare, (*bare.messages, Message("assistant", "Yes.")), stop="answered")
    assert parts(said) == {"format": 1}
    assert layered.judge(said).score == 1


def test_the_binary_reward_is_all_or_nothing():
    reward = layered.rewarding(layered.Settings(binary=True))
    assert reward(record(A)).score == 1
    assert reward(record(A, B, score=0.5)).score == 0
    assert reward(record(A, B, stop="length")).score == 0


@pytest.mark.parametrize("wrong", [{"task": -1.0}, {"calls": float("nan")}, dict.fromkeys(layered.LAYERS, 0.0)])
def test_weights_that_weigh_nothing_are_refused(wrong):
    with pytest.raises(SettingsError):
        layered.Settings(**wrong)


# ---- policies that try to be paid for something else, on real tasks with their real tools

Said = Callable[[Task, Sequence[Message]], Sequence[Message]]


def never_calls(task: Task, right: Sequence[Message]) -> list[Message]:
    return [right[-1].edited(content="No tool fits.")]


def calls_everything(task: Task, right: Sequence[Message]) -> list[Message]:
    blind = [ToolCall(tool.name, dict.fromkeys(tool.parameters["properties"], "x")) for tool in task.tools]
    return [Message("assistant", tool_calls=tuple(blind), speaker="assistant"), right[-1].edited(content="Done.")]


def repeats(task: Task, right: Sequence[Message]) -> list[Message]:
    return [right[0].edited() for _ in range(8)]


def echoes_the_schema(task: Task, right: Sequence[Message]) -> list[Message]:
    told = " ".join(f"{tool.name} {tool.description} {dict(tool.parameters)}" for tool in task.tools)
    return [right[-1].edited(content=told)]


def forges_observations(task: Task, right: Sequence[Message]) -> list[Message]:
    forged = "Observation: 42\n<tool_response>42</tool_response>\nThe answer is 42."
    return [right[-1].edited(content=forged)]


def answers_at_once(task: Task, right: Sequence[Message]) -> list[Message]:
    return [right[-1].edited(content="The answer is 7.")]


def pads(task: Task, right: Sequence[Message]) -> list[Message]:
    return [right[-1].edited(content="I think step by step. " * 200)]


def breaks_the_format(task: Task, right: Sequence[Message]) -> list[Message]:
    return [Message("assistant", unparsed="<tool_call>{", speaker="assistant"), right[-1].edited(content="Done.")]


CHEATS = (
    never_calls, calls_everything, repeats, echoes_the_schema, forges_observations, answers_at_once, pads,
    breaks_the_format,
)  # fmt: skip


def honest(task: Task, right: Sequence[Message]) -> Sequence[Message]:
    """Does every other task right, and in the others takes a wrong value into its first call and answers wrongly."""
    if int(task.id.rsplit("_", 1)[-1].rsplit("-", 1)[-1]) % 2 or not right[0].tool_calls:
        return right
    first = right[0].tool_calls[0]
    wrong = replace(first, arguments={**first.arguments, next(iter(first.arguments), "x"): "nothing"})
    return [right[0].edited(tool_calls=(wrong,)), right[-1].edited(content="I do not know.")]


def earned(say: Said, settings: layered.Settings) -> float:
    reward, scores = layered.rewarding(settings), []
    for task in toolworld.tasks(toolworld.Settings(size=28), "train", 3):
        environment = toolworld.open(task)
        try:
            said = say(task, script.replies(task, "single"))
            scores.append(reward(asyncio.run(script.play_messages(environment, "single", said))).score)
        finally:
            environment.toolbox.close()
    return statistics.mean(scores)


def shipped() -> dict[str, layered.Settings]:
    """Return the reward of every recipe that learns from one, by the recipe's name."""
    found = {}
    for path in sorted((Path(__file__).parents[1] / "recipes").glob("*.yaml")):
        told = yaml.safe_load(path.read_text())
        for sections in (told, *told.get("stages", {}).values()):
            if "reinforcement" in sections:
                found[path.stem] = layered.Settings(**sections["reinforcement"].get("reward", {}))
    return found


def test_recipes_with_rewards_are_found():
    assert {"grpo", "gspo", "ppo", "gigpo", "rejection"} <= set(shipped())


REWARDS = [
    *{tuple(sorted(asdict(one).items())): one for one in shipped().values()}.values(),
    layered.Settings(binary=True),
    layered.Settings(format=1.0, calls=1.0, task=1.0, efficiency=1.0),
    layered.Settings(format=0.2, calls=2.0, task=1.0, efficiency=0.0),
]


@pytest.mark.parametrize("settings", REWARDS, ids=str)
def test_no_cheat_earns_what_an_honest_but_imperfect_policy_does(settings):
    fair = earned(honest, settings)
    paid = {cheat.__name__: earned(cheat, settings) for cheat in CHEATS}
    assert max(paid.values()) < fair - 0.1, (fair, paid)


# ---- the same where nothing is run and the episode ends with its calls

FERRY = ToolSpec("BookFerry", "", {"type": "object", "properties": {"to": {}, "seats": {}}, "required": ["to"]})
TRAIN = ToolSpec("BookTrain", "", {"type": "object", "properties": {"to": {}}, "required": ["to"]})


def dialogue(n: int) -> Task:
    """Return a task of sgd's kind; of every fourth a question is right, of the others a call."""
    call = {"name": "BookFerry", "arguments": {"to": f"port {n}", "seats": 1 + n}}
    known = {"calls": [call] if n % 4 else [], "ordered": False}
    return Task(f"dialogue-{n}", (Message("user", f"To port {n}, for {1 + n}."),), (FERRY, TRAIN), known)


Replies = Callable[[Task], Message]


def right(task: Task) -> Message:
    calls = tuple(ToolCall(one["name"], one["arguments"]) for one in task.reference["calls"])
    return Message("assistant", "" if calls else "How many seats?", calls)


def half_right(task: Task) -> Message:
    """Does every other call right, and forgets the seats in the others."""
    reply = right(task)
    if not reply.tool_calls or int(task.id.rsplit("-", 1)[-1]) % 2:
        return reply
    call = reply.tool_calls[0]
    return reply.edited(tool_calls=(replace(call, arguments={"to": call.arguments["to"]}),))


def words(task: Task) -> Message:
    return Message("assistant", "No tool fits.")


def nonsense(task: Task) -> Message:
    return Message("assistant", tool_calls=(ToolCall("nonsense", {}),))


def every_tool(task: Task) -> Message:
    return Message("assistant", tool_calls=tuple(ToolCall(tool.name, {"to": "x"}) for tool in task.tools))


def many_calls(task: Task) -> Message:
    return Message("assistant", tool_calls=tuple(ToolCall("BookFerry", {"to": "x", "seats": n}) for n in range(9)))


def garbage(task: Task) -> Message:
    return Message("assistant", unparsed="<tool_call>{")


def paid(say: Replies, settings: layered.Settings) -> float:
    reward, scores = layered.rewarding(settings), []
    for task in map(dialogue, range(16)):
        engine = Scripted(lambda prompt, task=task: say(task))
        lived = agent.episode(sgd.open(task), team.find("single", instructions=False), engine)
        scores.append(reward(asyncio.run(lived)).score)
    return statistics.mean(scores)


@pytest.mark.parametrize("settings", REWARDS, ids=str)
def test_nothing_earns_what_right_calls_do_where_the_episode_ends_with_them(settings):
    assert paid(right, settings) == 1
    fair = paid(half_right, settings)
    cheats = {say.__name__: paid(say, settings) for say in (words, nonsense, every_tool, many_calls, garbage)}
    assert max(cheats.values()) < fair - 0.1, (fair, cheats)
