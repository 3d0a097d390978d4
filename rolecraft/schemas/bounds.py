"""Makes a tool's JSON Schema, which a data file wrote, safe to validate with: well-formed, local and bounded.

Not covered: `uniqueItems` of lists that could take long to compare is not checked, and `format` never is.
"""

from __future__ import annotations

import time
import urllib.parse
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import jsonschema

import rolecraft.schemas.expressions as expressions
from rolecraft import wire
from rolecraft.errors import DataError
from rolecraft.schemas.drafts import DATA, MOST_NODES, NAMED, Unusable, modern
from rolecraft.types import Json

_MAX_CHECKS = 1_000_000  # objects in the schema times values in the arguments; some ten seconds at worst
_MAX_UNIQUE = 1_000  # values that may be compared in pairs
_PATTERN_SECONDS = 1.0  # for all searches in the arguments of one call
_READING_SECONDS = 2.0  # of a processor, for all patterns of a schema
_HOPS = (24, 8, 4, 2, 0)  # how often references are followed on one path: the first that keeps the schema small
_BRANCHES = ("allOf", "anyOf", "oneOf")

Matching = Callable[[str, str], bool]
"""Whether a pattern matches in a text."""


def usable(schema: Mapping[str, Json]) -> dict[str, Json]:
    """Return a schema as one of draft 2020-12, well-formed and without references to elsewhere; or raise Unusable.

    The result is shared: it is never to be changed.
    """
    try:
        text = wire.dumps(schema)
    except DataError as error:
        raise Unusable(f"is not JSON: {error}") from error
    made = _usable(text)
    if isinstance(made, str):
        raise Unusable(made)
    return made


def bounded(schema: Mapping[str, Json], arguments: Json, matching: Matching) -> dict[str, Json]:
    """Return a `usable` schema without references or `patternProperties` that accepts the same arguments.

    References that recurse too widely to be written out accept anything from some depth on. Raises Unusable for a
    schema that is too large for these arguments.
    """
    values = list(_values(arguments))
    for hops in _HOPS:
        writer = _Writer(schema, hops, values, matching)
        try:
            written: dict[str, Json] = writer.write(schema)
        except RecursionError:
            continue
        if writer.nodes <= MOST_NODES and writer.nodes * len(values) <= _MAX_CHECKS:
            return written
    raise Unusable(f"is too large to check {len(values)} values against it")


def validator(schema: Mapping[str, Json], matching: Matching) -> Any:
    """Return a validator for a `bounded` schema that asks `matching` about patterns."""

    def pattern(_: Any, wanted: str, text: Json, __: Json) -> Iterator[jsonschema.ValidationError]:
        if isinstance(text, str) and not matching(wanted, text):
            yield jsonschema.ValidationError(f"{text!r} does not match {wanted!r}")

    kind: Any = jsonschema.Draft202012Validator
    if any(value == "pattern" for value in _values(schema)):
        extend: Callable[..., Any] = jsonschema.validators.extend
        kind = extend(kind, {"pattern": pattern})  # takes as long as a whole check
    return kind(schema)


def within(seconds: float = _PATTERN_SECONDS) -> Matching:
    """Return a `Matching` that raises Unusable once all its searches together have taken `seconds`."""
    end = time.monotonic() + seconds

    def matching(pattern: str, text: str) -> bool:
        try:
            return expressions.found(pattern, text, end - time.monotonic())
        except TimeoutError as error:
            raise Unusable(f"has the pattern {pattern[:80]!r}, which takes too long on these arguments") from error

    return matching


@dataclass(frozen=True, slots=True)
class Keys:
    """The keys that a schema describes for its own object, those it only requires, and whether it invites others."""

    described: dict[str, None]
    bare: dict[str, None]
    invites: bool

    @property
    def listed(self) -> dict[str, None]:
        """All that it names."""
        return self.described | self.bare


def keys_of(schema: Mapping[str, Json]) -> Keys:
    """Return the keys of a `usable` schema, in its branches and behind its references too."""
    described: dict[str, None] = {}
    required: dict[str, None] = {}
    invites = False
    pending: list[Json] = [schema]
    seen: set[str] = set()
    while pending:
        part = pending.pop(0)
        if not isinstance(part, Mapping):
            continue
        described |= dict.fromkeys(part.get("properties", ()))
        required |= dict.fromkeys(part.get("required", ()))
        invites = invites or "patternProperties" in part or bool(part.get("additionalProperties"))
        for keyword in _BRANCHES:
            pending += part.get(keyword, ())
        pending += [part[keyword] for keyword in ("if", "then", "else") if keyword in part]
        pending += part.get("dependentSchemas", {}).values()
        if "$ref" in part and part["$ref"] not in seen:
            seen.add(part["$ref"])
            pending.append(followed(schema, part["$ref"])[-1][1])
    return Keys(described, {key: None for key in required if key not in described}, invites)


