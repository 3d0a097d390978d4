"""Claims on columns: each arm in each mode on each column is a cell of its own, played once and resumed."""

from __future__ import annotations

import importlib.util
import io
import json
import shutil
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import claims
import pytest
from rich.console import Console

from rolecraft import reproduce as reproduction
from rolecraft.errors import DataError, NotFound, RolecraftError, SettingsError
from rolecraft.reproduce import (
    Settings,
    board,
    claim,
    clock,
    playing,
    plays,
    processes,
    report,
    reproduce,
    standings,
    together,
)
from rolecraft.reproduce.plays import Play, Record
from rolecraft.store import Run
from rolecraft.types import Task, Trajectory

needs_bfcl = pytest.mark.skipif(
    importlib.util.find_spec("bfcl_eval") is None,
    reason="BFCL is not installed: pip install --no-deps bfcl-eval==2026.3.23",
)

WIDE = claims.ON_COLUMNS["evaluation"]


def settings(folder: Path, **changes) -> Settings:
    places = {"results": folder / "results", "docs": folder / "claims.md", "output": folder / "runs"}
    return Settings(**{"workers": 1, "yes": True, **places, **changes})


def spoken(act, path: Path, told: Settings) -> tuple[dict, str]:
    """Run a verb's function; returns what it found and what it printed."""
    out = io.StringIO()
    return act(path, told, Console(file=out, width=200)), out.getvalue()


@pytest.fixture(scope="module")
def done(tmp_path_factory) -> tuple[Path, dict, str]:
    """The folder of a claim on columns that has run, what it found, and what it printed."""
    folder = tmp_path_factory.mktemp("columns")
    return folder, *spoken(reproduce, claims.on_columns(folder), settings(folder))


def made(folder: Path, weights: str = "w", **changes) -> board.Board:
    read = claim.load(claims.on_columns(folder, **changes))
    return board.Board(read, folder / "results" / read.name, dict.fromkeys(read.arms, weights))


def all_plays(one: board.Board) -> list[Play]:
    return one.plays(tuple(one.claim.arms), one.claim.seeds)


def test_every_arm_mode_and_column_is_one_file_and_the_tuning_another(done):
    folder, found, _ = done
    place = folder / "results" / "wide"
    names = sorted(path.name.rpartition("-")[0] for path in (place / "played").iterdir())
    modes, columns = ("constrained", "free"), ("toolworld-test", "toolworld-tools")
    assert names == sorted(
        f"{arm}-{mode}-{column}{seed}"
        for arm, seed in (("untuned", ""), ("tuned", "-0"))
        for mode in modes
        for column in columns
    )
    assert [path.name.rpartition("-")[0] for path in place.glob("*.json")] == ["tuned-0"]
    assert found["cells"] == {"finished": 8, "wanted": 8}


def test_a_tuned_arm_is_tuned_once_and_played_in_every_mode_from_its_adapter(done):
    folder, _, printed = done
    assert printed.count(": tuned;") == 1
    told = {one.machine["model"] for one in plays.read_all(folder / "results" / "wide") if one.arm == "tuned"}
    assert len(told) == 1
    assert "with tuned-0-" in told.pop()


def test_a_file_holds_each_task_s_verdict_and_nothing_of_what_it_says(done):
    folder, _, _ = done
    (path,) = (folder / "results" / "wide" / "played").glob("untuned-free-toolworld-test-*")
    run = Run(folder / "runs" / "wide" / path.stem)
    text, record = path.read_text(), plays.read(path)
    said = [message.content for one in run.trajectories() for message in one.messages]
    assert said
    assert not any(content in text for content in said if len(content) > 9)
    assert [f"toolworld-test-0-{place}" for place in range(2)] == list(record.verdicts)
    assert record.seconds > 0
    assert str(folder) not in text


def test_finished_plays_are_not_played_again_and_a_lost_one_alone_is(done, tmp_path):
    folder, found, _ = done
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    (lost,) = (tmp_path / "results" / "wide" / "played").glob("tuned-constrained-toolworld-tools-*")
    lost.unlink()
    again, printed = spoken(reproduce, tmp_path / "wide.yaml", settings(tmp_path))
    assert "[1/1] tuned/constrained, seed 0, toolworld:tools" in printed
    assert lost.is_file()
    assert again == found


