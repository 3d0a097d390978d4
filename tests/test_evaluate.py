"""A benchmark is played once per task, whatever interrupts it and however many processes share it."""

from __future__ import annotations

import asyncio
import io
import json
import multiprocessing
import os
import signal
from contextlib import contextmanager
from dataclasses import replace
from functools import partial

import pytest
from rich.console import Console

from rolecraft import evaluate, strategies, team
from rolecraft.errors import DataError, EngineError, SettingsError
from rolecraft.evaluate import Settings
from rolecraft.scores import Calling, Score, Scores, score
from rolecraft.store import Run
from rolecraft.types import Completion, Message, Task, ToolCall, Trajectory, Turn, Usage, Verdict

BENCHMARK = '''
"""Add up two numbers."""
from dataclasses import dataclass
from rolecraft.tools import Toolbox
from rolecraft.types import Environment, Message, Task, Verdict

@dataclass(frozen=True)
class Settings:
    size: int = 6

def tasks(settings, split, seed):
    return tuple(_task(f"{split}-{seed}-{i}", i, seed) for i in range(settings.size))

def _task(name, i, seed):
    reference = {"family": "even" if i % 2 == 0 else "odd", "answers": [str(i + seed)], "calls": []}
    return Task(name, (Message("user", f"{i} + {seed}"),), (), reference)

def few_shot(asked, team_name, shots):
    examples = (Message("user", "1 + 1"), Message("assistant", "2")) * shots
    return tuple(Task(t.id, examples + t.messages, t.tools, t.reference) for t in asked)

def open(task):
    return Environment(task, Toolbox(()), judge)

def judge(trajectory):
    right = trajectory.messages[-1].content == trajectory.task.reference["answers"][0]
    return Verdict(float(right), "" if right else "wrong sum")
'''


class Adder:
    """Adds what the last message asks for; asked for a number in `odd`, it does that instead."""

    def __init__(self, odd=(), act=None):
        self.odd, self.act, self.asked = odd, act, []

    async def complete(self, prompt):
        text = prompt.messages[-1].content
        self.asked.append(text)
        if int(text.split()[0]) in self.odd:
            return self.act()
        message = Message("assistant", str(sum(map(int, text.split(" + ")))), speaker=prompt.speaker)
        threads = os.environ.get("OMP_NUM_THREADS", "")
        usage = Usage(prompt=len(prompt.messages), completion=1, seconds=float(threads == "1"))
        return (Completion(message, Turn(message, prompt.speaker, usage=usage)),)


def fail():
    raise EngineError("out of memory")


def die():
    os.kill(os.getpid(), signal.SIGKILL)


@contextmanager
def opened(odd=(), act=None):
    yield Adder(odd, act)


@pytest.fixture
def settings(tmp_path):
    path = tmp_path / "sums.py"
    path.write_text(BENCHMARK)
    return Settings(name="adder", benchmark=path, split="test", seed=3)


SINGLE = team.find("single", instructions=False)
QUIET = partial(Console, file=io.StringIO())


def play(settings, run, engine):
    return asyncio.run(evaluate.evaluate(settings, SINGLE, engine, run))


def ids(run):
    return sorted(t.id for t in run.trajectories())


def test_every_task_is_played_judged_and_written(settings, tmp_path):
    run = Run(tmp_path / "run")
    found = play(settings, run, Adder())
    assert (found.score, found.n, found.seed) == (1.0, 6, 3)
    assert {name: f.n for name, f in found.families.items()} == {"even": 3, "odd": 3}
    assert ids(run) == [f"test-3-{i}" for i in range(6)]
    assert all(t.verdict.score == 1 for t in run.trajectories())


def test_the_limit_keeps_the_first_tasks(settings, tmp_path):
    assert play(replace(settings, limit=2), Run(tmp_path / "run"), Adder()).n == 2


def test_an_interrupted_evaluation_goes_on_without_repeating_an_episode(settings, tmp_path):
    run = Run(tmp_path / "run")
    with pytest.raises(EngineError, match="out of memory"):
        play(replace(settings, concurrency=1), run, Adder({4}, fail))
    again = Adder()
    found = play(settings, Run(run.path), again)
    assert again.asked == ["4 + 3", "5 + 3"]
    assert (found.n, found.score) == (6, 1.0)


