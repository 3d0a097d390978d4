"""Data files, read row by row: JSONL, a JSON array of rows, or one JSON object."""

from __future__ import annotations

import dataclasses
import json
import logging
import re
import reprlib
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Literal, TextIO, TypeVar

from rolecraft import catalog, wire
from rolecraft.errors import DataError, NotFound
from rolecraft.store.files import require_file
from rolecraft.types import Json, Trajectory

OnBadRow = Literal["stop", "skip"]
UnknownKeys = Literal["refuse", "drop"]
_Row = TypeVar("_Row")
_Rows = Iterator[tuple[str, int, Json]]  # where it is, its number, its text, or the object that an importer made of it

_log = logging.getLogger(__name__)
_CHUNK = 1 << 20
_SHOWN = 5
_REASONS = 200
_PARTICULARS = re.compile(r"'[^']*'|\"[^\"]*\"|\d+")


@dataclass(slots=True)
class BadRows:
    """What was skipped: how many rows of how many, and the first reasons, each with file and line.

    `reasons` counts rows by what is wrong with them, names and numbers left out. `unknown` counts the keys that were
    left out of rows, as `read_trajectories` does if asked.
    """

    count: int = 0
    total: int = 0
    first: list[str] = field(default_factory=list)
    reasons: Counter[str] = field(default_factory=Counter)
    unknown: Counter[str] = field(default_factory=Counter)

    def add(self, place: str, error: DataError) -> None:
        """Count a skipped row."""
        self.count += 1
        self.first += [f"{place}: {error}"] if len(self.first) < _SHOWN else []
        reason = _PARTICULARS.sub("...", str(error))
        self.reasons[reason if len(self.reasons) < _REASONS or reason in self.reasons else "other reasons"] += 1

    @property
    def notes(self) -> tuple[str, ...]:
        """What a user should be told: nothing, if all rows were read whole."""
        most = self.unknown.most_common(_SHOWN)
        shown = ", ".join(f"{reprlib.repr(key)} x{count:,}" for key, count in most)
        more = f" and {len(self.unknown) - _SHOWN:,} more" if len(self.unknown) > _SHOWN else ""
        return (*((str(self),) if self.count else ()), *((f"unknown keys: {shown}{more}",) if most else ()))

    def __str__(self) -> str:
        shown = "".join(f"\n  {reason}" for reason in self.first)
        more = f"\n  and {self.count - len(self.first)} more" if self.count > len(self.first) else ""
        return f"skipped {self.count} of {self.total} rows:{shown}{more}"


def read_jsonl(path: Path, on_bad_row: OnBadRow = "stop", bad_rows: BadRows | None = None) -> Iterator[dict[str, Json]]:
    """Yield the objects of a data file one by one.

    A bad row stops with a DataError that names file, line and reason; or it is skipped, and what was skipped is in
    `bad_rows` at the end, or in the log if there is none. Raises NotFound at once.
    """
    require_file(path)
    skipped = BadRows() if bad_rows is None else bad_rows
    return _read(path, lambda row, number: row, on_bad_row, skipped, tell=bad_rows is None)


def read_rows(path: Path, convert: Callable[[dict[str, Json], int], _Row]) -> Iterator[_Row]:
    """Yield what `convert` makes of each object of a data file and its number.

    A row that is no object, or for which `convert` raises DataError, is a DataError that names file and line; so is a
    file without rows. Raises NotFound at once.
    """
    require_file(path)
    return _at_least_one(path, _read(path, convert, "stop", BadRows(), tell=False, remedy="mend the row"))