def test_a_play_goes_on_after_the_episodes_that_it_holds(done, tmp_path):
    folder, _, _ = done
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    (lost,) = (tmp_path / "results" / "wide" / "played").glob("untuned-free-toolworld-test-*")
    before = plays.read(lost)
    lost.unlink()
    episodes = tmp_path / "runs" / "wide" / lost.stem / "trajectories.jsonl"
    first, *_ = episodes.read_bytes().splitlines(keepends=True)
    episodes.write_bytes(first)
    spoken(reproduce, tmp_path / "wide.yaml", settings(tmp_path, arms=("untuned",)))
    assert episodes.read_bytes().startswith(first)
    assert len(episodes.read_bytes().splitlines()) == 2
    assert plays.read(lost).verdicts == before.verdicts


def test_an_adapter_that_is_gone_is_tuned_again_before_it_is_played(done, tmp_path):
    folder, _, _ = done
    shutil.copytree(folder / "results", tmp_path / "results")
    one = made(tmp_path)
    one.weights = dict.fromkeys(one.claim.arms, plays.weights(one.folder)["nano"][0])
    assert one.todo(("untuned", "tuned"), (0,), (), tmp_path / "runs") == []
    for path in (one.folder / "played").glob("tuned-free-toolworld-test-*"):
        path.unlink()
    one.records.clear()
    todo = one.todo(("untuned", "tuned"), (0,), (), tmp_path / "runs")
    assert [cell.title for cell in todo] == ["tuned, seed 0", "tuned/free, seed 0, toolworld:test"]


def test_side_by_side_a_play_waits_for_its_tuning_and_for_nothing_else(tmp_path):
    one = made(tmp_path)
    tuning, *tuned = one.todo(("tuned",), (0,), (), tmp_path / "runs")
    untuned = one.todo(("untuned",), (0,), (), tmp_path / "runs")
    (alone,), first, second = processes._groups([tuning, *tuned])
    others = processes._groups(untuned)
    assert alone == tuning
    assert processes._next([first, second, (tuning,)], []) == (tuning,)
    assert processes._next([first, second], [(tuning,)]) is None
    assert processes._next([first, second, *others], [(tuning,)]) == others[0]
    assert processes._next([first, second], others) == first


def test_plays_that_differ_in_what_holds_their_replies_alone_are_played_together(tmp_path):
    one = made(tmp_path)
    free = all_plays(one)[0]

    def grouped(**changes):
        mode = replace(free.mode, **changes)
        return len(together.groups([free, replace(free, mode_name="other", mode=mode)])) == 1

    assert grouped(constrain=True)
    assert grouped(first_call="required")
    assert not grouped(shots=3)
    assert not grouped(max_tokens=5)
    assert not grouped(strategy="best_of_n,n=2")
    assert {len({play.column_name for play in group}) for group in together.groups(all_plays(one))} == {1}


def test_together_each_play_has_its_own_modes_episodes_and_prompts_are_computed_once(done):
    folder, _, _ = done
    names = ("tuned-free-toolworld-test-*", "tuned-constrained-toolworld-test-*")  # none was tried for its pace
    runs = [Run(next((folder / "runs" / "wide").glob(name))) for name in names]
    free, held = ({one.id: one.turns[0] for one in run.trajectories()} for run in runs)
    assert free.keys() == held.keys()
    for name in free:
        assert free[name].prompt_ids == held[name].prompt_ids
        longest = len(free[name].prompt_ids) - 1
        assert max(free[name].usage.cached, held[name].usage.cached) == longest
    assert [run.settings()["playing"]["constrained"] for run in runs] == [False, True]


def test_the_report_needs_neither_base_nor_data_and_lists_what_is_missing(done, tmp_path, monkeypatch):
    folder, _, _ = done
    shutil.copytree(folder / "results", tmp_path / "results")
    for path in (tmp_path / "results" / "wide" / "played").glob("tuned-*-toolworld-tools-*"):
        path.unlink()
    monkeypatch.setattr("rolecraft.model.load", None)
    found, _ = spoken(report, folder / "wide.yaml", settings(tmp_path))
    text = (tmp_path / "claims.md").read_text()
    told = "tuned/free (toolworld:tools at seed 0); tuned/constrained (toolworld:tools at seed 0)"
    assert f"Missing, not reached yet: {told}." in text
    assert found["cells"] == {"finished": 6, "wanted": 8}
    assert "| arm/mode | seeds | toolworld:test, n 2 | toolworld:tools, n 2 | s/task |" in text
    assert "share unparsed; s/task on toolworld:test:" in text  # which all have played
    assert "Constrained - free, points on the same tasks" in text


