"""What is on disk: data files read row by row, and the run folder that a killed process can go on from.

A data file is JSONL, a JSON array of rows, or one JSON object. A file is replaced whole or not at all; a line is added
whole, and one that a kill cut short is dropped. One process at a time may write a run.

Not covered: checkpoints of training, which transformers writes into the same folder.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, Literal, TextIO, TypeVar

from rolecraft import catalog, wire
from rolecraft.errors import DataError, NotFound
from rolecraft.settings import read_yaml, write_yaml
from rolecraft.types import Json, Message, Trajectory, Turn, Usage

OnBadRow = Literal["stop", "skip"]
_Row = TypeVar("_Row")
_Rows = Iterator[tuple[str, int, str | bytes]]  # where it is, its number, its text

_log = logging.getLogger(__name__)
_CHUNK = 1 << 20
_SHOWN = 5


@dataclass(slots=True)
class BadRows:
    """What was skipped: how many rows of how many, and the first reasons, each with file and line."""

    count: int = 0
    total: int = 0
    first: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        shown = "".join(f"\n  {reason}" for reason in self.first)
        more = f"\n  and {self.count - len(self.first)} more" if self.count > len(self.first) else ""
        return f"skipped {self.count} of {self.total} rows:{shown}{more}"


def read_jsonl(path: Path, on_bad_row: OnBadRow = "stop", bad_rows: BadRows | None = None) -> Iterator[dict[str, Json]]:
    """Yield the objects of a data file one by one.

    A bad row stops with a DataError that names file, line and reason; or it is skipped, and what was skipped is in
    `bad_rows` at the end, or in the log if there is none. Raises NotFound at once.
    """
    _require(path)
    return _read(path, lambda row, number: row, on_bad_row, bad_rows)


def read_trajectories(
    path: Path, importer: str | None = None, on_bad_row: OnBadRow = "stop", bad_rows: BadRows | None = None
) -> Iterator[Trajectory]:
    """Yield the trajectories of a data file: OpenAI JSONL, or the format of `importer` (see importers/).

    A row without an id gets `file:line`. Bad rows are told as by `read_jsonl`; a file without one good row is a
    DataError in either case.
    """
    _require(path)
    convert = wire.trajectory_from_json if importer is None else catalog.find("importers", importer).convert

    def read(row: dict[str, Json], number: int) -> Trajectory:
        place = f"{path.name}:{number}"
        trajectory = _convert(convert, row)
        identity = trajectory.id or place
        task = dataclasses.replace(trajectory.task, id=trajectory.task.id or identity)
        origin = () if importer is None else (f"{importer} {place}",)
        return dataclasses.replace(trajectory, id=identity, task=task, lineage=(*trajectory.lineage, *origin))

    return _at_least_one(path, _read(path, read, on_bad_row, bad_rows))


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


def hash_file(path: Path) -> str:
    """Return the SHA-256 of a file's bytes, for lineage; raises NotFound."""
    _require(path)
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@dataclass(frozen=True, slots=True)
class Run:
    """The folder of one run; nothing is created before something is written."""

    path: Path

    def append(self, trajectory: Trajectory) -> None:
        """Add one record to `trajectories.jsonl`; it is on disk when this returns."""
        _append(self.path / "trajectories.jsonl", record_to_json(trajectory))

    def trajectories(self) -> Iterator[Trajectory]:
        """Yield the records in the order they were written; raises DataError for one that is damaged."""
        for place, data in _whole_lines(self.path / "trajectories.jsonl"):
            try:
                yield record_from_json(data)
            except DataError as error:
                raise DataError(f"{place}: {error}; delete the line, and its episode is played again") from error

    def finished(self) -> set[str]:
        """Return the ids of the trajectories that need not be played again."""
        return {str(data.get("id", "")) for _, data in _whole_lines(self.path / "trajectories.jsonl")}

    def log(self, metrics: Mapping[str, Json]) -> None:
        """Add one line to `metrics.jsonl`."""
        _append(self.path / "metrics.jsonl", metrics)

    def metrics(self) -> list[dict[str, Json]]:
        """Return the lines of `metrics.jsonl`."""
        return [data for _, data in _whole_lines(self.path / "metrics.jsonl")]

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
            return _object(path.read_bytes()) if path.exists() else {}
        except DataError as error:
            raise DataError(f"{path}: {error}") from error


