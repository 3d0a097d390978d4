"""toolworld as a whole: its references hold, its splits stay apart, and its tasks can be saved and opened again."""

from __future__ import annotations

import itertools
import json
import re
from collections import Counter
from dataclasses import replace

import pytest

from rolecraft.benchmarks import toolworld
from rolecraft.benchmarks.toolworld import Settings, names, script, topics
from rolecraft.errors import DataError, NotFound, SettingsError
from rolecraft.types import Message, Task, ToolSpec

SEED = 20_240
DIRECT = tuple(family for family in toolworld.FAMILIES if family != "calc")  # no sandbox to start


def drawn(split: str, size: int = 301) -> tuple[Task, ...]:
    return toolworld.tasks(Settings(size=size), split, SEED)


def quick(split: str, size: int) -> tuple[Task, ...]:
    return toolworld.tasks(Settings(size=size, families=DIRECT, mixed=0.0), split, SEED)


def words_of(task: Task) -> set[str]:
    """Every word of the task, function names in parts."""
    text = " ".join((task.messages[0].content, *(f"{t.name} {t.description} {t.parameters}" for t in task.tools)))
    return set(re.findall(r"[a-z]+", text.replace("code_name", "").casefold()))


def entities_of(task: Task) -> set[str]:
    found = set[str]()
    for tool in task.reference["world"]:
        found |= set(tool.get("values", ())) | {row[0] for row in tool.get("rows", ())}
    return found


def nonsense_of(task: Task) -> set[str]:
    known = {*topics.TOPICS, *topics.RELATIONS, *topics.VERBS, *topics.BACKUPS, "python", "sql"}
    known |= {*topics.HELD_OUT_TOPICS, *topics.HELD_OUT_RELATIONS, *topics.HELD_OUT_VERBS, *topics.HELD_OUT_BACKUPS}
    return {part for tool in task.tools for part in tool.name.split("_")} - known


@pytest.mark.parametrize("split", toolworld.SPLITS)
def test_every_reference_is_accepted(split):
    for task in drawn(split):
        played = toolworld.reference(task, "mor")
        assert played.verdict.score == 1, (task.id, played.verdict.reason)
        assert played.stop == "answered"


@pytest.mark.parametrize("split", toolworld.SPLITS)
def test_every_reference_of_a_single_agent_is_accepted(split):
    for task in quick(split, 60):
        assert toolworld.reference(task, "single").verdict.score == 1, task.id


def test_the_roles_of_a_reference_are_the_teams_own():
    speakers = Counter(
        message.speaker
        for task in quick("train", 60)
        for message in toolworld.reference(task, "mor").messages
        if message.role == "assistant"
    )
    assert set(speakers) == {"reasoner", "executor", "summarizer"}
    assert speakers["summarizer"] == 60


def test_the_reasoner_writes_what_the_executor_calls():
    for task in quick("test", 120):
        messages = toolworld.reference(task, "mor").messages
        for thought, act in itertools.pairwise(messages):
            for call in act.tool_calls:
                assert f"Use:{call.name}({', '.join(call.arguments)})" in thought.content


def test_equal_arguments_give_equal_tasks():
    assert drawn("tools", 70) == drawn("tools", 70)


def test_another_seed_gives_other_tasks():
    other = toolworld.tasks(Settings(size=70), "test", SEED + 1)
    assert not {t.messages[0].content for t in other} & {t.messages[0].content for t in drawn("test", 70)}


def test_a_smaller_size_gives_the_first_tasks():
    assert drawn("test", 20) == drawn("test", 70)[:20]


def test_families_have_equal_shares():
    assert set(Counter(t.reference["family"] for t in drawn("train", 210)).values()) == {30}


def test_weights_set_the_shares():
    settings = Settings(size=150, weights={"irrelevant": 0.5, "hub": 2.0})
    shares = Counter(t.reference["family"] for t in toolworld.tasks(settings, "train", 1))
    assert (shares["irrelevant"], shares["hub"], shares["calc"]) == (10, 40, 20)


def test_training_uses_no_held_out_word():
    for task in drawn("train"):
        assert not words_of(task) & topics.HELD_OUT, task.id


def test_the_tools_split_uses_no_topic_of_training():
    for task in drawn("tools"):
        said = words_of(replace(task, messages=(Message("user"),))) - {"query"}  # the sql tool's parameter
        assert not said & {*topics.TOPICS, *topics.KINDS, *topics.RELATIONS, *topics.VERBS}, task.id


def test_training_names_are_on_their_side_of_the_hash():
    for task in drawn("train"):
        assert not [name for name in entities_of(task) | nonsense_of(task) if names.held_out(name)]


@pytest.mark.parametrize("split", ["test", "tools", "phrasing"])
def test_test_entities_are_unseen(split):
    for task in drawn(split):
        assert all(names.held_out(name) for name in entities_of(task))


def test_functions_of_the_tools_split_are_unseen():
    for task in drawn("tools"):
        assert all(names.held_out(part) for part in nonsense_of(task)), nonsense_of(task)


def test_at_least_half_of_the_functions_have_nonsense_names():
    tasks = [t for t in drawn("train") if t.reference["family"] == "hub"]
    offered = [tool.name for task in tasks for tool in task.tools if tool.name not in ("python", "sql")]
    telling = [name for name in offered if set(name.split("_")) & set(topics.TOPICS)]
    assert 0.3 < len(telling) / len(offered) < 0.5


