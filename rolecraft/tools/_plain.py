"""Turns what Python holds into what JSON can: records into objects, sets into lists, dates and paths into text."""

from __future__ import annotations

import dataclasses
import datetime
import decimal
import enum
import pathlib
import uuid
from collections.abc import Mapping, Set
from typing import Any

_TEXTS = (decimal.Decimal, uuid.UUID, pathlib.PurePath)
_TIMES = (datetime.date, datetime.time)


def word(member: enum.Enum) -> str:
    """Return the text that stands for a member: its value where all members' values are texts, else its name."""
    return str(member.value) if all(isinstance(other.value, str) for other in type(member)) else str(member.name)


def plain(value: Any) -> Any:
    """Return `value` as JSON's objects, lists, texts and numbers; what is none of those stays as it is."""
    if isinstance(value, enum.Enum):
        return word(value)
    if value is None or isinstance(value, str | int | float):
        return value
    if isinstance(value, _TIMES):
        return value.isoformat()
    if isinstance(value, _TEXTS):
        return str(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, tuple) and hasattr(value, "_asdict"):
        return {key: plain(item) for key, item in value._asdict().items()}
    if hasattr(value, "model_dump") and hasattr(type(value), "model_json_schema"):  # a pydantic model
        return value.model_dump(mode="json")
    if isinstance(value, Mapping):
        return {plain(key): plain(item) for key, item in value.items()}
    return [plain(item) for item in value] if isinstance(value, list | tuple | Set) else value
