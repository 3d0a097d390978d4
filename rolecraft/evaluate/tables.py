"""Scores as tables for people and as JSON for programs."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, astuple
from pathlib import Path

from rich.table import Table

from rolecraft.judges import failures, strict
from rolecraft.scores import Score, Scores, calling, family, paired
from rolecraft.store import atomic
from rolecraft.types import Json, Trajectory


def comparison(a: Iterable[Trajectory], b: Iterable[Trajectory]) -> Table:
    """Return the paired test of `b` against `a` as a table."""
    found = paired(a, b)
    table = Table(title="against the other run, on the same tasks", title_justify="left")
    if found.otherwise:
        table.caption = (
            f"{found.otherwise} of the {found.n} tasks ask something else in the other run, under the same id: the "
            "difference means little; play both with the same options"
        )
    for column in ("difference", "95 % interval", "p", "better", "worse", "n", "test"):
        table.add_column(column, justify="right")
    low, high = (100 * bound for bound in found.interval)
    counts = (str(found.better), str(found.worse), str(found.n))
    table.add_row(f"{100 * found.difference:+.1f}", f"{low:+.1f} to {high:+.1f}", f"{found.p:.4f}", *counts, found.test)
    return table


def score_table(rows: Mapping[str, Mapping[str, Scores]]) -> Table:
    """Return the table of models or baselines by split: score in percent, 95 % interval, n."""
    splits = list(dict.fromkeys(split for row in rows.values() for split in row))
    cells = {name: [row.get(split) for split in splits] for name, row in rows.items()}
    return _table("score, % of tasks (95 % interval)", ["", *splits], cells)


def family_table(columns: Mapping[str, Scores]) -> Table:
    """Return the table of families by model or split."""
    names = sorted({name for scores in columns.values() for name in scores.families})
    cells = {name: [scores.families.get(name) for scores in columns.values()] for name in names}
    return _table("score by family, % (95 % interval)", ["family", *columns], cells)


def _table(title: str, columns: Sequence[str], rows: Mapping[str, Sequence[Score | Scores | None]]) -> Table:
    table = Table(title=title, title_justify="left")
    for place, column in enumerate(columns):
        table.add_column(column, justify="right" if place else "left")
    for name, found in rows.items():
        table.add_row(name, *map(_cell, found))
    return table


def failure_table(columns: Mapping[str, Scores]) -> Table:
    """Return the table of failure classes by model or split, as counts of failed tasks."""
    table = Table(title="why tasks failed (count)", title_justify="left")
    table.add_column("class")
    table.add_column("meaning", style="dim")
    for column in columns:
        table.add_column(column, justify="right")
    for name, meaning in failures.CLASSES.items():
        counts = [scores.failures.get(name, 0) for scores in columns.values()]
        if any(counts):
            table.add_row(name, meaning, *map(str, counts))
    return table


def lenient_note(scores: Scores) -> str | None:
    """Return in a line how many tasks have calls that were read leniently, and the score without; None if no task."""
    if scores.strict is None:
        return None
    low, high = (100 * bound for bound in scores.strict.interval)
    return (
        f"read leniently: replies of {scores.lenient} of {scores.n} tasks; "
        f"read strictly the score is {100 * scores.strict.score:.1f} ({low:.0f}-{high:.0f})"
    )


def trials_note(scores: Scores) -> str | None:
    """Return in a line what a strategy tried and what it cost a task; None where each reply was taken as it came."""
    if (tried := scores.tried) is None:
        return None
    agreed = "" if tried.agreement is None else f", of the others {100 * tried.agreement:.0f} % agreed with the chosen"
    cost = scores.cost
    return (
        f"{tried.strategy}: {tried.candidates:.1f} candidates a task, {100 * tried.failed:.1f} % failed{agreed}; "
        f"{cost.completion:,.0f} tokens written and {cost.computed:,.0f} of prompts computed a task, all candidates' "
        f"included, {cost.model_calls:.1f} model calls, {cost.tool_calls:.1f} tool calls"
    )


def calling_table(columns: Mapping[str, Iterable[Trajectory]]) -> Table:
    """Return how often replies could not be read, and calls were made where none fits or none where one does.

    By split and family, in percent of the tasks. A benchmark may take a reply that cannot be read for one without a
    call, so that garbage is right where no tool fits; this table shows it. Shares of tasks whose reference does not
    list calls are left out.
    """
    table = Table(title="how tools were called, % of tasks", title_justify="left")
    for name in ("split", "family", "n", "unparsed", "over-calling", "under-calling"):
        table.add_column(name, justify="left" if name in ("split", "family") else "right")
    for split, played in columns.items():
        families: dict[str, list[Trajectory]] = {}
        for trajectory in played:
            families.setdefault(family(trajectory), []).append(trajectory)
        for name in sorted(families):
            shares = astuple(calling(families[name]))
            cells = ("-" if share is None else f"{100 * share:.1f}" for share in shares)
            table.add_row(split, name, str(len(families[name])), *cells)
    return table


def parts_table(columns: Mapping[str, Iterable[Trajectory]]) -> Table | None:
    """Return the means of the verdicts' parts by split and family, in percent; None where no verdict has several."""
    parts: dict[tuple[str, str], dict[str, list[float]]] = {}
    for split, played in columns.items():
        for trajectory in played:
            told = trajectory.verdict.parts if trajectory.verdict else {}
            found = parts.setdefault((split, family(trajectory)), {})
            for name, value in told.items():
                if name != strict.PART:  # of few episodes; the lenient note tells it
                    found.setdefault(name, []).append(value)
    names = list(dict.fromkeys(name for found in parts.values() for name in found))
    if len(names) < 2:
        return None
    table = Table(title="what was right, mean % of tasks", title_justify="left")
    for name in ("split", "family", *names):
        table.add_column(name, justify="left" if name in ("split", "family") else "right")
    for (split, kind), found in sorted(parts.items()):
        means = (f"{100 * sum(found[name]) / len(found[name]):.1f}" if name in found else "-" for name in names)
        table.add_row(split, kind, *means)
    return table


