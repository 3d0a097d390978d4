"""Reads a tool's JSON Schema into the shapes that a grammar can write.

Whatever the shape admits, the schema does. The other way round it is narrower: keys come in the schema's order,
unlisted ones only where the schema invites them, and one branch of `anyOf` is written, or at the top several. A schema
that constrains one kind of value without naming its type means that kind. `format` is an annotation. Not covered:
`UNSUPPORTED`; where one of them stands is told.
"""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal

import rolecraft.grammar.keywords as keywords
import rolecraft.grammar.patterns as patterns
from rolecraft.errors import DataError
from rolecraft.grammar.keywords import KEYWORDS, Part, Parts, path_step
from rolecraft.grammar.patterns import Bound
from rolecraft.grammar.shapes import Arena, Either, Items, Limits, Literals, Number, Record, Shape, Text
from rolecraft.schemas import Unusable, bounded, followed, keys_of, usable, within
from rolecraft.tools import MAX_DEPTH
from rolecraft.types import Json

UNSUPPORTED = (
    "not if contains propertyNames patternProperties unevaluatedItems unevaluatedProperties uniqueItems"
).split()
"""Keywords that no shape keeps. `oneOf`, `multipleOf`, `pattern` and `minProperties` are kept in most uses."""

_MOST_ITEMS = 256
_MOST_DIGITS = 18
_MOST_STEP = 1000
_MOST_ALTERNATIVES = 1000
_MOST_PAIRS = 100_000
_MOST_TOGETHER = 3  # branches of which every choice is written
_MOST_WORK = 6_000
_LONGEST_KEY = 200
_SHOWN = 3
_EXACT_DIGITS = 15  # decimals of so many digits are all different as floating-point numbers


@dataclass(frozen=True, slots=True)
class Reading:
    """One tool's arguments: the place of their shape, and the keywords that it does not keep, by path."""

    place: int
    unsupported: tuple[str, ...]


def read(
    parameters: Mapping[str, Json], where: str, limits: Limits, arena: Arena, plain: str = "", *, content: bool = False
) -> Reading:
    """Add the shape of a tool's arguments to `arena`; `where` is the path that messages begin with.

    `plain` is one more pattern for texts that have one, to keep a format's tags out of them. With `content` the schema
    is that of an object which no tool takes, so keys that nothing lists are written where the schema invites them.

    Raises DataError for a schema that the judges refuse too, that is too large, or that admits nothing.
    """
    try:
        schema = usable(parameters)
        bounded(schema, {}, within())
        return _read(schema, where, limits, arena, plain, level=2 if content else 1)
    except Unusable as error:
        raise DataError(f"{where}: the schema {error}") from error


def _read(schema: Mapping[str, Json], where: str, limits: Limits, arena: Arena, plain: str, level: int) -> Reading:
    for depth in range(limits.depth, -1, -1):
        reader = _Reader(schema, where, replace(limits, depth=depth), arena, plain)
        try:
            place = reader.whole(level)
        except (_TooLarge, RecursionError):
            continue
        reading = Reading(place, tuple(reader.unsupported))
        if arena.is_empty(place):
            ignored = f" (not kept: {', '.join(reading.unsupported)})" if reading.unsupported else ""
            none = "arguments" if level == 1 else "object"
            if reader.capped:
                beyond = "; ".join(itertools.islice(reader.capped, _SHOWN))
                raise DataError(f"{where}: a grammar admits no {none} so large: {beyond}; ask for less, or drop it")
            raise DataError(f"{where}: the schema admits no {none}; check its bounds and required keys{ignored}")
        return reading
    raise DataError(f"{where}: the schema is too large to be made a grammar; describe less, or split the tool")


class _TooLarge(Exception):
    pass


