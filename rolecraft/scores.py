"""Turns verdicts into scores: means with 95 % intervals over tasks and seeds, by family too, and paired tests.

Not covered: scores that need several episodes of a task (pass at k), and corrections for many comparisons.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np

from rolecraft.errors import DataError
from rolecraft.judges import failures, replies, strict
from rolecraft.types import Trajectory, Trials, Usage

Interval = tuple[float, float]

_Z = 1.959963984540054  # the normal quantile of a two-sided 95 % interval
# fmt: off
_T = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131, 2.120,
      2.110, 2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042)
# fmt: on
"""The same quantile of Student's t with 1, 2, ... degrees of freedom."""
_RESAMPLES = 2_000
_FLIPS = 10_000


@dataclass(frozen=True, slots=True)
class Score:
    """A mean verdict over `n` tasks, 0..1, with its 95 % interval."""

    score: float
    n: int
    interval: Interval


@dataclass(frozen=True, slots=True)
class Cost:
    """What one task cost on average, what a strategy tried beside the record included.

    `computed` counts prompt tokens that were not in the cache. `seconds` adds up the model calls of a task, each as
    long as it waited for its reply; tasks that were batched together overlap, so this is latency, not throughput.
    """

    prompt: float = 0.0
    computed: float = 0.0
    completion: float = 0.0
    seconds: float = 0.0
    model_calls: float = 0.0
    tool_calls: float = 0.0


@dataclass(frozen=True, slots=True)
class Calling:
    """How tools were called, as shares of tasks: of all with a reply that could not be read; None where there is none.

    `over` is of those where no call is right (calls were made), `under` of those where one is (none was made). Tasks
    whose reference does not list calls count in neither.
    """

    unparsed: float | None = None
    over: float | None = None
    under: float | None = None


@dataclass(frozen=True, slots=True)
class Tried:
    """What a strategy tried: candidates a task, the share of them that failed, and how far those left agreed.

    `agreement` is the mean share that came to the same as the chosen one (None: nothing was voted on).
    """

    strategy: str
    candidates: float
    failed: float
    agreement: float | None


@dataclass(frozen=True, slots=True)
class Scores:
    """The result of a benchmark run; `failures` counts the failed tasks by class (judges/failures.py).

    `lenient` counts the tasks with replies that were read leniently, `strict` is the score had none been (None: none
    was), `tried` is what a strategy tried (None: each reply was taken as it came).
    """

    score: float
    n: int
    interval: Interval
    seed: int | None = None
    families: Mapping[str, Score] = field(default_factory=dict)
    cost: Cost = Cost()
    stops: Mapping[str, int] = field(default_factory=dict)
    failures: Mapping[str, int] = field(default_factory=dict)
    lenient: int = 0
    strict: Score | None = None
    calling: Calling = Calling()
    tried: Tried | None = None


@dataclass(frozen=True, slots=True)
class Paired:
    """How `b` differs from `a` on the `n` tasks that both played: mean of b minus a, its 95 % interval, and p.

    `better` and `worse` count the tasks where b scored higher and lower; `unpaired` those that only one side played,
    and `otherwise` those of the `n` that ask something else in the two, not only for another form of the answer.
    """

    difference: float
    interval: Interval
    p: float
    n: int
    better: int
    worse: int
    unpaired: int
    test: Literal["exact McNemar", "exact sign flips", "sign-flip permutation"]
    otherwise: int = 0


