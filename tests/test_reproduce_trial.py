"""One cell: its stages, its chunks and its curve are tuned as the claim says, and a search survives what fails."""

from __future__ import annotations

import json
from pathlib import Path

import claims
import pytest

from rolecraft import contract, model, strategies
from rolecraft.benchmarks import toolworld
from rolecraft.errors import ContractError, DataError
from rolecraft.reproduce import cells, claim, playing, trial
from rolecraft.store import Run

VOTED = [{"better": "tuned/voted", "than": "tuned/free", "decides": "toolworld:test"}]
STAGES = [{"adapter": {"r": 4}}, {"training": {"max_steps": 3}}]


def cell(tmp_path, seed=0, **changes) -> cells.Cell:
    return cells.final_cell(claims.make(tmp_path, **changes), "small", seed, "w", {})


def run(tmp_path, made: cells.Cell) -> cells.Result:
    return trial.run(made, tmp_path / "runs", tmp_path / "results")


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> tuple[Path, cells.Cell, cells.Result]:
    """The folder of a finished cell, the cell, and its result."""
    folder = tmp_path_factory.mktemp("finished")
    made = cell(folder)
    return folder, made, run(folder, made)


@pytest.fixture(scope="module")
def staged(tmp_path_factory) -> tuple[Path, cells.Cell, cells.Result]:
    """The same of a cell with two stages."""
    folder = tmp_path_factory.mktemp("staged")
    made = cell(folder, arms={"small": {"stages": STAGES}, "large": {}})
    return folder, made, run(folder, made)


def test_a_finished_cell_tells_scores_outcomes_costs_and_the_machine(finished):
    folder, made, result = finished
    played = result.scores["test"]
    assert (played.n, len(played.outcomes), played.seed) == (2, 2, 11)
    assert played.score == sum(played.values) / 2
    assert result.tuning.steps == 2
    assert result.tuning.trainable == 2 * 5 * (4 * 256 + 3 * (128 + 352))
    assert 2 * 2 * 50 < result.tuning.tokens < 2 * 2 * 512
    assert {"loss", "loss/reasoner"} <= set(result.tuning.logged)
    versions = {"code", "python", "torch", "transformers", "peft"}
    assert set(result.machine) == {"cores", "architecture", "side_by_side"} | versions
    assert len(result.tuning.data) == 12
    assert cells.finished(made, folder / "results") == result


def test_the_same_cell_has_the_same_losses_and_another_seed_has_not(finished, tmp_path):
    again, other = (run(tmp_path, cell(tmp_path, seed)) for seed in (0, 1))
    assert again.tuning.losses == finished[2].tuning.losses
    assert other.tuning.losses != finished[2].tuning.losses
    # its references are played once for both
    first, second = (path / "stage-1" / "references.jsonl" for path in (tmp_path / "runs").glob("small-*"))
    assert first.samefile(second)


def test_a_stage_starts_from_the_base_with_the_one_before_merged_in(staged):
    folder, made, result = staged
    place = folder / "runs" / made.name
    merged = str(place / "stage-1" / "merged")
    assert contract.base_of(contract.read(place / "stage-2"), place / "stage-2") == merged
    assert result.tuning.steps == 5
    assert len(result.tuning.losses) == 3
    with pytest.raises(ContractError, match="weights"):
        model.load("nano", adapter=place / "stage-2")
    model.load(merged, adapter=place / "stage-2")


def test_a_cell_file_holds_no_place_of_this_machine(staged):
    folder, made, _ = staged
    text = (folder / "results" / f"{made.name}.json").read_text()
    assert str(folder) not in text
    assert json.loads(text)["configuration"]["stages"][1]["model"]["base"] == "nano"


def grown(tmp_path, least_gain: float) -> tuple[cells.Cell, cells.Result]:
    made = cell(tmp_path, budget={"most_steps": 7, "least_gain": least_gain})
    return made, run(tmp_path, made)


def test_tuning_goes_on_in_chunks_to_its_bound(tmp_path):
    made, result = grown(tmp_path, least_gain=-1)
    assert [point.steps for point in result.development] == [2, 4, 6]
    logged = Run(tmp_path / "runs" / made.name / "stage-1").metrics()
    assert [entry["step"] for entry in logged] == [1, 2, 3, 4, 5, 6]


def test_tuning_stops_when_the_development_score_does_and_takes_the_best(tmp_path):
    made, result = grown(tmp_path, least_gain=0.9)
    assert [point.steps for point in result.development] == [2, 4]
    assert result.tuning.steps == 2
    kept = [path.name for path in (tmp_path / "runs" / made.name / "stage-1").glob("checkpoint-*")]
    assert kept == ["checkpoint-2"]