def test_a_task_whose_tool_has_a_default_of_null_goes_on_as_well(settings, tmp_path):
    """As in 28 of the 258 tasks of live_simple of BFCL; a record is read without such nulls."""
    schema = {"type": "object", "properties": {"year": {"type": "integer", "default": None}}}
    tool = f"ToolSpec('f', 'd', {schema!r})"
    text = BENCHMARK.replace('f"{i} + {seed}"),), ()', f'f"{{i}} + {{seed}}"),), ({tool},)')
    settings.benchmark.write_text(text.replace("Task, Verdict", "Task, ToolSpec, Verdict"))
    run, again = Run(tmp_path / "run"), Adder()
    play(replace(settings, limit=4), run, Adder())
    assert play(settings, Run(run.path), again).score == 1.0
    assert again.asked == ["4 + 3", "5 + 3"]


def test_a_finished_evaluation_opens_no_engine(settings, tmp_path):
    run = Run(tmp_path / "run")
    first = play(settings, run, Adder())
    assert evaluate.run(settings, SINGLE, fail, run, console=QUIET()) == first


def test_a_larger_limit_plays_only_what_is_new(settings, tmp_path):
    run, more = Run(tmp_path / "run"), Adder()
    play(replace(settings, limit=4), run, Adder())
    play(replace(settings, limit=None, name="other", concurrency=2), run, more)
    assert len(more.asked) == 2


@pytest.mark.parametrize("change", [{"seed": 4}, {"split": "tools"}, {"options": {"size": 9}}, {"shots": 1}])
def test_a_run_of_another_evaluation_is_refused(settings, tmp_path, change):
    run = Run(tmp_path / "run")
    play(settings, run, Adder())
    with pytest.raises(DataError, match=f"holds another evaluation: {next(iter(change))} was"):
        play(replace(settings, **change), run, Adder())


def test_an_unknown_option_is_told_before_a_run_of_another_evaluation(settings, tmp_path):
    run = Run(tmp_path / "run")
    play(settings, run, Adder())
    with pytest.raises(SettingsError, match=r"unknown key 'sizes'.*Did you mean 'size'"):
        play(replace(settings, options={"sizes": 9}), run, Adder())


def test_a_run_of_another_team_is_refused(settings, tmp_path):
    run = Run(tmp_path / "run")
    play(settings, run, Adder())
    with pytest.raises(DataError, match=r"team was \{'preset': 'single'\}"):
        asyncio.run(evaluate.evaluate(settings, team.find("mor"), Adder(), run))


def test_shots_put_solved_tasks_before_the_question(settings, tmp_path):
    run = Run(tmp_path / "run")
    found = play(replace(settings, shots=2), run, Adder())
    assert found.cost.prompt == 5
    assert found.score == 1.0


@pytest.mark.parametrize(
    ("change", "error", "reason"),
    [
        ({"limit": 0}, DataError, "has no tasks in split 'test'"),
        ({"options": {"sise": 3}}, SettingsError, "Did you mean 'size'"),
    ],
)
def test_what_cannot_be_played_is_told(settings, tmp_path, change, error, reason):
    with pytest.raises(error, match=reason):
        play(replace(settings, **change), Run(tmp_path / "run"), Adder())


def test_a_benchmark_without_examples_refuses_shots(settings, tmp_path):
    path = tmp_path / "bare.py"
    path.write_text(BENCHMARK.replace("def few_shot", "def other"))
    with pytest.raises(SettingsError, match="no examples to show"):
        play(replace(settings, benchmark=path, shots=1), Run(tmp_path / "run"), Adder())


def test_splits_are_played_with_one_engine_and_kept_apart(settings, tmp_path):
    opens = []

    @contextmanager
    def counted():
        opens.append(1)
        yield Adder()

    run = Run(tmp_path / "run")
    found = evaluate.play_splits(replace(settings, split="test+tools"), SINGLE, counted, run, console=QUIET())
    assert {split: scores.n for split, scores in found.items()} == {"test": 6, "tools": 6}
    assert len(opens) == 1
    assert ids(Run(run.path / "tools")) == [f"tools-3-{i}" for i in range(6)]