def score(trajectories: Iterable[Trajectory], *, seed: int | None = None) -> Scores:
    """Return the scores of judged trajectories; `seed` is the benchmark's, recorded so that the tasks can be remade.

    Raises DataError when there is none, or when one has no verdict.
    """
    played = list(trajectories)
    if not played:
        raise DataError("no trajectories to score; play at least one task")
    values = [_score_of(t) for t in played]
    families: dict[str, list[float]] = {}
    for trajectory, value in zip(played, values, strict=True):
        families.setdefault(family(trajectory), []).append(value)
    whole = mean(values)
    return Scores(
        score=whole.score,
        n=whole.n,
        interval=whole.interval,
        seed=seed,
        families={name: mean(families[name]) for name in sorted(families)},
        cost=_cost(played),
        stops=dict(sorted(Counter(t.stop for t in played).items())),
        failures=_failures(played),
        lenient=(lenient := sum(map(strict.is_lenient, played))),
        strict=mean([_strict_score(t) for t in played]) if lenient else None,
        calling=calling(played),
        tried=_tried([t.trials for t in played if t.trials is not None]),
    )


def spent(trajectory: Trajectory) -> Usage:
    """Return the tokens and seconds of an episode, those of what a strategy tried beside the record included."""
    told = sum((turn.usage for turn in trajectory.turns), Usage())
    return told if trajectory.trials is None else told + trajectory.trials.usage


def calling(trajectories: Iterable[Trajectory]) -> Calling:
    """Return how tools were called in some trajectories, judged or not."""
    unparsed, over, under = list[bool](), list[bool](), list[bool]()
    for trajectory in trajectories:
        unparsed.append(any(message.unparsed is not None for _, message in replies(trajectory)))
        wanted, made = trajectory.task.reference.get("calls"), bool(failures.calls_made(trajectory))
        if wanted is not None:
            (under if wanted else over).append(made != bool(wanted))
    return Calling(*(sum(found) / len(found) if found else None for found in (unparsed, over, under)))


def family(trajectory: Trajectory) -> str:
    """Return the family that the task's reference names, or `all`."""
    return str(trajectory.task.reference.get("family", "all"))


def wilson(successes: int, n: int) -> Interval:
    """Return the 95 % interval of a proportion (Wilson 1927, without continuity correction)."""
    if not 0 <= successes <= n or n == 0:
        raise ValueError(f"successes must be in 0..n and n positive; got {successes!r} of {n!r}")
    share = successes / n
    scale = 1 + _Z**2 / n
    centre = (share + _Z**2 / (2 * n)) / scale
    half = _Z * math.sqrt(share * (1 - share) / n + _Z**2 / (4 * n**2)) / scale
    # rounding must not push the certain ends past 0, 1 or the share itself
    return max(0.0, min(centre - half, share)), min(1.0, max(centre + half, share))


def bootstrap(values: Sequence[float]) -> Interval:
    """Return the 95 % percentile interval of the mean over 2,000 resamples, drawn with a fixed seed."""
    sample = np.asarray(values, dtype=float)
    draw = np.random.default_rng(0)
    picks = (draw.integers(0, len(sample), (rows, len(sample))) for rows in _blocks(_RESAMPLES, len(sample)))
    means = np.concatenate([sample[picked].mean(axis=1) for picked in picks])
    low, high = np.quantile(means, [0.025, 0.975])
    return float(low), float(high)


def over_seeds(values: Sequence[float]) -> Interval | None:
    """Return the 95 % interval of the mean over tuning seeds (Student's t), or None for a single one."""
    freedom = len(values) - 1
    if freedom < 1:
        return None
    mean = math.fsum(values) / len(values)
    spread = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / freedom)
    half = (_T[freedom - 1] if freedom <= len(_T) else _Z) * spread / math.sqrt(len(values))
    return mean - half, mean + half


def over_tasks(outcomes: Sequence[Sequence[float]]) -> Score:
    """Return the mean over tasks of outcomes (seeds, tasks), its interval by drawing tasks with all their seeds.

    `n` is the number of tasks: the same tasks at several seeds are no further tasks.
    """
    return mean([math.fsum(task) / len(task) for task in zip(*outcomes, strict=True)])


def _score_of(trajectory: Trajectory) -> float:
    if trajectory.verdict is None:
        raise DataError(f"trajectory {trajectory.id!r} has no verdict; judge it before scoring")
    value = trajectory.verdict.score
    if not 0 <= value <= 1:
        raise DataError(f"trajectory {trajectory.id!r} has score {value!r}; a judge's score is in 0..1")
    return value


