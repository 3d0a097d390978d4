"""α-UMi's static metrics: every worked value, what a step is, and that any team plays the same steps."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace

import pytest

from rolecraft import evaluate, store, team, wire
from rolecraft.benchmarks import static
from rolecraft.benchmarks.static.judge import judge, said_step
from rolecraft.benchmarks.static.metrics import Step, argument_f1, measure, score
from rolecraft.benchmarks.static.rouge import rouge_l
from rolecraft.errors import DataError, NotFound
from rolecraft.importers import GIVE_UP
from rolecraft.store import Run
from rolecraft.types import Completion, Message, Task, ToolCall, ToolSpec, Trajectory, Turn

COUNT = ToolSpec("count", "Counts gulls", {"type": "object", "properties": {"pier": {"type": "integer"}}})
CALLED = ToolCall("count", {"pier": 4}, "call_0")
ROW = Trajectory(
    "r",
    Task("r", (Message("user", "How many?"),), (COUNT,)),
    (
        Message("user", "How many?"),
        Message("assistant", "I count.", (CALLED,)),
        Message("tool", "12", tool_call_id="call_0"),
        Message("assistant", "<think>They are counted.</think>There are 12."),
        Message("user", "And pelicans?"),
        Message("assistant", f"<think>No tool counts them.</think>{GIVE_UP}"),
    ),
)


@pytest.mark.parametrize(
    ("said", "right", "f1"),
    [
        ({"a": 1, "b": 3}, {"a": 1, "b": 2}, 0.75),  # one right, one wrong of two
        ({"a": 2}, {"a": 1}, 0.5),  # a single key, a wrong value
        ({"a": 1, "b": 2}, {"a": 1}, 2 / 3),  # one extra key
        ({}, {}, 1.0),
        ({"a": 1}, {}, 0.0),
        ({}, {"a": 1}, 0.0),
        ({"b": 1}, {"a": 1}, 0.0),
        (None, {"a": 1}, 0.0),
        (None, {}, 0.0),
        ({"a": "1"}, {"a": 1}, 0.5),  # values are compared as they are
        ({"a": {"x": [1]}}, {"a": {"x": [1]}}, 1.0),
    ],
)
def test_arguments_have_the_f1_of_the_papers_examples(said, right, f1):
    assert argument_f1(said, right) == pytest.approx(f1)


def test_arguments_nested_beyond_comparing_are_unequal():
    deep: list = []
    inner = deep
    for _ in range(100_000):
        inner.append([])
        inner = inner[0]
    other: list = [[]]
    other[0] = json.loads("[" * 900 + "]" * 900)
    assert argument_f1({"a": deep}, {"a": other}) == 0.5


@pytest.mark.parametrize(
    ("text", "reference", "f"),  # as rouge 1.0.1 prints them
    [
        ("the cat sat on the mat", "the cat is on the mat", 0.7999999950000002),
        ("The price is 40. It is in stock.", "The lamp costs 40. It is in stock.", 0.7999999950222222),
        ("none", "The lamp costs 40.", 0.0),
        ("a b. c d", "c d. a b", 0.999999995),
        ("a a a b", "a b b", 0.999999995),
        ("b sat cat", "b a e sat . . b e c A. on", 0.3636363596694215),
        ("", "a", 0.0),
        (".", "a", 0.0),
    ],
)
def test_rouge_l_is_that_of_the_package_the_paper_used(text, reference, f):
    assert rouge_l(text, reference) == pytest.approx(f, abs=1e-12)


def test_rouge_l_of_a_flood_is_bounded():
    assert 0 < rouge_l("word " * 10**6, "word other") < 1


CALLS = Step("call", ("count",), ({"pier": 4},))
NO_ARGUMENTS = Step("call", ("count",), ({},))
FINISHES = Step("finish", answer="There are 12.")
GIVES_UP = Step("give up")


@pytest.mark.parametrize(
    ("said", "right", "parts"),
    [
        (CALLS, CALLS, {"plan": 1, "hallucination": 0, "act": 1, "arg_f1": 1, "arg_f1_hard": 1}),
        (NO_ARGUMENTS, CALLS, {"plan": 1, "hallucination": 0, "act": 1, "arg_f1": 0, "arg_f1_hard": 0}),
        (NO_ARGUMENTS, NO_ARGUMENTS, {"plan": 1, "hallucination": 0, "act": 1, "arg_f1": 1, "arg_f1_easy": 1}),
        (
            Step("call", ("seek",), ({"pier": 4},)),
            CALLS,
            {"plan": 1, "hallucination": 1, "act": 0, "arg_f1": 0, "arg_f1_easy": 0, "arg_f1_hard": 0},
        ),
        (
            FINISHES,
            NO_ARGUMENTS,
            {"plan": 0, "hallucination": 0, "act": 0, "arg_f1": 0, "arg_f1_easy": 0, "arg_f1_hard": 0},
        ),
        (Step("call"), FINISHES, {"plan": 0, "hallucination": 0, "rouge_l": 0}),
        (Step("call", ("seek",), (None,)), GIVES_UP, {"plan": 0, "hallucination": 1}),
        (GIVES_UP, GIVES_UP, {"plan": 1, "hallucination": 0}),
        (Step(None), GIVES_UP, {"plan": 0, "hallucination": 0}),
    ],
)
def test_a_step_has_the_metrics_that_count_on_it(said, right, parts):
    assert measure(said, right, {"count"}) == pytest.approx(parts)


def test_a_step_scores_by_its_plan_and_then_by_what_it_did():
    assert [score(one, CALLS) for one in (CALLS, NO_ARGUMENTS, FINISHES)] == [1, 0, 0]
    assert [score(one, FINISHES) for one in (FINISHES, CALLS)] == [1, 0]
    assert score(replace(FINISHES, answer="There are 13."), FINISHES) == pytest.approx(2 / 3, abs=1e-6)
    assert score(GIVES_UP, GIVES_UP) == 1


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "rows.jsonl"
    store.write_jsonl(path, [wire.trajectory_to_json(ROW)])
    return path


def test_each_reply_is_a_step_on_what_came_before_it(path):
    steps = static.tasks(static.Settings(path=path), "test", 0)
    assert [(len(task.messages), task.reference["plan"]) for task in steps] == [
        (1, "call"),
        (3, "finish"),
        (5, "give up"),
    ]
    assert steps[0].reference["calls"] == [{"name": "count", "arguments": {"pier": 4}}]
    assert steps[1].reference["answer"] == "There are 12."


def test_replies_that_are_context_are_no_steps(path, tmp_path):
    silent = tuple(m.edited(weight=0.0) if m.tool_calls else m for m in ROW.messages)
    store.write_jsonl(path, [wire.trajectory_to_json(replace(ROW, messages=silent))])
    steps = static.tasks(static.Settings(path=path), "test", 0)
    assert [task.reference["plan"] for task in steps] == ["finish", "give up"]


def test_a_sample_is_the_seeds_and_in_order(path):
    chosen = [
        [task.id for task in static.tasks(static.Settings(path=path, size=2), "test", seed)] for seed in (1, 1, 4)
    ]
    assert chosen[0] == chosen[1]
    assert all(len(one) == 2 and one == sorted(one) for one in chosen)


@pytest.mark.parametrize("name", ["single", "mor", "alpha_umi"])
def test_rows_in_a_teams_own_roles_give_the_same_steps(path, name):
    lone = static.tasks(static.Settings(path=path), "test", 0)
    if name != "single":
        said = team.divided(ROW.messages, team.find(name))
        store.write_jsonl(path, [wire.trajectory_to_json(replace(ROW, messages=said))])
    steps = static.tasks(static.Settings(path=path), "test", 0)
    told = [{key: task.reference[key] for key in ("plan", "calls", "answer")} for task in steps]
    assert told == [{key: task.reference[key] for key in ("plan", "calls", "answer")} for task in lone]


def test_a_history_in_another_teams_roles_is_refused(path):
    said = team.divided(ROW.messages, team.find("mor"))
    store.write_jsonl(path, [wire.trajectory_to_json(replace(ROW, messages=said))])
    steps = static.tasks(static.Settings(path=path), "test", 0)
    with pytest.raises(DataError, match="'reasoner', which is no role of team 'alpha_umi'"):
        static.in_roles(steps, team.find("alpha_umi"))


class Reader:
    """Says for each speaker what a script tells it to, and remembers the prompts."""

    def __init__(self, **said: Message):
        self.said, self.asked = said, []

    async def complete(self, prompt):
        self.asked.append(prompt)
        message = replace(self.said[prompt.speaker], speaker=prompt.speaker)
        return (Completion(message, Turn(message, prompt.speaker)),)


def says(text):
    return Message("assistant", text)


CALL = Message("assistant", tool_calls=(replace(CALLED, id=""),))
CALLERS = {
    "single": {"assistant": CALL},
    "mor": {"reasoner": says("Next: executor."), "executor": CALL},
    "alpha_umi": {"planner": says("I look."), "caller": CALL},
}


@pytest.mark.parametrize("name", CALLERS)
def test_who_always_calls_scores_as_the_baseline_does_in_every_team(path, tmp_path, name):
    settings = evaluate.Settings(benchmark="static", options={"path": str(path)})
    run, engine = Run(tmp_path / name), Reader(**CALLERS[name])
    asyncio.run(evaluate.evaluate(settings, team.find(name, instructions=False), engine, run))
    found = evaluate.static_json(run.trajectories())
    assert {key: (one["score"], one["n"]) for key, one in found.items()} == {
        "Plan ACC": (pytest.approx(1 / 3), 3),
        "Plan ACC of always calling": (pytest.approx(1 / 3), 3),
        "Act EM": (1, 1),
        "Hallu. (less is better)": (0, 3),
        "Arg F1": (1, 1),
        "Arg F1, hard": (1, 1),
        "Rouge-L": (0, 1),
    }
    last = next(one for prompt in engine.asked if (one := prompt.messages)[-1].content == "And pelicans?")
    assert {message.speaker for message in last} - {None} <= set(team.find(name).speakers)
    evaluate.write_static(tmp_path / "static.json", run.trajectories())
    assert json.loads((tmp_path / "static.json").read_text())["Act EM"]["n"] == 1


def test_a_benchmark_of_whole_episodes_has_no_static_metrics():
    assert evaluate.static_table({"test": [ROW]}) is None


def stepped(players, *said, stop="answered"):
    (task, *_) = static.in_roles(static.tasks(static.Settings(), "test", 0), team.find(players))
    return said_step(Trajectory("t", task, (*task.messages, *said), stop=stop))


def spoken(speaker, text, **more):
    return Message("assistant", text, speaker=speaker, **more)


NO_CALL = Message("tool", "error: no call was written", failed=True)


@pytest.mark.parametrize(
    ("players", "said", "stop", "step"),
    [
        ("alpha_umi", (spoken("planner", "Hm."), spoken("caller", "Hm."), NO_CALL), "max_turns", Step("call")),
        ("alpha_umi", (spoken("planner", "Hm"),), "length", Step("call")),
        ("mor", (spoken("reasoner", "Hm"),), "length", Step("finish", answer="Hm")),
        ("single", (spoken("assistant", "It is"),), "length", Step("finish", answer="It is")),
        ("alpha_umi", (spoken("planner", "Next: give up."),), "gave_up", GIVES_UP),
        ("single", (spoken("assistant", GIVE_UP),), "answered", GIVES_UP),
        ("alpha_umi", (spoken("planner", "Next: conclusion."),), "max_turns", Step(None)),
        ("single", (), "max_turns", Step(None)),
        (
            "single",
            (spoken("assistant", "", unparsed='{"name": "count", "arguments": {"pier": 4}'),),
            "answered",
            Step("call", ("count",), (None,)),
        ),
        ("single", (spoken("assistant", "", unparsed="<tool_call>"),), "answered", Step("call")),
        (
            "mor",
            (spoken("reasoner", "x"), spoken("summarizer", "<think>y</think> 12 ")),
            "answered",
            Step("finish", answer="12"),
        ),
    ],
)
def test_a_step_is_read_off_what_each_role_said(players, said, stop, step):
    assert stepped(players, *said, stop=stop) == step


def test_a_team_without_a_rule_for_histories_is_refused(path):
    steps = static.tasks(static.Settings(path=path), "test", 0)
    lone = team.Team("lone", (team.Role("worker"),), "worker", lambda message: None)
    with pytest.raises(NotFound, match="'lone' has no rule"):
        static.in_roles(steps, lone)


def test_the_judge_says_what_was_done_and_what_is_right():
    task = static.tasks(static.Settings(), "test", 0)[0]
    verdict = judge(Trajectory("t", task, (*task.messages, says("12"))))
    assert verdict.reason == "it answers; right is: it calls count_for_gulls"