def scores_json(scores: Scores) -> dict[str, Json]:
    """Return what `rolecraft eval --json` prints: score, n, interval, families, how tools were called; all in 0..1.

    Where replies were read leniently, also in how many tasks and the score of the strict reading; where a strategy
    tried several, what it tried and what a task cost.
    """
    families = {name: _plain(found) for name, found in scores.families.items()}
    beside = {"lenient": scores.lenient, "strict": _plain(scores.strict)} if scores.strict is not None else {}
    tried = {} if scores.tried is None else {"tried": asdict(scores.tried), "cost": asdict(scores.cost)}
    return {**_plain(scores), "families": families, "calling": asdict(scores.calling), **beside, **tried}


def write_summary(
    path: Path,
    untuned: Mapping[str, Mapping[str, Scores]],
    tuned: Mapping[str, Scores],
    seconds: Mapping[str, float],
    *,
    policies: Mapping[str, Mapping[str, Scores]] | None = None,
) -> None:
    """Write the quickstart's `summary.json`: rows by name and split, the tuned model by split, seconds by step."""
    summary = {
        "untuned": {name: _brief(row) for name, row in untuned.items()},
        "tuned": _brief(tuned),
        "policies": {name: _brief(row) for name, row in (policies or {}).items()},
        "seconds": {step: round(spent, 3) for step, spent in seconds.items()},
    }
    with atomic(path) as unfinished:
        unfinished.write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")


def _cell(found: Score | Scores | None) -> str:
    if found is None:
        return "-"
    low, high = found.interval
    return f"{100 * found.score:.1f} ({100 * low:.0f}-{100 * high:.0f})\nn {found.n}"


def _plain(found: Score | Scores) -> dict[str, Json]:
    return {"score": found.score, "n": found.n, "interval": list(found.interval)}


def _brief(row: Mapping[str, Scores]) -> dict[str, Json]:
    return {split: {"score": scores.score, "n": scores.n} for split, scores in row.items()}