def record_to_json(trajectory: Trajectory) -> dict[str, Json]:
    """Return the full record, turns and token ids included.

    It is a row that `wire` reads too. A turn whose message is in the trajectory holds its place instead of a copy.
    """
    data = wire.trajectory_to_json(trajectory, "object")
    place, turns = -1, []
    for turn in trajectory.turns:
        later = range(place + 1, len(trajectory.messages))
        found = next((i for i in later if trajectory.messages[i] == turn.message), None)
        place = place if found is None else found
        turns.append({"message": wire.message_to_json(turn.message, "object") if found is None else found})
        turns[-1] |= _turn_to_json(turn)
    return data | {"turns": turns} if turns else data


def record_from_json(data: Mapping[str, Json]) -> Trajectory:
    """Return the trajectory of a full record; raises DataError.

    A message gets its `ids` back where its turn wrote exactly those; elsewhere they are None.
    """
    trajectory = wire.trajectory_from_json(data, "record")
    messages, turns = list(trajectory.messages), []
    try:
        for row in data.get("turns", ()):
            turn = _turn_from_json(row, messages)
            turns.append(turn)
            if isinstance(row["message"], int):
                messages[row["message"]] = turn.message
    except (AttributeError, LookupError, TypeError, ValueError) as error:
        raise DataError(f"a turn is damaged ({type(error).__name__}: {error})") from error
    return dataclasses.replace(trajectory, messages=tuple(messages), turns=tuple(turns))


def _turn_to_json(turn: Turn) -> dict[str, Json]:
    # a message's ids are not the turn's where a prefix or a stop string came between
    own = {"ids": True} if turn.message.ids is not None and turn.message.ids == turn.token_ids else {}
    sequences = {key: list(getattr(turn, key)) for key in ("prompt_ids", "token_ids", "logprobs", "role_ids")}
    return {
        **own,
        "speaker": turn.speaker,
        "stop": turn.stop,
        "usage": dataclasses.asdict(turn.usage),
        **sequences,
        "forced": [int(forced) for forced in turn.forced],
    }


def _turn_from_json(row: Mapping[str, Json], messages: list[Message]) -> Turn:
    place = row["message"]
    message = messages[place] if isinstance(place, int) else wire.message_from_json(place)
    token_ids = tuple(row["token_ids"])
    return Turn(
        message=dataclasses.replace(message, ids=token_ids) if row.get("ids") else message,
        speaker=row["speaker"],
        prompt_ids=tuple(row["prompt_ids"]),
        token_ids=token_ids,
        logprobs=tuple(row["logprobs"]),
        forced=tuple(map(bool, row["forced"])),
        role_ids=tuple(row["role_ids"]),
        stop=row["stop"],
        usage=Usage(**row["usage"]),
    )


def _require(path: Path) -> None:
    if not path.is_file():
        raise NotFound(f"no file {str(path)!r}; give a path to a file that exists")


def _convert(convert: Callable[[Json], Trajectory], row: Json) -> Trajectory:
    try:
        return convert(row)
    except (LookupError, TypeError, ValueError, AttributeError) as error:  # a user's importer is short and trusting
        raise DataError(f"the importer does not understand the row ({type(error).__name__}: {error})") from error


def _at_least_one(path: Path, rows: Iterator[_Row]) -> Iterator[_Row]:
    row = None
    for row in rows:
        yield row
    if row is None:
        raise DataError(f"{path}: no rows; it must hold at least one")