@pytest.mark.parametrize("workers", [1, 2])
def test_splits_that_share_a_tasks_id_keep_their_own_episodes(settings, tmp_path, workers):
    text = BENCHMARK.replace('f"{split}-{seed}-{i}", i, seed)', "str(i), i, seed + len(split))")
    settings.benchmark.write_text(text)
    run, both = Run(tmp_path / "run"), replace(settings, split="test+train", workers=workers)
    found = evaluate.play_splits(both, SINGLE, opened, run, console=QUIET())
    assert {split: (scores.score, scores.n) for split, scores in found.items()} == {"test": (1, 6), "train": (1, 6)}
    for split, seed in (("test", 7), ("train", 8)):
        asked = sorted(t.task.messages[-1].content for t in Run(run.path / split).trajectories())
        assert asked == [f"{i} + {seed}" for i in range(6)]


def test_a_split_that_is_named_twice_is_refused(settings, tmp_path):
    with pytest.raises(SettingsError, match=r"split 'test' is named 2 times in 'test\+odd\+test'; name it once"):
        evaluate.play_splits(replace(settings, split="test+odd+test"), SINGLE, fail, Run(tmp_path / "run"))


def test_workers_play_a_team_of_the_users_own(settings, tmp_path):
    (tmp_path / "rule.py").write_text("def following(message):\n    return None\n")
    path = tmp_path / "lone.py"
    path.write_text(
        "from rolecraft.team import Role, Team\nfrom rule import following\n"
        'TEAM = Team("lone", (Role("adder", "Add."),), "adder", following)\n'
    )
    found = evaluate.run(replace(settings, workers=2), team.find(path), opened, Run(tmp_path / "run"), console=QUIET())
    assert (found.n, found.score) == (6, 1.0)


def test_workers_play_every_task_once_and_agree_with_one_process(settings, tmp_path):
    alone = evaluate.run(settings, SINGLE, opened, Run(tmp_path / "alone"), console=QUIET())
    run = Run(tmp_path / "run")
    shared = evaluate.run(replace(settings, workers=2), SINGLE, opened, run, console=QUIET())
    assert (shared.score, shared.n, shared.families) == (alone.score, alone.n, alone.families)
    assert ids(run) == [f"test-3-{i}" for i in range(6)]
    assert shared.cost.seconds == 1, "each worker has one thread"


@pytest.mark.parametrize(
    ("act", "reason"), [(fail, "worker failed: EngineError: out of memory"), (die, "died with exit code -9")]
)
def test_a_worker_that_ends_badly_is_told_and_finished_episodes_stay(settings, tmp_path, act, reason):
    run = Run(tmp_path / "run")
    broken = replace(settings, workers=2, concurrency=1)
    with pytest.raises(EngineError, match=reason):
        evaluate.run(broken, SINGLE, partial(opened, (5,), act), run, console=QUIET())
    assert multiprocessing.active_children() == []
    assert "test-3-1" in ids(run)
    assert evaluate.run(settings, SINGLE, opened, run, console=QUIET()).n == 6


def shown(table):
    console = Console(file=io.StringIO(), width=120)
    console.print(table)
    return console.file.getvalue()


GOOD = Scores(0.862, 210, (0.81, 0.9), families={"hop": Score(0.5, 30, (0.3, 0.7))}, failures={"wrong tool": 29})
BAD = Scores(0.0, 100, (0.0, 0.04), families={"calc": Score(0.0, 30, (0.0, 0.1))}, failures={"unparsed": 100})


def test_the_score_table_has_rows_of_models_and_columns_of_splits():
    text = shown(evaluate.score_table({"zero-shot": {"test": BAD}, "tuned": {"test": GOOD, "tools": GOOD}}))
    lines = [line.split() for line in text.splitlines()]
    assert any(line[1:5] == ["zero-shot", "│", "0.0", "(0-4)"] and "-" in line for line in lines)
    assert any(line[1:] == ["tuned", "│", "86.2", "(81-90)", "│", "86.2", "(81-90)", "│"] for line in lines)
    assert "n 210" in text


def test_the_family_table_has_every_family_of_every_column():
    text = shown(evaluate.family_table({"test": GOOD, "tools": BAD}))
    assert "50.0 (30-70)" in text
    assert text.index("calc") < text.index("hop")


def replied(family, calls, *messages):
    task = Task("t", (), (), {"family": family, "calls": calls} if calls is not None else {"family": family})
    return Trajectory("t", task, messages)