def test_a_part_is_run_by_its_columns(tmp_path):
    told = settings(tmp_path, arms=("untuned",), columns=("toolworld:tools",))
    found, printed = spoken(reproduce, claims.on_columns(tmp_path), told)
    assert {row["column"] for row in found["scores"]} == {"toolworld:tools"}
    assert found["verdict"] == "incomplete"
    assert "measuring the speed of 'untuned/free'" in printed
    with pytest.raises(SettingsError, match=r"--columns has 'toolworld:tool'.*Did you mean 'toolworld:tools'"):
        spoken(reproduce, tmp_path / "wide.yaml", settings(tmp_path, columns=("toolworld:tool",)))


def test_a_part_is_run_by_its_modes_and_the_whole_is_written_down(tmp_path):
    told = settings(tmp_path, arms=("untuned",), columns=("toolworld:tools",), modes=("free",))
    path = claims.on_columns(tmp_path)
    assert spoken(reproduce, path, told)[0] == spoken(report, path, settings(tmp_path))[0]
    assert [one.name.split("-")[1] for one in (tmp_path / "results/wide/played").iterdir()] == ["free"]
    with pytest.raises(SettingsError, match=r"--modes has 'fre'.*Did you mean 'free'"):
        spoken(reproduce, path, settings(tmp_path, modes=("fre",)))


@pytest.mark.parametrize(
    ("arm", "changes", "same"),
    [
        ("untuned", {"weights": "v"}, False),
        ("untuned", {"evaluation": {**WIDE, "modes": {"free": {**claims.SHORT, "max_tokens": 5}}}}, False),
        ("untuned", {"evaluation": {**WIDE, "columns": {"toolworld:test": {"n": 3}}}}, False),
        ("untuned", {"arms": {"untuned": {"base": "nano", "play": {"bare": False}}, "tuned": {}}}, False),
        ("tuned", {"arms": {"untuned": {"base": "nano"}, "tuned": {"play": {"bare": False}}}}, True),  # its recipe's
        ("tuned", {"settings": {**claims.SMALL["settings"], "adapter": {"r": 3}}}, False),
        ("untuned", {"settings": {**claims.SMALL["settings"], "adapter": {"r": 3}}}, True),
        ("untuned", {"title": "Another", "seeds": [0, 1]}, True),
    ],
)
def test_a_play_is_named_by_what_decides_its_verdicts(tmp_path, arm, changes, same):
    def name(**changes) -> str:
        one = made(tmp_path, **changes)
        return next(play.digest for play in all_plays(one) if play.arm == arm and play.mode_name == "free")

    if "modes" in changes.get("evaluation", {}) or "columns" in changes.get("evaluation", {}):
        changes = {**changes, "comparisons": [{"better": "tuned", "than": "untuned", "decides": "toolworld:test"}]}
    assert (name() == name(**changes)) is same


def test_a_base_is_known_by_its_weights_wherever_it_lies_and_whatever_it_is_called(tmp_path):
    one, other = (all_plays(made(tmp_path, arms={"untuned": {"base": base}, "tuned": {}})) for base in ("nano", "x"))
    assert [play.name for play in one] == [play.name for play in other]


def test_records_of_other_weights_do_not_hide_those_of_the_most(tmp_path):
    for weights, count in (("v", 2), ("w", 3), ("x", 1)):
        one = made(tmp_path, weights)
        for play in one.plays(("untuned",), (0,))[:count]:
            told = Record(
                "wide", "untuned", play.mode_name, play.column_name, None, "nano", {}, 0.0, (0.0, 1.0), "t", {}
            )
            plays.write(play, replace(told, configuration=plays.configuration(play)), one.folder)
    found = reproduction._open(one.claim, settings(tmp_path), ())
    assert found.weights["untuned"] == "w"


def test_a_base_that_is_not_at_hand_is_told_with_how_it_is_got(tmp_path):
    path = claims.on_columns(
        tmp_path, bases={"mine": "hf download mine"}, arms={"untuned": {"base": "mine"}, "tuned": {}}
    )
    with pytest.raises(NotFound, match=r"base 'mine' \(hf download mine\); say where it lies: --base mine=PATH"):
        spoken(reproduce, path, settings(tmp_path))


def test_a_mode_may_be_of_some_columns_alone(tmp_path):
    modes = {"free": claims.SHORT, "required": {"first_call": "required", "columns": ["toolworld:test"]}}
    found = all_plays(made(tmp_path, evaluation={**WIDE, "modes": modes}))
    assert {play.column_name for play in found if play.mode_name == "required"} == {"toolworld:test"}


