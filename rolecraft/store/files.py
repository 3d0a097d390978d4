"""Files that are written whole or not at all."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from rolecraft import wire
from rolecraft.errors import NotFound
from rolecraft.types import Json


def write_jsonl(path: Path, rows: Iterable[Json]) -> int:
    """Write one row per line, the whole file or nothing, and return how many there are."""
    with atomic(path) as unfinished, unfinished.open("w", encoding="utf-8", newline="\n") as file:
        return sum(1 for row in rows if file.write(wire.dumps(row) + "\n"))


@contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """Give a file name beside `path` to write to; at the end it becomes `path`, after an error it is removed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        yield unfinished
        _sync(unfinished)
        unfinished.replace(path)
        with suppress(OSError):  # not every system can sync a folder
            _sync(path.parent)
    finally:
        unfinished.unlink(missing_ok=True)


def cache() -> Path:
    """Return the folder for what is made once of downloaded files: `ROLECRAFT_CACHE`, else `~/.cache/rolecraft`."""
    return Path(os.environ.get("ROLECRAFT_CACHE") or Path.home() / ".cache" / "rolecraft").expanduser()


def hash_file(path: Path) -> str:
    """Return the SHA-256 of a file's bytes, for lineage; raises NotFound."""
    require_file(path)
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def require_file(path: Path) -> None:
    """Raise NotFound unless there is a file at `path`."""
    if not path.is_file():
        raise NotFound(f"no file {str(path)!r}; give a path to a file that exists")


def _sync(path: Path) -> None:
    """Let the name or content survive a power failure, where the system can."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