def read_trajectories(
    path: Path,
    importer: str | Path | None = None,
    on_bad_row: OnBadRow = "stop",
    bad_rows: BadRows | None = None,
    unknown_keys: UnknownKeys = "refuse",
) -> Iterator[Trajectory]:
    """Yield the trajectories of a data file: OpenAI JSONL, or the format of `importer` (see importers/).

    An importer that lays out its source's rows itself (`rows`) may be given a folder.

    A row without an id gets `file:line`. Each is held to what `wire.settled` asks of a conversation. Bad rows are told
    as by `read_jsonl`; a file without one good row is a DataError in either case. `unknown_keys`: a row with keys that
    nothing reads is bad ("refuse"), or is read without them ("drop"), and `bad_rows` counts them.
    """
    module = catalog.find("importers", importer or "openai")
    if not hasattr(module, "rows"):
        require_file(path)
    elif not path.exists():
        raise NotFound(f"no file or folder {str(path)!r}; give a path that exists")
    notes = BadRows() if bad_rows is None else bad_rows

    def read(row: dict[str, Json], number: int) -> Trajectory:
        place = f"{path.name}:{number}"
        trajectory = wire.settled(_read_row(module, row, notes, unknown_keys))
        identity = trajectory.id or place
        task = dataclasses.replace(trajectory.task, id=trajectory.task.id or identity)
        origin = () if importer is None else (f"{importer} {place}",)
        return dataclasses.replace(trajectory, id=identity, task=task, lineage=(*trajectory.lineage, *origin))

    laid_out = _laid_out(module.rows(path)) if hasattr(module, "rows") else None
    return _at_least_one(path, _read(path, read, on_bad_row, notes, tell=bad_rows is None, rows=laid_out))


def read_pairs(path: Path, on_bad_row: OnBadRow = "stop", bad_rows: BadRows | None = None) -> Iterator[wire.Pair]:
    """Yield the pairs of a data file in OpenAI's preference format; a row without an id gets `file:line`.

    Bad rows are told as by `read_jsonl`; a file without one good row is a DataError in either case.
    """
    require_file(path)
    notes = BadRows() if bad_rows is None else bad_rows

    def read(row: dict[str, Json], number: int) -> wire.Pair:
        return wire.pair_from_json({**row, "id": row.get("id") or f"{path.name}:{number}"})

    return _at_least_one(path, _read(path, read, on_bad_row, notes, tell=bad_rows is None))


def objects(path: Path) -> Iterator[tuple[str, Json]]:
    """Yield each row of a data file after where it stands; one that is no object as its text, for a reader to refuse.

    Raises DataError where the file cannot be read further.
    """
    require_file(path)
    for place, _, text in _rows(path):
        try:
            yield place, to_object(text)
        except DataError:
            yield place, text


def _laid_out(rows: Iterator[tuple[str, Json]]) -> _Rows:
    for number, (place, row) in enumerate(rows, start=1):
        yield place, number, row


def _read_row(importer: ModuleType, row: dict[str, Json], notes: BadRows, unknown_keys: UnknownKeys) -> Trajectory:
    known: wire.Keys = getattr(importer, "KEYS", None)
    if unknown_keys == "drop":
        return _convert(importer.convert, wire.without_unknown_keys(row, known, notes.unknown))
    try:
        return _convert(importer.convert, row)
    except DataError as error:
        unknown = Counter[str]()
        wire.without_unknown_keys(row, known, unknown)
        if not unknown:
            raise
        raise DataError(f"{error}; or read rows without unknown keys (--unknown-keys drop)") from error


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
    path: Path,
    convert: Callable[[dict[str, Json], int], _Row],
    on_bad_row: OnBadRow,
    skipped: BadRows,
    *,
    tell: bool,
    remedy: str = "mend the row, or skip bad rows (--on-bad-row skip)",
    rows: _Rows | None = None,
) -> Iterator[_Row]:
    for place, number, text in _rows(path) if rows is None else rows:
        skipped.total += 1
        try:
            row = convert(to_object(text), number)
        except DataError as error:
            if on_bad_row == "stop":
                raise DataError(f"{place}: {error}. {remedy[0].upper()}{remedy[1:]}") from error
            skipped.add(place, error)
        else:
            yield row
    if skipped.count and skipped.count == skipped.total:
        raise DataError(f"{path}: every row is bad: {skipped}")
    for note in skipped.notes if tell else ():
        _log.warning("%s", note)


def to_object(text: Json) -> dict[str, Json]:
    """Return the JSON object that `text` writes, or already is; raises DataError."""
    try:
        value = text.decode("utf-8") if isinstance(text, bytes) else text
        value = wire.loads(value) if isinstance(value, str) else value
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
