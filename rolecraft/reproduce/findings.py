"""What the finished cells of a claim say: scores, paired tests and the verdict; as tables, as Markdown, as JSON.

Not covered: running cells (`reproduce`); everything here follows from the cells' files alone.
"""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

from rolecraft.errors import DataError
from rolecraft.reproduce.cells import Result, Tuning
from rolecraft.reproduce.claim import Arm, Claim, Comparison
from rolecraft.reproduce.costs import figures, holds, told
from rolecraft.reproduce.costs import grids as cost_grids
from rolecraft.reproduce.grid import Grid, of_failures, to_markdown
from rolecraft.scores import Interval, Paired, Score, over_seeds, over_tasks, pooled
from rolecraft.types import Json

_SIGNIFICANT = 0.05


@dataclass(frozen=True, slots=True)
class Scored:
    """An arm's score on a split: over tasks, each the mean of its seeds, and over the seeds' scores."""

    tasks: Score
    seeds: Interval | None


@dataclass(frozen=True, slots=True)
class Contrast:
    """A comparison on a split, over the seeds that both arms have; `paired` and `by_seed` are better minus than."""

    better: str
    than: str
    split: str
    decides: bool
    seeds: tuple[int, ...]
    paired: Paired
    by_seed: tuple[float, ...]

    @property
    def direction(self) -> int:
        """1 if `better` is significantly better at every seed, -1 if it is worse, else 0."""
        if self.paired.p >= _SIGNIFICANT:
            return 0
        return int(all(one > 0 for one in self.by_seed)) - int(all(one < 0 for one in self.by_seed))


@dataclass(frozen=True, slots=True)
class Findings:
    """A claim with the finished cells of each arm by seed, and what they say. `wanted` counts all its final cells."""

    claim: Claim
    cells: Mapping[str, Mapping[int, Result]]
    chosen: Mapping[str, Mapping[str, Json]]
    contrasts: tuple[Contrast, ...]
    verdict: str

    @property
    def finished(self) -> int:
        """How many of the claim's final cells are finished."""
        return sum(map(len, self.cells.values()))

    @property
    def wanted(self) -> int:
        """How many final cells the claim has."""
        return sum(len(self.claim.seeds_of(arm)) for arm in self.claim.arms)


def find(claim: Claim, cells: Mapping[str, Mapping[int, Result]], chosen: Mapping[str, Mapping[str, Json]]) -> Findings:
    """Return what `cells`, by arm and seed, say; `chosen` is what each arm's search took.

    The verdict is `incomplete` while a cell is missing that it rests on. Raises DataError for cells of other tasks.
    """
    contrasts = tuple(
        found
        for one in claim.comparisons
        for split in claim.evaluation.splits
        if (found := contrast(one, split, cells))
    )
    wanted = sum(one.decides is not None for one in claim.comparisons)
    whole = [len(one.seeds) == len(claim.seeds) for one in contrasts if one.decides]
    verdict = decide(contrasts, whole=len(whole) == wanted and all(whole))
    held = [holds(one, cells, claim.seeds) for one in claim.limits]
    if None in held:
        verdict = "incomplete"
    elif verdict == "reproduced" and not all(held):
        verdict = "not at this scale"
    return Findings(claim, cells, chosen, contrasts, verdict)


def contrast(one: Comparison, split: str, cells: Mapping[str, Mapping[int, Result]]) -> Contrast | None:
    """Return a comparison on a split, or None if no seed has both; raises DataError for cells of other tasks."""
    better, than = one.better, one.than
    seeds = tuple(
        seed
        for seed, result in cells.get(than, {}).items()
        if split in result.scores and seed in cells.get(better, {}) and split in cells[better][seed].scores
    )
    if not seeds:
        return None
    ours, theirs = ([cells[arm][seed].scores[split] for seed in seeds] for arm in (better, than))
    if len({each.tasks for each in (*ours, *theirs)}) > 1:
        raise DataError(
            f"cells of {better!r} and {than!r} have played different tasks of split {split!r}: the benchmark has "
            "changed between them; raise cells.VERSION, and run them again"
        )
    paired = pooled([each.values for each in theirs], [each.values for each in ours])
    by_seed = tuple(mine.score - other.score for mine, other in zip(ours, theirs, strict=True))
    return Contrast(better, than, split, one.decides == split, seeds, paired, by_seed)


