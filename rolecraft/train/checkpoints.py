"""Checkpoints that a kill cannot spoil: written file by file, they count once a mark says that they are whole.

Not covered: checkpoints on several machines without a common disk.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

_MARK = "complete.json"


def mark_whole(folder: Path, facts: Mapping[str, Any]) -> None:
    """Write the mark that makes `folder` a checkpoint, after everything else in it has reached the disk."""
    files = {}
    for path in sorted(folder.iterdir()):
        with path.open("rb") as file:
            os.fsync(file.fileno())
        files[path.name] = path.stat().st_size
    _write_mark(folder, {**facts, "files": files})


def extend(folder: Path, steps: int) -> None:
    """Change how many steps the mark of a whole checkpoint says there are, so that a finished run goes on from it."""
    facts = _mark_of(folder)
    if facts is None:
        raise ValueError(f"{str(folder)!r} is no whole checkpoint; only from one can a run go on")
    _write_mark(folder, {**facts, "of": steps})


def last_checkpoint(output_dir: Path) -> tuple[Path, dict[str, Any]] | None:
    """Return the newest whole checkpoint in `output_dir` with the facts in its mark, or None.

    One that a kill left half-written has no mark, or files of other sizes than the mark says, and does not count.
    """
    for folder in reversed(folders(output_dir)):
        facts = _mark_of(folder)
        if facts is not None:
            return folder, facts
    return None


def remove_broken(output_dir: Path) -> list[str]:
    """Delete what a kill left half-written; return the names of what was deleted."""
    broken = [folder for folder in folders(output_dir) if _mark_of(folder) is None]
    for folder in broken:
        shutil.rmtree(folder)
    return [folder.name for folder in broken]


def folders(output_dir: Path) -> list[Path]:
    """Return the checkpoint folders, whole or not, oldest step first."""
    found = {path: re.fullmatch(r"checkpoint-(\d+)", path.name) for path in output_dir.glob("checkpoint-*")}
    steps = {path: int(match[1]) for path, match in found.items() if match and path.is_dir()}
    return sorted(steps, key=steps.__getitem__)


def _write_mark(folder: Path, data: Mapping[str, Any]) -> None:
    partial = folder / f"{_MARK}.partial"
    with partial.open("w", encoding="utf-8") as file:
        json.dump(data, file, indent=2)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(folder / _MARK)


def _mark_of(folder: Path) -> dict[str, Any] | None:
    try:
        facts: dict[str, Any] = json.loads((folder / _MARK).read_text(encoding="utf-8"))
        sizes = {name: (folder / name).stat().st_size for name in facts["files"]}
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None
    return facts if sizes == facts["files"] else None