def test_a_curve_is_the_development_score_at_equal_distances(tmp_path):
    made = cell(tmp_path, settings={**claims.SMALL["settings"], "training": {"max_steps": 6}}, budget={"curve": 3})
    points = run(tmp_path, made).development
    assert [point.steps for point in points] == [2, 4, 6]
    assert points[0].seconds < points[1].seconds < points[2].seconds
    assert {point.n for point in points} == {2}


def diverging(tmp_path, arm) -> cells.Cell:
    searched = {"search": {"training.learning_rate": [1e30]}, "settings": {"training": {"max_steps": 6}}}
    read = claims.make(tmp_path, arms={"small": searched, "large": {}}, budget={"search_share": 1})
    if arm == "search":
        return cells.search_cells(read, "small", "w")[0]
    return cells.final_cell(read, "small", 0, "w", {"training.learning_rate": 1e30})


def test_a_searched_value_that_diverges_is_a_result_with_its_reason(tmp_path):
    made = diverging(tmp_path, "search")
    result = run(tmp_path, made)
    assert "the loss is nan" in result.failed
    assert result.mean < 0
    assert cells.finished(made, tmp_path / "results") == result


def test_a_final_cell_that_diverges_is_no_result(tmp_path):
    made = diverging(tmp_path, "final")
    with pytest.raises(Exception, match="the loss is nan"):
        run(tmp_path, made)
    assert cells.finished(made, tmp_path / "results") is None


def test_a_split_with_too_few_tasks_is_told_before_anything_is_tuned(tmp_path):
    few = {**claims.SMALL["evaluation"], "n": 5, "options": {**claims.FAMILY, "size": 4}}
    with pytest.raises(DataError, match="has 4 tasks in split 'test', not 5"):
        trial.check_tasks(cell(tmp_path, evaluation=few))


def test_development_on_columns_is_played_by_the_first_mode_s_strategy(tmp_path, monkeypatch):
    mode = {**claims.SHORT, "strategy": "self_consistent,n=3", "first_thought": True, "shots": 0}
    columns = claims.ON_COLUMNS["evaluation"]["columns"]
    evaluation = {
        "modes": {"voted": mode, "free": claims.SHORT},
        "columns": {"toolworld:test": columns["toolworld:test"]},
        "development_columns": {"toolworld:tools": columns["toolworld:tools"]},
    }
    read = claim.load(claims.on_columns(tmp_path, evaluation=evaluation, comparisons=VOTED, budget={"curve": 1}))
    made, asked = cells.final_cell(read, "tuned", 0, "w", {}), []

    def told(what, *others, **more):
        asked.append(what)
        raise DataError("it is told what to play, and that is enough")

    monkeypatch.setattr(trial.evaluate, "run", told)
    monkeypatch.setattr(trial.bases, "identity", lambda *places: "nano, tuned")
    stage = trial._Stage(made.stages[-1].recipe, tmp_path / "stage", 2)
    with pytest.raises(DataError, match="that is enough"):
        trial._develop_on_columns(made, stage, tmp_path / "development", trial._Clock())
    assert asked[0].strategy == strategies.parse("self_consistent,n=3")
    assert asked[0].first_thought is True


def test_a_probe_tells_the_speed_and_leaves_nothing(tmp_path):
    found = trial.probe(cell(tmp_path).stages[0].recipe, tmp_path / "probe")
    assert found.seconds > 0
    assert found.tokens / found.steps > 2 * 50
    assert list(tmp_path.glob("probe*")) == []


def test_a_probe_leaves_the_folder_in_which_another_process_probes(tmp_path):
    others = tmp_path / "probe" / "metrics.jsonl"
    others.parent.mkdir()
    others.write_text("{}\n")
    trial.probe(cell(tmp_path).stages[0].recipe, tmp_path / "probe")
    assert others.read_text() == "{}\n"


def test_arms_are_paired_by_what_they_are_asked_whatever_they_are_told_before():
    agents, thoughts = (
        toolworld.tasks(toolworld.Settings(size=4, families=("search",), tools=tools), "test", 11)
        for tools in (True, False)
    )
    assert playing.hash_tasks(agents) != playing.hash_tasks(thoughts)
    assert playing.hash_questions(agents) == playing.hash_questions(thoughts)
    assert playing.hash_questions(agents) == playing.hash_tasks(agents)  # as cells made before it have it
    assert playing.hash_questions(agents) != playing.hash_questions(agents[:3])