def test_no_two_values_of_a_world_are_equal():
    for task in drawn("test"):
        functions = [t for t in task.reference["world"] if t["tool"] == "lookup"]
        groups = {json.dumps(sorted(f["values"].items())): f for f in functions}  # a backup repeats its original
        numbers = [v for f in groups.values() for v in f["values"].values() if v.isdigit()]
        assert len(numbers) == len(set(numbers)), task.id


def test_a_choice_has_three_to_six_functions():
    counts = {len(task.tools) for task in drawn("test") if task.reference["family"] in ("hub", "irrelevant")}
    assert counts == {3, 4, 5, 6}


@pytest.mark.parametrize("split", toolworld.SPLITS)
def test_a_task_survives_json_and_opens_again(split):
    for task in drawn(split, 14):
        text = json.dumps([task.id, task.messages[0].content, [t.name for t in task.tools], task.reference])
        again = replace(task, reference=json.loads(text)[3])
        assert toolworld.open(again).toolbox.specs == task.tools
        assert toolworld.reference(again, "mor") == replace(toolworld.reference(task, "mor"), task=again)


def test_the_listed_calls_are_those_of_the_reference():
    for task in quick("train", 120):
        made = [c for m in toolworld.reference(task, "mor").messages for c in m.tool_calls]
        listed = [(call["name"], call["arguments"]) for call in task.reference["calls"]]
        assert [(call.name, dict(call.arguments)) for call in made] == listed


def test_the_models_never_see_the_reference():
    for task in drawn("test", 70):
        shown = task.messages[0].content + "".join(t.description for t in task.tools)
        assert not [a for a in task.reference["answers"] if re.search(rf"\b{a}\b", shown)]


def test_a_parallel_task_acts_in_one_turn():
    for task in quick("test", 120):
        turns = [len(m.tool_calls) for m in toolworld.reference(task, "mor").messages if m.tool_calls]
        assert turns in ([2], [3]) if task.reference["family"] == "parallel" else set(turns) <= {1}


def test_a_recovery_shows_the_failure():
    for task in toolworld.tasks(Settings(size=30, families=("recover",)), "train", SEED):
        observed = [m.content for m in toolworld.reference(task, "mor").messages if m.role == "tool"]
        assert observed[0].startswith("error: ")
        assert observed[1] == task.reference["answers"][0]


def test_an_unknown_split_is_named():
    with pytest.raises(SettingsError, match="no split 'dev'"):
        toolworld.tasks(Settings(), "dev", 0)


def test_an_unknown_family_is_named():
    with pytest.raises(NotFound, match="'hup'"):
        toolworld.tasks(Settings(families=("hup",)), "train", 0)


@pytest.mark.parametrize(
    "wrong",
    [
        {"families": ()},
        {"weights": {"hup": 1.0}},
        {"weights": {"hub": -1.0}},
        {"min_functions": 1},
        {"min_functions": 5, "max_functions": 4},
        {"mixed": 2.0},
        {"tools": False},
    ],
)
def test_impossible_settings_are_refused(wrong):
    with pytest.raises(SettingsError):
        Settings(**wrong)


def test_a_task_of_another_benchmark_does_not_open():
    with pytest.raises(DataError, match="'other'"):
        toolworld.open(Task("other", (Message("user", "Hello."),), (ToolSpec("x", "y"),)))


def test_a_world_that_is_no_world_is_told():
    (task,) = drawn("train", 1)
    with pytest.raises(DataError, match="expected a tool of toolworld"):
        toolworld.open(replace(task, reference={**task.reference, "world": [{"tool": "shell"}]}))


def test_another_team_has_no_reference():
    with pytest.raises(NotFound, match="'duo'"):
        script.replies(drawn("train", 1)[0], "duo")


def test_few_shot_shows_solved_training_tasks_and_changes_nothing_else():
    asked = drawn("test", 14)
    shown = toolworld.few_shot(asked, "mor", k=3, seed=1)
    examples = {task.messages[0].content for task in shown}
    assert len(examples) == 1
    assert next(iter(examples)).count("\nsummarizer\n") == 3
    assert [(t.messages[1:], t.tools, t.reference) for t in shown] == [
        (t.messages, t.tools, t.reference) for t in asked
    ]


def test_few_shot_tasks_can_still_be_solved():
    for task in toolworld.few_shot(drawn("test", 14), "single", k=2):
        assert toolworld.reference(task, "single").verdict.score == 1


def test_without_signatures_thoughts_name_functions_alone_and_only_in_training():
    plain, bare = (toolworld.tasks(Settings(size=70, signatures=said), "train", 0) for said in (True, False))
    for one, other in zip(plain, bare, strict=True):
        assert one.messages == other.messages
        thoughts = [step["thought"] for step in other.reference["script"]["steps"]]
        assert not any("(" in thought.partition("Use:")[2] for thought in thoughts)
        assert toolworld.reference(other, "mor").verdict.score == 1.0
    named = [step["thought"] for task in bare for step in task.reference["script"]["steps"]]
    assert any("Use:python." in thought for thought in named)
    assert toolworld.tasks(Settings(size=7, signatures=False), "test", 0) == toolworld.tasks(
        Settings(size=7), "test", 0
    )