def test_a_comparison_decides_in_the_modes_alone_that_are_played_on_its_column(tmp_path):
    modes = {"free": claims.SHORT, "required": {"first_call": "required", "columns": ["toolworld:tools"]}}
    both = [{"better": "tuned", "than": "untuned", "decides": "toolworld:test"}]
    read = claim.load(claims.on_columns(tmp_path, evaluation={**WIDE, "modes": modes}, comparisons=both))
    found = read.spread(read.comparisons[0])
    assert [(one.better, one.decides) for one in found] == [("tuned/free", "toolworld:test"), ("tuned/required", None)]


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"evaluation": {**WIDE, "columns": {"toolworld": {}}}}, "write a benchmark's split"),
        ({"evaluation": {**WIDE, "columns": {"toolworld:test": {"m": 2}}}}, "unknown key 'm'"),
        ({"evaluation": {"columns": {"toolworld:test": {}}}}, "columns or modes alone"),
        ({"evaluation": {**WIDE, "modes": {"free": {"constrian": True}}}}, "Did you mean 'constrain'"),
        ({"evaluation": {**WIDE, "development_columns": {"toolworld:test": {}}}}, "choose on another"),
        ({"arms": {"untuned": {"base": "nano", "search": {"adapter.r": [1]}}, "tuned": {}}}, "is not tuned"),
        ({"arms": {"untuned": {"base": "nano"}, "tuned": {"search": {"adapter.r": [1]}}}}, "development_columns"),
        ({"recipe": ""}, "'recipe' is missing, and arm 'tuned' is tuned"),
        ({"comparisons": [{"better": "tuned/fre", "than": "untuned/free"}]}, "Did you mean 'free'"),
        ({"arms": {"untuned": {"base": "nano", "play": {"shot": 3}}, "tuned": {}}}, "Did you mean 'shots'"),
        (
            {"arms": {"untuned": {"base": "nano", "play": {"columns": ["toolworld:tset"]}}, "tuned": {}}},
            r"arms.untuned.play.*'toolworld:tset'.*Did you mean 'toolworld:test'",
        ),
        (
            {"arms": {"untuned": {"base": "nano"}, "tuned": {}, "lazy": {"policy": "refus"}}},
            "arm 'lazy' is policy 'refus', which is not there",
        ),
        (
            {"evaluation": {**WIDE, "modes": {"free": {**claims.SHORT, "columns": ["toolworld:tools"]}}}},
            "is decided on column 'toolworld:test', which they are played on in no mode together",
        ),
    ],
)
def test_a_claim_on_columns_that_cannot_be_meant_is_refused(tmp_path, changes, told):
    with pytest.raises(SettingsError, match=told):
        claim.load(claims.on_columns(tmp_path, **changes))


def test_a_column_with_too_few_tasks_is_told():
    with pytest.raises(DataError, match=r"'toolworld:test' has 2 tasks, not 9"):
        playing.check("toolworld:test", replace(columns_of(2), n=9))


def columns_of(size: int):
    return playing.columns.Column(n=size, options={"size": size})


def test_a_damaged_play_is_named(tmp_path):
    play = all_plays(made(tmp_path))[0]
    path = tmp_path / "results" / "wide" / "played" / f"{play.name}.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps({"verdicts": {"task": [1]}}))
    with pytest.raises(DataError, match=rf"{path.name}: not a played cell"):
        plays.finished(play, tmp_path / "results" / "wide")


def test_stages_a_full_tuning_and_a_search_on_its_own_columns_are_played(tmp_path):
    tools = {"toolworld:tools": WIDE["columns"]["toolworld:tools"]}
    evaluation = {
        "modes": {"free": claims.SHORT},
        "columns": tools,
        "development_columns": {"toolworld:test": WIDE["columns"]["toolworld:test"]},
    }
    arms = {
        "full": {"settings": {"adapter": {"name": "full"}}, "search": {"training.learning_rate": [1e-4]}},
        "staged": {"stages": [{"adapter": {"r": 4}}, {}]},
    }
    deciding = [{"better": "full", "than": "staged", "decides": "toolworld:tools"}]
    path = claims.on_columns(tmp_path, evaluation=evaluation, arms=arms, comparisons=deciding)
    found, printed = spoken(reproduce, path, settings(tmp_path))
    assert [(row["arm"], row["column"]) for row in found["scores"]] == [
        ("full", "toolworld:tools"),
        ("staged", "toolworld:tools"),
    ]
    assert "full, trying learning_rate 0.0001: toolworld:test " in printed
    assert found["verdict"] == "not at this scale"


