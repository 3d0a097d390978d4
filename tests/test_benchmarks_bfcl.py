"""BFCL's categories are asked as they are and judged by its own checker, which sees nothing but parsed calls."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from rolecraft import agent, evaluate, grammar, team, toolschema
from rolecraft.benchmarks import bfcl
from rolecraft.benchmarks.bfcl import checker, data, schemas
from rolecraft.errors import DataError, MissingExtra, NotFound, SettingsError
from rolecraft.types import Message, Task, ToolCall, Trajectory

needs_bfcl = pytest.mark.skipif(
    importlib.util.find_spec("bfcl_eval") is None,
    reason="BFCL is not installed: pip install --no-deps bfcl-eval==2026.3.23",
)

SIZES = {
    "simple_python": 400, "multiple": 200, "parallel": 200, "parallel_multiple": 200, "irrelevance": 240,
    "live_simple": 258, "live_multiple": 1053, "live_parallel": 16, "live_parallel_multiple": 24,
    "live_relevance": 16, "live_irrelevance": 884,
}  # fmt: skip

UNANSWERABLE = {
    "live_simple_106-63-0": "an argument is required for which no value is right",
    "live_simple_112-68-0": "the same",
    "live_multiple_964-207-0": "an argument is required that the answer does not list",
    "live_multiple_862-181-3": "the answer wants an argument that the function has not",
}
"""Rows that no calls satisfy."""

FUNCTION = {
    "name": "geo.area",
    "description": "The area of a shape.",
    "parameters": {
        "type": "dict",
        "properties": {
            "sides": {"type": "tuple", "items": {"type": "float"}, "description": "lengths"},
            "unit": {"type": "any", "optional": True},
            "optional": {"type": "dict", "properties": {"deep": {"type": "float", "optional": True}}},
        },
        "required": ["sides"],
        "optional": ["unit"],
    },
}


def whole(split: str) -> tuple[Task, ...]:
    return bfcl.tasks(bfcl.Settings(size=10_000), split, 0)


def replied(task: Task, *calls: ToolCall, content: str = "", unparsed: str | None = None) -> Trajectory:
    reply = Message("assistant", content, calls, unparsed=unparsed)
    return Trajectory(task.id, task, (*task.messages, reply), stop="answered")


def made(task: Task) -> list[ToolCall]:
    return [ToolCall(one["name"], one["arguments"]) for one in task.reference["calls"]]


def posed(category: str = "simple_python") -> Task:
    """A task of our own making, in the data's form."""
    answers = [{"geo.area": {"sides": [[3.0, 4.0]], "unit": ["cm", ""]}}]
    reference = {
        "family": category,
        "functions": [FUNCTION],
        "answers": [] if category.endswith("relevance") else answers,
        "calls": [],
    }
    return Task("t", (Message("user", "How large is it?"),), schemas.specs([FUNCTION]), reference)


@needs_bfcl
@pytest.mark.parametrize("split", bfcl.SPLITS)
def test_every_row_is_asked_and_its_answer_accepted(split: str):
    tasks = whole(split)
    refused = {task.id for task in tasks if bfcl.reference(task, "single").verdict.score < 1}
    assert len(tasks) == SIZES[split]
    assert refused == {task.id for task in tasks if task.id in UNANSWERABLE}


@needs_bfcl
@pytest.mark.parametrize("split", [name for name in bfcl.SPLITS if "relevance" not in name])
def test_wrong_calls_are_refused_in_every_row(split: str):
    for task in whole(split):
        right = made(task)
        last = right[-1]
        wrong = {
            "another function": [*right[:-1], ToolCall("nothing_like_it", last.arguments)],
            "one call too many": [*right, ToolCall(last.name, {**last.arguments, "x": 1})],
            "one call missing": right[:-1],
            "an argument too many": [*right[:-1], ToolCall(last.name, {**last.arguments, "no such argument": 1})],
        }
        accepted = [kind for kind, calls in wrong.items() if bfcl.judge(replied(task, *calls)).score]
        assert accepted == [], task.id


