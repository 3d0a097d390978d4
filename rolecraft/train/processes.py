"""Several processes that learn from play as one: each does its share, and all know what every other one found.

So each of them takes the same decisions from the same numbers, and only the first writes. Not covered: how they are
started (`workers`), several machines, and supervised tuning, whose processes are transformers'.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar

import torch
import torch.distributed as dist

from rolecraft import workers

_Thing = TypeVar("_Thing")
_Found = TypeVar("_Found")

_PATIENCE = timedelta(days=1)
"""How long one waits for another: tools may be slow, and whoever dies is noticed at once."""


@dataclass(frozen=True, slots=True)
class Processes:
    """This process, number `place` of `count`; one that is alone exchanges nothing."""

    place: int = 0
    count: int = 1

    @property
    def is_first(self) -> bool:
        """Whether it is the one that writes and prints what all share."""
        return self.place == 0

    def run_of(self, count: int) -> range:
        """Return which of so many things, that belong to their neighbours, are this one's: a run of them."""
        return range(count * self.place // self.count, count * (self.place + 1) // self.count)

    def dealt(self, costs: Sequence[int]) -> list[int]:
        """Return which of things with these costs are this one's, so that none has much more to do than another."""
        loads, mine = [0] * self.count, []
        for thing in sorted(range(len(costs)), key=lambda thing: -costs[thing]):
            taker = loads.index(min(loads))
            loads[taker] += costs[thing]
            if taker == self.place:
                mine.append(thing)
        return sorted(mine)

    def most(self, count: int) -> int:
        """Return how many of so many things are one process's at most."""
        return -(-count // self.count)

    def batch_size(self, size: int, count: int) -> int:
        """Return the size of batches of so many things: `size`, or less, so that each process has as many of them."""
        if self.count == 1:
            return size
        turns = -(-self.most(count) // size)
        return max(1, -(-self.most(count) // max(1, turns)))

    def merged(self, mine: Mapping[int, _Found]) -> list[_Found]:
        """Return what all have found, each by its number, in the order of the numbers, equal in every process."""
        found = [mine]
        if self.count > 1:
            found *= self.count
            dist.all_gather_object(found, mine)
        by_number = {number: one for some in found for number, one in some.items()}
        return [by_number[number] for number in sorted(by_number)]

    def each(self, things: Sequence[_Thing], costs: Sequence[int], do: Callable[[_Thing], _Found]) -> list[_Found]:
        """Return what is found of each thing, in order, equal in every process; one of them does it."""
        return self.merged({number: do(things[number]) for number in self.dealt(costs)})

    def any(self, asked: bool) -> bool:
        """Return whether one of them asked."""
        return any(self.merged({self.place: asked}))

    def wait(self) -> None:
        """Wait until all are here."""
        if self.count > 1:
            dist.barrier()

    def sum_gradients(self, parameters: Iterable[torch.nn.Parameter]) -> None:
        """Give every process the sum of all their gradients; a parameter that has none in any keeps none."""
        if self.count == 1:
            return
        chosen = list(parameters)
        has_P = torch.tensor([float(one.grad is not None) for one in chosen])
        flat = [torch.zeros_like(one) if one.grad is None else one.grad for one in chosen]
        whole = torch.cat([has_P, *(one.flatten().float() for one in flat)])
        dist.all_reduce(whole)
        parts = torch.split(whole, [len(chosen), *(one.numel() for one in chosen)])
        for one, has, part in zip(chosen, parts[0].tolist(), parts[1:], strict=True):
            one.grad = part.view_as(one).to(one.dtype) if has else None


ALONE = Processes()


@contextmanager
def joined() -> Iterator[Processes]:
    """Within, the processes that `workers.launch` started together know one another; any other process is alone.

    They meet but once: within, it may be asked for again.
    """
    if not workers.is_worker():
        yield ALONE
        return
    meets = not dist.is_initialized()
    if meets:
        dist.init_process_group("gloo", timeout=_PATIENCE)
    try:
        yield Processes(dist.get_rank(), dist.get_world_size())
    finally:
        if meets:
            dist.destroy_process_group()
