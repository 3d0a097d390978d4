"""The references of a run: shared among processes, they are the same as one process's."""

from __future__ import annotations

from pathlib import Path

import pytest

from rolecraft.recipe import DataSettings
from rolecraft.train import references

DATA = DataSettings(benchmark="toolworld", split="train", seed=3, size=11)


def written(folder: Path, processes: int) -> str:
    folder.mkdir()
    for process in range(processes):
        references.write_share(DATA, "mor", folder, process, processes)
    references.join(folder, processes)
    return (folder / references.NAME).read_text(encoding="utf-8")


@pytest.mark.parametrize("processes", [2, 3])
def test_several_processes_write_what_one_writes(processes, tmp_path):
    assert written(tmp_path / "many", processes) == written(tmp_path / "one", 1)


def test_shares_are_gone_once_they_are_joined(tmp_path):
    written(tmp_path / "run", 2)
    assert [path.name for path in (tmp_path / "run").iterdir()] == [references.NAME]


def test_a_run_that_has_its_references_keeps_them(tmp_path):
    assert references.is_wanted(DATA, tmp_path)
    (tmp_path / references.NAME).write_text("", encoding="utf-8")
    assert not references.is_wanted(DATA, tmp_path)


def test_a_run_on_a_file_wants_no_references(tmp_path):
    assert not references.is_wanted(DataSettings(path="my.jsonl"), tmp_path)
