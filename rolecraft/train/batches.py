"""Decides which examples every optimisation step trains, and how a step is cut into batches for all processes.

Each process computes the same plan from lengths, weights and a seed alone, so nothing is sent between them, and a
resumed run finds the batch it stopped at. Which tokens a step trains, and each one's share of its loss, depend on its
size only, never on how it is cut. What an adapter adds is otherwise: the balance loss of a Mixture of Roles is each
batch's own, as in transformers' mixtures of experts, and a step has the mean of its batches' (`adapters/mor`).

Rows that tell the same tools may be kept together in groups, to be computed from one shared prefix (`sharing`): then
groups are shuffled and a step is a random draw of groups.
"""

from __future__ import annotations

import bisect
import itertools
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Batch:
    """Rows that one process runs at once; `scale` times a token's weight is its share of the step's loss.

    `groups` are the same rows where those of a group share a prefix; empty where each row stands for itself.
    """

    rows: tuple[int, ...]
    scale: float
    groups: tuple[tuple[int, ...], ...] = ()


@dataclass(frozen=True, slots=True)
class Alike:
    """What each row tells, equal for rows that may share a prefix, and how many of them make a group at most."""

    keys: Sequence[str]
    most: int


@dataclass(frozen=True, slots=True)
class Cut:
    """How a step is cut: `batch_size` rows, `accumulation` times, on each of `processes`."""

    batch_size: int
    accumulation: int = 1
    processes: int = 1

    @property
    def step_size(self) -> int:
        """Examples per optimisation step."""
        return self.batch_size * self.accumulation * self.processes