def _strict_score(trajectory: Trajectory) -> float:
    """Return the score of the strict reading, which is a part of the verdict where it is another one."""
    assert trajectory.verdict is not None
    return trajectory.verdict.parts.get(strict.PART, trajectory.verdict.score)


def mean(values: Sequence[float]) -> Score:
    """Return the mean of verdicts in 0..1, one a task, with its 95 % interval."""
    binary = all(value in (0.0, 1.0) for value in values)
    interval = wilson(round(sum(values)), len(values)) if binary else bootstrap(values)
    return Score(math.fsum(values) / len(values), len(values), interval)


def _failures(trajectories: Iterable[Trajectory]) -> dict[str, int]:
    found = Counter(failures.failure(t) for t in trajectories)
    return {name: found[name] for name in failures.CLASSES if found[name]}


def _cost(trajectories: Sequence[Trajectory]) -> Cost:
    used, n = [spent(t) for t in trajectories], len(trajectories)
    beside = [t.trials for t in trajectories if t.trials is not None]
    calls = sum(len(failures.calls_made(t)) for t in trajectories)
    return Cost(
        prompt=sum(one.prompt for one in used) / n,
        computed=sum(one.prompt - one.cached for one in used) / n,
        completion=sum(one.completion for one in used) / n,
        seconds=sum(one.seconds for one in used) / n,
        model_calls=(sum(len(t.turns) for t in trajectories) + sum(one.model_calls for one in beside)) / n,
        tool_calls=(calls + sum(one.tool_calls for one in beside)) / n,
    )


def _tried(trials: Sequence[Trials]) -> Tried | None:
    if not trials:
        return None
    tried = sum(one.tried for one in trials)
    agreed = [one.agreement for one in trials if one.agreement is not None]
    return Tried(
        strategy=" and ".join(sorted({one.strategy for one in trials})),
        candidates=tried / len(trials),
        failed=sum(one.failed for one in trials) / tried if tried else 0.0,
        agreement=sum(agreed) / len(agreed) if agreed else None,
    )


def paired(a: Iterable[Trajectory], b: Iterable[Trajectory]) -> Paired:
    """Compare two runs on the tasks they share; several episodes of one task count as their mean.

    Exact McNemar (two-sided binomial on the discordant tasks) where all scores are 0 or 1, else a two-sided
    sign-flip permutation test. The interval is the bootstrap's over tasks. Raises DataError when no task is shared.
    """
    a, b = list(a), list(b)
    left, right = _by_task(a), _by_task(b)
    shared = [task for task in left if task in right]
    if not shared:
        raise DataError("the two runs share no task id; play both with the same benchmark, split and seed")
    pairs = [(left[task], right[task]) for task in shared]
    differences = [b - a for a, b in pairs]
    found = _paired(pairs, bootstrap(differences), len(left) + len(right) - 2 * len(shared))
    one, other = _questions(a), _questions(b)
    return replace(found, otherwise=sum(_differ(one[task], other[task]) for task in shared))


def pooled(a: Sequence[Sequence[float]], b: Sequence[Sequence[float]]) -> Paired:
    """Compare outcomes `b` with `a`, both (seeds, tasks) of the same tasks; `n`, `better` and `worse` count every seed.

    A task counts once in p and in the interval, with all its seeds: what makes it hard does so at each of them. p is
    of the sign of each task's sum of differences, exact for outcomes of 0 and 1, and McNemar's for a single seed. The
    interval is the bootstrap's over tasks. Raises DataError for other shapes.
    """
    if not a or len({len(row) for row in (*a, *b)}) != 1 or len(a) != len(b):
        raise DataError("only the same tasks at as many seeds can be paired; run the cells that are missing")
    pairs = [pair for one, other in zip(a, b, strict=True) for pair in zip(one, other, strict=True)]
    by_seed = ([y - x for x, y in zip(one, other, strict=True)] for one, other in zip(a, b, strict=True))
    sums = [math.fsum(task) for task in zip(*by_seed, strict=True)]
    found = _paired(pairs, bootstrap([one / len(a) for one in sums]), 0)
    if len(a) == 1:
        return found
    whole = all(one.is_integer() for one in sums)
    p = exact_sign_flip([int(one) for one in sums]) if whole else sign_flip(sums)
    return replace(found, p=p, test="exact sign flips" if whole else "sign-flip permutation")


