"""The page of results: each claim's section stands between its markers, and several reports may write at once.

Not covered: what a section says (`findings`, `standings`).
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rolecraft.errors import DataError
from rolecraft.store import atomic

_HEADING = """# Claims

What `rolecraft reproduce CLAIM` found last, rewritten by it from the cells in `results/claims/`; what stands outside
the sections stays. Scores are percent of tasks, greedy, tools executed. Columns marked `paper` are the paper's own
figures, of its models and benchmarks: beside ours for the direction, not the size.
"""


def write_section(path: Path, name: str, text: str) -> None:
    """Replace a claim's section between its markers in the document at `path`, or add it at the end."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with _alone(path.parent):
        _write(path, name, text)


def _write(path: Path, name: str, text: str) -> None:
    first, last = f"<!-- claim {name} -->", f"<!-- end of claim {name} -->"
    document = path.read_text(encoding="utf-8") if path.exists() else _HEADING
    before, found, rest = document.partition(first)
    _, closed, after = rest.partition(last)
    if found and not closed:
        raise DataError(f"{path} has {first!r} without {last!r}; restore the second marker")
    after = after if found else "\n"
    before = before if found else document.rstrip("\n") + "\n\n"
    with atomic(path) as unfinished:
        unfinished.write_text(f"{before}{first}\n\n{text.strip()}\n\n{last}{after}", encoding="utf-8")


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Wait until no other report writes into the folder; the folder itself is locked, so that no file is left there."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)
