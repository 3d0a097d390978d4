"""The whole of `rolecraft reproduce`: cells are run once, resumed, reported from their files alone, and stoppable."""

from __future__ import annotations

import io
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import claims
import pytest
from rich.console import Console

from rolecraft import cli
from rolecraft.errors import DataError, Interrupted, SettingsError, UserError
from rolecraft.reproduce import Settings, cells, report, reproduce

ARMS = {
    "small": {"search": {"training.learning_rate": [1e-3, 5e-3]}},
    "large": {"settings": {"adapter": {"r": 4}}},
    "merged": {"stages": [{"adapter": {"r": 4}}, {}]},
}


def settings(folder: Path, **changes) -> Settings:
    places = {"results": folder / "results", "docs": folder / "claims.md", "output": folder / "runs"}
    return Settings(**{"workers": 1, **places, **changes})


def spoken(act, path: Path, told: Settings) -> tuple[dict, str]:
    """Run a verb's function; returns what it found and what it printed."""
    out = io.StringIO()
    return act(path, told, Console(file=out, width=160)), out.getvalue()


def stamps(folder: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in folder.glob("**/*.json")}


@pytest.fixture(scope="module")
def done(tmp_path_factory) -> tuple[Path, dict, str]:
    """The folder of a claim that has run, what it found, and what it printed."""
    folder = tmp_path_factory.mktemp("reproduce")
    return folder, *spoken(reproduce, claims.write(folder, arms=ARMS, seeds=[0]), settings(folder))


def test_every_cell_is_one_file_and_a_search_chooses_for_its_arm(done):
    folder, found, _ = done
    names = sorted(path.name.rpartition("-")[0] for path in (folder / "results" / "small").iterdir())
    assert names == ["large-0", "merged-0", "small-0", "small-search-100", "small-search-100"]
    assert found["arms"]["small"]["chosen"]["training.learning_rate"] in (1e-3, 5e-3)
    assert found["cells"] == {"finished": 3, "wanted": 3}


def test_the_cost_is_told_first_and_each_finished_cell_in_a_line(done):
    _, _, printed = done
    lines = printed.splitlines()
    cost = next(i for i, line in enumerate(lines) if "of at most 45 minutes" in line)
    first = next(i for i, line in enumerate(lines) if line.startswith("[1/5] small, trying learning_rate 0.001: test "))
    assert cost < first
    assert any(line.startswith("[5/5] ") and line.endswith("the last one") for line in lines)
    assert "verdict: not at this scale (3 of 3 cells)" in printed


def test_the_verdict_and_the_tables_are_in_the_document(done):
    text = (done[0] / "claims.md").read_text()
    assert "**Verdict: not at this scale** (3 of 3 cells)" in text
    assert "| large - small | test (decides) |" in text


def test_finished_cells_are_not_run_again(done):
    folder, found, _ = done
    before = stamps(folder / "results")
    again, printed = spoken(reproduce, folder / "small.yaml", settings(folder))
    assert "every cell is finished" in printed
    assert stamps(folder / "results") == before
    assert again == found


def test_the_report_follows_from_the_cells_files_alone(done, tmp_path):
    folder, found, _ = done
    shutil.copytree(folder / "results", tmp_path / "results")
    again, _ = spoken(report, folder / "small.yaml", settings(tmp_path))
    assert again == found
    assert (tmp_path / "claims.md").read_text() == (folder / "claims.md").read_text()
    assert not (tmp_path / "runs").exists()


def test_a_part_is_run_and_the_verdict_waits_for_the_rest(done, tmp_path):
    folder, _, _ = done
    shutil.copytree(folder / "results", tmp_path / "results")
    for path in (tmp_path / "results" / "small").glob("large-*"):
        path.unlink()
    found, _ = spoken(report, folder / "small.yaml", settings(tmp_path))
    assert (found["verdict"], found["cells"]) == ("incomplete", {"finished": 2, "wanted": 3})
    found, _ = spoken(reproduce, folder / "small.yaml", settings(tmp_path, arms=("merged",)))
    assert found["cells"] == {"finished": 2, "wanted": 3}
    assert not list((tmp_path / "runs").glob("*/large-*"))