@needs_bfcl
def test_trivial_policies_stand_beside_where_a_benchmark_has_some(tmp_path):
    columns = {"bfcl:irrelevance": {"n": 3}, "toolworld:tools": {"n": 2}}
    arms = {"never-calls": {"policy": "never calls"}, "always-calls": {"policy": "always calls"}}
    deciding = [{"better": "never-calls", "than": "always-calls", "decides": "bfcl:irrelevance"}]
    evaluation = {"modes": {"free": {}, "constrained": {}}, "columns": columns}
    path = claims.on_columns(tmp_path, recipe="", evaluation=evaluation, arms=arms, comparisons=deciding)
    found, _ = spoken(reproduce, path, settings(tmp_path))
    assert [(row["arm"], row["column"], row["score"]) for row in found["scores"]] == [
        ("never-calls", "bfcl:irrelevance", 1.0),
        ("always-calls", "bfcl:irrelevance", 0.0),
    ]
    text = (tmp_path / "claims.md").read_text()
    assert "| never-calls | 100.0 (44-100), unparsed 0.0 | - |" in text
    assert "3 / 0 of 3" in text  # what is not tuned counts once, whatever the seeds


def test_what_is_not_tuned_stands_beside_every_seed_of_what_is(done):
    folder, _, _ = done
    one = made(folder, plays.weights(folder / "results" / "wide")["nano"][0])
    (contrast, _) = standings.find(one).contrasts
    assert contrast.seeds == (0,)
    assert contrast.paired.n == 2


def test_a_mode_may_play_by_a_strategy_and_what_it_tried_is_told(tmp_path):
    voted, begun = {"strategy": "self_consistent,n=3"}, {"first_thought": True}
    modes = {"greedy": claims.SHORT, "voted": {**claims.SHORT, **voted}, "begun": {**claims.SHORT, **begun}}
    evaluation = {**WIDE, "modes": modes, "columns": {"toolworld:test": WIDE["columns"]["toolworld:test"]}}
    told = {"arms": {"untuned": {"base": "nano"}}, "evaluation": evaluation}
    named = [{"better": "untuned/voted", "than": "untuned/greedy", "decides": "toolworld:test"}]
    path = claims.on_columns(tmp_path, **told, comparisons=named)
    spoken(reproduce, path, settings(tmp_path))
    costs = {one.mode: one.cost for one in plays.read_all(tmp_path / "results" / "wide")}
    assert "candidates" not in costs["greedy"]
    assert costs["begun"]["model_calls"] == 2.0  # the chain of thought, and the reply that it begins
    assert (costs["voted"]["candidates"], costs["voted"]["model_calls"]) == (3.0, 3.0)
    text = (tmp_path / "claims.md").read_text()
    assert "| untuned/voted | 3.0 |" in text
    assert "Greedy but for modes with a strategy" in text
    misspelt = {**evaluation, "modes": {"voted": {"strategy": "self_consistant"}}}
    with pytest.raises(NotFound, match="Did you mean 'self_consistent'"):
        claim.load(claims.on_columns(tmp_path, **{**told, "evaluation": misspelt}, comparisons=named))


def test_a_run_that_cannot_be_gone_on_with_is_named_and_stops_no_other(done, tmp_path):
    folder, _, _ = done
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    (held,) = (tmp_path / "results" / "wide" / "played").glob("untuned-constrained-toolworld-test-*")
    (free,) = (tmp_path / "results" / "wide" / "played").glob("untuned-free-toolworld-test-*")
    for path in (held, free):
        path.unlink()
    (tmp_path / "runs" / "wide" / held.stem / "trajectories.jsonl").write_text("{}\n")
    with pytest.raises(RolecraftError, match=r"^untuned/constrained, toolworld:test: .*1 others of its column"):
        spoken(reproduce, tmp_path / "wide.yaml", settings(tmp_path, arms=("untuned",)))
    assert free.is_file()
    assert not held.exists()


def test_what_prompts_cost_is_left_open_where_several_cells_shared_them(done):
    folder, _, _ = done
    costs = {one.column: one.cost for one in plays.read_all(folder / "results" / "wide") if one.arm == "tuned"}
    assert {cost["computed"] for cost in costs.values()} == {None}
    assert all(cost["prompt"] for cost in costs.values())


def test_the_time_of_a_part_that_is_stopped_counts_and_loading_does_not(tmp_path, monkeypatch):
    run, now = Run(tmp_path), [0.0]
    monkeypatch.setattr("rolecraft.reproduce.clock.time.monotonic", lambda: now[0])

    @contextmanager
    def loading():
        now[0] += 100.0
        yield "engine"

    watch = clock.Clock([run])

    def stopped():
        with watch.opened(loading):
            for number in range(4):
                run.append(Trajectory(f"t{number}", Task(f"t{number}", ()), ()))
                now[0] += 2.0
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stopped()
    watch.log()
    clock.Clock([run]).log()  # nothing was played since
    assert run.metrics() == [{"played": 4, "seconds": 8.0}]