def _paired(pairs: Sequence[tuple[float, float]], interval: Interval, unpaired: int) -> Paired:
    differences = [b - a for a, b in pairs]
    better, worse = sum(d > 0 for d in differences), sum(d < 0 for d in differences)
    binary = all(value in (0.0, 1.0) for pair in pairs for value in pair)
    return Paired(
        difference=math.fsum(differences) / len(pairs),
        interval=interval,
        p=mcnemar(better, worse) if binary else sign_flip(differences),
        n=len(pairs),
        better=better,
        worse=worse,
        unpaired=unpaired,
        test="exact McNemar" if binary else "sign-flip permutation",
    )


def mcnemar(better: int, worse: int) -> float:
    """Return the two-sided exact p of McNemar's test: a fair coin for each discordant task."""
    n = better + worse
    tail = sum(math.comb(n, k) for k in range(min(better, worse) + 1))
    return float(min(1.0, 2 * tail / 2**n))


def exact_sign_flip(differences: Sequence[int]) -> float:
    """Return the two-sided p that the mean difference is 0, from all sign flips of whole numbers."""
    ways, observed, reach = [1], abs(sum(differences)), 0  # ways[i]: signs so far that sum to i - reach
    for size in (abs(one) for one in differences if one):
        wider = [0] * (len(ways) + 2 * size)
        for place, count in enumerate(ways):
            wider[place] += count
            wider[place + 2 * size] += count
        ways, reach = wider, reach + size
    extreme = sum(count for place, count in enumerate(ways) if abs(place - reach) >= observed)
    return extreme / sum(ways)


def sign_flip(differences: Sequence[float]) -> float:
    """Return the two-sided p that the mean difference is 0, from 10,000 random sign flips with a fixed seed."""
    sizes = np.abs([d for d in differences if d != 0])
    observed = abs(math.fsum(differences))
    draw = np.random.default_rng(0)
    extreme = 0
    for rows in _blocks(_FLIPS, len(sizes)):
        signs = draw.integers(0, 2, (rows, len(sizes))) * 2 - 1
        extreme += int((np.abs(signs @ sizes) >= observed - 1e-9).sum())
    return (extreme + 1) / (_FLIPS + 1)


def _blocks(draws: int, size: int) -> list[int]:
    """Return how many of `draws` rows of `size` numbers to make at once, so that they take some megabytes."""
    rows = max(1, 500_000 // max(1, size))
    return [min(rows, draws - start) for start in range(0, draws, rows)]


def _questions(trajectories: Iterable[Trajectory]) -> dict[str, str]:
    """Return by task id the last message of its user; examples and system messages may differ between two runs."""
    return {
        one.task.id: next((m.content for m in reversed(one.task.messages) if m.role == "user"), "")
        for one in trajectories
    }


def _differ(one: str, other: str) -> bool:
    """Tell whether two questions are not one; a form of the answer may stand after either."""
    return one != other and not (one.startswith(f"{other}\n") or other.startswith(f"{one}\n"))


def _by_task(trajectories: Iterable[Trajectory]) -> dict[str, float]:
    values: dict[str, list[float]] = {}
    for trajectory in trajectories:
        values.setdefault(trajectory.task.id, []).append(_score_of(trajectory))
    return {task: math.fsum(found) / len(found) for task, found in values.items()}