def test_a_dry_run_tells_the_cost_and_runs_nothing(done, tmp_path):
    folder, _, _ = done
    shutil.copytree(folder / "results", tmp_path / "results")
    more = claims.write(tmp_path, arms=ARMS, seeds=[0, 1])
    before = stamps(tmp_path / "results")
    found, printed = spoken(reproduce, more, settings(tmp_path, dry_run=True))
    assert found["cells"] == 3
    assert "merged" in printed
    assert stamps(tmp_path / "results") == before
    assert not (tmp_path / "claims.md").exists()


class Impatient(Console):
    """Hears what is printed, and leaves where a measurement would begin."""

    def print(self, *told, **how):
        if "measuring" in str(told[0]):
            raise KeyboardInterrupt
        super().print(*told, **how)


def test_what_is_to_do_is_told_before_anything_is_measured(done, tmp_path):
    folder, _, _ = done
    shutil.copytree(folder / "results", tmp_path / "results")
    for path in (tmp_path / "results" / "small").glob("large-*"):
        path.unlink()
    out = io.StringIO()
    with pytest.raises(KeyboardInterrupt):
        reproduce(folder / "small.yaml", settings(tmp_path, dry_run=True), Impatient(file=out, width=160))
    rows = [line.replace("│", " ").split() for line in out.getvalue().splitlines()]
    assert ["small,", "search", "2", "2", "0"] in rows
    assert ["large", "1", "0", "1"] in rows


def test_what_would_take_too_long_is_refused_with_the_remedy(done, tmp_path):
    folder, _, _ = done
    shutil.copytree(folder / "results", tmp_path / "results")
    path = claims.write(tmp_path, arms=ARMS, seeds=[0, 1], budget={"minutes": 0.1})
    with pytest.raises(UserError, match=r"allows 0; do a part \(--seeds 1, --arms small\), or say --yes"):
        spoken(reproduce, path, settings(tmp_path))


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"arms": ("lage",)}, "Did you mean 'large'"),
        ({"seeds": 2}, "--seeds is 2"),
        ({"workers": 0}, "--workers is 0"),
    ],
)
def test_a_part_that_is_not_there_is_refused(done, changes, told):
    with pytest.raises(SettingsError, match=told):
        spoken(reproduce, done[0] / "small.yaml", settings(done[0], **changes))


def test_a_report_without_cells_is_refused_and_leaves_the_document(tmp_path):
    (tmp_path / "claims.md").write_text("before\n")
    with pytest.raises(DataError, match="no finished cell of its present settings"):
        spoken(report, claims.write(tmp_path), settings(tmp_path))
    assert (tmp_path / "claims.md").read_text() == "before\n"


def test_the_verb_prints_one_json_object_last(done, capsys):
    folder, found, _ = done
    places = [
        "--results",
        str(folder / "results"),
        "--docs",
        str(folder / "claims.md"),
        "--output",
        str(folder / "runs"),
    ]
    assert cli.main(["reproduce", str(folder / "small.yaml"), "--report", "--json", *places]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1]) == json.loads(json.dumps(found))


LONG = {
    "arms": {"small": {}, "large": {"stages": [{"adapter": {"r": 4}}, {}]}},
    "seeds": [0],
    "settings": {**claims.SMALL["settings"], "training": {"max_steps": 60, "per_device_train_batch_size": 2}},
}
PATIENCE = 600  # seconds; another process may have the cores


def known_speed(results: Path) -> None:
    """Leave cells of another configuration, so that no arm's speed is measured first."""
    results.mkdir(parents=True)
    for arm in LONG["arms"]:
        (results / f"{arm}-9-other.json").write_text(json.dumps(asdict(claims.result(arm, 9, "10"))))


def steps(folder: Path) -> list[int]:
    return sorted(int(path.name.split("-")[1]) for path in folder.glob("runs/*/*/stage-*/checkpoint-*"))


