"""What the parts of a JSON Schema, to be fitted all at once, say together about one value."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal

from rolecraft.grammar.patterns import Bound
from rolecraft.types import Json

KINDS = frozenset("null boolean integer real string array object".split())
"""Kinds of values; JSON Schema's `number` is `integer` or `real`."""

CONTAINERS = frozenset(("array", "object"))

_NUMERIC = ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf")
KEYWORDS: Mapping[str, tuple[str, ...]] = {
    "string": ("minLength", "maxLength", "pattern"),
    "integer": _NUMERIC,
    "real": _NUMERIC,
    "array": ("items", "prefixItems", "minItems", "maxItems", "uniqueItems"),
    "object": ("properties", "additionalProperties", "required", "minProperties", "maxProperties"),
}
"""The keywords that constrain a kind of value and no other."""

_MOST_DIGITS = 300


@dataclass(frozen=True, slots=True)
class Part:
    """A schema at its path, which tells it apart; `seen` are the references followed to come here."""

    schema: Json = field(compare=False)
    where: str
    seen: tuple[str, ...] = ()

    def step(self, schema: Json, name: str) -> Part:
        """Return what stands below, under `name`."""
        return replace(self, schema=schema, where=self.where + name)


Parts = tuple[Part, ...]


def path_step(key: str) -> str:
    """Return how a key reads in a path; different paths never read alike."""
    return f".{key}" if re.fullmatch(r"[\w$-]+", key) else f"[{key!r}]"


def named_kinds(parts: Parts) -> frozenset[str] | None:
    """Return the kinds of value that all `type` keywords allow; None if there is none."""
    named: frozenset[str] | None = None
    for part in parts:
        if "type" in part.schema:
            told = part.schema["type"]
            kinds = frozenset(k for name in ([told] if isinstance(told, str) else told) for k in _kinds_of(name))
            named = kinds if named is None else named & kinds
    return named


def implied_kinds(parts: Parts) -> frozenset[str] | None:
    """Return the kinds of value that the other keywords are about; None if they are about none."""
    kinds = frozenset(
        kind for kind, keywords in KEYWORDS.items() for part in parts if any(map(part.schema.__contains__, keywords))
    )
    return kinds or None


def kind_of(value: Json) -> str:
    """Return the kind of a value; 2.0 is an integer, as in JSON Schema."""
    if value is None or isinstance(value, bool):
        return "null" if value is None else "boolean"
    if isinstance(value, int | float):
        return "integer" if float(value).is_integer() else "real"
    return "string" if isinstance(value, str) else "object" if isinstance(value, Mapping) else "array"


def literals(parts: Parts) -> list[Json] | None:
    """Return the values that every `enum` and `const` has; None if there is none."""
    found: dict[str, Json] | None = None
    for part in parts:
        for keyword in ("enum", "const"):
            if keyword in part.schema:
                told = part.schema[keyword]
                values = {_text(value): value for value in (told if keyword == "enum" else [told])}
                found = values if found is None else {text: v for text, v in found.items() if text in values}
    return None if found is None else list(found.values())


def writable(value: Json, depth: int = 1) -> bool:
    """Tell whether a reply could hold a literal: not half a surrogate pair, endless digits or what nests deeper."""
    if isinstance(value, int):
        return bool(-(10**_MOST_DIGITS) < value < 10**_MOST_DIGITS)
    if isinstance(value, str):
        return not any("\ud800" <= character <= "\udfff" for character in value)
    inner = [*value, *value.values()] if isinstance(value, Mapping) else value
    return not isinstance(inner, list | tuple) or (depth > 0 and all(writable(item, depth - 1) for item in inner))


def counts(parts: Parts, of: str, usual: int, cap: int) -> tuple[int, int]:
    """Return the least and the most that `min...` and `max...` of `Length`, `Items` or `Properties` allow.

    Where nothing bounds the most it is `usual`, or the least if that is more; it is never more than `cap`.
    """
    least = max((int(part.schema.get(f"min{of}", 0)) for part in parts), default=0)
    told = [int(part.schema[f"max{of}"]) for part in parts if f"max{of}" in part.schema]
    return least, min(cap, min(told, default=max(usual, least)))


def bounds(parts: Parts) -> tuple[Bound | None, Bound | None]:
    """Return the ends of the range that the numeric keywords allow; None where there is no end."""
    lows, highs = _ends(parts, "minimum", "exclusiveMinimum"), _ends(parts, "maximum", "exclusiveMaximum")
    low = max(lows, key=lambda bound: (bound.value, bound.open), default=None)
    high = min(highs, key=lambda bound: (bound.value, not bound.open), default=None)
    return low, high


def within(value: Decimal, low: Bound | None, high: Bound | None) -> bool:
    """Tell whether a number lies in a range."""
    if low is not None and (value < low.value or (value == low.value and low.open)):
        return False
    return high is None or value < high.value or (value == high.value and not high.open)


def whole(low: Bound, high: Bound, step: int) -> tuple[int, int] | None:
    """Return the first and the last integer of a range that `step` divides (0: any); None if there is none."""
    step = step or 1
    first = int((low.value / step).to_integral_value(ROUND_CEILING)) * step
    last = int((high.value / step).to_integral_value(ROUND_FLOOR)) * step
    first += step if low.open and first == low.value else 0
    last -= step if high.open and last == high.value else 0
    return (first, last) if first <= last else None