def _read(
    path: Path, convert: Callable[[dict[str, Json], int], _Row], on_bad_row: OnBadRow, bad_rows: BadRows | None
) -> Iterator[_Row]:
    skipped = BadRows() if bad_rows is None else bad_rows
    for place, number, text in _rows(path):
        skipped.total += 1
        try:
            row = convert(_object(text), number)
        except DataError as error:
            reason = f"{place}: {error}"
            if on_bad_row == "stop":
                raise DataError(f"{reason}. Mend the row, or skip bad rows (--on-bad-row skip)") from error
            skipped.count += 1
            skipped.first += [reason] if len(skipped.first) < _SHOWN else []
        else:
            yield row
    if skipped.count and skipped.count == skipped.total:
        raise DataError(f"{path}: every row is bad: {skipped}")
    if skipped.count and bad_rows is None:
        _log.warning("%s", skipped)


def _object(text: str | bytes) -> dict[str, Json]:
    try:
        value = wire.loads(text if isinstance(text, str) else text.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise DataError(f"not UTF-8 at byte {error.start}; save the file as UTF-8") from error
    if not isinstance(value, dict):
        raise DataError(f"it is a {type(value).__name__}; it must be an object with keys")
    return value


def _rows(path: Path) -> _Rows:
    with path.open("rb") as file:
        start = file.read(_CHUNK).removeprefix(b"\xef\xbb\xbf").lstrip()
        file.seek(0)
        lines = start.startswith(b"[") or path.suffix != ".json" or _is_json(file.readline())
    if start.startswith(b"["):
        return _array_rows(path)
    return _line_rows(path) if lines else iter([(str(path), 1, path.read_bytes().removeprefix(b"\xef\xbb\xbf"))])


def _is_json(text: bytes) -> bool:
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True


def _line_rows(path: Path) -> _Rows:
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):  # only \n ends a line: U+2028 may stand in a JSON string
            text = line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line
            if text.strip():
                yield f"{path}:{number}", number, text


def _array_rows(path: Path) -> _Rows:
    with path.open(encoding="utf-8-sig", newline="") as file:
        try:
            for number, (line, text) in enumerate(_items(file), start=1):
                yield f"{path}: row {number} (line {line})", number, text
        except UnicodeDecodeError as error:
            raise DataError(f"{path}: not UTF-8 ({error.reason}); save it as UTF-8") from error
        except DataError as error:
            raise DataError(f"{path}: {error}; nothing after it can be read") from error


_OPENING, _MARK = re.compile(r"\s*(\[)\s*"), re.compile(r"\s*([,\]])\s*")


def _items(file: TextIO) -> Iterator[tuple[int, str]]:
    """Yield line and text of each item of a JSON array, reading no more of the file than an item needs."""
    decoder, buffer, start, line, expected = json.JSONDecoder(), "", 0, 1, _OPENING
    while True:
        mark = expected.match(buffer, start)
        if mark and (mark[1] == "]" or (mark[1] == "[" and buffer.startswith("]", mark.end()))):
            break
        end = _item_end(decoder, buffer, mark.end()) if mark else None
        if mark and end is not None:
            line += buffer.count("\n", start, mark.end())
            yield line, buffer[mark.end() : end]
            line += buffer.count("\n", mark.end(), end)
            start, expected = end, _MARK
            continue
        more = file.read(max(_CHUNK, len(buffer)))
        if not more:
            raise DataError(f"line {line}: the item that begins here is not JSON, or the array is not closed")
        buffer, start = buffer[start:] + more, 0
    if (buffer[buffer.index("]", mark.start(1)) + 1 :] + file.read()).strip():
        raise DataError(f"line {line}: there is text after the array")


def _item_end(decoder: json.JSONDecoder, buffer: str, start: int) -> int | None:
    """Return where the JSON value at `start` ends, or None while it may go on after the buffer."""
    try:
        _, end = decoder.raw_decode(buffer, start)
    except (ValueError, RecursionError):
        return None
    return end if end < len(buffer) else None


def _append(path: Path, data: Mapping[str, Json]) -> None:
    line = wire.dumps(data).encode("utf-8") + b"\n"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab+") as file:
        _drop_half_line(file)
        file.write(line)
        file.flush()
        os.fsync(file.fileno())


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


def _whole_lines(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
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


def _sync(path: Path) -> None:
    """Let the name or content survive a power failure, where the system can."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
