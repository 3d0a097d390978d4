"""A checkpoint counts only when it is whole."""

from __future__ import annotations

from pathlib import Path

import pytest

from rolecraft.train.checkpoints import extend, folders, last_checkpoint, mark_whole, remove_broken


def checkpoint(run: Path, step: int, *, whole: bool = True) -> Path:
    folder = run / f"checkpoint-{step}"
    folder.mkdir()
    (folder / "optimizer.pt").write_bytes(b"12345678")
    if whole:
        mark_whole(folder, {"step": step})
    return folder


def test_the_newest_whole_checkpoint_is_found_with_its_facts(tmp_path):
    for step in (2, 10, 4):
        checkpoint(tmp_path, step)
    folder, facts = last_checkpoint(tmp_path) or pytest.fail("none found")
    assert folder.name == "checkpoint-10"
    assert facts["step"] == 10


def test_a_folder_without_a_mark_does_not_count(tmp_path):
    checkpoint(tmp_path, 2)
    checkpoint(tmp_path, 4, whole=False)
    assert (last_checkpoint(tmp_path) or [tmp_path])[0].name == "checkpoint-2"


@pytest.mark.parametrize("damage", ["optimizer.pt", "complete.json"])
def test_a_cut_file_spoils_a_checkpoint(tmp_path, damage):
    folder = checkpoint(tmp_path, 4)
    (folder / damage).write_bytes((folder / damage).read_bytes()[:5])
    assert last_checkpoint(tmp_path) is None


def test_a_lost_file_spoils_a_checkpoint(tmp_path):
    (checkpoint(tmp_path, 4) / "optimizer.pt").unlink()
    assert last_checkpoint(tmp_path) is None


def test_only_broken_checkpoints_are_removed(tmp_path):
    checkpoint(tmp_path, 2)
    checkpoint(tmp_path, 4, whole=False)
    (tmp_path / "checkpoint-notes").mkdir()
    assert remove_broken(tmp_path) == ["checkpoint-4"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint-2", "checkpoint-notes"]


def test_checkpoints_are_ordered_by_step_not_by_name(tmp_path):
    for step in (100, 20, 3):
        checkpoint(tmp_path, step)
    assert [folder.name for folder in folders(tmp_path)] == ["checkpoint-3", "checkpoint-20", "checkpoint-100"]


def test_a_folder_that_does_not_exist_has_no_checkpoint(tmp_path):
    assert last_checkpoint(tmp_path / "nowhere") is None


def test_a_finished_run_is_told_that_it_goes_on(tmp_path):
    folder = checkpoint(tmp_path, 4)
    extend(folder, 8)
    found, facts = last_checkpoint(tmp_path) or pytest.fail("none found")
    assert (found, facts["step"], facts["of"]) == (folder, 4, 8)


def test_only_a_whole_checkpoint_goes_on(tmp_path):
    with pytest.raises(ValueError, match="no whole checkpoint"):
        extend(checkpoint(tmp_path, 4, whole=False), 8)
