"""Restores the type of a value that a source wrote as text, by rule and for values and schemas alike."""

from __future__ import annotations

import datetime
import re
from collections.abc import Sequence

from rolecraft.errors import DataError
from rolecraft.types import Json

Kind = str
"""`string`, `integer`, `number`, `boolean`, `date` or `time`."""

_WORDS = "zero one two three four five six seven eight nine ten eleven twelve".split()
_TRUTH = {"true": True, "false": False}
_LONGEST = 24  # digits; longer ones are no quantity, and Python refuses to read thousands of them
_TOLD = {"date": "YYYY-MM-DD", "time": "HH:MM, 24 hours"}


def typed(kind: Kind, text: str, where: str) -> Json:
    """Return the value that `text` writes; raises DataError where it is none of that kind."""
    if not isinstance(text, str):
        raise DataError(f"{where}: the value is {type(text).__name__}; it must be text")
    plain = text.strip()
    if kind == "string":
        return text
    found: Json = None
    if kind == "boolean":
        found = _TRUTH.get(plain.lower())
    elif kind in ("integer", "number") and len(plain) <= _LONGEST:
        found = _number(plain, whole=kind == "integer")
    elif kind == "date":
        found = _date(plain)
    elif kind == "time":
        found = plain if re.fullmatch(r"([01]\d|2[0-3]):[0-5]\d", plain) else None
    if found is None:
        raise DataError(f"{where}: {plain[:40]!r} is no {kind}; mend the value")
    return found


def schema(kind: Kind, description: str, choices: Sequence[str] = ()) -> dict[str, Json]:
    """Return the JSON Schema of a kind; of dates and times the form is also told in words, which every model reads."""
    if kind in _TOLD:
        return {"type": "string", "format": kind, "description": f"{description} ({_TOLD[kind]})".strip()}
    found: dict[str, Json] = {"type": kind, "description": description}
    if choices and kind != "boolean":
        found["enum"] = [typed(kind, choice, "possible values") for choice in choices]
    return found


def kind_of_choices(choices: Sequence[str]) -> Kind:
    """Return the kind that all of a slot's possible values have."""
    if {choice.lower() for choice in choices} <= _TRUTH.keys():
        return "boolean"
    return "integer" if all(re.fullmatch(r"-?\d{1,9}", choice) for choice in choices) else "string"


def weekday(date: str) -> str:
    """Return the name of a date's day of the week."""
    return datetime.date.fromisoformat(date).strftime("%A")


def _number(text: str, *, whole: bool) -> int | float | None:
    if text.lower() in _WORDS:
        return _WORDS.index(text.lower())
    if re.fullmatch(r"-?\d+", text):
        return int(text)
    return float(text) if not whole and re.fullmatch(r"-?\d+\.\d+", text) else None


def _date(text: str) -> str | None:
    try:
        return datetime.date.fromisoformat(text).isoformat() if re.fullmatch(r"\d{4}-\d\d-\d\d", text) else None
    except ValueError:
        return None
