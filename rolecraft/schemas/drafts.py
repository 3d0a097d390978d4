"""Turns a JSON Schema of draft 4 to 2020-12, or of OpenAPI 3.0, into one of 2020-12 that refers only to its `$defs`.

The draft is the one that `$schema` names. Without it a keyword means what it does in the draft that has it: `items` as
a list is a tuple, a boolean `exclusiveMinimum` belongs to `minimum`, `nullable` allows null. Nothing is ever fetched:
references lead to places, anchors and identifiers inside. What is malformed stays as it is, for the check that follows.
"""

from __future__ import annotations

import itertools
import re
import urllib.parse
from collections.abc import Iterator, Mapping
from typing import Any

from rolecraft.errors import DataError
from rolecraft.types import Json

MOST_NODES = 2_000
"""Objects in a schema that is still used."""

NAMED = frozenset(("properties", "patternProperties", "dependentSchemas"))
"""Keywords that hold schemas by name."""

DATA = frozenset(("enum", "const", "default", "examples", "required", "type", "dependentRequired"))
"""Keywords that hold no schema."""

_EVERY = 9999
_DEEPEST = 200
_SCHEMA = re.compile(r"https?://json-schema\.org/(?:draft/)?(draft-\d\d|\d{4}-\d\d)/(?:hyper-)?schema#?")
_DRAFTS = {"draft-04": 4, "draft-06": 6, "draft-07": 7, "2019-09": 2019, "2020-12": 2020}
_KNOWN_FROM = {
    **dict.fromkeys(("const", "contains", "propertyNames"), 6),
    **dict.fromkeys(("if", "then", "else"), 7),
    **dict.fromkeys(("dependentRequired", "dependentSchemas", "minContains", "maxContains"), 2019),
    **dict.fromkeys(("unevaluatedItems", "unevaluatedProperties"), 2019),
    **dict.fromkeys(("prefixItems", "$dynamicRef"), 2020),
}
_KNOWN_TO = {"dependencies": 7, "$recursiveRef": 2019, "nullable": 0}
_PLACED = frozenset(
    ("$defs", "definitions", "$id", "id", "$schema", "$anchor", "$dynamicAnchor", "$recursiveAnchor", "$vocabulary")
)
_REFERENCES = ("$ref", "$dynamicRef", "$recursiveRef")
_EXCLUSIVE = {"exclusiveMinimum": "minimum", "exclusiveMaximum": "maximum"}
_TYPED_ELSEWHERE = ("enum", "const", "anyOf", "oneOf", "allOf", "not", "$ref")


class Unusable(DataError):
    """A schema that arguments cannot be checked against; the message says what it does wrong, as a verb."""


def modern(schema: Mapping[str, Json]) -> dict[str, Json]:
    """Return the same schema as one of draft 2020-12; raises Unusable for one of another kind, or too large."""
    return _Translator(schema).whole()


def _draft(name: Json) -> int | None:
    """Return the number of the draft that `$schema` names; None where it names none of JSON Schema's."""
    if not isinstance(name, str | None):
        raise Unusable(f"is malformed at $schema: {str(name)[:80]} is no name of a draft")
    told = _SCHEMA.fullmatch(name or "")
    if told is None:
        return None
    if told[1] not in _DRAFTS:
        raise Unusable(f"is of {told[1]}, which is not read; write it in one of {', '.join(_DRAFTS)}")
    return _DRAFTS[told[1]]


