"""Lays rows that begin alike out as one sequence: what they share is computed once, and trains what it would in each.

Each row's rest goes on from the shared prefix in position and attention (`attention.attend_shared`), so losses and
gradients are those of the rows one by one, as far as nothing is drawn in the forward pass: with dropout, a group's
prefix has one draw.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from rolecraft.attention import Tree

_ROUND = 8


@dataclass(frozen=True, slots=True)
class Piece:
    """The tokens `start` to `end` of a row, which stand for those of `times` rows."""

    row: int
    start: int
    end: int
    times: int = 1


@dataclass(frozen=True, slots=True)
class Layout:
    """The pieces of some rows in the order in which they stand, and how they hang together."""

    pieces: tuple[Piece, ...]
    trees: tuple[Tree, ...]

    def place(self, tensors: Sequence[torch.Tensor], width: int, value: float) -> torch.Tensor:
        """Return the rows' numbers so laid out, filled up with `value` to (1, width)."""
        laid = [tensors[piece.row][piece.start : piece.end] for piece in self.pieces]
        return torch.cat([*laid, laid[0].new_full((width - self.length,), value)])[None]

    def positions(self, width: int) -> torch.Tensor:
        """Return each token's place in its row (1, width); padding is a row of its own."""
        places = [torch.arange(piece.start, piece.end) for piece in self.pieces]
        return torch.cat([*places, torch.arange(width - self.length)])[None]

    def times(self, width: int) -> torch.Tensor:
        """Return how many rows each token stands for (1, width), 0 where it is padding."""
        counts = [torch.full((piece.end - piece.start,), piece.times) for piece in self.pieces]
        return torch.cat([*counts, torch.zeros(width - self.length, dtype=torch.long)])[None]

    def padded(self, width: int) -> tuple[Tree, ...]:
        """Return the trees, padding as one more."""
        return (*self.trees, Tree(width - self.length)) if width > self.length else self.trees

    @property
    def length(self) -> int:
        """Return how many tokens are computed."""
        return sum(piece.end - piece.start for piece in self.pieces)


def rounded(width: int) -> int:
    """Return the width that so many tokens are filled up to."""
    # oneDNN compiles and keeps a kernel for every shape it meets: round, or a run takes gigabytes.
    return -(-width // _ROUND) * _ROUND


def lay_out(groups: Sequence[Sequence[int]], lengths: Sequence[int], shared: Sequence[int]) -> Layout:
    """Return the layout of groups of rows, of which each shares its first `shared` tokens."""
    pieces, trees = [], []
    for group, prefix in zip(groups, shared, strict=True):
        if len(group) == 1 or not prefix:
            pieces += [Piece(row, 0, lengths[row]) for row in group]
            trees += [Tree(lengths[row]) for row in group]
            continue
        pieces.append(Piece(group[0], 0, prefix, len(group)))
        pieces += [Piece(row, prefix, lengths[row]) for row in group]
        trees.append(Tree(prefix, tuple(lengths[row] - prefix for row in group)))
    return Layout(tuple(pieces), tuple(trees))


def alike(rows: Sequence[Sequence[torch.Tensor]], weights: Sequence[torch.Tensor]) -> list[tuple[int, ...]]:
    """Return all rows in groups that share their beginnings, so cut that the fewest tokens are computed.

    Among sorted rows the best groups are neighbours, and what a group shares is what its least alike neighbours do.
    """
    order = sorted(range(len(rows)), key=lambda row: [one.tolist() for one in rows[row]])
    pairs = [shared_length([rows[a], rows[b]], [weights[a], weights[b]]) for a, b in itertools.pairwise(order)]
    saved, cuts = [0], [0]
    for end in range(1, len(order) + 1):
        best, cut, shared = saved[end - 1], end - 1, len(rows[order[0]][0]) + sum(pairs)
        for start in range(end - 2, -1, -1):
            shared = min(shared, pairs[start])
            if saved[start] + (end - 1 - start) * shared > best:
                best, cut = saved[start] + (end - 1 - start) * shared, start
        saved.append(best)
        cuts.append(cut)
    found, end = [], len(order)
    while end:
        found.append(tuple(order[cuts[end] : end]))
        end = cuts[end]
    return found[::-1]


def shared_length(rows: Sequence[Sequence[torch.Tensor]], weights: Sequence[torch.Tensor]) -> int:
    """Return how many tokens the rows may share: as many as are alike in all of each row's tensors.

    It ends before the token that predicts the first trained one, so that every trained token, and what predicts it, is
    the row's own: one token cannot predict several.
    """
    trained = [int(torch.nonzero(one[1:])[0]) if bool(one[1:].any()) else len(one) - 1 for one in weights]
    length = min(trained)
    for one, other in itertools.pairwise(rows):
        for left, right in zip(one, other, strict=True):
            differing = torch.nonzero(left[:length] != right[:length])
            length = int(differing[0]) if len(differing) else length
    return length