@needs_bfcl
@pytest.mark.parametrize("split", ["irrelevance", "live_irrelevance"])
def test_where_no_function_fits_a_call_is_wrong_and_no_call_is_right(split: str):
    for task in whole(split):
        assert bfcl.judge(replied(task, ToolCall("anything", {}))).score == 0
        assert bfcl.judge(replied(task, content="None of these helps.")).score == 1


@needs_bfcl
def test_garbage_is_right_where_no_function_fits_and_told_apart_by_its_part():
    verdict = bfcl.judge(replied(posed("irrelevance"), unparsed='{"name": '))
    assert (verdict.score, verdict.parts) == (1.0, {"parsed": 0.0})
    assert bfcl.judge(replied(posed("irrelevance"), content="No.")).parts == {"parsed": 1.0}


@needs_bfcl
def test_garbage_is_wrong_where_a_call_is_needed_even_beside_a_right_call():
    right = ToolCall("geo_area", {"sides": [3.0, 4.0]})
    assert bfcl.judge(replied(posed(), right)).score == 1
    assert bfcl.judge(replied(posed(), right, unparsed='{"name": ')).reason == "a call could not be read"


@needs_bfcl
def test_where_some_function_fits_any_call_is_right():
    assert bfcl.judge(replied(posed("live_relevance"), ToolCall("geo_area", {}))).score == 1
    assert bfcl.judge(replied(posed("live_relevance"), content="It is large.")).score == 0


@needs_bfcl
def test_a_call_by_a_name_that_was_not_offered_is_wrong_even_by_the_functions_own():
    verdict = bfcl.judge(replied(posed(), ToolCall("geo.area", {"sides": [3.0, 4.0]})))
    assert (verdict.score, verdict.reason) == (0.0, "no function 'geo.area'; there are geo_area")


@needs_bfcl
@pytest.mark.parametrize(
    "sides",
    [
        None, True, "3, 4", 12, [], {}, [{}], [[3.0], 4.0], {"a": [1]}, 10**400, [10**400], float("nan"), "\ud800",
        json.loads("[" * 400 + "]" * 400), ["x" * 10_000] * 50,
    ],
    ids=range(15),
)  # fmt: skip
def test_hostile_values_are_refused_in_a_line(sides: Any):
    verdict = bfcl.judge(replied(posed(), ToolCall("geo_area", {"sides": sides})))
    assert verdict.score == 0
    assert len(verdict.reason) <= 300


@needs_bfcl
def test_values_too_deep_for_the_checker_are_refused():
    deep: Any = 3.0
    for _ in range(100_000):
        deep = [deep]
    verdict = bfcl.judge(replied(posed(), ToolCall("geo_area", {"sides": deep})))
    assert verdict.reason == "the checker cannot take these arguments: RecursionError"


@needs_bfcl
def test_a_function_named_like_code_is_never_run(tmp_path: Path):
    mark = tmp_path / "mark"
    code = f"__import__('pathlib').Path({str(mark)!r}).touch()"
    for call in (ToolCall(code, {}), ToolCall("geo_area", {code: code}), ToolCall("geo_area", {"sides": code})):
        assert bfcl.judge(replied(posed(), call)).score == 0
    assert not mark.exists()


@needs_bfcl
def test_the_checker_comes_without_clients_folders_or_a_trace_of_the_stand_in():
    program = """
import sys
from rolecraft.benchmarks.bfcl import checker
checker.fault([], [], [], "parallel")
loaded = [name for name in sys.modules if name.startswith("bfcl_eval.")]
print([name for name in loaded if "model_config" in name or "eval_config" in name or name.endswith("utils")])
"""
    package = Path(importlib.util.find_spec("bfcl_eval").submodule_search_locations[0])
    before = {*package.iterdir(), *package.parent.iterdir()}
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout == "[]\n"
    assert {*package.iterdir(), *package.parent.iterdir()} <= before | {package / "__pycache__"}


@needs_bfcl
def test_a_sample_is_the_same_on_every_machine():
    assert [task.id for task in bfcl.tasks(bfcl.Settings(size=4), "live_multiple", 0)] == SAMPLE