def closed(schema: Mapping[str, Json], keys: Keys) -> Mapping[str, Json]:
    """Return a schema that refuses keys which none of its branches that hold describes; `keys` are those it has."""
    if keys.invites or not any(keyword in schema for keyword in (*_BRANCHES, "if", "dependentSchemas", "$ref")):
        return schema
    properties = dict.fromkeys(keys.bare, True) | schema.get("properties", {})
    return {"unevaluatedProperties": False, **schema, "properties": properties}


def followed(root: Mapping[str, Json], reference: str) -> list[tuple[str, Json]]:
    """Return the steps on the way to a reference's target in a `usable` schema, each with what stands there."""
    if reference == "#":
        return [("", root)]
    definitions = root["$defs"]
    name = urllib.parse.unquote(reference.removeprefix("#/$defs/")).replace("~1", "/").replace("~0", "~")
    return [("$defs", definitions), (name, definitions[name])]


@lru_cache(maxsize=1024)
def _usable(text: str) -> dict[str, Json] | str:
    """Return the schema in `text`, or what is wrong with it; remembered, because trajectories share their tools."""
    try:
        given = wire.loads(text)
        if sum(1 for _ in _values(given)) > 4 * MOST_NODES:
            return "is too large"
        schema = modern(given)
        jsonschema.Draft202012Validator.check_schema(schema, format_checker=_checker())
    except Unusable as error:
        return str(error)
    except DataError as error:
        return f"is {error}"
    except RecursionError:
        return "is nested too deeply"
    except jsonschema.SchemaError as error:
        place = ".".join(map(str, error.absolute_path)) or "its top"
        reason = f"{error.instance!r} {error.cause}" if error.cause else error.message
        return f"is malformed at {place[:80]}: {reason[:120]}"
    return schema


def _checker() -> jsonschema.FormatChecker:
    """Return what checks the patterns of one schema."""
    end = time.thread_time() + _READING_SECONDS

    def is_expression(value: Json) -> bool:
        if time.thread_time() > end:
            raise expressions.Malformed("is one of too many patterns, or they are too large")
        return not isinstance(value, str) or bool(expressions.compiled(value))

    checker = jsonschema.FormatChecker(())
    checker.checks("regex", raises=expressions.Malformed)(is_expression)
    return checker


def _values(value: Json) -> Iterator[Json]:
    """Yield every key and value inside, and the value itself; deep values cost no recursion."""
    pending = [value]
    while pending:
        item = pending.pop()
        yield item
        if isinstance(item, Mapping):
            yield from item
            pending += item.values()
        elif isinstance(item, list | tuple):
            pending += item


class _Writer:
    """Writes one schema out: `nodes` counts its objects and stops it soon after there are too many."""

    def __init__(self, root: Mapping[str, Json], hops: int, values: Sequence[Json], matching: Matching) -> None:
        self.nodes = 0
        self._root, self._hops, self._values, self._matching = root, hops, len(values), matching
        self._keys = {key: None for value in values if isinstance(value, Mapping) for key in value}

    def write(self, schema: Json, hops: int = 0) -> Any:
        if not isinstance(schema, Mapping) or self.nodes > MOST_NODES:
            return schema if isinstance(schema, bool) else True
        self.nodes += 1
        kept = ((key, value) for key, value in schema.items() if key not in ("$ref", "$defs", "patternProperties"))
        written: dict[str, Json] = {key: self._value(key, value, hops) for key, value in kept}
        if self._values > _MAX_UNIQUE:
            written.pop("uniqueItems", None)
        if "patternProperties" in schema:
            written["properties"] = self._matched(schema["patternProperties"], written.get("properties", {}), hops)
        if "$ref" in schema:
            target = followed(self._root, schema["$ref"])[-1][1]
            referred = self.write(target, hops + 1) if hops < self._hops else True
            written["allOf"] = [*written.get("allOf", ()), referred]
        return written

    def _value(self, key: str, value: Json, hops: int) -> Json:
        if key in DATA:
            return value
        if key in NAMED and isinstance(value, Mapping):
            return {name: self.write(item, hops) for name, item in value.items()}
        if isinstance(value, list):
            return [self.write(item, hops) if isinstance(item, Mapping) else item for item in value]
        return self.write(value, hops) if isinstance(value, Mapping) else value

    def _matched(self, patterns: Mapping[str, Json], properties: Mapping[str, Json], hops: int) -> dict[str, Json]:
        """Return `properties` with what `patterns` say of the keys that the arguments have."""
        found = dict(properties)
        for pattern, schema in patterns.items():
            written = self.write(schema, hops)
            for key in filter(lambda key: self._matching(pattern, key), self._keys):
                found[key] = {"allOf": [found[key], written]} if key in found else written
        return found
