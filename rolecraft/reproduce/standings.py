"""What the finished cells of a claim on columns say: every arm in every mode beside each other, and the verdict.

Not covered: claims on one benchmark's splits (`findings`, whose tables and tests are used), and running cells.
"""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import rolecraft.reproduce.findings as findings
from rolecraft.reproduce.board import Board
from rolecraft.reproduce.cells import Played, Result
from rolecraft.reproduce.claim import Claim, Comparison
from rolecraft.reproduce.columns import unusual
from rolecraft.reproduce.findings import Contrast
from rolecraft.reproduce.grid import Grid, of_failures, to_markdown
from rolecraft.reproduce.plays import Play, Record
from rolecraft.scores import over_tasks
from rolecraft.types import Json

Scores = Mapping[str, Mapping[int, Result]]
"""Results by contender (`arm/mode`) and seed, each with the columns that were played."""

_ONCE = -1
"""The seed of what is not tuned: there is one result, and it stands beside every seed of an arm that is."""


@dataclass(frozen=True, slots=True)
class Standings:
    """A claim's plays in order, the records of those that are finished by name, and what they say."""

    claim: Claim
    plays: tuple[Play, ...]
    records: Mapping[str, Record]
    scores: Scores
    tunings: Mapping[str, Mapping[int, Result]]
    chosen: Mapping[str, Mapping[str, Json]]
    contrasts: tuple[Contrast, ...]
    verdict: str

    @property
    def finished(self) -> int:
        """How many played cells are finished."""
        return len(self.records)

    @property
    def wanted(self) -> int:
        """How many played cells the claim has, one of an unfinished search counted at each seed."""
        claim = self.claim
        unknown = [arm for arm, told in claim.arms.items() if told.tuned and arm not in self.chosen]
        modes = sum(len(claim.evaluation.columns) if not m.columns else len(m.columns) for m in _modes(claim))
        return len(self.plays) + sum(len(claim.seeds_of(arm)) for arm in unknown) * modes


def _modes(claim: Claim) -> list[Any]:
    return list(claim.evaluation.modes.values())


def find(board: Board) -> Standings:
    """Return what the finished cells say; raises DataError for cells of other tasks."""
    claim = board.claim
    plays = tuple(board.plays(tuple(claim.arms), claim.seeds))
    records = {play.name: record for play in plays if (record := board.record(play))}
    scores = _by_contender(claim, plays, records)
    chosen = {
        arm: values for arm, told in claim.arms.items() if told.tuned and (values := board.chosen(arm)) is not None
    }
    tunings = {
        arm: {s: done for s in claim.seeds_of(arm) if (cell := board.final(arm, s)) and (done := board.result(cell))}
        for arm in chosen
    }
    asked = [each for one in claim.comparisons for each in claim.spread(one)]
    contrasts = tuple(
        found for one in asked for column in claim.evaluation.columns if (found := contrast(one, column, scores))
    )
    deciding = [one for one in contrasts if one.decides]
    whole = len(deciding) == sum(one.decides is not None for one in asked) and all(
        len(one.seeds) == len(claim.seeds) or one.seeds == (_ONCE,) for one in deciding
    )
    verdict = findings.decide(contrasts, whole=whole)
    return Standings(claim, plays, records, scores, tunings, chosen, contrasts, verdict)


def contrast(one: Comparison, column: str, scores: Scores) -> Contrast | None:
    """Return a comparison on a column, or None where a side is missing; raises DataError for cells of other tasks."""
    sides = [scores.get(name, {}) for name in (one.better, one.than)]
    tuned = dict.fromkeys(seed for side in sides for seed in side if seed != _ONCE)
    for name, side in zip((one.better, one.than), sides, strict=True):
        if tuned and _ONCE in side:
            scores = {**scores, name: dict.fromkeys(tuned, side[_ONCE])}
    return findings.contrast(one, column, scores)


def _by_contender(claim: Claim, plays: Sequence[Play], records: Mapping[str, Record]) -> dict[str, dict[int, Result]]:
    played: dict[str, dict[int, dict[str, Played]]] = {}
    for play in plays:
        if record := records.get(play.name):
            seed = _ONCE if play.seed is None else play.seed
            row = played.setdefault(play.contender, {}).setdefault(seed, {})
            row[play.column_name] = _played(record, play)
    return {
        contender: {
            seed: Result(claim.name, contender, seed, None, {}, columns) for seed, columns in sorted(rows.items())
        }
        for contender, rows in played.items()
    }


def _played(record: Record, play: Play) -> Played:
    values = record.values()
    return Played(record.score, len(values), record.interval, play.column.seed, record.tasks, values)


# ---- as tables