SAMPLE = [
    "live_multiple_254-118-0",
    "live_multiple_407-140-3",
    "live_multiple_310-132-0",
    "live_multiple_754-169-9",
]


@needs_bfcl
def test_a_smaller_sample_begins_a_larger_one_and_another_seed_draws_another():
    drawn = [bfcl.tasks(bfcl.Settings(size=size), "multiple", seed) for size, seed in ((5, 0), (50, 0), (50, 1))]
    assert drawn[0] == drawn[1][:5]
    assert {task.id for task in drawn[1]} != {task.id for task in drawn[2]}


@needs_bfcl
@pytest.mark.parametrize("split", bfcl.SPLITS)
def test_every_function_is_a_tool_that_any_api_and_the_grammar_take(split: str, hermes_tokenizer):
    from rolecraft.catalog import find
    from rolecraft.renderers import Renderer

    renderer = Renderer(find("renderers", "hermes").FORMAT, hermes_tokenizer)
    wanted = [grammar.Wanted((spec,)) for task in bfcl.tasks(bfcl.Settings(size=60), split, 0) for spec in task.tools]
    for one in wanted:
        (spec,) = one.tools
        assert spec.name.replace("-", "_").isidentifier()
        assert len(spec.name) <= 64
        assert toolschema.fault(spec.parameters) is None
        assert grammar.write(renderer, one, grammar.Limits()).ignored == ()


def test_a_function_becomes_a_tool_in_the_words_of_json_schema():
    (spec,) = schemas.specs([FUNCTION])
    assert spec.name == "geo_area"
    assert spec.parameters == {
        "type": "object",
        "properties": {
            "sides": {"type": "array", "items": {"type": "number"}, "description": "lengths"},
            "unit": {"type": "string"},
            "optional": {"type": "object", "properties": {"deep": {"type": "number"}}},
        },
        "required": ["sides"],
    }


def test_allowed_values_that_no_value_of_the_type_is_among_are_those_of_the_items_or_none():
    listed = {"type": "array", "items": {"type": "string"}, "enum": ["a", "b"]}
    counted = {"type": "integer", "enum": ["1", "2"]}
    chosen = {"type": "string", "enum": ["a", None]}
    parameters = {"type": "dict", "properties": {"listed": listed, "counted": counted, "chosen": chosen}}
    (spec,) = schemas.specs([{**FUNCTION, "parameters": parameters}])
    assert spec.parameters["properties"] == {
        "listed": {"type": "array", "items": {"type": "string", "enum": ["a", "b"]}},
        "counted": {"type": "integer"},
        "chosen": chosen,
    }


def test_a_type_that_is_not_known_and_names_that_clash_are_told():
    with pytest.raises(DataError, match="unknown type 'HashMap'"):
        schemas.specs([{"name": "f", "parameters": {"type": "dict", "properties": {"x": {"type": "HashMap"}}}}])
    with pytest.raises(DataError, match="'geo_area'"):
        schemas.specs([FUNCTION, {**FUNCTION, "name": "geo_area"}])


def test_the_functions_of_a_row_stay_as_they_were():
    before = json.dumps(FUNCTION)
    schemas.specs([FUNCTION])
    assert json.dumps(FUNCTION) == before


@pytest.fixture
def without_bfcl(monkeypatch: pytest.MonkeyPatch) -> None:
    """A Python that has no BFCL: None in the place of a module refuses its import."""
    for name in [name for name in sys.modules if name.split(".")[0] == "bfcl_eval"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "bfcl_eval", None)


@pytest.mark.usefixtures("without_bfcl")
def test_without_bfcl_the_command_that_installs_it_is_told_before_anything_is_played(tmp_path: Path, monkeypatch):
    command = "pip install --no-deps bfcl-eval==2026.3.23"
    with pytest.raises(MissingExtra, match=command):
        bfcl.tasks(bfcl.Settings(), "multiple", 0)
    monkeypatch.setenv(data.FOLDER, str(tmp_path))
    with pytest.raises(MissingExtra, match=command):
        bfcl.tasks(bfcl.Settings(), "multiple", 0)
    with pytest.raises(MissingExtra, match=command):
        checker.fault([], [], [], "multiple")


