"""The arithmetic problems of the family calc: their shapes, their numbers, and the sentences that pose them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from random import Random

from rolecraft.benchmarks.toolworld.asking import Frames, Sentences

THINGS = "apples coins boxes tickets stamps bricks pens cards tiles nails eggs books seeds lamps cups keys".split()


@dataclass(frozen=True, slots=True)
class Shape:
    """A kind of expression: how it is written, its steps, the bounds of its numbers, and its word problems.

    A step is `left sign right`; a letter is a number of the problem, a digit the result of that step.
    """

    expression: str
    steps: tuple[str, ...]
    bounds: Mapping[str, tuple[int, int]]
    frames: Frames


@dataclass(frozen=True, slots=True)
class Step:
    """One operation with its numbers filled in."""

    left: int
    sign: str
    right: int
    result: int


@dataclass(frozen=True, slots=True)
class Problem:
    """A posed problem, the expression that solves it, and its operations in order."""

    question: str
    expression: str
    steps: tuple[Step, ...]

    @property
    def value(self) -> int:
        """The result of the last step."""
        return self.steps[-1].result


_LARGE, _MIDDLE, _SMALL, _TINY = (120, 9999), (100, 999), (12, 99), (3, 9)

SHAPES = (
    Shape(
        "{a}+{b}",
        ("a+b",),
        {"a": _LARGE, "b": _LARGE},
        Frames(
            (
                "What is {a} plus {b}?",
                "Add {a} and {b}.",
                "I need the sum of {a} and {b}.",
                "{entity} has {a} {things} and finds {b} more. How many {things} now?",
                "{entity} sold {a} {things} on Monday and {b} on Tuesday. How many in total?",
                "There are {a} {things} here and {b} there. How many {things} are there?",
            ),
            (
                "To {a} {things} of {entity} another {b} are joined; what do we arrive at?",
                "Put {a} and {b} together: what comes out?",
            ),
            wording="a+b",
        ),
    ),
    Shape(
        "{a}-{b}",
        ("a-b",),
        {"a": _LARGE, "b": _LARGE},
        Frames(
            (
                "What is {a} minus {b}?",
                "Subtract {b} from {a}.",
                "I need {a} less {b}.",
                "{entity} has {a} {things} and gives away {b}. How many are left?",
                "{entity} had {a} {things} and lost {b} of them. How many {things} remain?",
                "Of {a} {things}, {b} are broken. How many are fine?",
            ),
            (
                "Out of {a} {things} that {entity} kept, {b} went missing; what is still there?",
                "Starting with {a}, what remains once {b} is gone?",
            ),
            wording="a-b",
        ),
    ),
    Shape(
        "{a}*{b}",
        ("a*b",),
        {"a": _LARGE, "b": _SMALL},
        Frames(
            (
                "What is {a} times {b}?",
                "Multiply {a} by {b}.",
                "I need the product of {a} and {b}.",
                "There are {a} boxes with {b} {things} each. How many {things} are there?",
                "{entity} makes {a} {things} a day. How many {things} in {b} days?",
                "Each of {a} people brings {b} {things}. How many {things}?",
            ),
            (
                "With {a} shelves holding {b} {things} apiece, what stock of {things} does {entity} own?",
                "If one crate fits {a} {things}, what do {b} crates fit?",
            ),
            wording="a*b",
        ),
    ),
    Shape(
        "{a}/{b}",
        ("a/b",),
        {"a": _LARGE, "b": _SMALL},
        Frames(
            (
                "What is {a} divided by {b}?",
                "Divide {a} by {b}.",
                "{entity} shares {a} {things} among {b} people. How many does each get?",
                "{a} {things} go into {b} equal boxes. How many {things} in one box?",
                "Split {a} {things} in {b} equal parts. How many {things} in each?",
            ),
            (
                "If {b} friends of {entity} part {a} {things} fairly, what is the portion of one?",
                "Spread {a} {things} evenly over {b} shelves: what does a single shelf hold?",
            ),
            wording="a/b",
        ),
    ),
    Shape(
        "{a}*{b}+{c}",
        ("a*b", "1+c"),
        {"a": _MIDDLE, "b": _SMALL, "c": _LARGE},
        Frames(
            (
                "Multiply {a} by {b} and add {c}.",
                "What is {a} times {b} plus {c}?",
                "{entity} has {a} boxes of {b} {things} and {c} loose ones. How many {things}?",
                "There are {a} rows with {b} {things} each and {c} more on the floor. How many {things}?",
                "I bought {a} packs of {b} {things} and got {c} extra. How many {things} do I have?",
            ),
            (
                "{c} {things} lie around, besides {a} crates that fit {b} each; what is the whole?",
                "Besides {a} lots of {b} {things}, {entity} holds {c}; what does that make?",
            ),
            wording="a*b+c",
        ),
    ),
    Shape(
        "{a}*{b}-{c}",
        ("a*b", "1-c"),
        {"a": _MIDDLE, "b": _SMALL, "c": _MIDDLE},
        Frames(
            (
                "Multiply {a} by {b} and subtract {c}.",
                "What is {a} times {b} minus {c}?",
                "{entity} has {a} boxes of {b} {things} but {c} broke. How many {things} are whole?",
                "There were {a} rows with {b} {things} each. {c} {things} were sold. How many are left?",
                "I packed {a} bags with {b} {things} each and lost {c} {things}. How many remain?",
            ),
            (
                "From {a} crates of {b} {things} apiece {entity} threw out {c}; what is still there?",
                "{c} {things} are gone from a stock of {a} lots of {b}; what does that make?",
            ),
            wording="a*b-c",
        ),
    ),
    Shape(
        "{a}+{b}-{c}",
        ("a+b", "1-c"),
        {"a": _LARGE, "b": _LARGE, "c": _LARGE},
        Frames(
            (
                "Add {a} and {b}, then subtract {c}.",
                "What is {a} plus {b} minus {c}?",
                "{entity} has {a} {things}, buys {b} more and loses {c}. How many {things} now?",
                "{a} {things} came first, {b} came later and {c} were sold. How many are left?",
                "I had {a} {things}, found {b} and gave away {c}. How many do I have?",
            ),
            (
                "Of {a} and another {b} {things}, {entity} threw out {c}; what is still there?",
                "Begin with {a}, go up by {b} and down by {c}: where do we end?",
            ),
            wording="a+b-c",
        ),
    ),
    Shape(
        "{a}+{b}+{c}",
        ("a+b", "1+c"),
        {"a": _LARGE, "b": _LARGE, "c": _LARGE},
        Frames(
            (
                "Add {a}, {b} and {c}.",
                "What is {a} plus {b} plus {c}?",
                "{entity} counts {a}, {b} and {c} {things}. How many in total?",
                "Three boxes hold {a}, {b} and {c} {things}. How many {things} in all?",
                "I need the sum of {a}, {b} and {c}.",
            ),
            (
                "Put {a}, {b} and {c} together: what comes out?",
                "On three visits {entity} left {a}, then {b}, then {c} {things}; what has piled up?",
            ),
            wording="a+b+c",
        ),
    ),
    Shape(
        "({a}+{b})*{c}",
        ("a+b", "1*c"),
        {"a": _MIDDLE, "b": _MIDDLE, "c": _SMALL},
        Frames(
            (
                "Add {a} and {b}, then multiply by {c}.",
                "What is the sum of {a} and {b}, times {c}?",
                "Each box holds {a} red and {b} blue {things}. How many {things} in {c} boxes?",
                "{entity} makes {a} {things} in the morning and {b} at night. How many in {c} days?",
            ),
            (
                "A crate fits {a} large {things} next to {b} little ones; what do {c} crates fit?",
                "Put {a} and {b} together and take that {c} times: what comes out?",
            ),
            wording="(a+b)*c",
        ),
    ),
    Shape(
        "({a}-{b})*{c}",
        ("a-b", "1*c"),
        {"a": _MIDDLE, "b": _MIDDLE, "c": _SMALL},
        Frames(
            (
                "Subtract {b} from {a}, then multiply by {c}.",
                "What is {a} minus {b}, all times {c}?",
                "Each box has {a} {things}, but {b} of them are broken. How many good {things} in {c} boxes?",
                "{entity} gets {a} {things} a day and uses {b}. How many are kept in {c} days?",
            ),
            (
                "Every crate of {a} {things} comes {b} short; what do {c} crates fit?",
                "Once {b} is gone from {a}, take the rest {c} times: what comes out?",
            ),
            wording="(a-b)*c",
        ),
    ),
    Shape(
        "{a}*{b}+{c}*{d}",
        ("a*b", "c*d", "1+2"),
        {"a": _MIDDLE, "b": _SMALL, "c": _MIDDLE, "d": _SMALL},
        Frames(
            (
                "What is {a} times {b} plus {c} times {d}?",
                "{entity} has {a} boxes of {b} {things} and {c} boxes of {d} {things}. How many {things}?",
                "There are {a} rows of {b} {things} and {c} rows of {d}. How many {things} in total?",
                "I bought {a} packs of {b} {things} and {c} packs of {d}. How many {things} is that?",
            ),
            (
                "Besides {a} crates that fit {b} {things} apiece, {entity} owns {c} that fit {d}; what is the whole?",
                "{a} lots of {b} {things} go with {c} lots of {d}; what does that make?",
            ),
            wording="a*b+c*d",
        ),
    ),
    Shape(
        "{a}*{b}*{c}",
        ("a*b", "1*c"),
        {"a": _MIDDLE, "b": _SMALL, "c": _TINY},
        Frames(
            (
                "Multiply {a}, {b} and {c}.",
                "What is {a} times {b} times {c}?",
                "{entity} has {a} shops with {b} shelves of {c} {things}. How many {things}?",
                "{a} people buy {b} packs with {c} {things} each. How many {things}?",
            ),
            (
                "On {c} floors {entity} keeps {b} crates that fit {a} {things} apiece; what is the whole?",
                "Take {a} by {b} by {c}: what comes out?",
            ),
            wording="a*b*c",
        ),
    ),
)

SYMBOLIC = Frames(
    (
        "What is {x}?",
        "Compute {x}.",
        "{x}",
        "{x} = ?",
        "Please work out {x}.",
        "How much is {x}?",
        "I need the result of {x}.",
        "Calculate {x} for me.",
    ),
    (
        "Evaluate the following: {x}",
        "Which number does {x} come to?",
        "The sum on my sheet reads {x}; please solve it.",
    ),
    wording="symbolic",
)
"""Frames that show the expression itself."""

_SYMBOLIC_SHARE = 0.25
_SIGNS = ("{}", " {} ")


def draw(random: Random, entity: str, sentences: Sentences) -> Problem:
    """Return a problem whose intermediate results are whole and positive."""
    shape = random.choice(SHAPES)
    numbers, steps = _solvable(random, shape)
    expression = shape.expression.format(**numbers)
    if random.random() < _SYMBOLIC_SHARE:
        question = SYMBOLIC.pick(random, sentences).format(x=_spaced(random, expression))
    else:
        frame = shape.frames.pick(random, sentences)
        question = frame.format(**numbers, entity=entity, things=random.choice(THINGS))
    return Problem(question, expression, steps)


def _solvable(random: Random, shape: Shape) -> tuple[dict[str, int], tuple[Step, ...]]:
    while True:
        numbers = {name: random.randint(*bounds) for name, bounds in shape.bounds.items()}
        if shape.steps == ("a/b",):
            numbers["a"] -= numbers["a"] % numbers["b"]
        steps = _solve(shape, numbers)
        if all(step.result > 1 for step in steps):
            return numbers, steps


def _solve(shape: Shape, numbers: Mapping[str, int]) -> tuple[Step, ...]:
    known: dict[str, int] = dict(numbers)
    solved = []
    for place, (left, sign, right) in enumerate(map(tuple, shape.steps), start=1):
        a, b = known[left], known[right]
        result = {"+": a + b, "-": a - b, "*": a * b, "/": a // b}[sign]
        known[str(place)] = result
        solved.append(Step(a, sign, b, result))
    return tuple(solved)


def _spaced(random: Random, expression: str) -> str:
    """Write the signs with or without spaces; a cross may stand for times."""
    space = random.choice(_SIGNS)
    times = random.choice("**x")
    return "".join(space.format(times if c == "*" else c) if c in "+-*/" else c for c in expression)