def decide(contrasts: Sequence[Contrast], *, whole: bool) -> str:
    """Return the verdict: `incomplete` unless all deciding comparisons are there, with all their seeds (`whole`)."""
    deciding = [one for one in contrasts if one.decides]
    if not whole:
        return "incomplete"
    if any(one.direction < 0 for one in deciding):
        return "opposite"
    return "reproduced" if all(one.direction > 0 for one in deciding) else "not at this scale"


def scored(results: Sequence[Result], split: str) -> Scored:
    """Return the score of one arm's cells on a split; raises DataError for no cells."""
    if not results:
        raise DataError(f"no cell has played split {split!r}; run the claim first")
    seeds = over_seeds([one.scores[split].score for one in results])
    within = None if seeds is None else (max(0.0, seeds[0]), min(1.0, seeds[1]))
    return Scored(over_tasks([one.scores[split].values for one in results]), within)


# ---- as tables


def grids(found: Findings) -> list[Grid]:
    """Return the tables: scores, tuning, paired comparisons, failures; where there are any, costs and development."""
    tuned = tunings(found.claim, list(found.claim.arms), found.cells, found.chosen)
    return [
        _scores(found),
        tuned,
        comparisons(found.contrasts),
        *of_failures({arm: _failures(list(found.cells.get(arm, {}).values())) for arm in found.claim.arms}),
        *cost_grids(found.claim, found.cells),
        *_development(found),
    ]


def _scores(found: Findings) -> Grid:
    claim = found.claim
    printed = list(dict.fromkeys(column for row in claim.paper.figures.values() for column in row))
    rows = []
    for name in claim.arms:
        results, paper = list(found.cells.get(name, {}).values()), claim.paper.figures.get(name, {})
        scores = [_percent(scored(results, split)) if results else "-" for split in claim.evaluation.splits]
        rows.append((name, str(len(results)), *scores, *(_number(paper.get(column)) for column in printed)))
    heading = ("arm", "seeds", *claim.evaluation.splits, *(f"paper: {column}" for column in printed))
    title = f"score, % of {claim.evaluation.n} tasks a split (95 % interval over tasks; over seeds)"
    return Grid(title, heading, tuple(rows))


def _failures(results: Sequence[Result]) -> tuple[Counter[str], int]:
    played = [one for result in results for one in result.scores.values()]
    counts = Counter[str]()
    for one in played:
        counts.update(one.failures)
    return counts, sum(one.n for one in played)


def _percent(one: Scored) -> str:
    low, high = one.tasks.interval
    seeds = "" if one.seeds is None else f"; {100 * one.seeds[0]:.0f}-{100 * one.seeds[1]:.0f}"
    return f"{100 * one.tasks.score:.1f} ({100 * low:.0f}-{100 * high:.0f}{seeds})"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"


def tunings(
    claim: Claim,
    arms: Sequence[str],
    cells: Mapping[str, Mapping[int, Result]],
    chosen: Mapping[str, Mapping[str, Json]],
) -> Grid:
    """Return the table of what the arms' tuning took."""
    searched = any(arm.search for arm in claim.arms.values())
    rows = []
    for name in arms:
        tunings = [one.tuning for one in cells.get(name, {}).values() if one.tuning is not None]
        taken = (
            [f"{tunings[0].trainable:,}", *map(_mean, zip(*map(_taken, tunings), strict=True))]
            if tunings
            else ["-"] * 4
        )
        values = ", ".join(f"{key.partition('.')[2]} {value}" for key, value in chosen.get(name, {}).items())
        measured = [_number(_logged(tunings, measure)) for measure in claim.measures]
        rows.append((name, *taken, *([values or "-"] if searched else []), *measured))
    heading = ("arm", "trainable", "steps", "tokens", "seconds", *(["chosen"] if searched else []))
    return Grid("tuning, the mean of the seeds", (*heading, *claim.measures), tuple(rows))