def plan_epoch(
    lengths: Sequence[int], weights: Sequence[float], cut: Cut, seed: int, epoch: int
) -> Iterator[tuple[Batch, ...]]:
    """Yield the epoch's steps, each cut into `accumulation * processes` batches.

    Examples are shuffled, so a step is a random draw; only inside it are rows of like length put together. `weights`
    are the examples' total loss weights. The steps of an epoch differ in size by one example at most, so that no
    small rest gets a full step. A step that needs fewer batches is filled up with rows of scale 0, which train nothing.
    """
    order = list(range(len(lengths)))
    random.Random(f"{seed}/{epoch}").shuffle(order)
    steps = count_steps(len(lengths), cut)
    for step in range(steps):
        rows = order[step * len(order) // steps : (step + 1) * len(order) // steps]
        total = sum(weights[row] for row in rows)
        shortest = min(rows, key=lengths.__getitem__)
        parts = split_by_length(rows, lengths, cut.accumulation * cut.processes)
        yield tuple(Batch(part, 1 / total) if part else Batch((shortest,), 0.0) for part in parts)


def plan_groups(
    lengths: Sequence[int], weights: Sequence[float], cut: Cut, alike: Alike, seed: int, epoch: int
) -> Iterator[tuple[Batch, ...]]:
    """Yield the same for groups of rows, drawn anew each epoch; steps differ in size by two groups at most.

    A batch may have more rows than `batch_size`, yet no group is larger; batches are about as long as each other.
    """
    draw = random.Random(f"{seed}/{epoch}")
    groups = _groups(alike, draw)
    for step in _steps(groups, count_steps(len(lengths), cut)):
        total = sum(weights[row] for group in step for row in group)
        parts = _balanced(step, lengths, cut.accumulation * cut.processes)
        filler = min((row for group in step for row in group), key=lengths.__getitem__)
        yield tuple(
            Batch(tuple(row for group in part for row in group), 1 / total, tuple(part))
            if part
            else Batch((filler,), 0.0, ((filler,),))
            for part in parts
        )


def _groups(alike: Alike, draw: random.Random) -> list[tuple[int, ...]]:
    """Return all rows in groups of equal keys, in a drawn order."""
    same: dict[str, list[int]] = {}
    for row, key in enumerate(alike.keys):
        same.setdefault(key, []).append(row)
    groups = []
    for rows in same.values():
        draw.shuffle(rows)
        groups += [tuple(rows[start : start + alike.most]) for start in range(0, len(rows), alike.most)]
    draw.shuffle(groups)
    return groups


def _steps(groups: Sequence[tuple[int, ...]], steps: int) -> Iterator[Sequence[tuple[int, ...]]]:
    """Cut the groups where the rows before are nearest to an even share; each step gets one at least."""
    ends = list(itertools.accumulate(map(len, groups)))
    first = 0
    for step in range(1, steps + 1):
        share = ends[-1] * step / steps
        last = bisect.bisect_left(ends, share)
        if last and last > first and share - ends[last - 1] < ends[last] - share:
            last -= 1
        last = max(first, min(last, len(groups) - 1 - (steps - step)))
        yield groups[first : last + 1]
        first = last + 1


def _balanced(groups: Sequence[tuple[int, ...]], lengths: Sequence[int], parts: int) -> list[list[tuple[int, ...]]]:
    """Deal the groups out, the longest first, each to the part that has the fewest tokens."""
    dealt: list[list[tuple[int, ...]]] = [[] for _ in range(parts)]
    tokens = [0] * parts
    for group in sorted(groups, key=lambda group: -sum(lengths[row] for row in group)):
        least = tokens.index(min(tokens))
        dealt[least].append(group)
        tokens[least] += sum(lengths[row] for row in group)
    return dealt


def count_steps(examples: int, cut: Cut) -> int:
    """Return the optimisation steps of one epoch."""
    return -(-examples // cut.step_size)


def split_by_length(rows: Sequence[int], lengths: Sequence[int], parts: int) -> list[tuple[int, ...]]:
    """Cut `rows` into `parts` of like length, so that the largest padded part (rows times longest) is least.

    No part costs more than an even cut would at worst, so memory for `batch_size` full-length rows always suffices.
    """
    ordered = sorted(rows, key=lambda row: (-lengths[row], row))
    longest = lengths[ordered[0]]
    low, high = longest, longest * -(-len(rows) // parts)
    while low < high:
        middle = (low + high) // 2
        if len(_fill(ordered, lengths, middle)) <= parts:
            high = middle
        else:
            low = middle + 1
    filled = _fill(ordered, lengths, low)
    return filled + [()] * (parts - len(filled))


class Schedule:
    """One process's batches of an epoch, as PyTorch's `DataLoader` takes them; `set_epoch` before each epoch."""

    def __init__(
        self,
        lengths: Sequence[int],
        weights: Sequence[float],
        cut: Cut,
        seed: int,
        process: int = 0,
        alike: Alike | None = None,
    ) -> None:
        self.cut = cut
        self._alike = alike
        self._lengths, self._weights = lengths, weights
        self._seed, self._process, self._epoch = seed, process, 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose order the next iteration follows, from 0."""
        self._epoch = epoch

    def __len__(self) -> int:
        """Return this process's batches in an epoch."""
        return count_steps(len(self._lengths), self.cut) * self.cut.accumulation

    def __iter__(self) -> Iterator[list[Batch]]:
        """Yield each batch in a list of one: what DataLoader fetches is a whole batch."""
        for step in self._plan():
            for batch in step[self._process :: self.cut.processes]:
                yield [batch]

    def _plan(self) -> Iterator[tuple[Batch, ...]]:
        if self._alike is None:
            return plan_epoch(self._lengths, self._weights, self.cut, self._seed, self._epoch)
        return plan_groups(self._lengths, self._weights, self.cut, self._alike, self._seed, self._epoch)


def _fill(ordered: Sequence[int], lengths: Sequence[int], limit: int) -> list[tuple[int, ...]]:
    """Cut `ordered`, longest first, into as few parts as keep each within `limit` padded tokens."""
    parts, start = [], 0
    while start < len(ordered):
        end = start + max(1, limit // lengths[ordered[start]])
        parts.append(tuple(ordered[start:end]))
        start = end
    return parts
