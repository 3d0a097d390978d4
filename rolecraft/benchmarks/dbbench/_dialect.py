"""MySQL's dialect on SQLite, as far as questions to small tables use it: statements rewritten, functions registered.

The file is run by itself inside the database's process: standard library only. Not covered: MySQL's rules for ordering
and comparing texts as numbers beyond `column > 5`, its dates beyond reading and taking them apart, and its errors.
"""

from __future__ import annotations

import datetime
import math
import re
import sqlite3
import unicodedata
from collections.abc import Callable
from typing import Any

_TOKEN = re.compile(
    r"""
    (?P<text>'(?:[^'\\]|\\.|'')*+'?|"(?:[^"\\]|\\.|"")*+"?)
    |(?P<quoted>`[^`]*+`?)
    |(?P<comment>--[^\n]*+|\#[^\n]*+|/\*.*?(?:\*/|\Z))
    |(?P<odd>\d+[A-Za-z_]\w*+)
    |(?P<number>\d+(?:\.\d+)?)
    |(?P<word>[^\W\d]\w*+)
    |(?P<compare><=>|<=|>=|<>|!=|<|>)
    |(?P<both>&&|\|\|)
    |(?P<space>\s++)
    |(?P<other>.)
    """,
    re.VERBOSE | re.DOTALL,
)
_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "0": "\0", "b": "\b", "Z": "\x1a"}
_TYPES = {"signed": "INTEGER", "unsigned": "INTEGER", "decimal": "REAL", "double": "REAL", "char": "TEXT"}
_FORMATS = dict(
    zip("YmdMbyHiseWacjphT", "%Y %m %d %B %b %y %H %M %S %d %A %a %m %j %p %I %H:%M:%S".split(), strict=True)
)
_DATES = ("%Y-%m-%d", "%Y-%m-%d %H:%M:%S", "%Y/%m/%d", "%Y%m%d", "%y-%m-%d")
_LONGEST = 1_000_000
_SHOW = re.compile(
    r"\s*show\s+(?:full\s+)?(tables|columns|fields)\b(?:\s+(?:from|in)\s+(.+?))?\s*;?\s*", re.I | re.DOTALL
)
_DESCRIBE = re.compile(r"\s*(?:describe|desc|explain)\s+((?!select\b).+?)\s*;?\s*", re.I | re.DOTALL)


def rewritten(statement: str) -> str:
    """Return a statement of MySQL as SQLite reads it; what is not known is left as it stands.

    Texts in either kind of quotes, their backslashes resolved; names that begin with a digit; `column > 5`, by number;
    division of whole numbers, into a fraction; `&&` and `||`; the types of CAST; SHOW and DESCRIBE.
    """
    if show := _SHOW.fullmatch(statement):
        return _columns(show[2]) if show[2] else "SELECT name FROM sqlite_master WHERE type = 'table'"
    if described := _DESCRIBE.fullmatch(statement):
        return _columns(described[1])
    tokens = [(match.lastgroup or "other", match[0]) for match in _TOKEN.finditer(statement)]
    tokens = [_plain(kind, text) for kind, text in tokens if kind != "comment"]
    return "".join(_by_number(tokens))


def register(connection: sqlite3.Connection) -> None:
    """Add MySQL's functions, and its collation as `mysql`, under which accents and upper case do not matter."""
    connection.create_collation("mysql", _compare)
    for name, places, function in _FUNCTIONS:
        connection.create_function(name, places, _tolerant(function), deterministic=True)


def collated(text: str) -> str:
    """Return a text without its accents and its case, as MySQL's usual collation compares it."""
    apart = unicodedata.normalize("NFD", text)
    return "".join(one for one in apart if not unicodedata.combining(one)).casefold().rstrip(" ")


# ---- statements


def _columns(table: str) -> str:
    name = table.strip().strip("`'\"").replace("'", "''")
    return f"SELECT name, type FROM pragma_table_info('{name}')"


def _plain(kind: str, text: str) -> tuple[str, str]:
    """Return a token as SQLite writes it."""
    if kind == "text":
        return kind, _literal(text)
    if kind == "odd" and not re.fullmatch(r"0[xX][0-9a-fA-F]+|\d+[eE]\d+", text):
        return "word", f"`{text}`"
    if kind == "both":
        return kind, " AND " if text == "&&" else " OR "
    if kind == "other" and text == "/":
        return kind, "*1.0/"
    if kind == "word" and text.lower() == "rlike":
        return kind, "REGEXP"
    return kind, text


def _literal(text: str) -> str:
    quote = text[0]
    body = text[1:-1] if len(text) > 1 and text.endswith(quote) else text[1:]
    body = body.replace(quote * 2, quote)
    body = re.sub(r"\\(.)", lambda match: _ESCAPES.get(match[1], match[1]), body, flags=re.DOTALL)
    return "'" + body.replace("'", "''") + "'"


def _by_number(tokens: list[tuple[str, str]]) -> list[str]:
    """Return the tokens' texts; a column that is compared to a number is read as one, and CAST's types are SQLite's."""
    texts = [text for _, text in tokens]
    solid = [place for place, (kind, _) in enumerate(tokens) if kind != "space"]
    for before, at, after in zip(solid, solid[1:], solid[2:], strict=False):
        kinds = tokens[before][0], tokens[at][0], tokens[after][0]
        if kinds[1] == "compare" and kinds[0] in ("word", "quoted") and kinds[2] == "number":
            texts[before] = f"({texts[before]}+0)"
        if texts[at].lower() in ("left", "right") and texts[after] == "(":
            texts[at] = f'"{texts[at]}"'  # bare, it begins a join
        if texts[before].lower() == "as" and texts[at].lower() in _TYPES and texts[after] in "()":
            texts[at] = _TYPES[texts[at].lower()]
            if texts[after] == "(":
                _drop(texts, after)
    return texts


