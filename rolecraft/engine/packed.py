"""Matrices that take less memory than float32: in bfloat16, in 8 bits by row, or in 4 bits by groups of 32.

Rows of float32 are rounded to bfloat16, number by number, and what they are multiplied to is summed in float32; at 8
bits they are whole numbers too where the processor sums these right (`whole_numbers`). What becomes of a row never
depends on the rows beside it. Not covered: accelerators, and training.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

import rolecraft.engine.whole_numbers as whole_numbers

Kind = Literal["bfloat16", "int8", "int4"]

GROUP = 32
"""So many neighbours of a row share a scale and an offset in 4 bits, as in a block of a GGUF file."""
_MIDDLE = 8
"""What is taken from a number of 4 bits before it is scaled."""
_OUT_MULTIPLE = 64
"""As many rows at a time the 4-bit product works on; others are filled up."""
_MOST_ROWS = (1024, 256, 128, 32, 8)
"""So many rows are multiplied at once: with more, oneDNN sums in another order, from how many on goes by the shape."""
_BEST = 64
"""So many of a row's logits are computed anew, since bfloat16 tells 25.1 from no 25.2."""
_TINY = 1e-12


@dataclass(frozen=True, slots=True)
class Matrix:
    """A matrix (out, in) in one of three forms.

    `data` is in an order of the operator's own. `scales`: int8 (out,), int4 (in / 32, out, 2) with each group's scale
    and offset. `blocked` tells that bfloat16 lies as oneDNN reads it, of which it shows no bytes; `most` rows of it are
    multiplied at once. `whole`: in 8 bits, rows are multiplied by as whole numbers, and scales are in float32.
    """

    kind: Kind
    out: int
    width: int
    data: Tensor
    scales: Tensor | None = None
    blocked: bool = False
    most: int = _MOST_ROWS[0]
    whole: bool = False

    @property
    def nbytes(self) -> int:
        """The bytes it takes."""
        data = 2 * self.out * self.width if self.kind == "bfloat16" else self.data.nbytes
        return data + (0 if self.scales is None else self.scales.nbytes)

    def product(self, x: Tensor) -> Tensor:
        """Return (N, out) in float32 for rows `x` (N, in) of float32."""
        return self.rounded(x).float()

    def rounded(self, x: Tensor) -> Tensor:
        """Return the product as it is made, in bfloat16 unless rows are whole numbers."""
        if self.whole and self.scales is not None:
            return whole_numbers.product(x, self.data, self.scales)
        halved = x.to(torch.bfloat16)
        made: Tensor
        if self.kind == "bfloat16":
            if len(x) <= self.most:
                return self._in_bfloat16(halved)
            return torch.cat([self._in_bfloat16(part) for part in torch.split(halved, self.most)])
        if self.kind == "int8":
            made = torch.ops.aten._weight_int8pack_mm(halved, self.data, self.scales)
            return made
        made = torch.ops.aten._weight_int4pack_mm_for_cpu(halved, self.data, GROUP, self.scales)
        return made if made.shape[1] == self.out else made.narrow(1, 0, self.out)

    def _in_bfloat16(self, rounded: Tensor) -> Tensor:
        if self.blocked:
            made: Tensor = torch.ops.mkldnn._linear_pointwise(rounded, self.data, None, "none", [], "")
            return made
        return functional.linear(rounded, self.data)


@dataclass(frozen=True, slots=True)
class Logits:
    """The matrix that gives logits, and the same once more as `rows` (out, in), by which the best are computed anew."""

    matrix: Matrix
    rows: Tensor

    @property
    def out(self) -> int:
        """How many logits there are."""
        return self.matrix.out

    def rounded(self, x: Tensor) -> Tensor:
        """Return the same: logits are never left in bfloat16."""
        return self.product(x)

    def product(self, x: Tensor) -> Tensor:
        """Return logits (N, out) in float32 for rows `x` (N, in) of float32."""
        logits = self.matrix.product(x)
        best = logits.topk(min(_BEST, self.out)).indices
        exact = (self.rows[best].float() * x.unsqueeze(1)).sum(-1)
        return logits.scatter_(1, best, exact)


def to_bfloat16(weights: Sequence[Tensor]) -> Matrix:
    """Return matrices (out, in) of one width, one below the other, rounded."""
    joint = torch.cat([weight.to(torch.bfloat16) for weight in weights])
    out, width = joint.shape
    if torch._C._has_mkldnn and torch.ops.mkldnn._is_mkldnn_bf16_supported():
        return Matrix("bfloat16", out, width, torch.ops.mkldnn._reorder_linear_weight(joint, 1), blocked=True)
    return Matrix("bfloat16", out, width, joint)