def apart(one: Parts, other: Parts) -> bool:
    """Tell whether it is certain that no value fits both: by kind, by value, or by a key that tells objects apart."""
    values = literals(one), literals(other)
    if values[0] is not None and values[1] is not None:
        return not any(a == b for a in values[0] for b in values[1])
    kinds = _sure_kinds(one), _sure_kinds(other)
    if kinds[0] is None or kinds[1] is None:
        return False
    if kinds[0].isdisjoint(kinds[1]):
        return True
    return kinds[0] == kinds[1] == {"object"} and (_told_apart(one, other) or _told_apart(other, one))


def required(parts: Parts) -> dict[str, None]:
    """Return the keys that must be there, in order."""
    return {key: None for part in parts for key in part.schema.get("required", ())}


def listed(parts: Parts) -> dict[str, None]:
    """Return the keys that are described, in order."""
    return {key: None for part in parts for key in part.schema.get("properties", ())}


def about(parts: Parts, key: str) -> Parts:
    """Return what the parts say of the value of `key`."""
    found = []
    for part in parts:
        if key in part.schema.get("properties", ()):
            found.append(part.step(part.schema["properties"][key], f".properties{path_step(key)}"))
        elif "additionalProperties" in part.schema:
            found.append(part.step(part.schema["additionalProperties"], ".additionalProperties"))
    return tuple(found)


def others(parts: Parts) -> Parts:
    """Return what the parts say of the values of keys that none of them lists."""
    told = [part for part in parts if "additionalProperties" in part.schema]
    return tuple(part.step(part.schema["additionalProperties"], ".additionalProperties") for part in told)


def item(parts: Parts, place: int) -> Parts:
    """Return what the parts say of a list's item."""
    found = []
    for part in parts:
        first = part.schema.get("prefixItems", ())
        if place < len(first):
            found.append(part.step(first[place], f".prefixItems[{place}]"))
        elif "items" in part.schema:
            found.append(part.step(part.schema["items"], ".items"))
    return tuple(found)


def few_items(schema: Mapping[str, Json]) -> bool:
    """Tell whether a list of the schema has at most one item."""
    return bool(schema.get("maxItems", 2) < 2)


def beyond_count(parts: Parts, of: str, cap: int) -> list[str]:
    """Return in words where `min...` of `of`, as in `counts`, is more than `cap` and no `max...` forbids that."""
    least, most = counts(parts, of, 0, sys.maxsize)
    if not cap < least <= most:
        return []
    part = max(parts, key=lambda one: int(one.schema.get(f"min{of}", 0)))
    return [f"{part.where}.min{of} is {least}, and the most is {cap}"]


def beyond_bounds(parts: Parts, most: Decimal) -> list[str]:
    """Return in words which ends of a range, possible together, leave only numbers beyond `most`."""
    low, high = bounds(parts)
    if low and high and low.value > high.value:
        return []
    found = []
    for bound, names, is_beyond in (
        (low, ("minimum", "exclusiveMinimum"), low is not None and low.value > most),
        (high, ("maximum", "exclusiveMaximum"), high is not None and high.value < -most),
    ):
        told = [(part, name) for part in parts for name in names if name in part.schema and is_beyond]
        found += [
            f"{part.where}.{name} is {part.schema[name]:.6g}, and numbers have at most {most.adjusted()} digits"
            for part, name in told
            if bound is not None and Decimal(str(part.schema[name])) == bound.value
        ]
    return found


def beyond_key(parts: Parts, key: str, longest: int) -> list[str]:
    """Return in words where a required key is too long."""
    whose = next((part for part in parts if key in part.schema.get("required", ())), None)
    if whose is None or len(key) <= longest:
        return []
    return [f"{whose.where}.required has a key of {len(key)} characters ({key[:20]!r} ...), and the most is {longest}"]


def _kinds_of(name: str) -> tuple[str, ...]:
    return ("integer", "real") if name == "number" else (name,)


def _text(value: Json) -> str:
    return json.dumps(value, sort_keys=True)


def _ends(parts: Parts, included: str, excluded: str) -> list[Bound]:
    found: Iterable[tuple[Json, bool]] = (
        (part.schema[keyword], keyword == excluded)
        for part in parts
        for keyword in (included, excluded)
        if keyword in part.schema
    )
    return [Bound(Decimal(str(value)), is_open) for value, is_open in found]


def _sure_kinds(parts: Parts) -> frozenset[str] | None:
    values = literals(parts)
    return named_kinds(parts) if values is None else frozenset(map(kind_of, values))


def _told_apart(one: Parts, other: Parts) -> bool:
    """Tell whether a key that `one` requires has other values in `other`, or may not be there."""
    for key in required(one):
        if any(part.schema.get("additionalProperties") is False and key not in listed((part,)) for part in other):
            return True
        mine, theirs = (literals(_flat(about(parts, key))) for parts in (one, other))
        known = key in required(other) and mine is not None and theirs is not None
        if known and not any(a == b for a in mine or () for b in theirs or ()):
            return True
    return False


def _flat(parts: Sequence[Part]) -> Parts:
    return tuple(part for part in parts if isinstance(part.schema, Mapping))
