"""The word problems of the pretraining documents, each with the expression that solves it."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

_PROBLEMS = (
    ("What is {a} plus {b}?/Add {a} and {b}./The sum of {a} and {b}./{a} and {b} together?", "{a}+{b}"),
    ("What is {a} minus {b}?/Take {b} from {a}./{a} less {b}?/The difference of {a} and {b}.", "{a}-{b}"),
    ("What is {a} times {b}?/Multiply {a} by {b}./The product of {a} and {b}./{a} by {b}?", "{a}*{b}"),
    ("What is {a} divided by {b}?/Divide {a} by {b}./{a} split in {b} parts?/{a} over {b}?", "{a}/{b}"),
    (
        "{e} has {a} {i} and gets {b} more. How many now?/{a} {i} in one box, {b} in another. All in all?"
        "/{e} made {a} {i} first and {b} later. How many {i}?",
        "{a}+{b}",
    ),
    (
        "{e} had {a} {i} and lost {b}. How many are left?/Of {a} {i}, {b} are gone. How many remain?"
        "/{e} owns {a} {i} and sells {b}. What is left?",
        "{a}-{b}",
    ),
    (
        "{a} boxes with {b} {i} each. How many {i}?/{e} packs {b} {i} in every box and fills {a} boxes. How many?"
        "/Each of {a} people brings {b} {i}. How many {i}?",
        "{a}*{b}",
    ),
    ("{e} shares {a} {i} among {b} people. How many each?/{a} {i} go in {b} equal boxes. How many in one?", "{a}/{b}"),
    (
        "Add {a} and {b}, then times {c}./{e} has {a} red and {b} blue {i}, and {c} times that comes. How many come?",
        "({a}+{b})*{c}",
    ),
    (
        "Multiply {a} by {b}, then add {c}./{a} boxes of {b} {i} and {c} loose ones. How many {i}?",
        "{a}*{b}+{c}",
    ),
    (
        "Multiply {a} by {b}, then take away {c}./{a} boxes of {b} {i}, but {c} broke. How many are whole?",
        "{a}*{b}-{c}",
    ),
    ("Add {a}, {b} and {c}./{a} plus {b} plus {c}?/{e} counts {a}, {b} and {c} {i}. All in all?", "{a}+{b}+{c}"),
    ("Start at {a}, add {b}, take off {c}./{e} had {a} {i}, got {b}, lost {c}. How many now?", "{a}+{b}-{c}"),
    ("Take {b} from {a}, then times {c}./What is {a} minus {b}, all times {c}?", "({a}-{b})*{c}"),
    (
        "{e} keeps {a} {i}; {b} more come in. What is there now?/To {a} {i} come {b}. How many?/{a}, and {b} on "
        "top: how "
        "much?/{b} {i} join {a} others. How many are there?/First {a} {i}, later {b}. In all?",
        "{a}+{b}",
    ),
    (
        "From {a} {i} {e} gives {b} away. What stays?/{b} of the {a} {i} broke. How many are whole?/{a} {i} "
        "less {b}: what "
        "stays?/{e} wants {a} {i} and has {b}. How many lack?/By how much is {a} more than {b}?",
        "{a}-{b}",
    ),
    (
        "In each of {a} rows stand {b} {i}. How many?/{a} days, {b} {i} a day. How many {i}?/{e} buys {a} bags "
        "of {b} {i}. "
        "What is that?/{b} {i} fit in a box; there are {a} boxes./{a} people hold {b} {i} each. How many?",
        "{a}*{b}",
    ),
    (
        "{a} {i} on {b} tables, the same on each. How many on one?/{e} has {a} {i} for {b} friends. How many "
        "for each?/One "
        "of {b} parts of {a}?/{a} {i} in rows of {b}: how many rows?",
        "{a}/{b}",
    ),
    (
        "Big ones {a}, small ones {b} in a bag; {c} bags. How many {i}?/{c} times the sum of {a} and {b}?/{e} "
        "takes {a} "
        "and {b} {i} on each of {c} trips. How many?",
        "({a}+{b})*{c}",
    ),
    (
        "{a} rows of {b} {i}, and {c} besides?/{e} has {c} {i} and buys {a} bags of {b}. How many now?/{c} plus "
        "{a} times "
        "{b}?",
        "{a}*{b}+{c}",
    ),
    (
        "{a} rows of {b} {i}, {c} are missing?/{e} buys {a} bags of {b} {i} and loses {c}. What is left?/{a} "
        "times {b} "
        "less {c}?",
        "{a}*{b}-{c}",
    ),
    (
        "On day one {a}, on day two {b}, on day three {c}: in all?/{e} finds {a}, {b} and then {c} {i}. How many are "
        "that?/Three boxes hold {a}, {b} and {c} {i}. Together?",
        "{a}+{b}+{c}",
    ),
    (
        "Of {a} {i} {b} go and {c} come. How many?/{a} {i}, then {b} less, then {c} more?/{e} sells {b} of {a} "
        "{i} and "
        "makes {c} new ones. How many now?",
        "{a}-{b}+{c}",
    ),
    (
        "{a} {i} are here and {b} are there: the total?/{e} read {a} pages, then {b}. How many pages?/After {a} "
        "{i} come {b} more. Give the sum./{b} new {i} join the {a} old ones. How many?/{e} pays {a} and then {b}. "
        "What is paid?",
        "{a}+{b}",
    ),
    (
        "{e} can hold {a} {i}; {b} are in. How many more fit?/Out of {a} {i} only {b} stay at home. How many went?/{b} "
        "out of {a} {i} were eaten; the rest?/The way is {a} long and {b} are done. How far is it still?/Pay {b} "
        "from {a}: what is left over?",
        "{a}-{b}",
    ),
    (
        "{e} walks {b} a day for {a} days. How far is that?/Each box weighs {b}, and {e} has {a}. What do they "
        "weigh?/One of the {i} costs {b}. What do {a} cost?/{a} teams, {b} people in every team. How many people?/"
        "{a} times over, {b} {i}: the total?",
        "{a}*{b}",
    ),
    (
        "{e} cuts {a} {i} in {b} like parts. How big is a part?/{a} {i} for {b} days: how many a day?/{b} people "
        "pay {a} together. What does one pay?/How many bags of {b} does {e} fill with {a} {i}?/{a} {i}, {b} to a "
        "row. Rows?",
        "{a}/{b}",
    ),
    (
        "{e} had {a} {i}, lost {b}, and sells the rest at {c} each. What comes in?/What stays of {a} after {b} "
        "goes, {c} "
        "times over?",
        "({a}-{b})*{c}",
    ),
)

_ITEMS = "apples books coins cards stones eggs nails cups pens bricks seeds keys lamps tiles boxes".split()


def problem(random: Random, number: Callable[[Random], str], entity: Callable[[Random], str]) -> tuple[str, str]:
    """Return a word problem and the expression that solves it."""
    frames, expression = random.choice(_PROBLEMS)
    values = {"a": number(random), "b": number(random), "c": number(random)}
    text = random.choice(frames.split("/")).format(**values, e=entity(random), i=random.choice(_ITEMS))
    return text, expression.format(**values)