class _Reader:
    """Reads one tool's schema. A schema is a choice of alternatives, each of them parts to be fitted at once."""

    def __init__(self, root: Mapping[str, Json], where: str, limits: Limits, arena: Arena, plain: str) -> None:
        self.unsupported: dict[str, None] = {}
        self.capped: dict[str, None] = {}  # what is possible and beyond what a grammar writes, in words
        self._root, self._where, self._limits, self._arena, self._plain = root, where, limits, arena, plain
        self._keys = keys_of(root)
        self._known: dict[tuple[Parts, int, int], int] = {}
        self._work = 0
        self._matching = within()

    def whole(self, level: int) -> int:
        """Return the place of the whole's shape; at level 1 it is a tool's arguments."""
        whole = (Part({"type": "object"}, ""), Part(self._root, self._where))
        return self._build(whole, level, self._limits.depth)

    def _build(self, schemas: Parts, level: int, free: int) -> int:
        """Return the shape of what fits all `schemas`, `level` deep; `free`: how deep unconstrained values may nest."""
        if level > MAX_DEPTH:
            return self._arena.add(Either())
        key = (schemas, level, free)
        if key not in self._known:
            shapes = [shape for parts in self._all(schemas) for shape in self._shapes(parts, level, free)]
            self._known[key] = self._arena.either(shapes)
        return self._known[key]

    def _all(self, schemas: Sequence[Part]) -> list[Parts]:
        found: list[Parts] = [()]
        for schema in schemas:
            found = self._joined(found, self._alternatives(schema))
        return found

    def _joined(self, first: list[Parts], second: list[Parts]) -> list[Parts]:
        self._count(len(first) * len(second))
        return [(*one, *other) for one in first for other in second]

    def _count(self, work: int) -> None:
        self._work += work
        if work > _MOST_ALTERNATIVES or self._work > _MOST_WORK:
            raise _TooLarge

    def _alternatives(self, at: Part) -> list[Parts]:
        schema = at.schema
        if not isinstance(schema, Mapping):
            return [()] if schema else []
        self._count(1)
        for keyword in UNSUPPORTED:
            if schema.get(keyword, False) is not False and not (
                keyword == "uniqueItems" and keywords.few_items(schema)
            ):
                self._refuse(at, keyword)
        members = [at.step(member, f".allOf[{i}]") for i, member in enumerate(schema.get("allOf", ()))]
        if "$ref" in schema:
            members.append(self._referred(at, schema["$ref"]))
        found = [(at, *parts) for parts in self._all(members)]
        for branches in self._dependent(at):
            found = self._joined(found, [parts for branch in branches for parts in self._alternatives(branch)])
        if "anyOf" in schema:
            found = self._joined(found, self._inclusive(at))
        return self._joined(found, self._exclusive(at)) if "oneOf" in schema else found

    def _inclusive(self, at: Part) -> list[Parts]:
        """Return the alternatives of `anyOf`: one branch, or, where they list arguments of a tool, several together."""
        branches = _branches(at, "anyOf")
        found = [parts for branch in branches for parts in self._alternatives(branch)]
        if at.where == self._where and len({tuple(keywords.listed(parts)) for parts in found}) > 1:
            sizes = range(2, len(branches) + 1) if len(branches) <= _MOST_TOGETHER else ()
            for chosen in (chosen for size in sizes for chosen in itertools.combinations(branches, size)):
                found += self._all(chosen)
        return found

    def _dependent(self, at: Part) -> Iterator[tuple[Part, Part]]:
        """Yield two choices for each key that others depend on: it is not there, or they are as it asks."""
        for keyword in ("dependentRequired", "dependentSchemas"):
            for key, needed in at.schema.get(keyword, {}).items():
                where = f".{keyword}{path_step(key)}"
                there = {"required": [key, *(needed if keyword == "dependentRequired" else ())]}
                also = {"allOf": [needed]} if keyword == "dependentSchemas" else {}
                yield _without(at, [key], where), at.step(there | also, where)

    def _exclusive(self, at: Part) -> list[Parts]:
        """Return the alternatives of `oneOf`, none of which fits two branches.

        Where branches could both hold, each leaves out a key that the others require.
        """
        branches = _branches(at, "oneOf")
        # Followed anew: a reference that has been followed too often would be a branch that nothing fits.
        choices = [self._alternatives(replace(branch, seen=())) for branch in branches]
        if sum(map(len, choices)) ** 2 > _MOST_PAIRS:
            raise _TooLarge
        found: list[Parts] = []
        for place, branch in enumerate(branches):
            others = [other for choice in choices[:place] + choices[place + 1 :] for other in choice]
            for parts in self._alternatives(branch):
                found += self._apart(at, parts, others)
        return found

    def _apart(self, at: Part, parts: Parts, others: Sequence[Parts]) -> list[Parts]:
        """Return `parts` without what fits one of `others` too."""
        found = [parts]
        for other in others:
            if keywords.apart(parts, other):
                continue
            keys = [key for key in keywords.required(other) if key not in keywords.required(parts)]
            if not keys or not (
                at.where == self._where or keywords.named_kinds((at, *parts)) == frozenset(("object",))
            ):
                self._refuse(at, "oneOf", "two of its branches may hold at once")
                return [parts]
            found = self._joined(found, [(_without(at, [key], f".oneOf{path_step(key)}"),) for key in keys])
        return found

    def _referred(self, at: Part, reference: str) -> Part:
        """Return what a reference leads to, or nothing at all where it has been followed too often."""
        if at.seen.count(reference) > self._limits.depth:
            return at.step(False, "")
        steps = followed(self._root, reference)
        where = self._where + "".join(path_step(step) for step, _ in steps if step)
        return Part(steps[-1][1], where, tuple(sorted((*at.seen, reference))))

    def _cap(self, told: Sequence[str]) -> None:
        self.capped |= dict.fromkeys(told)

    def _refuse(self, at: Part, keyword: str, why: str = "") -> None:
        self.unsupported[f"{at.where}.{keyword}" + (f" ({why})" if why else "")] = None

    def _shapes(self, parts: Parts, level: int, free: int) -> Iterator[int]:
        """Yield the shapes of one alternative: each kind of value has its own."""
        values = keywords.literals(parts)
        if values is not None:
            yield from (self._value(value) for value in values if self._fits(value, parts, level))
            return
        kinds = keywords.named_kinds(parts)
        kinds = keywords.implied_kinds(parts) if kinds is None else kinds
        if kinds is None:
            kinds = keywords.KINDS if free else keywords.KINDS - keywords.CONTAINERS
            free = max(free - 1, 0)
        makers: dict[str, Callable[[], Shape | None]] = {
            "null": lambda: Literals(("null",)),
            "boolean": lambda: Literals(("true", "false")),
            "integer": lambda: self._number(parts, whole="real" not in kinds),
            "string": lambda: self._text(parts),
            "array": lambda: self._items(parts, level, free),
            "object": lambda: self._record(parts, level, free),
        }
        shapes = (make() for kind, make in makers.items() if kind in kinds)
        yield from (self._arena.add(shape) for shape in shapes if shape is not None)

    def _fits(self, value: Json, parts: Parts, level: int) -> bool:
        """Tell whether a literal fits what else the parts say; what would take long to check is not kept instead."""
        kind, kinds = keywords.kind_of(value), keywords.named_kinds(parts)
        if not keywords.writable(value, MAX_DEPTH - level) or (kinds is not None and kind not in kinds):
            return False
        hard = KEYWORDS[kind] if kind in keywords.CONTAINERS else ()
        for part in parts:
            for keyword in hard:
                if keyword in part.schema:
                    self._refuse(part, keyword, "it stands beside enum or const")
        if kind == "string":
            least, most = keywords.counts(parts, "Length", len(value), len(value))
            wanted = [part.schema["pattern"] for part in parts if "pattern" in part.schema]
            return least <= len(value) <= most and all(self._matching(pattern, value) for pattern in wanted)
        if kind in ("integer", "real"):
            exact, step = Decimal(str(value)), self._step(parts)
            return keywords.within(exact, *keywords.bounds(parts)) and not (step and exact % step)
        return True

    def _value(self, value: Json) -> int:
        """Return the shape of one value."""
        if isinstance(value, Mapping):
            return self._arena.add(Record(tuple((key, self._value(item), True) for key, item in value.items())))
        if isinstance(value, list | tuple):
            first = tuple(map(self._value, value))
            return self._arena.add(Items(first, None, len(first), len(first)))
        return self._arena.add(Literals((json.dumps(value, ensure_ascii=False),)))

    def _step(self, parts: Parts) -> int:
        """Return what a number must be a multiple of, or 0."""
        step = 0
        for part in parts:
            size = part.schema.get("multipleOf", 0)
            if size != int(size) or math.lcm(step or 1, int(size)) > _MOST_STEP:
                # the judges divide floating-point numbers, whose multiples are not exact
                self._refuse(part, "multipleOf", f"only whole numbers up to {_MOST_STEP} are kept")
            elif size:
                step = math.lcm(step or 1, int(size))
        return step

    def _number(self, parts: Parts, whole: bool) -> Number | None:
        low, high = keywords.bounds(parts)
        step = self._step(parts)
        if low is None and high is None and not step:
            return Number(whole)
        digits = max((len(str(int(abs(bound.value)))) for bound in (low, high) if bound), default=1)
        most = Decimal(10) ** min(_MOST_DIGITS, max(self._limits.digits, digits + 1))
        self._cap(keywords.beyond_bounds(parts, most))
        low = max(low or Bound(-most), Bound(-most), key=lambda bound: bound.value)
        high = min(high or Bound(most), Bound(most), key=lambda bound: bound.value)
        if whole or step:
            ends = keywords.whole(low, high, step)
            return Number(True, Bound(Decimal(ends[0])), Bound(Decimal(ends[1])), step) if ends else None
        for places in range(max(0, min(self._limits.places, _EXACT_DIGITS - digits)), _EXACT_DIGITS):
            if patterns.decimals(low, high, places):
                return Number(False, low, high, places=places)
        return None

    def _text(self, parts: Parts) -> Text | None:
        least, most = keywords.counts(parts, "Length", self._limits.text, patterns.MOST_TEXT)
        if least > most:
            self._cap(keywords.beyond_count(parts, "Length", patterns.MOST_TEXT))
            return None
        told = [part for part in parts if "pattern" in part.schema]
        faults = [patterns.fault(part.schema["pattern"]) for part in told]
        chosen = tuple(part.schema["pattern"] for part, fault in zip(told, faults, strict=True) if not fault)
        chosen += (self._plain,) if self._plain and chosen else ()
        answer = patterns.matching(least, most, chosen) if chosen else True
        if isinstance(answer, str) and least <= patterns.SHORT_TEXT < most:
            most = patterns.SHORT_TEXT
            answer = patterns.matching(least, most, chosen)
        for part, fault in zip(told, faults, strict=True):
            if why := fault or (answer if isinstance(answer, str) else None):
                self._refuse(part, "pattern", why)
        if not answer:
            return None
        return Text(least, most, chosen if answer is True else ())

    def _items(self, parts: Parts, level: int, free: int) -> Items | None:
        least, most = keywords.counts(parts, "Items", self._limits.items, _MOST_ITEMS)
        self._cap(keywords.beyond_count(parts, "Items", _MOST_ITEMS))
        leads = max((len(part.schema.get("prefixItems", ())) for part in parts), default=0)
        first: list[int] = []
        while len(first) <= leads:  # the last of them is that of all further items
            shape = self._build(keywords.item(parts, len(first)), level + 1, free)
            if self._arena.is_empty(shape):
                most = min(most, len(first))
                break
            first.append(shape)
        if least > most:
            return None
        rest = first[leads] if most > leads else None
        return Items(tuple(first[: min(leads, most)]), rest, least, most)

    def _record(self, parts: Parts, level: int, free: int) -> Record | None:
        must = keywords.required(parts)
        keys: list[tuple[str, int, bool]] = []
        for key in keywords.listed(parts) | must:
            allowed = self._allows(key, level)
            shape = self._build(keywords.about(parts, key), level + 1, free) if allowed else self._arena.add(Either())
            if not self._arena.is_empty(shape):
                keys.append((key, shape, key in must))
            elif key in must:
                self._cap(keywords.beyond_key(parts, key, _LONGEST_KEY))
                return None
        rest = None
        if self._invites(parts, level):
            rest = self._build(keywords.others(parts), level + 1, free)
            rest = None if self._arena.is_empty(rest) else rest
        taken = tuple(filter(keywords.writable, keywords.listed(parts) | must))
        return self._counted(parts, Record(tuple(keys), rest, taken))

    def _counted(self, parts: Parts, record: Record) -> Record | None:
        """Return `record` with as many keys as the parts ask for; None if it cannot have them."""
        total, always = len(record.keys), sum(must for _, _, must in record.keys)
        cap = max(_MOST_ITEMS, total)
        fewest, most = keywords.counts(parts, "Properties", total + self._limits.items, cap)
        self._cap(keywords.beyond_count(parts, "Properties", cap))
        missing = max(0, fewest - always)
        if most < always or (missing > total - always and record.rest is None):
            return None
        some = not always and missing == 1 and record.rest is None
        self._refuse_counts(parts, total, fewest if missing and record.rest is None and not some else 0)
        if record.rest is None:
            return replace(record, taken=(), some=some)
        most = max(most, total) - total
        return replace(record, least=missing, most=most) if missing <= most else None

    def _refuse_counts(self, parts: Parts, total: int, fewest: int) -> None:
        """Refuse what would need counting the optional keys that are there."""
        for part in parts:
            if part.schema.get("maxProperties", total) < total:
                self._refuse(part, "maxProperties", "some keys are optional")
            if fewest and part.schema.get("minProperties") == fewest:
                self._refuse(part, "minProperties", "some keys are optional")

    def _allows(self, key: str, level: int) -> bool:
        """Tell whether a key can be written, and the tools, which are stricter than schemas, would take it."""
        known = level > 1 or self._keys.invites or key in self._keys.listed
        return known and keywords.writable(key) and len(key) <= _LONGEST_KEY

    def _invites(self, parts: Parts, level: int) -> bool:
        """Tell whether keys that nothing describes are wanted: where that is said, or nothing at all is."""
        told = [part.schema["additionalProperties"] for part in parts if "additionalProperties" in part.schema]
        if level == 1:
            return any(told) and False not in told
        return False not in told if told else not (keywords.listed(parts) or keywords.required(parts))


def _branches(at: Part, keyword: str) -> list[Part]:
    return [at.step(branch, f".{keyword}[{place}]") for place, branch in enumerate(at.schema[keyword])]


def _without(at: Part, keys: Sequence[str], where: str) -> Part:
    """Return a part that objects with one of `keys` do not fit."""
    return at.step({"properties": dict.fromkeys(keys, False)}, f"{where}(absent)")