def test_the_calling_table_counts_what_could_not_be_read_needless_calls_and_missing_ones():
    call = Message("assistant", tool_calls=(ToolCall("f", {}),))
    garbage, text = Message("assistant", unparsed="{"), Message("assistant", "No.")
    none_fits = [replied("none fits", [], message) for message in (call, garbage, text, text)]
    one_fits = [replied("one fits", [{"name": "f"}], message) for message in (call, garbage, call, call)]
    unknown = [replied("unknown", None, call)]
    lines = shown(evaluate.calling_table({"test": [*none_fits, *one_fits, *unknown]})).splitlines()
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in lines if line.startswith("│")]
    assert rows == [
        ["test", "none fits", "4", "25.0", "25.0", "-"],
        ["test", "one fits", "4", "25.0", "-", "25.0"],
        ["test", "unknown", "1", "0.0", "-", "-"],
    ]


def test_scores_tell_how_tools_were_called_where_the_reference_lists_calls():
    call, garbage = Message("assistant", tool_calls=(ToolCall("f", {}),)), Message("assistant", unparsed="{")
    none_fits = [replied("a", [], message) for message in (call, garbage)]
    one_fits = [replied("a", [{"name": "f"}], message) for message in (call, call, call, garbage)]
    judged = [replace(t, verdict=Verdict(1.0)) for t in (*none_fits, *one_fits)]
    assert score(judged).calling == Calling(unparsed=2 / 6, over=0.5, under=0.25)
    assert score([replace(replied("a", None, call), verdict=Verdict(1.0))]).calling == Calling(unparsed=0.0)
    assert evaluate.scores_json(score(judged))["calling"] == {"unparsed": 2 / 6, "over": 0.5, "under": 0.25}


def test_the_parts_table_has_the_mean_of_each_part_by_split_and_family():
    call = Message("assistant", tool_calls=(ToolCall("f", {}),))
    verdicts = [Verdict(1.0, "", {"function": 1, "slots": 1.0}), Verdict(0.0, "", {"function": 1, "slots": 0.5})]
    played = [replace(replied("a", [], call), verdict=verdict) for verdict in verdicts]
    table = evaluate.parts_table({"test": played})
    assert [list(column.cells) for column in table.columns] == [["test"], ["a"], ["100.0"], ["75.0"]]
    assert evaluate.parts_table({"test": [replied("a", [], call)]}) is None


def test_a_benchmarks_policies_are_scored_on_the_tasks_that_a_model_plays(settings):
    path = settings.benchmark
    path.write_text(f"{BENCHMARK}\nPOLICIES = {{'says four': lambda prompt: Message('assistant', '4')}}\n")
    found = evaluate.baselines(replace(settings, split="test+tools", limit=2))
    assert {split: (scores.score, scores.n) for split, scores in found["says four"].items()} == {
        "test": (0.5, 2),
        "tools": (0.5, 2),
    }


def test_a_benchmark_without_policies_has_no_baselines(settings):
    assert evaluate.baselines(settings) == {}


def test_the_split_that_is_played_unless_said_is_test_or_all_where_there_is_none(settings):
    path = settings.benchmark
    assert evaluate.splits("toolworld") == "test"
    assert evaluate.splits(path) == "test"
    path.write_text(f"{BENCHMARK}\nSPLITS = ('one', 'two')\n")
    assert evaluate.splits(path) == "one+two"


def test_the_failure_table_has_the_classes_that_occur():
    text = shown(evaluate.failure_table({"test": GOOD, "tools": BAD}))
    assert "called a tool that the task does not need" in text
    assert "wrong order" not in text


def test_a_comparison_tells_difference_interval_and_p(settings, tmp_path):
    a, b = Run(tmp_path / "a"), Run(tmp_path / "b")
    play(settings, a, Adder())
    play(settings, b, Adder({0, 1}, lambda: (Completion(message := Message("assistant", "?"), Turn(message, "x")),)))
    text = shown(evaluate.comparison(a.trajectories(), b.trajectories()))
    assert "-33.3" in text
    assert "0.5000" in text
    assert "exact McNemar" in text


def test_a_comparison_of_other_questions_says_so(settings, tmp_path):
    a, b = Run(tmp_path / "a"), Run(tmp_path / "b")
    play(settings, a, Adder())
    settings.benchmark.write_text(BENCHMARK.replace('f"{i} + {seed}"),)', 'f"{i} + {seed % 2}"),)'))
    play(settings, b, Adder())
    text = " ".join(shown(evaluate.comparison(a.trajectories(), b.trajectories())).split())
    assert "6 of the 6 tasks ask something else" in text
    assert "something else" not in shown(evaluate.comparison(a.trajectories(), a.trajectories()))


