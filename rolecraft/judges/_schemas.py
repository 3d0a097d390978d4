"""Makes a tool's JSON Schema, which a data file wrote, safe to validate with: well-formed, local and bounded.

Not covered: a `pattern` or `uniqueItems` that could take long on the arguments is not checked, and `format` never is.
"""

from __future__ import annotations

import math
import re
import urllib.parse
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any

import jsonschema

from rolecraft import wire
from rolecraft.errors import DataError
from rolecraft.types import Json

_MAX_NODES = 2_000  # objects in a schema, its references written out
_MAX_CHECKS = 1_000_000  # objects in the schema times values in the arguments; some ten seconds at worst
_MAX_UNIQUE = 1_000  # values that may be compared in pairs
_MAX_PATTERN_STEPS = 10_000_000
_HOPS = (24, 8, 4, 2, 0)  # how often references are followed on one path: the first that keeps the schema small
_NAMED_SCHEMAS = frozenset(("properties", "patternProperties", "dependentSchemas"))
_DATA = frozenset(("enum", "const", "default", "examples", "required", "type", "dependentRequired"))
_DROPPED = frozenset(("$ref", "$dynamicRef", "$defs", "definitions", "$id", "$schema", "$anchor", "$dynamicAnchor"))


class Unusable(Exception):
    """A schema that arguments cannot be checked against; the message says what it does wrong, as a verb."""


def bounded(schema: Mapping[str, Json], arguments: Json) -> dict[str, Json]:
    """Return a schema without references that accepts the same arguments, in bounded time.

    Nothing is ever fetched. References that recurse too widely to be written out accept anything from some depth on.
    Raises Unusable for a schema that is malformed, refers outside itself or is too large for these arguments.
    """
    fault = _malformed(_text(schema))
    if fault:
        raise Unusable(fault)
    values = list(_values(arguments))
    for hops in _HOPS:
        writer = _Writer(schema, hops, values)
        try:
            written: dict[str, Json] = writer.write(schema)
        except RecursionError:
            continue
        if writer.nodes <= _MAX_NODES and writer.nodes * len(values) <= _MAX_CHECKS:
            return written
    raise Unusable(f"is too large to check {len(values)} values against it")


def _text(schema: Mapping[str, Json]) -> str:
    try:
        return wire.dumps(schema)
    except DataError as error:
        raise Unusable(f"is not JSON: {error}") from error


@lru_cache(maxsize=1024)
def _malformed(text: str) -> str | None:
    """Return what is wrong with the schema in `text`; remembered, because trajectories share their tools."""
    try:
        schema = wire.loads(text)
        if sum(1 for _ in _values(schema)) > 4 * _MAX_NODES:
            return "is too large"
        jsonschema.Draft202012Validator.check_schema(schema)
    except DataError as error:
        return f"is {error}"
    except RecursionError:
        return "is nested too deeply"
    except jsonschema.SchemaError as error:
        place = ".".join(map(str, error.absolute_path)) or "its top"
        return f"is malformed at {place[:80]}: {error.message[:120]}"
    return None


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

    def __init__(self, root: Mapping[str, Json], hops: int, values: Sequence[Json]) -> None:
        self.nodes = 0
        self._root, self._hops, self._values = root, hops, len(values)
        self._lengths = [len(value) for value in values if isinstance(value, str)]
        self._steps = 0.0

    def write(self, schema: Json, hops: int = 0) -> Any:
        if not isinstance(schema, Mapping) or self.nodes > _MAX_NODES:
            return schema if isinstance(schema, bool) else True
        self.nodes += 1
        kept = ((key, value) for key, value in schema.items() if key not in _DROPPED)
        written: dict[str, Json] = {key: self._write_value(key, value, hops) for key, value in kept}
        if not self._quick(schema.get("pattern")):
            del written["pattern"]
        if self._values > _MAX_UNIQUE:
            written.pop("uniqueItems", None)
        if not all(map(self._quick, schema.get("patternProperties", ()))):
            # which properties are additional is then not known either
            written |= {"patternProperties": {}, "additionalProperties": True}
        if "$dynamicRef" in schema:
            raise Unusable("uses '$dynamicRef', which is not followed; use '$ref'")
        if "$ref" in schema:
            target = self._find(schema["$ref"])
            referred = self.write(target, hops + 1) if hops < self._hops else True
            written["allOf"] = [*written.get("allOf", ()), referred]
        return written

    def _write_value(self, key: str, value: Json, hops: int) -> Json:
        if key in _DATA:
            return value
        if key in _NAMED_SCHEMAS and isinstance(value, Mapping):
            return {name: self.write(item, hops) for name, item in value.items()}
        if isinstance(value, list):
            return [self.write(item, hops) if isinstance(item, Mapping) else item for item in value]
        return self.write(value, hops) if isinstance(value, Mapping) else value

    def _find(self, reference: str) -> Json:
        if reference != "#" and not reference.startswith("#/"):
            raise Unusable(f"refers to {reference[:80]!r}; only what begins with '#/' is followed, nothing is fetched")
        found: Any = self._root
        for step in urllib.parse.unquote(reference).split("/")[1:]:
            key = step.replace("~1", "/").replace("~0", "~")
            try:
                found = found[int(key)] if isinstance(found, list) else found[key]
            except (LookupError, TypeError, ValueError) as error:
                raise Unusable(f"refers to {reference[:80]!r}, which leads nowhere") from error
        return found

    def _quick(self, pattern: str | None) -> bool:
        """Tell whether searching `pattern` in every text of the arguments stays within the budget."""
        if pattern is None:
            return True
        self._steps += len(self._lengths) * _search_steps(pattern, max(self._lengths, default=0))
        return self._steps <= _MAX_PATTERN_STEPS


def _search_steps(pattern: str, length: int) -> float:
    """Return an upper bound on what a backtracking search for `pattern` in a text of `length` costs.

    A repeated group may cost exponentially much. Otherwise each repetition multiplies the cost by the length, as
    does the search for a beginning; each optional item or alternative doubles it.
    """
    try:
        re.compile(pattern)
    except (re.error, OverflowError, RecursionError) as error:
        raise Unusable(f"is malformed: pattern {pattern[:80]!r}: {error}") from error
    bare = re.sub(r"\\.|\[\^?\]?(?:\\.|[^\]\\])*\]", "c", pattern, flags=re.DOTALL)
    if re.search(r"\)[*+{]", bare):
        return math.inf
    repeats, options = len(re.findall(r"[*+]|\{\d*,\d*\}", bare)), len(re.findall(r"[?|]", bare))
    starts = 0 if bare.startswith("^") and "|" not in bare else 1
    return float((length + 1) ** min(repeats + starts, 9) * 2 ** min(options, 60) * (1 + len(pattern)))
