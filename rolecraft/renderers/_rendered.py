"""A conversation as tokens: what it is when done, and the tape it is written on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Rendered:
    """A conversation as tokens; the first three align, (T,).

    `weights`: each token's loss weight, above 0 only in the body and end token of replies. `speakers`: whose token it
    is, header included; None for context. `starts`: for each message where its body begins if a model wrote it (the
    length of the prompt it answered), else where its block begins.
    """

    ids: tuple[int, ...]
    weights: tuple[float, ...]
    speakers: tuple[str | None, ...]
    starts: tuple[int, ...]


@dataclass(slots=True)
class Tape:
    """A `Rendered` being written."""

    ids: list[int] = field(default_factory=list)
    weights: list[float] = field(default_factory=list)
    speakers: list[str | None] = field(default_factory=list)
    starts: list[int] = field(default_factory=list)

    def add(self, ids: Sequence[int], speaker: str | None = None, weight: float = 0.0) -> None:
        """Write tokens of one speaker and weight."""
        self.ids += ids
        self.weights += [weight] * len(ids)
        self.speakers += [speaker] * len(ids)

    def done(self) -> Rendered:
        """Return what is written."""
        return Rendered(tuple(self.ids), tuple(self.weights), tuple(self.speakers), tuple(self.starts))
