"""What was played, as rows and columns: a run is in a row, and its split, or benchmark and split, is a column."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from rolecraft.scores import Scores, score
from rolecraft.store import Run
from rolecraft.types import Trajectory


@dataclass(frozen=True, slots=True)
class Played:
    """A run's trajectories: `name` is its row and `split` its column in the score table; scores of the judged ones."""

    name: str
    split: str
    trajectories: tuple[Trajectory, ...]
    scores: Scores | None
    benchmark: str = ""

    @property
    def label(self) -> str:
        """What it is called where rows and columns are one list."""
        return f"{self.name} \u00b7 {self.split}" if self.split else self.name


def read(run: Run) -> Played | None:
    """Return what a run has played, None if nothing."""
    trajectories = tuple(run.trajectories())
    if not trajectories:
        return None
    evaluation = run.settings().get("evaluation", {})
    judged = [t for t in trajectories if t.verdict is not None]
    seed = evaluation.get("seed")
    return Played(
        name=str(evaluation.get("name", run.path.name)),
        split=str(evaluation.get("split", "")),
        benchmark=Path(str(evaluation.get("benchmark", ""))).stem,
        trajectories=trajectories,
        scores=score(judged, seed=seed) if judged else None,
    )


def distinct(played: Sequence[tuple[Run, Played]]) -> list[Played]:
    """Return what was played, its name made the folder's where two runs would else be one row and column.

    A column is a split, with its benchmark's name where the runs are of several.
    """
    if len({p.benchmark for _, p in played}) > 1:
        played = [(run, replace(p, split=f"{p.benchmark}:{p.split}")) for run, p in played]
    labels = Counter(p.label for _, p in played)
    return [p if labels[p.label] == 1 else replace(p, name=f"{p.name} ({run.path})") for run, p in played]


def rows(played: Sequence[Played]) -> dict[str, dict[str, Scores]]:
    """Return the scores by row and column."""
    rows: dict[str, dict[str, Scores]] = {}
    for p in played:
        if p.scores is not None:
            rows.setdefault(p.name, {})[p.split] = p.scores
    return rows


def best(rows: Mapping[str, Mapping[str, Scores]]) -> str:
    """Return the row with the best mean over the columns that all have; of rows that share none, over its own."""
    shared = set.intersection(*(set(row) for row in rows.values()))

    def mean(name: str) -> float:
        counted = [scores.score for split, scores in rows[name].items() if split in shared or not shared]
        return sum(counted) / len(counted)

    return max(rows, key=mean)