class _Translator:
    """Translates one schema. A place is a path from its root, a tuple of keys."""

    def __init__(self, root: Mapping[str, Json]) -> None:
        self._root, self._draft = root, _draft(root.get("$schema"))
        self._nodes = 0
        self._names: dict[tuple[str, ...], str] = {(): ""}
        self._pending: list[tuple[str, ...]] = []
        self._bases: dict[tuple[str, ...], str] = {}
        self._anchors: dict[str, tuple[str, ...]] = {}
        self._dynamic: dict[str, list[str]] = {}
        for place, node in self._schemas(root, ()):
            self._index(place, node)

    def whole(self) -> dict[str, Json]:
        """Return the root's translation, with all that it refers to beside it."""
        written: dict[str, Json] = self._schema(self._root, ())
        definitions: dict[str, Json] = {}
        while self._pending:
            place = self._pending.pop()
            definitions[self._names[place]] = self._schema(self._at(place), place)
        return written | ({"$defs": definitions} if definitions else {})

    def _schemas(self, schema: Json, place: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Mapping[str, Json]]]:
        """Yield all schemas below, with their places."""
        pending = [(place, schema)]
        while pending:
            place, node = pending.pop()
            if not isinstance(node, Mapping):
                continue
            if len(place) > _DEEPEST:
                raise Unusable("is nested too deeply")
            yield place, node
            for key, value in node.items():
                named = key in NAMED or key in ("$defs", "definitions", "dependencies")
                if isinstance(value, list) or (named and isinstance(value, Mapping)):
                    steps = value.items() if isinstance(value, Mapping) else enumerate(value)
                    pending += [((*place, key, str(step)), item) for step, item in steps if key not in DATA]
                elif key not in DATA:
                    pending.append(((*place, key), value))

    def _index(self, place: tuple[str, ...], node: Mapping[str, Json]) -> None:
        """Note the names by which a schema may be referred to."""
        base = self._base(place)
        for name in (node.get("$id"), node.get("id") if self._draft in (None, 4) else None):
            if not isinstance(name, str):
                continue
            if name.startswith("#"):
                self._anchors.setdefault(base + name, place)
            elif name is not node.get("id") or self._draft == 4:
                base = self._bases[place] = urllib.parse.urljoin(base, name).rstrip("#")
                self._anchors.setdefault(base, place)
        for keyword in ("$anchor", "$dynamicAnchor"):
            if isinstance(name := node.get(keyword), str):
                self._anchors.setdefault(f"{base}#{name}", place)
                self._dynamic.setdefault(name, []).append(keyword)

    def _base(self, place: tuple[str, ...]) -> str:
        """Return the identifier that references at a place are relative to."""
        if not self._bases:
            return ""
        inner = (place[:length] for length in range(len(place), -1, -1))
        return next((self._bases[outer] for outer in inner if outer in self._bases), "")

    def _known(self, key: str) -> bool:
        draft = self._draft
        return draft is None or _KNOWN_FROM.get(key, 0) <= draft <= _KNOWN_TO.get(key, _EVERY)

    def _schema(self, schema: Json, place: tuple[str, ...]) -> Any:
        """Return the translation of what stands at `place`."""
        if not isinstance(schema, Mapping):
            return schema
        self._nodes += 1
        if self._nodes > 2 * MOST_NODES:  # what is referred to within something else is written twice
            raise Unusable("is too large")
        if "$ref" in schema and self._draft in (4, 6, 7):
            schema = {"$ref": schema["$ref"]}  # these drafts ignore what stands beside it
        written: dict[str, Json] = {}
        for key, value in schema.items():
            if key in _PLACED and (key != "id" or isinstance(value, str)):
                continue
            if self._known(key):
                self._keyword(written, schema, place, key)
        return _with_null(written) if written.pop("nullable", False) is True and self._draft is None else written

    def _keyword(self, written: dict[str, Json], schema: Mapping[str, Json], place: tuple[str, ...], key: str) -> None:
        """Write one keyword in the form of 2020-12."""
        value, place = schema[key], (*place, key)
        tuples = isinstance(schema.get("items"), list) and self._draft != 2020
        if key in _REFERENCES:
            self._refer(written, key, value, place[:-1])
        elif key in _EXCLUSIVE and isinstance(value, bool) and self._draft in (None, 4):
            if value and _EXCLUSIVE[key] in schema:
                written[key] = schema[_EXCLUSIVE[key]]
        elif key == "items" and tuples and "prefixItems" not in written:
            written["prefixItems"] = self._value(key, value, place)
        elif key == "additionalItems":
            if tuples:
                written["items"] = self._schema(value, place)
        elif key == "dependencies" and isinstance(value, Mapping):
            for name, needed in value.items():
                kind = "dependentRequired" if isinstance(needed, list) else "dependentSchemas"
                written[kind] = {**written.get(kind, {}), name: self._schema(needed, (*place, name))}
        else:
            written[key] = self._value(key, value, place)

    def _value(self, key: str, value: Json, place: tuple[str, ...]) -> Json:
        if key in DATA:
            return value
        if key in NAMED and isinstance(value, Mapping):
            return {name: self._schema(item, (*place, name)) for name, item in value.items()}
        if isinstance(value, list):
            return [self._schema(item, (*place, str(step))) for step, item in enumerate(value)]
        return self._schema(value, place)

    def _refer(self, written: dict[str, Json], key: str, reference: Json, place: tuple[str, ...]) -> None:
        if not isinstance(reference, str):
            written["$ref"] = reference  # malformed, as the check will tell
            return
        if key == "$dynamicRef" and len(self._dynamic.get(reference.lstrip("#"), ("", ""))) > 1:
            raise Unusable(f"uses '$dynamicRef' {reference[:80]!r}, which leads to several places; use '$ref'")
        target = self._find(reference, place)
        if target not in self._names:
            self._names[target] = self._name(target)
            self._pending.append(target)
        name = self._names[target].replace("~", "~0").replace("/", "~1")
        local = {"$ref": f"#/$defs/{urllib.parse.quote(name)}" if target else "#"}
        if "$ref" in written:
            written["allOf"] = [*written.get("allOf", ()), local]
        else:
            written |= local

    def _find(self, reference: str, place: tuple[str, ...]) -> tuple[str, ...]:
        """Return the place that a reference leads to."""
        base = self._base(place)
        address, _, fragment = reference.partition("#")
        address = urllib.parse.urljoin(base, address) if address else base
        if fragment and not fragment.startswith("/"):
            target = self._anchors.get(f"{address}#{fragment}")
        else:
            target = self._anchors.get(address, None if address else ())
        if target is None:
            raise Unusable(f"refers to {reference[:80]!r}, which is not in it; nothing is fetched")
        pointer = urllib.parse.unquote(fragment).split("/")[1:] if fragment.startswith("/") else []
        steps = tuple(step.replace("~1", "/").replace("~0", "~") for step in pointer)
        # many an identifier was never meant as an address: then the place counts from the root
        for whole in ((*target, *steps), steps):
            if self._exists(whole):
                return whole
        raise Unusable(f"refers to {reference[:80]!r}, which leads nowhere")

    def _exists(self, place: tuple[str, ...]) -> bool:
        try:
            self._at(place)
        except (LookupError, TypeError, ValueError):
            return False
        return True

    def _at(self, place: tuple[str, ...]) -> Json:
        found: Any = self._root
        for key in place:
            found = found[int(key)] if isinstance(found, list) else found[key]
        return found

    def _name(self, place: tuple[str, ...]) -> str:
        """Return a name of its own for what stands at a place."""
        simple = place[-1] if len(place) == 2 and place[0] in ("$defs", "definitions") else "/".join(place)
        taken = set(self._names.values())
        names = itertools.chain([simple], (f"{simple}#{number}" for number in itertools.count(2)))
        return next(name for name in names if name not in taken)


def _with_null(schema: dict[str, Json]) -> dict[str, Json]:
    """Return a schema that also admits null."""
    kinds = schema.get("type")
    if kinds is None or any(map(schema.__contains__, _TYPED_ELSEWHERE)):
        notes: dict[str, Json] = {key: schema[key] for key in ("description", "title", "default") if key in schema}
        return {**notes, "anyOf": [schema, {"type": "null"}]}
    kinds = kinds if isinstance(kinds, list) else [kinds]
    return schema | {"type": [*kinds, *(() if "null" in kinds else ("null",))]}