def grids(found: Standings) -> list[Grid]:
    """Return the tables: scores, the tunings if there are any, modes and comparisons with paired tests."""
    tuned = [arm for arm, told in found.claim.arms.items() if told.tuned]
    costs = [findings.tunings(found.claim, tuned, found.tunings, found.chosen)] if tuned else []
    pairs = [grid for grid in _mode_grids(found) if grid.rows]
    named = [findings.comparisons(found.contrasts)] if found.contrasts else []
    tried = [_tried(found)] if any(mode.strategy != "greedy" for mode in _modes(found.claim)) else []
    return [_scores(found), *tried, *costs, *pairs, *named, *_failures(found)]


def _scores(found: Standings) -> Grid:
    rows, tuned = [], any(arm.tuned for arm in found.claim.arms.values())
    played, common = _in_common(found)
    for contender, plays in _contenders(found):
        records = played.get(contender, [])
        seeds = max((len(one) for one in _by_column(plays, found.records).values()), default=0)
        paces = [one.seconds_per_task for one in records if one.column in common]
        pace = f"{statistics.fmean(paces):.2f}" if paces else "-"
        cells = [_cell(_by_column(plays, found.records).get(name, [])) for name in found.claim.evaluation.columns]
        rows.append((contender, *([str(seeds)] if tuned else []), *cells, pace))
        if any(record.lenient for record in records):
            strict = [_strict(_by_column(plays, found.records).get(n, [])) for n in found.claim.evaluation.columns]
            rows.append((f"{contender}, read strictly", *([str(seeds)] if tuned else []), *strict, ""))
    asked = found.claim.evaluation.columns
    heading = (
        "arm/mode",
        *(["seeds"] if tuned else []),
        *(f"{name}, n {column.n}" for name, column in asked.items()),
        "s/task",
    )
    title = "score, % of tasks (95 % interval over tasks); of columns where no call is right the share unparsed"
    if len(common) < len(asked):
        title += f"; s/task on {', '.join(common) or 'no column that all have played'}"
    return Grid(title, heading, tuple(rows))


def _failures(found: Standings) -> list[Grid]:
    """Return the table of why tasks failed by contender, over its seeds and the columns that all of them have played.

    On other columns others may fail: where no call is right, no needless one can be missed.
    """
    played, columns = _in_common(found)
    counted = {}
    for name, records in played.items():
        verdicts = [one for record in records if record.column in columns for one in record.verdicts.values()]
        counted[name] = Counter(one.failure for one in verdicts if one.failure), len(verdicts)
    return of_failures(counted, f" on {', '.join(columns)}")


def _in_common(found: Standings) -> tuple[dict[str, list[Record]], list[str]]:
    """Return the records of each contender that has any, and the columns that all of these have played."""
    played = {
        name: records
        for name, plays in _contenders(found)
        if (records := [record for play in plays if (record := found.records.get(play.name))])
    }
    asked = found.claim.evaluation.columns
    return played, [
        name for name in asked if all(any(one.column == name for one in records) for records in played.values())
    ]


def _tried(found: Standings) -> Grid:
    """Return what a task cost by contender, all that strategies tried included: means over seeds and common columns."""
    keys = {
        "candidates": "candidates",
        "failed": "failed, %",
        "agreement": "agreed, %",
        "completion": "tokens written",
        "computed": "of prompts",
        "model_calls": "model calls",
        "tool_calls": "tool calls",
    }
    played, columns = _in_common(found)
    rows = []
    for contender, _ in _contenders(found):
        costs = [one.cost for one in played.get(contender, ()) if one.column in columns and one.cost]
        cells = []
        for key in keys:
            values = [value for cost in costs if (value := cost.get(key)) is not None]
            scale = 100 if keys[key].endswith("%") else 1
            cells.append(f"{scale * statistics.fmean(values):,.1f}" if values else "-")
        rows.append((contender, *cells))
    title = f"what was tried for a task, and what it cost, all candidates included, on {', '.join(columns)}"
    return Grid(title, ("arm/mode", *keys.values()), tuple(rows))


def _contenders(found: Standings) -> list[tuple[str, list[Play]]]:
    names = dict.fromkeys(contender for one in found.claim.arms for contender in _of_arm(found.claim, one))
    return [(name, [play for play in found.plays if play.contender == name]) for name in names]


def _of_arm(claim: Claim, arm: str) -> list[str]:
    return [arm] if claim.arms[arm].policy else [f"{arm}/{mode}" for mode in claim.evaluation.modes]


def _by_column(plays: Sequence[Play], records: Mapping[str, Record]) -> dict[str, list[Record]]:
    found: dict[str, list[Record]] = {}
    for play in plays:
        if record := records.get(play.name):
            found.setdefault(play.column_name, []).append(record)
    return found


def _cell(records: Sequence[Record]) -> str:
    if not records:
        return "-"
    told = _percent([one.values() for one in records])
    if records[0].calling.get("under") is None and records[0].calling.get("over") is not None:
        told += f", unparsed {100 * statistics.fmean(one.calling['unparsed'] or 0.0 for one in records):.1f}"
    return told


def _strict(records: Sequence[Record]) -> str:
    return _percent([one.values(strict=True) for one in records]) if records else "-"