@needs_bfcl
def test_questions_come_from_the_folder_that_the_environment_names(tmp_path: Path, monkeypatch):
    monkeypatch.setenv(data.FOLDER, str(tmp_path))
    with pytest.raises(NotFound, match=f"{data.FOLDER}"):
        bfcl.tasks(bfcl.Settings(), "irrelevance", 0)
    row = {"id": "mine", "question": [[{"role": "user", "content": "?"}]], "function": [FUNCTION]}
    path = tmp_path / "BFCL_v4_irrelevance.json"
    path.write_text(json.dumps(row) + "\n")
    assert [task.id for task in bfcl.tasks(bfcl.Settings(), "irrelevance", 0)] == ["mine"]
    path.write_text(json.dumps(row) + "\n{}\n")
    with pytest.raises(DataError, match=r"irrelevance\.json:2"):
        bfcl.tasks(bfcl.Settings(), "irrelevance", 0)


def test_a_size_of_nothing_is_refused():
    with pytest.raises(SettingsError, match="at least 1"):
        bfcl.Settings(size=0)


@needs_bfcl
@pytest.mark.parametrize("team_name", ["single", "mor"])
def test_examples_are_solved_turns_before_the_question_and_never_asked(team_name: str):
    asked = bfcl.tasks(bfcl.Settings(size=150), "parallel", 0)
    shown = bfcl.few_shot(asked, team_name, 3)
    turns = shown[0].messages[: -len(asked[0].messages)]
    assert all(task.messages == (*turns, *before.messages) for task, before in zip(shown, asked, strict=True))
    assert [task.messages[-1] for task in shown] == [task.messages[-1] for task in asked]
    assert sum(message.role == "user" for message in turns) == 3
    results = [message for message in turns if message.role == "tool"]
    assert len(results) == sum(len(message.tool_calls) for message in turns) > 2
    questions = {task.messages[-1].content for task in asked}
    assert not questions & {message.content for message in turns}


@needs_bfcl
def test_examples_follow_a_system_message():
    asked = [task for task in whole("live_simple") if task.messages[0].role == "system"]
    (first, *_) = bfcl.few_shot(asked, "single", 1)
    assert first.messages[0] == asked[0].messages[0]
    assert first.messages[1].role == "user"


@needs_bfcl
def test_examples_of_a_category_that_is_asked_whole_are_refused():
    with pytest.raises(SettingsError, match="no row of simple_python is left"):
        bfcl.few_shot(whole("simple_python"), "single", 1)


@needs_bfcl
def test_trivial_policies_get_what_the_categories_allow_them_and_no_more():
    found = evaluate.baselines(evaluate.Settings(benchmark="bfcl", split="+".join(bfcl.SPLITS), options={"size": 16}))
    never = {split: scores.score for split, scores in found["never calls"].items()}
    always = {split: scores.score for split, scores in found["always calls"].items()}
    assert never == {split: float(split.endswith("irrelevance")) for split in bfcl.SPLITS}
    assert always["live_relevance"] == 1
    assert max(score for split, score in always.items() if split != "live_relevance") < 0.1


@needs_bfcl
def test_an_episode_ends_with_its_calls_and_runs_none():
    (task, *_) = bfcl.tasks(bfcl.Settings(size=1), "parallel", 0)
    calls = tuple(made(task))
    engine = bfcl_engine(Message("assistant", tool_calls=calls))
    openers = [partial(bfcl.open, task)]

    async def play() -> list[Trajectory]:
        return [record async for record in agent.play(openers, team.find("single", instructions=False), engine)]

    (record,) = asyncio.run(play())
    assert (record.stop, record.verdict.score, len(record.turns)) == ("answered", 1.0, 1)
    assert record.messages[-1].role == "assistant"


def bfcl_engine(message: Message) -> Any:
    from rolecraft.benchmarks import Scripted

    return Scripted(lambda prompt: message)


def test_a_task_of_another_benchmark_does_not_open():
    with pytest.raises(DataError, match="only tasks of bfcl"):
        bfcl.open(Task("other", (Message("user", "?"),)))
