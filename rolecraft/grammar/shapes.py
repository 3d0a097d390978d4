"""The shapes that tool arguments may have in a grammar: values without references and without open ends."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rolecraft.grammar.patterns import Bound


@dataclass(frozen=True, slots=True)
class Limits:
    """Where a grammar ends what a schema leaves open, so that any reply comes to its end.

    `text`: characters of a text; `items`: of a list, and unlisted keys of an object; `digits`: before a number's point;
    `places`: after it; `depth`: how often a schema may enter itself, and how deep values of any form nest; `calls`: of
    a reply. What a schema itself bounds may be longer.
    """

    text: int = 256
    items: int = 16
    digits: int = 15
    places: int = 9
    depth: int = 3
    calls: int = 8


@dataclass(frozen=True, slots=True)
class Literals:
    """One of some scalars, each as JSON."""

    texts: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Text:
    """A text of so many characters that matches all patterns."""

    least: int
    most: int
    patterns: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Number:
    """A number, both ends of its range given or neither; a multiple of `step` if that is not 0."""

    whole: bool
    low: Bound | None = None
    high: Bound | None = None
    step: int = 0
    places: int = 0


@dataclass(frozen=True, slots=True)
class Items:
    """A list: the shapes of its first items, and of the others (None: there are no others)."""

    first: tuple[int, ...]
    rest: int | None
    least: int
    most: int


@dataclass(frozen=True, slots=True)
class Record:
    """An object: keys in order, each with its shape and whether it must be there; then other keys of shape `rest`.

    The other keys are none of `taken`, and `least` to `most` in number. `some`: without any key there is no object.
    """

    keys: tuple[tuple[str, int, bool], ...]
    rest: int | None = None
    taken: tuple[str, ...] = ()
    least: int = 0
    most: int = 0
    some: bool = False


@dataclass(frozen=True, slots=True)
class Either:
    """Any of some shapes; of none: nothing at all."""

    options: tuple[int, ...] = ()


Shape = Literals | Text | Number | Items | Record | Either
"""Shapes refer to others by their place in an `Arena`, so that what repeats or recurses is held once."""


class Arena:
    """Shapes by number; equal ones have the same."""

    def __init__(self) -> None:
        self.shapes: list[Shape] = []
        self._places: dict[Shape, int] = {}

    def add(self, shape: Shape) -> int:
        """Return the place of `shape`."""
        place = self._places.setdefault(shape, len(self.shapes))
        if place == len(self.shapes):
            self.shapes.append(shape)
        return place

    def either(self, places: Sequence[int]) -> int:
        """Return the place of a shape that admits what any of `places` does; all literals among them are one shape."""
        texts: dict[str, None] = {}
        options: dict[int, None] = {}
        pending = list(reversed(places))
        while pending:
            shape = self.shapes[place := pending.pop()]
            if isinstance(shape, Either):
                pending += reversed(shape.options)
            elif isinstance(shape, Literals):
                texts |= dict.fromkeys(shape.texts)
            else:
                options[place] = None
        joined = [self.add(Literals(tuple(texts)))] if texts else []
        together = (*joined, *options)
        return together[0] if len(together) == 1 else self.add(Either(together))

    def is_empty(self, place: int) -> bool:
        """Tell whether nothing has this shape."""
        return self.shapes[place] == Either()