def _percent(values: Sequence[Sequence[float]]) -> str:
    found = over_tasks(values)
    low, high = found.interval
    return f"{100 * found.score:.1f} ({100 * low:.0f}-{100 * high:.0f})"


def _mode_grids(found: Standings) -> Iterator[Grid]:
    """Yield for each mode but the first its difference from the first, by arm and column, with paired tests."""
    asked = found.claim.evaluation
    first, *others = asked.modes
    arms = [arm for arm, told in found.claim.arms.items() if told.policy is None]
    for mode in others:
        rows = []
        for arm in arms:
            one = Comparison(f"{arm}/{mode}", f"{arm}/{first}")
            cells = [_difference(contrast(one, name, found.scores)) for name in asked.columns]
            if any(cell != "-" for cell in cells):
                rows.append((arm, *cells))
        title = f"{mode} - {first}, points on the same tasks (95 % interval), and the exact p of the paired test"
        yield Grid(title, ("arm", *asked.columns), tuple(rows))


def _difference(one: Contrast | None) -> str:
    if one is None:
        return "-"
    return f"{100 * one.paired.difference:+.1f} {findings.points(one.paired.interval)}, p {one.paired.p:.2g}"


# ---- as Markdown and JSON


def section(found: Standings) -> str:
    """Return the claim's section of the document."""
    claim = found.claim
    parts = [
        *findings.head(claim, found.verdict, f"{found.finished} of {found.wanted} cells"),
        *map(to_markdown, grids(found)),
        *missing(found),
        *findings.paper_lines(claim),
        _played_how(found),
        f"```bash\nrolecraft reproduce {claim.name}\n```",
    ]
    return "\n\n".join(parts)


def missing(found: Standings) -> list[str]:
    """Return a paragraph that names the cells not reached, or nothing where all are finished."""
    lines = []
    for contender, plays in _contenders(found):
        left = [play for play in plays if play.name not in found.records]
        told = [play.column_name + ("" if play.seed is None else f" at seed {play.seed}") for play in left]
        if told and len(told) == len(plays):
            lines.append(f"{contender} (all)")
        elif told:
            lines.append(f"{contender} ({', '.join(told)})")
        elif not plays:
            lines.append(f"{contender} (its search first)")
    return [f"Missing, not reached yet: {'; '.join(lines)}."] if lines else []


def _played_how(found: Standings) -> str:
    claim = found.claim
    modes = [f"`{name}` {_settings(unusual(mode)) or 'as it comes'}" for name, mode in claim.evaluation.modes.items()]
    arms = [f"`{name}` {_settings(arm.play)}" for name, arm in claim.arms.items() if arm.play]
    seeds = sorted({column.seed for column in claim.evaluation.columns.values()})
    tuned = any(arm.tuned for arm in claim.arms.values())
    plain = all(mode.strategy == "greedy" for mode in _modes(claim))
    drawn = "Greedy" if plain else "Greedy but for modes with a strategy"
    told = [
        f"{drawn}; tasks of seed {', '.join(map(str, seeds))}; modes: {'; '.join(modes)}",
        *([f"laid over them by arm: {'; '.join(arms)}"] if arms else []),
        *([f"tuning seeds {', '.join(map(str, claim.seeds))}"] if tuned else []),
    ]
    return f"{'; '.join(told)}. {_where(found)}".strip()


def _settings(told: Mapping[str, Any]) -> str:
    return ", ".join(f"{key} {str(value).lower() if isinstance(value, bool) else value}" for key, value in told.items())


def _where(found: Standings) -> str:
    records = list(found.records.values())
    bases = sorted({f"{one.base} (weights {one.configuration['weights']})" for one in records if one.base})
    if not bases:
        return ""
    cores, beside, torch, code = (
        "/".join(sorted({str(one.machine.get(key)) for one in records if one.base}))
        for key in ("cores", "side_by_side", "torch", "code")
    )
    minutes = sum(one.seconds for one in records) / 60
    return (
        f"Base {', '.join(bases)}; {cores} cores, {beside} cells side by side, torch {torch}, code {code}; played in "
        f"{minutes:.0f} minutes of one core."
    )


def to_json(found: Standings) -> dict[str, Json]:
    """Return the standings as one JSON object; scores are in 0..1."""
    rows: list[Json] = [
        {
            "arm": play.arm,
            "mode": play.mode_name,
            "column": play.column_name,
            "seed": play.seed,
            "score": record.score,
            "n": len(record.verdicts),
            "interval": list(record.interval),
            "strict": statistics.fmean(record.values(strict=True)),
            "calling": dict(record.calling),
            "cost": dict(record.cost),
        }
        for play in found.plays
        if (record := found.records.get(play.name))
    ]
    return {
        "claim": found.claim.name,
        "verdict": found.verdict,
        "cells": {"finished": found.finished, "wanted": found.wanted},
        "scores": rows,
        "comparisons": [asdict(one) for one in found.contrasts],
        "missing": missing(found),
    }