def _taken(tuning: Tuning) -> tuple[float, ...]:
    return tuning.steps, tuning.tokens, tuning.seconds


def _mean(values: Sequence[float]) -> str:
    return f"{statistics.fmean(values):,.0f}"


def _logged(tunings: Sequence[Tuning], measure: str) -> float | None:
    values = [one.logged[measure] for one in tunings if measure in one.logged]
    return statistics.fmean(values) if values else None


def comparisons(contrasts: Sequence[Contrast]) -> Grid:
    """Return the table of the paired comparisons; each names its test where there are several."""
    rows, tests = [], dict.fromkeys(one.paired.test for one in contrasts) or {"exact sign flips": None}
    for one in contrasts:
        seeds = over_seeds(one.by_seed)
        rows.append(
            (
                f"{one.better} - {one.than}",
                f"{one.split} (decides)" if one.decides else one.split,
                f"{100 * one.paired.difference:+.1f} {points(one.paired.interval)}",
                f"{one.paired.p:.2g}" + (f" ({one.paired.test})" if len(tests) > 1 else ""),
                f"{one.paired.better} / {one.paired.worse} of {one.paired.n}",
                " ".join(f"{100 * value:+.1f}" for value in one.by_seed) + (f" {points(seeds)}" if seeds else ""),
            )
        )
    by = next(iter(tests)) if len(tests) == 1 else "the test beside it,"
    heading = ("difference of", "split", "points (over tasks)", "p", "better / worse", "by seed (over seeds)")
    return Grid(f"paired, with 95 % intervals; p by {by} over tasks, each with all its seeds", heading, tuple(rows))


def points(interval: Interval) -> str:
    """Return an interval of a difference in points."""
    return f"({100 * interval[0]:+.1f} to {100 * interval[1]:+.1f})"


def _development(found: Findings) -> list[Grid]:
    """Return the development score against steps and seconds, the mean of the seeds that went so far."""
    rows = []
    for name, cells in found.cells.items():
        points = [point for result in cells.values() for point in result.development]
        for steps in sorted({point.steps for point in points}):
            at = [point for point in points if point.steps == steps]
            seconds, score = (statistics.fmean(getattr(p, key) for p in at) for key in ("seconds", "score"))
            rows.append((name, str(steps), f"{seconds:.0f}", f"{100 * score:.1f}", str(len(at)), str(at[0].n)))
    heading = ("arm", "steps", "seconds", "score", "seeds", "tasks")
    return [Grid("development score, % of tasks", heading, tuple(rows))] if rows else []


# ---- as Markdown and JSON


def rule(claim: Claim) -> str:
    """Return the rule for the verdict in a sentence."""
    asked = [f"`{one.better}` scores above `{one.than}` on {one.decides}" for one in claim.comparisons if one.decides]
    scored = [f"{' and '.join(asked)}: p < {_SIGNIFICANT} over tasks, and at every seed"] if asked else []
    limits = ["each cost is within its limit at every seed"] if claim.limits else []
    return f"Reproduced if {'; and if '.join([*scored, *limits])}."


def head(claim: Claim, verdict: str, cells: str) -> tuple[str, ...]:
    """Return how a claim's section begins: what is asked, the verdict, and the arms."""
    arms = [f"- `{name}`: {arm.says or _nothing_said(arm)}" for name, arm in claim.arms.items()]
    return (
        f"## {claim.name}: {claim.title}",
        f"{claim.question} Source: {claim.source}.",
        f"**Verdict: {verdict}** ({cells}). {rule(claim)}",
        "\n".join(arms),
    )


def section(found: Findings) -> str:
    """Return the claim's section of the document."""
    claim = found.claim
    parts = [
        *head(claim, found.verdict, f"{found.finished} of {found.wanted} cells"),
        *map(to_markdown, grids(found)),
        *_limits(found),
        *paper_lines(claim),
        " ".join(filter(None, (_played(claim), _tuned(claim), _where(found)))),
        f"```bash\nrolecraft reproduce {claim.name}\n```",
    ]
    return "\n\n".join(parts)


