"""The run folder: what a killed process can go on from, and what a report reads.

A line is added whole, and one that a kill cut short is dropped.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from rolecraft import wire
from rolecraft.errors import DataError
from rolecraft.settings import read_yaml, write_yaml
from rolecraft.store.files import atomic
from rolecraft.store.records import record_from_json, record_to_json
from rolecraft.store.rows import to_object
from rolecraft.types import Json, Trajectory

_log = logging.getLogger(__name__)
_CHUNK = 1 << 20


@dataclass(frozen=True, slots=True)
class Run:
    """The folder of one run; nothing is created before something is written."""

    path: Path

    def append(self, trajectory: Trajectory) -> None:
        """Add one record to `trajectories.jsonl`; it is on disk when this returns."""
        append_line(self.path / "trajectories.jsonl", record_to_json(trajectory))

    def trajectories(self) -> Iterator[Trajectory]:
        """Yield the records in the order they were written; raises DataError for one that is damaged."""
        for place, data in whole_lines(self.path / "trajectories.jsonl"):
            try:
                yield record_from_json(data)
            except DataError as error:
                raise DataError(f"{place}: {error}; delete the line, and its episode is played again") from error

    def finished(self) -> set[str]:
        """Return the ids of the trajectories that need not be played again."""
        return {str(data.get("id", "")) for _, data in whole_lines(self.path / "trajectories.jsonl")}

    def log(self, metrics: Mapping[str, Json]) -> None:
        """Add one line to `metrics.jsonl`."""
        append_line(self.path / "metrics.jsonl", metrics)

    def metrics(self) -> list[dict[str, Json]]:
        """Return the lines of `metrics.jsonl`."""
        return [data for _, data in whole_lines(self.path / "metrics.jsonl")]

    def write_settings(self, settings: Mapping[str, Json]) -> None:
        """Write the resolved settings as `settings.yaml`."""
        with atomic(self.path / "settings.yaml") as unfinished:
            write_yaml(unfinished, settings)

    def settings(self) -> dict[str, Json]:
        """Return the resolved settings; nothing where none are written."""
        path = self.path / "settings.yaml"
        return read_yaml(path) if path.exists() else {}

    def write_lineage(self, lineage: Mapping[str, Json]) -> None:
        """Write what the run came from, such as the command and `hash_file` of its data, as `lineage.json`."""
        with atomic(self.path / "lineage.json") as unfinished:
            unfinished.write_text(json.dumps(dict(lineage), indent=2) + "\n", encoding="utf-8")

    def lineage(self) -> dict[str, Json]:
        """Return what the run came from; nothing where it is not written."""
        path = self.path / "lineage.json"
        try:
            return to_object(path.read_bytes()) if path.exists() else {}
        except DataError as error:
            raise DataError(f"{path}: {error}") from error


def append_line(path: Path, data: Mapping[str, Json]) -> int:
    """Add one line of JSON, on disk when this returns, and return how many bytes it has."""
    line = wire.dumps(data).encode("utf-8") + b"\n"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab+") as file:
        _drop_half_line(file)
        file.write(line)
        file.flush()
        os.fsync(file.fileno())
    return len(line)


def _drop_half_line(file: BinaryIO) -> None:
    """Cut the file after its last newline: what follows was being written when its process died."""
    end = file.seek(0, os.SEEK_END)
    position, newline = end, -1
    while position > 0 and newline < 0:
        begin = max(0, position - _CHUNK)
        file.seek(begin)
        newline = file.read(position - begin).rfind(b"\n")
        newline, position = (begin + newline if newline >= 0 else -1), begin
    if newline + 1 < end:
        _log.warning("dropped a half-written line at the end of %s", file.name)
        file.truncate(newline + 1)


def whole_lines(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield place and value of each line that was written to its end; nothing where there is no file."""
    if not path.exists():
        return
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if not line.endswith(b"\n"):
                return
            place = f"{path}:{number}"
            try:
                value = dict(json.loads(line))  # not strict: a log-probability may be -Infinity
            except (TypeError, ValueError, RecursionError) as error:
                raise DataError(f"{place}: not a JSON object ({error}); delete the line, and go on") from error
            yield place, value