def _drop(texts: list[str], start: int) -> None:
    """Empty the parenthesis that opens at `start`: the digits of a type."""
    for place in range(start, len(texts)):
        closed, texts[place] = texts[place] == ")", ""
        if closed:
            return


# ---- functions


def _compare(one: str, other: str) -> int:
    first, second = collated(one), collated(other)
    return (first > second) - (first < second)


def _tolerant(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return NULL, as MySQL does, for NULL and for what the function cannot take; bound what it makes."""

    def answer(*values: Any) -> Any:
        try:
            found = function(*values)
        except (TypeError, ValueError, OverflowError, ZeroDivisionError, IndexError, re.error):
            return None
        return found[:_LONGEST] if isinstance(found, str) else found

    return answer


def _text(value: Any) -> str:
    if value is None:
        raise ValueError("NULL")
    return str(value)


def _number(value: Any) -> float:
    """Return the number that a value begins with, 0 where it begins with none, as MySQL reads a text."""
    match = re.match(r"\s*[-+]?\d{1,300}(?:\.\d{1,300})?", _text(value))
    return float(match[0]) if match else 0.0


def _whole(value: float, digits: Any = 0) -> float | int:
    places = max(-30, min(30, int(_number(digits))))
    scaled = math.trunc(value * 10**places) / 10**places
    return int(scaled) if places <= 0 else scaled


def _part(text: Any, separator: Any, count: Any) -> str:
    pieces, wanted = _text(text).split(_text(separator)), int(_number(count))
    return _text(separator).join(pieces[:wanted] if wanted >= 0 else pieces[wanted:])


def _date(text: Any, form: Any = None) -> datetime.datetime:
    forms = _DATES if form is None else (_form(form),)
    for one in forms:
        try:
            return datetime.datetime.strptime(_text(text).strip()[:64], one)
        except ValueError:
            continue
    raise ValueError("no date")


def _written(text: Any, form: Any) -> str:
    return _date(text).strftime(_form(form))


def _form(form: Any) -> str:
    """Return a form of MySQL's for dates as Python has it."""
    return re.sub(r"%(.)", lambda match: _FORMATS.get(match[1], match[0]), _text(form)[:64])


def _read(text: Any, form: Any) -> str:
    return _date(text, form).strftime("%Y-%m-%d")


def _padded(text: Any, width: Any, fill: Any, *, left: bool) -> str:
    found, size, piece = _text(text), min(_LONGEST, int(_number(width))), _text(fill)
    missing = size - len(found)
    added = (piece * (missing // max(1, len(piece)) + 1))[: max(0, missing)]
    return (added + found if left else found + added)[:size]


_FUNCTIONS: tuple[tuple[str, int, Callable[..., Any]], ...] = (
    ("concat", -1, lambda *texts: "".join(map(_text, texts))),
    ("concat_ws", -1, lambda mark, *texts: _text(mark).join(str(text) for text in texts if text is not None)),
    ("if", 3, lambda condition, yes, no: yes if condition else no),
    ("regexp", 2, lambda pattern, text: int(re.search(_text(pattern)[:200], _text(text)[:2000], re.I) is not None)),
    ("substring_index", 3, _part),
    ("left", 2, lambda text, count: _text(text)[: max(0, int(_number(count)))]),
    ("right", 2, lambda text, count: _text(text)[-int(_number(count)) :] if _number(count) > 0 else ""),
    ("locate", 2, lambda piece, text: collated(_text(text)).find(collated(_text(piece))) + 1),
    (
        "find_in_set",
        2,
        lambda one, many: (_text(many).split(",").index(_text(one)) + 1) if _text(one) in _text(many).split(",") else 0,
    ),
    ("field", -1, lambda one, *many: many.index(one) + 1 if one in many else 0),
    ("char_length", 1, lambda text: len(_text(text))),
    ("ucase", 1, lambda text: _text(text).upper()),
    ("lcase", 1, lambda text: _text(text).lower()),
    ("reverse", 1, lambda text: _text(text)[::-1]),
    ("lpad", 3, lambda text, width, fill: _padded(text, width, fill, left=True)),
    ("rpad", 3, lambda text, width, fill: _padded(text, width, fill, left=False)),
    ("isnull", 1, lambda value: int(value is None)),
    ("greatest", -1, lambda *values: max(values)),
    ("least", -1, lambda *values: min(values)),
    ("truncate", 2, lambda value, digits: _whole(_number(value), digits)),
    ("ceiling", 1, lambda value: math.ceil(_number(value))),
    ("pow", 2, lambda base, exponent: _number(base) ** _number(exponent)),
    ("year", 1, lambda text: _date(text).year),
    ("month", 1, lambda text: _date(text).month),
    ("day", 1, lambda text: _date(text).day),
    ("str_to_date", 2, _read),
    ("date_format", 2, _written),
    ("datediff", 2, lambda one, other: (_date(one) - _date(other)).days),
)