def test_the_json_of_scores_is_what_scripts_read():
    assert json.loads(json.dumps(evaluate.scores_json(GOOD))) == {
        "score": 0.862,
        "n": 210,
        "interval": [0.81, 0.9],
        "families": {"hop": {"score": 0.5, "n": 30, "interval": [0.3, 0.7]}},
        "calling": {"unparsed": None, "over": None, "under": None},
    }


def test_lenient_reading_is_told_beside_the_score():
    lenient = replace(GOOD, lenient=12, strict=Score(0.5, 210, (0.43, 0.57)))
    assert evaluate.lenient_note(GOOD) is None
    note = "read leniently: replies of 12 of 210 tasks; read strictly the score is 50.0 (43-57)"
    assert evaluate.lenient_note(lenient) == note
    found = evaluate.scores_json(lenient)
    assert (found["lenient"], found["strict"]) == (12, {"score": 0.5, "n": 210, "interval": [0.43, 0.57]})


def test_the_summary_has_the_shape_that_the_quickstart_promises(tmp_path):
    path = tmp_path / "summary.json"
    evaluate.write_summary(path, {"zero-shot": {"test": BAD}}, {"test": GOOD}, {"train": 61.23456})
    assert json.loads(path.read_text()) == {
        "untuned": {"zero-shot": {"test": {"score": 0.0, "n": 100}}},
        "tuned": {"test": {"score": 0.862, "n": 210}},
        "policies": {},
        "seconds": {"train": 61.235},
    }
    assert list(tmp_path.iterdir()) == [path]


def voted(settings, **more):
    return replace(settings, strategy=strategies.choose("self_consistent", {"n": 3, **more}))


class Voter(Adder):
    """Adds as many times as it is asked for replies."""

    async def complete(self, prompt):
        (made,) = await super().complete(prompt)
        return (made,) * prompt.sampling.n


@contextmanager
def voter():
    yield Voter()


def test_a_strategy_plays_each_episode_and_what_it_tried_is_kept_and_scored(settings, tmp_path):
    run = Run(tmp_path / "run")
    found = play(voted(settings), run, Voter())
    assert found.score == 1.0
    assert (found.tried.strategy, found.tried.candidates, found.tried.agreement) == ("self_consistent", 3.0, 1.0)
    assert (found.cost.completion, found.cost.prompt, found.cost.model_calls) == (3.0, 3.0, 3.0)
    assert {record.trials.tried for record in run.trajectories()} == {3}
    note = evaluate.trials_note(found)
    assert "self_consistent: 3.0 candidates a task, 0.0 % failed, of the others 100 % agreed with the chosen" in note
    assert evaluate.scores_json(found)["tried"]["candidates"] == 3.0
    assert evaluate.trials_note(play(settings, Run(tmp_path / "plain"), Adder())) is None


def test_an_evaluation_by_a_strategy_goes_on_where_it_was_and_as_no_other(settings, tmp_path):
    run = Run(tmp_path / "run")
    with pytest.raises(EngineError):
        play(voted(replace(settings, concurrency=1)), run, Voter(odd={4}, act=fail))
    held = len(ids(run))
    assert 0 < held < 6
    for other in (settings, voted(settings, mode="paper")):
        with pytest.raises(DataError, match="holds another evaluation: strategy was"):
            play(other, run, Voter())
    engine = Voter()
    assert play(voted(settings), run, engine).n == 6
    assert len(engine.asked) == 6 - held


def test_workers_play_a_users_own_strategy(settings, tmp_path):
    own = tmp_path / "twice.py"
    own.write_text(
        "from dataclasses import dataclass\nfrom rolecraft import agent\n\n"
        "@dataclass(frozen=True)\nclass Settings:\n    pass\n\n"
        "async def play(episode, settings):\n    return await agent.greedily(episode)\n"
    )
    chosen = replace(settings, strategy=strategies.choose(own), workers=2)
    found = evaluate.run(chosen, SINGLE, voter, Run(tmp_path / "run"), console=QUIET())
    assert (found.score, found.n) == (1.0, 6)