def do_when(ready: Callable[[], bool], act: Callable[[], object]) -> None:
    """Do `act` once `ready` holds, from another thread."""

    def watch() -> None:
        limit = time.monotonic() + PATIENCE
        while time.monotonic() < limit:
            if ready():
                act()
                return
            time.sleep(0.01)

    threading.Thread(target=watch, daemon=True).start()


def of_seed_0(results: Path) -> dict[str, cells.Result]:
    return {one.arm: one for one in cells.read_all(results) if one.seed == 0}


def unbroken(folder: Path, path: Path) -> Path:
    """Run the same claim in `folder` without a break."""
    known_speed(folder / "results" / path.stem)
    spoken(reproduce, path, settings(folder))
    return folder


def untimed(result: cells.Result) -> dict[str, cells.Played]:
    """Return a cell's scores without the seconds that a task took."""
    return {split: replace(one, cost={**one.cost, "seconds": 0.0}) for split, one in result.scores.items()}


def same(folder: Path, whole: Path) -> bool:
    """Return whether the cells under both folders came out alike: the adapters to the bit, and every outcome."""
    ones, others = of_seed_0(folder / "results" / "small"), of_seed_0(whole / "results" / "small")
    weights = [
        {path.parts[-3]: path.read_bytes() for path in each.glob("runs/small/*-0-*/stage-*/adapter_model.safetensors")}
        for each in (folder, whole)
    ]
    scores = [{arm: untimed(one) for arm, one in each.items()} for each in (ones, others)]
    return len(weights[0]) == 2 and weights[0] == weights[1] and scores[0] == scores[1]


@pytest.mark.slow
def test_a_stopped_claim_goes_on_from_its_checkpoint_to_the_same_result(tmp_path):
    path = claims.write(tmp_path, **LONG)
    known_speed(tmp_path / "results" / "small")
    do_when(lambda: bool(steps(tmp_path)), lambda: signal.raise_signal(signal.SIGINT))
    with pytest.raises(Interrupted, match="repeat the command"):
        spoken(reproduce, path, settings(tmp_path))
    assert 0 < max(steps(tmp_path)) < 60
    spoken(reproduce, path, settings(tmp_path))
    assert same(tmp_path, unbroken(tmp_path / "unbroken", path))


def started(tmp_path: Path, path: Path) -> subprocess.Popen[bytes]:
    places = ["--results", "results", "--docs", "claims.md", "--output", "runs"]
    program = "import sys; from rolecraft.cli import main; sys.exit(main(sys.argv[1:]))"
    command = [sys.executable, "-c", program, "reproduce", str(path), *places]
    return subprocess.Popen(command, cwd=tmp_path, env={**os.environ, "OMP_NUM_THREADS": "1"}, start_new_session=True)


def cell_processes(tmp_path: Path) -> list[int]:
    """Return the processes whose output is a file of the run folder: the cells'."""
    found = []
    for link in Path("/proc").glob("[0-9]*/fd/1"):
        try:
            target = os.readlink(link)
        except OSError:
            continue
        if target.startswith(str(tmp_path / "runs")):
            found.append(int(link.parts[2]))
    return found


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_cells_side_by_side_survive_a_stop_and_a_kill(tmp_path, number):
    path = claims.write(tmp_path, **LONG)
    known_speed(tmp_path / "results" / "small")
    process = started(tmp_path, path)
    do_when(lambda: len(steps(tmp_path)) >= 2, lambda: process.send_signal(number))
    assert process.wait(timeout=PATIENCE) == (130 if number == signal.SIGINT else -signal.SIGKILL)
    limit = time.monotonic() + 60
    while cell_processes(tmp_path) and time.monotonic() < limit:
        time.sleep(0.1)
    assert cell_processes(tmp_path) == []
    assert started(tmp_path, path).wait(timeout=PATIENCE) == 0
    beside = [one.machine["side_by_side"] for one in of_seed_0(tmp_path / "results" / "small").values()]
    assert beside == [2, 2]
    assert same(tmp_path, unbroken(tmp_path / "unbroken", path))
