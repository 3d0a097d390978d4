"""Products of whole numbers: rows of float32 in two terms of 8 bits, weights in one, summed exactly in 32 bits.

A processor that multiplies 8 bits (VNNI, AMX) does so up to four times as fast as float32, and reads a quarter of the
bytes. The second term holds what the first leaves, in 254ths of its steps, so that a row is told to one part in 32,258
of its largest number, closer than bfloat16. Sums of whole numbers have no order: a row's product is the same to the bit
whatever rows stand beside it. Not covered: accelerators.
"""

from __future__ import annotations

import functools

import torch
from torch import Tensor

_MOST = 127
_FINER = 254
"""So many steps of the second term make one of the first."""
_TINY = 1e-30
_MANY = 4096
"""Of so wide a product few rows are made at a time: sums that leave the cache cost more than the multiplying."""
_ROWS = 64


def product(x: Tensor, weights: Tensor, scales: Tensor) -> Tensor:
    """Return (N, out) for rows `x` (N, in) of float32, whole `weights` (out, in) and a scale for each of `out`."""
    if len(x) <= _ROWS or len(weights) < _MANY:
        return _product(x, weights, scales)
    made = x.new_empty(len(x), len(weights))
    for rows, part in zip(torch.split(x, _ROWS), torch.split(made, _ROWS), strict=True):
        part.copy_(_product(rows, weights, scales))
    return made


def _product(x: Tensor, weights: Tensor, scales: Tensor) -> Tensor:
    count = len(x)
    numbers, steps = _terms(x)
    sums = torch._int_mm(numbers, weights.T)
    return sums[:count].float().add_(sums[count:], alpha=1 / _FINER).mul_(steps).mul_(scales)


def _terms(x: Tensor) -> tuple[Tensor, Tensor]:
    """Return the rows' first terms and below them the second ones (2 N, in), and each row's step (N, 1)."""
    largest = x.abs().amax(1, keepdim=True).clamp_(min=_TINY)  # a norm's largest number takes ten times as long
    fine = x * (_MOST * _FINER / largest)
    coarse = (fine * (1 / _FINER)).round_()
    numbers = torch.empty(2 * len(x), x.shape[1], dtype=torch.int8)
    numbers[: len(x)] = coarse
    numbers[len(x) :] = fine.sub_(coarse, alpha=_FINER).round_()
    return numbers, largest.mul_(1 / _MOST)


@functools.cache
def exact() -> bool:
    """Tell whether torch multiplies 8 bits here, and sums them without a fault: some processors cut sums of pairs."""
    if not hasattr(torch, "_int_mm"):
        return False
    rows = torch.tensor([_MOST, -_MOST, 1, -1] * 1024, dtype=torch.int8)
    weights = torch.stack([rows, -rows, rows.roll(1)])
    try:
        for count in (2, 16, 70):
            many = torch.stack([rows.roll(place) for place in range(count)])
            if not torch.equal(torch._int_mm(many, weights.T), (many.double() @ weights.double().T).int()):
                return False
    except RuntimeError:
        return False
    return True
