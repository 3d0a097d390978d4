"""The static metrics of α-UMi (arXiv 2401.07324, tables 1 and 3) from played steps, with intervals and the baseline."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path

from rich.table import Table

from rolecraft.scores import Score, mean
from rolecraft.store import atomic
from rolecraft.types import Json, Trajectory

_MARK = "hallucination"
"""The part that every judged step has, and no other benchmark's verdict."""

METRICS: Mapping[str, str] = {
    "plan": "Plan ACC",
    "act": "Act EM",
    _MARK: "Hallu. (less is better)",
    "arg_f1": "Arg F1",
    "arg_f1_easy": "Arg F1, easy",
    "arg_f1_hard": "Arg F1, hard",
    "rouge_l": "Rouge-L",
}
"""The parts of a step's verdict, and what the paper calls their means."""

BASELINE = "Plan ACC of always calling"


def static_scores(played: Iterable[Trajectory]) -> dict[str, Score]:
    """Return each metric's mean over the steps that it counts on, by its name in the paper; {} if these are no steps.

    Beside them stands the plan accuracy of who always calls.
    """
    steps = [one for one in played if one.verdict is not None and _MARK in one.verdict.parts]
    if not steps:
        return {}
    parts = [one.verdict.parts for one in steps if one.verdict is not None]
    values = {name: [told[part] for told in parts if part in told] for part, name in METRICS.items()}
    calls = [float(one.task.reference.get("plan") == "call") for one in steps]
    return {name: mean(found) for name, found in {**values, BASELINE: calls}.items() if found}


def static_table(columns: Mapping[str, Iterable[Trajectory]]) -> Table | None:
    """Return the static metrics by split, in percent; None where nothing played was an annotated step."""
    found = {split: scores for split, played in columns.items() if (scores := static_scores(played))}
    if not found:
        return None
    table = Table(title="static metrics, % of the steps they count on (95 % interval)", title_justify="left")
    for name in ("metric", *found):
        table.add_column(name, justify="left" if name == "metric" else "right")
    for metric in (*METRICS.values(), BASELINE):
        if any(metric in scores for scores in found.values()):
            table.add_row(metric, *(_cell(scores.get(metric)) for scores in found.values()))
    return table


def static_json(played: Iterable[Trajectory]) -> dict[str, Json]:
    """Return the static metrics as JSON, each with its n and interval, in 0..1."""
    return {name: asdict(one) for name, one in static_scores(played).items()}


def write_static(path: Path, played: Iterable[Trajectory]) -> None:
    """Write the static metrics to a JSON file, whole or not at all."""
    with atomic(path) as unfinished:
        unfinished.write_text(json.dumps(static_json(played), indent=2) + "\n", encoding="utf-8")


def _cell(found: Score | None) -> str:
    if found is None:
        return "-"
    low, high = (100 * bound for bound in found.interval)
    return f"{100 * found.score:.1f} ({low:.0f}-{high:.0f})  n {found.n}"
