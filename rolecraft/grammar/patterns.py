"""Bounded numbers and patterned strings as regular expressions, in the dialect of grammars.

Not covered: patterns that no automaton keeps, such as those that look ahead; `fault` tells them.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal
from functools import lru_cache
from typing import Any

import llguidance

from rolecraft.schemas import expressions

ESCAPES = 'nrbtf\\"'
"""What may follow a backslash in a string: the escapes that `json.dumps` writes, so that a text has one spelling."""

MOST_TEXT = 4096
"""No text that a grammar writes is longer, in characters."""

SHORT_TEXT = 64
"""Characters within which a pattern is tried; where longer texts are too hard to follow, texts end here."""

_MOST_CHARACTERS = 400
_FUEL = 200_000  # some milliseconds of work on one pattern

_BEYOND_ASCII = re.compile(r"\\[WD]|\[\^[^\]]*\\[wd]")


@dataclass(frozen=True, slots=True)
class Bound:
    """An end of a range; `open` leaves the value itself out."""

    value: Decimal
    open: bool = False


def integers(low: int, high: int) -> str:
    """Return an expression for the integers from `low` to `high`, both included; `low <= high`."""
    parts = []
    if low < 0:
        parts.append("-" + _naturals(max(1, -high), -low))
    if high >= 0:
        parts.append(_naturals(max(0, low), high))
    return _either(parts)


def decimals(low: Bound, high: Bound, places: int) -> str | None:
    """Return an expression for the numbers in a range with at most `places` decimals; None if there are none."""
    parts: list[str] = []
    if low.value < 0:
        nearest = Bound(-high.value, high.open) if high.value < 0 else Bound(Decimal(0), open=True)
        negative = _unsigned(nearest, Bound(-low.value, low.open), places)
        parts += ["-" + negative] if negative else []
    if high.value >= 0:
        positive = _unsigned(low if low.value >= 0 else Bound(Decimal(0)), high, places)
        parts += [positive] if positive else []
    return _either(parts) if parts else None


def fault(pattern: str) -> str | None:
    """Return why a JSON Schema `pattern` cannot stand in a grammar, or None; bounded in time and memory."""
    if len(pattern) > _MOST_CHARACTERS:
        return f"is longer than {_MOST_CHARACTERS} characters"
    return _fault(pattern)


def matching(least: int, most: int, chosen: tuple[str, ...]) -> bool | str:
    """Tell whether any text of `least` to `most` characters matches all `chosen` patterns, none of which has a fault.

    Where that would take too long to find out, the answer is the reason in words.
    """
    limits = llguidance.LLParserLimits(initial_lexer_fuel=_FUEL, verbose_errors=False)
    grammar = llguidance.LLMatcher.grammar_from_json_schema(string_schema(least, most, chosen))
    error = llguidance.LLMatcher.validate_grammar(grammar, limits=limits).partition("\n")[0]
    return not error if not error or error.startswith("Unsatisfiable") else f"is too hard to follow ({error[:120]})"


def string_schema(least: int, most: int, chosen: tuple[str, ...]) -> dict[str, Any]:
    """Return the schema of a text, for the grammar's engine."""
    wanted = [expressions.read(pattern).text for pattern in chosen]
    if any(map(_BEYOND_ASCII.search, chosen)):
        # A letter beyond ASCII is none to ECMA-262 and one to Python, in which many a tool is written: none is written.
        wanted.append(r"\A[\x00-\x7f]*\z")
    return {
        "type": "string",
        "minLength": least,
        "maxLength": most,
        "allOf": [{"type": "string", "pattern": pattern} for pattern in wanted],
        "x-guidance": {"whitespace_flexible": False, "json_allowed_escapes": ESCAPES},
    }


@lru_cache(maxsize=512)
def _fault(pattern: str) -> str | None:
    try:
        beyond = expressions.read(pattern).beyond
    except expressions.Malformed as error:
        return str(error)
    if beyond:
        return f"has {beyond[0]}"
    answer = matching(0, SHORT_TEXT, (pattern,))
    return answer if isinstance(answer, str) else None


def _either(parts: list[str]) -> str:
    return parts[0] if len(parts) == 1 else f"({'|'.join(parts)})"


def _naturals(low: int, high: int) -> str:
    parts = []
    for length in range(len(str(low)), len(str(high)) + 1):
        first = 0 if length == 1 else 10 ** (length - 1)
        parts.append(_between(str(max(low, first)), str(min(high, 10**length - 1))))
    return _either(parts)


def _between(low: str, high: str) -> str:
    """Return an expression for the digits from `low` to `high`, which are equally long."""
    if low == high:
        return low
    if low[0] == high[0]:
        return low[0] + _between(low[1:], high[1:])
    rest = len(low) - 1
    first, last = int(low[0]), int(high[0])
    parts = []
    if low[1:].strip("0"):
        parts.append(low[0] + _between(low[1:], "9" * rest))
        first += 1
    if high[1:].strip("9"):
        parts.append(high[0] + _between("0" * rest, high[1:]))
        last -= 1
    if first <= last:
        parts.append(_digit(first, last) + _digits(rest, rest))
    return _either(parts)


def _digit(low: int, high: int) -> str:
    return str(low) if low == high else f"[{low}-{high}]"


def _digits(least: int, most: int) -> str:
    return f"[0-9]{{{least},{most}}}" if most else ""


def _unsigned(low: Bound, high: Bound, places: int) -> str | None:
    """Return an expression for the numbers from `low`, at least 0, to `high`; None if there are none."""
    scale = 10**places
    first = int((low.value * scale).to_integral_value(ROUND_CEILING))
    last = int((high.value * scale).to_integral_value(ROUND_FLOOR))
    # a rounded bound lies within the range, an exact one perhaps does not
    first += low.open and first == low.value * scale
    last -= high.open and last == high.value * scale
    if first > last:
        return None
    (least, after), (most, before) = divmod(first, scale), divmod(last, scale)
    low_digits, high_digits = str(after).zfill(places)[:places], str(before).zfill(places)[:places]
    if least == most:
        return str(least) + _point(_fraction(low_digits, high_digits, places))
    parts = [
        str(least) + _point(_fraction(low_digits, None, places)),
        str(most) + _point(_fraction(None, high_digits, places)),
    ]
    if most - least > 1:
        parts.append(_naturals(least + 1, most - 1) + _point(_fraction(None, None, places)))
    return _either(parts)


Fraction = tuple[bool, str]
"""Whether nothing may stand there, and an expression for the digits that may ('': none)."""


def _fraction(low: str | None, high: str | None, places: int) -> Fraction:
    """Return what may follow a point for the value to lie between the digits `low` and `high` (None: no bound)."""
    nothing = not (low or "").strip("0")
    if not places:
        return nothing, ""
    if low is None and high is None:
        return True, _digits(1, places)
    first = int(low[0]) if low else -1
    last = int(high[0]) if high else 10
    inner = places - 1
    if low and high and first == last:
        return nothing, low[0] + _more(_fraction(low[1:], high[1:], inner))
    parts = []
    if low:
        parts.append(low[0] + _more(_fraction(low[1:], None, inner)))
    if last - first > 1:
        parts.append(_digit(first + 1, last - 1) + _digits(0, inner))
    if high:
        parts.append(high[0] + _more(_fraction(None, high[1:], inner)))
    return nothing, _either(parts)


def _more(fraction: Fraction) -> str:
    nothing, digits = fraction
    return f"({digits})?" if nothing and digits else digits


def _point(fraction: Fraction) -> str:
    nothing, digits = fraction
    return f"(\\.{digits})?" if nothing and digits else f"\\.{digits}" if digits else ""
