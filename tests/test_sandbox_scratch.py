"""Scratch folders on the host's disk are measured and removed whatever is in them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from rolecraft.sandbox import _scratch

MB = 1 << 20


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "scratch"
    path.mkdir()
    return path


def test_a_small_folder_does_not_overflow(folder: Path):
    (folder / "a").mkdir()
    (folder / "a" / "b").write_bytes(bytes(1000))
    assert not _scratch.overflows(str(folder), MB)


def test_bytes_below_folders_count(folder: Path):
    (folder / "a").mkdir()
    (folder / "a" / "b").write_bytes(os.urandom(2 * MB))
    assert _scratch.overflows(str(folder), MB)


def test_a_hole_takes_no_room(folder: Path):
    with (folder / "a").open("wb") as file:
        file.truncate(100 * MB)
    assert not _scratch.overflows(str(folder), MB)


def test_files_are_counted(folder: Path):
    for number in range(11):
        (folder / str(number)).touch()
    assert _scratch.overflows(str(folder), MB, most_files=10)


def test_a_folder_that_went_away_is_no_overflow(folder: Path):
    folder.rmdir()
    assert not _scratch.overflows(str(folder), MB)


def deepen(folder: Path, name: str, depth: int) -> None:
    """Make folders in folders, deeper than a path can tell."""
    place = os.open(folder, os.O_RDONLY)
    for _ in range(depth):
        os.mkdir(name, dir_fd=place)
        below = os.open(name, os.O_RDONLY, dir_fd=place)
        os.close(place)
        place = below
    os.close(os.open("leaf", os.O_CREAT | os.O_WRONLY, dir_fd=place))
    os.close(place)


def test_what_lies_too_deep_to_be_measured_is_an_overflow(folder: Path):
    deepen(folder, "d" * 200, 30)
    assert _scratch.overflows(str(folder), MB)


@pytest.mark.parametrize(("name", "depth"), [("d" * 200, 30), ("d", 1200)])
def test_a_deep_folder_is_removed(folder: Path, name: str, depth: int):
    deepen(folder, name, depth)
    _scratch.remove(str(folder))
    assert not folder.exists()


def test_what_cannot_be_entered_is_removed(folder: Path):
    inner = folder / "a" / "b"
    inner.mkdir(parents=True)
    (inner / "c").write_text("x")
    (inner / "c").chmod(0)
    inner.chmod(0)
    (folder / "a").chmod(0)
    _scratch.remove(str(folder))
    assert not folder.exists()


def test_links_are_removed_and_not_followed(folder: Path, tmp_path: Path):
    kept = tmp_path / "kept"
    kept.mkdir(mode=0o750)
    (kept / "file").write_text("x")
    (folder / "a").mkdir()
    (folder / "a" / "link").symlink_to(kept)
    (folder / "link").symlink_to(kept)
    (folder / "dangling").symlink_to(tmp_path / "nowhere")
    _scratch.remove(str(folder))
    assert (kept / "file").read_text() == "x"
    assert kept.stat().st_mode & 0o777 == 0o750
    assert not folder.exists()


def test_removing_quietly_says_nothing_of_a_missing_folder(tmp_path: Path):
    _scratch.remove_quietly(str(tmp_path / "nowhere"))