def most_rows(matrix: Matrix) -> int:
    """Return how many rows may be multiplied at once by a matrix of bfloat16 for each to be the same to the bit."""
    x = torch.randn(_MOST_ROWS[0], matrix.width, generator=torch.Generator().manual_seed(0)).to(torch.bfloat16)
    alone = matrix._in_bfloat16(x[:1])
    for most in _MOST_ROWS:
        if all(torch.equal(matrix._in_bfloat16(x[:rows])[:1], alone) for rows in (2, 5, most // 2 + 1, most - 1, most)):
            return most
    return _MOST_ROWS[0]


def to_int8(weights: Sequence[Tensor]) -> Matrix:
    """Return matrices (out, in) of one width, one below the other, each row as whole numbers times its scale."""
    whole = whole_numbers.exact()
    data, scales = [], []
    for weight in weights:
        found = weight.float()
        scale = (found.abs().amax(1) / 127).clamp_(min=_TINY)
        if not whole:  # the operator's scales are in the type of what it returns
            scale = scale.to(torch.bfloat16)
        data.append((found / scale.float()[:, None]).round_().clamp_(-127, 127).to(torch.int8))
        scales.append(scale)
    joint = torch.cat(data)
    return Matrix("int8", joint.shape[0], joint.shape[1], joint, torch.cat(scales), whole=whole)


@dataclass(frozen=True, slots=True)
class Groups:
    """A matrix (out, in) as numbers of 4 bits: `(numbers - 8) * scales + offsets`, each group of 32 with its own.

    `numbers` (out, in), `scales` and `offsets` (out, in / 32) in float32.
    """

    numbers: Tensor
    scales: Tensor
    offsets: Tensor

    def dense(self) -> Tensor:
        """Return the matrix (out, in) in float32, with scales and offsets as they are packed."""
        scales, offsets = (part.to(torch.bfloat16).float().unsqueeze(-1) for part in (self.scales, self.offsets))
        grouped = self.numbers.view(len(self.numbers), -1, GROUP).float()
        return ((grouped - _MIDDLE) * scales + offsets).view_as(self.numbers)


def fits_int4(width: int) -> bool:
    """Tell whether rows of `width` can be cut into groups."""
    return width % GROUP == 0


def quantise(weight: Tensor, rounds: int = 3) -> Groups:
    """Return a matrix (out, in) in 4 bits: scale and offset are fitted by least squares to the numbers they give."""
    grouped = weight.float().view(len(weight), -1, GROUP)
    low, high = grouped.aminmax(dim=-1, keepdim=True)
    scale = ((high - low) / 15).clamp_(min=_TINY)
    offset = low + _MIDDLE * scale
    for _ in range(rounds):
        centred = _numbers(grouped, scale, offset) - _MIDDLE
        mean, level = centred.mean(-1, keepdim=True), grouped.mean(-1, keepdim=True)
        spread = (centred - mean).square().sum(-1, keepdim=True)
        fitted = ((centred - mean) * (grouped - level)).sum(-1, keepdim=True) / spread.clamp(min=_TINY)
        scale = torch.where(fitted > _TINY, fitted, scale).to(torch.bfloat16).float()
        offset = (level - mean * scale).to(torch.bfloat16).float()
    numbers = _numbers(grouped, scale, offset).to(torch.uint8)
    return Groups(numbers.view(weight.shape), scale.squeeze(-1), offset.squeeze(-1))


def _numbers(grouped: Tensor, scale: Tensor, offset: Tensor) -> Tensor:
    return ((grouped - offset) / scale + _MIDDLE).round_().clamp_(0, 15)


def to_int4(parts: Sequence[Groups]) -> Matrix:
    """Return matrices of one width, one below the other, in 4 bits."""
    numbers = torch.cat([part.numbers for part in parts])
    out, width = numbers.shape
    scales = torch.stack([torch.cat([getattr(p, name) for p in parts]) for name in ("scales", "offsets")], -1)
    if missing := -out % _OUT_MULTIPLE:
        numbers = functional.pad(numbers, (0, 0, 0, missing))
        scales = functional.pad(scales, (0, 0, 0, 0, 0, missing))
    data = torch.ops.aten._convert_weight_to_int4pack_for_cpu(numbers.int(), 1)
    return Matrix("int4", out, width, data, scales.transpose(0, 1).contiguous().to(torch.bfloat16))
