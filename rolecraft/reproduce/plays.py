"""The played cells of a claim on columns: one arm at a seed in one mode on one column, kept as a JSON file of verdicts.

As a tuned cell is, one is named by a hash of what decides its result: the base by the digest of its weights, wherever
its files lie. The file tells each task's verdict by its id, and nothing of what the task says: public data stay public
by their own ways.

Not covered: playing one (`playing`), and the tuning that comes before (`cells`).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from rolecraft.errors import DataError, SettingsError
from rolecraft.reproduce.cells import Cell, Result, agrees, digest, dump, hash_json
from rolecraft.reproduce.columns import Column, Mode, unusual
from rolecraft.settings import from_dict, to_dict
from rolecraft.types import Json

VERSION = 1
"""Raised when a change of the code changes what the same base and mode score on the same tasks."""

FOLDER = "played"


@dataclass(frozen=True)
class Play:
    """One arm on one column in one mode; `seed` is None where nothing is tuned, and `mode_name` is '' for a policy.

    `weights` is the digest of the base's weights. `tuning` is the cell whose adapter is played.
    """

    claim: str
    arm: str
    mode_name: str
    column_name: str
    column: Column
    mode: Mode = field(default_factory=Mode)
    base: str = ""
    weights: str = ""
    policy: str | None = None
    tuning: Cell | None = None

    @property
    def seed(self) -> int | None:
        """The tuning's seed."""
        return None if self.tuning is None else self.tuning.seed

    @property
    def contender(self) -> str:
        """The arm and the mode, as a comparison names them."""
        return f"{self.arm}/{self.mode_name}" if self.mode_name else self.arm

    @property
    def title(self) -> str:
        """What the cell is called in a line for people."""
        seed = "" if self.seed is None else f", seed {self.seed}"
        return f"{self.contender}{seed}, {self.column_name}"

    @cached_property
    def name(self) -> str:
        """What the cell's file and its run folder are called."""
        parts = (self.arm, self.mode_name, self.column_name.replace(":", "-"), self.seed, self.digest)
        return "-".join(str(part) for part in parts if part not in ("", None))

    @cached_property
    def digest(self) -> str:
        """The hash that names the cell."""
        mode = {key: value for key, value in unusual(self.mode).items() if key in _deciding(self)}
        return hash_json({**configuration(self), "mode": mode})


@dataclass(frozen=True, slots=True)
class Verdict:
    """What came of a task: its score read leniently and strictly, its class of failure, and whether it was unparsed."""

    score: float
    strict: float
    failure: str | None
    unparsed: bool


@dataclass(frozen=True)
class Record:
    """A finished play. `verdicts` are by task id, in the tasks' order; `tasks` is a digest of what they say.

    `calling` has the shares of `scores.Calling`, `cost` what a task cost (`scores.Cost`, but for its seconds) with
    what a strategy tried (`scores.Tried`). `seconds` is the wall time of all tasks, as fast as
    those parts of it were that ended.
    """

    claim: str
    arm: str
    mode: str
    column: str
    seed: int | None
    base: str
    configuration: Mapping[str, Any]
    score: float
    interval: tuple[float, ...]
    tasks: str
    verdicts: Mapping[str, Verdict]
    calling: Mapping[str, float | None] = field(default_factory=dict)
    cost: Mapping[str, float | None] = field(default_factory=dict)
    seconds: float = 0.0
    seconds_per_task: float = 0.0
    machine: Mapping[str, Any] = field(default_factory=dict)

    @property
    def lenient(self) -> bool:
        """Whether any verdict would have been another one, had calls been read strictly."""
        return any(one.strict != one.score for one in self.verdicts.values())

    def values(self, *, strict: bool = False) -> tuple[float, ...]:
        """The tasks' scores, read leniently or strictly."""
        return tuple(one.strict if strict else one.score for one in self.verdicts.values())


def configuration(play: Play) -> dict[str, Json]:
    """Return everything that decides the result, as JSON."""
    benchmark, _, split = play.column_name.partition(":")
    mode = {key: value for key, value in to_dict(play.mode).items() if key in _deciding(play)}
    return {
        "version": VERSION,
        "weights": play.weights,
        "policy": play.policy,
        "tuning": None if play.tuning is None else digest(play.tuning),
        "column": {"benchmark": benchmark, "split": split, **to_dict(play.column)},
        "mode": mode,
    }


def _deciding(play: Play) -> set[str]:
    """Return the settings of its mode that decide the play's result: a tuned arm plays as it was trained."""
    beside = {"columns"} | ({"bare", "dtype"} if play.tuning else set())
    return set() if play.policy is not None else set(to_dict(play.mode)) - beside


def place_of(tuning: Cell, result: Result | None, folder: Path) -> Path | None:
    """Return the folder of the adapter that a finished tuning left in `folder`; None where it is not (any more)."""
    if result is None or result.tuning is None:
        return None
    before = sum(stage.recipe.training.max_steps for stage in tuning.stages[:-1])
    path = folder / tuning.name / tuning.stages[-1].name / f"checkpoint-{result.tuning.steps - before}"
    return path if path.is_dir() else None


def finished(play: Play, folder: Path) -> Record | None:
    """Return the play's record if the claim's `folder` holds it, or another claim's: nothing is played twice.

    Raises DataError for a file that cannot be read.
    """
    found = sorted(folder.parent.glob(f"*/{FOLDER}/*-{play.digest}.json"))
    now = json.loads(json.dumps(configuration(play)))
    for path in sorted(found, key=lambda path: path.parents[1] != folder):  # its own first
        if agrees(dict((record := read(path)).configuration), now):
            return replace(record, claim=play.claim, arm=play.arm, mode=play.mode_name)
    return None


def write(play: Play, record: Record, folder: Path) -> Path:
    """Write the record under the play's name in the claim's folder, whole or not at all, and return its path."""
    told = asdict(record)
    told["verdicts"] = {
        name: [_short(one.score), _short(one.strict), one.failure, one.unparsed]
        for name, one in record.verdicts.items()
    }
    return dump(folder / FOLDER / f"{play.name}.json", told)


def _short(score: float) -> float:
    """Return a score as JSON may write it shortest."""
    return int(score) if score.is_integer() else round(score, 6)


def read(path: Path) -> Record:
    """Return the record in a file; raises DataError naming it."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        data["verdicts"] = {
            name: Verdict(float(score), float(strict), failure, bool(unparsed))
            for name, (score, strict, failure, unparsed) in data["verdicts"].items()
        }
        return from_dict(Record, data, path.name)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError, SettingsError) as error:
        raise DataError(
            f"{path}: not a played cell ({error}); restore the file, or delete it to have it written again"
        ) from error


def read_all(folder: Path) -> list[Record]:
    """Return every played cell in a claim's folder, whatever its settings."""
    return [read(path) for path in sorted((folder / FOLDER).glob("*.json"))]


def weights(folder: Path) -> dict[str, tuple[str, ...]]:
    """Return the digests of each base's weights that the plays in a claim's folder tell."""
    told: dict[str, set[str]] = {}
    for record in read_all(folder):
        told.setdefault(record.base, set()).add(str(record.configuration["weights"]))
    return {base: tuple(sorted(digests)) for base, digests in told.items()}