def _limits(found: Findings) -> list[str]:
    limits = [f"- {told(one, found.cells, found.claim.seeds)}" for one in found.claim.limits]
    return ["\n".join(["Limits of costs:", "", *limits])] if limits else []


def _nothing_said(arm: Arm) -> str:
    """Return what is told of an arm that says nothing of itself."""
    if not arm.tuned:
        return f"base {arm.base}, not tuned" if arm.base else f"the policy {arm.policy!r}"
    return f"{len(arm.stages)} stages" if arm.stages else "the recipe"


def paper_lines(claim: Claim) -> list[str]:
    """Return the paragraph of the paper's figures that stand in no table, or nothing."""
    rows = [f"{name} {_figures(row)}" for name, row in claim.paper.also.items()]
    told = f"The paper's figures: {claim.paper.says}." if claim.paper.says else ""
    return [f"{told} {'Its other rows: ' + '; '.join(rows) + '.' if rows else ''}".strip()] if told or rows else []


def _figures(row: Mapping[str, float]) -> str:
    return ", ".join(f"{column} {value:g}" for column, value in row.items())


def _played(claim: Claim) -> str:
    asked = claim.evaluation
    told = (
        f"{asked.benchmark}, splits {', '.join(asked.splits)}, {asked.n} tasks each, test seed {asked.seed}, tuning "
        f"seeds {', '.join(map(str, claim.seeds))}"
    )
    if not _tuned(claim):
        return f"{told}; nothing is chosen."
    return (
        f"{told}; what is chosen is chosen on {asked.development_n} tasks each of "
        f"{', '.join(asked.development_splits)} at seed {asked.development_seed}."
    )


def _tuned(claim: Claim) -> str:
    budget, told = claim.budget, []
    if any(arm.search for arm in claim.arms.values()):
        told.append(f"searched values are tried with {100 * budget.search_share:.0f} % of the steps")
    if budget.most_steps:
        told.append(
            f"tuning goes on until a chunk raises the development score by less than {100 * budget.least_gain:g} "
            f"points, for at most {budget.most_steps} steps"
        )
    return f"{'; '.join(told).capitalize()}." if told else ""


def _where(found: Findings) -> str:
    """Return what the cells stand on: the bases with digests of their weights, and the machines."""
    results = [one for cells in found.cells.values() for one in cells.values()]
    settings = (one.configuration for one in results)
    bases = sorted({f"{each['stages'][0]['model']['base']} (weights {each['weights']})" for each in settings})
    cores, beside, torch = (
        "/".join(sorted({str(one.machine.get(key)) for one in results})) for key in ("cores", "side_by_side", "torch")
    )
    if not results:
        return ""
    states = sorted({str(one.machine.get("code", "not recorded")) for one in results})
    code = f"{len(states)} states of the code ({', '.join(states)})" if len(states) > 1 else f"code {states[0]}"
    return f"Base {', '.join(bases)}; {cores} cores, {beside} cells side by side, torch {torch}, {code}."


def to_json(found: Findings) -> dict[str, Json]:
    """Return the findings as one JSON object; scores are in 0..1."""
    arms: dict[str, Json] = {}
    for name, cells in found.cells.items():
        results = list(cells.values())
        arms[name] = {
            "seeds": list(cells),
            "chosen": dict(found.chosen.get(name, {})),
            "scores": {split: asdict(scored(results, split)) for split in found.claim.evaluation.splits if results},
        }
    return {
        "claim": found.claim.name,
        "verdict": found.verdict,
        "cells": {"finished": found.finished, "wanted": found.wanted},
        "arms": arms,
        "comparisons": [asdict(one) for one in found.contrasts],
        "costs": {name: {seed: figures(one) for seed, one in cells.items()} for name, cells in found.cells.items()},
        "paper": asdict(found.claim.paper),
    }
