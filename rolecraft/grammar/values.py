"""Writes the rules of JSON values: one for each shape, in a layout.

Not covered: keys of an object that are all different where the schema leaves them open; `engine.key_scan` sees to that.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from rolecraft.grammar.patterns import ESCAPES, decimals, integers, string_schema
from rolecraft.grammar.shapes import Arena, Either, Items, Limits, Literals, Number, Record, Shape, Text

LONGEST_FREE_KEY = 32
"""Characters of a key that no schema lists."""

_CHARACTER = r'[^"\\\x00-\x1f\x7f]|\\[' + ESCAPES.replace("\\", r"\\") + "]"
_KEY_CHARACTER = r'[^"\\\x00-\x1f\x7f]'


@dataclass(frozen=True, slots=True)
class Layout:
    """How JSON is set: rules for what parts items and a key from its value, and for the gap within brackets.

    `mark` begins the names of the rules, a letter that no other layout of the grammar has.
    """

    comma: str
    colon: str
    gap: str = ""
    mark: str = "s"


class ValueWriter:
    """Writes the rules of an arena's shapes; a shape's rule has its number and is written when first asked for."""

    def __init__(
        self,
        arena: Arena,
        layout: Layout,
        limits: Limits,
        rule: Callable[[str, str], None],
        tags: Sequence[str] = (),
        shielded: Callable[[str], str] = lambda text: text,
    ) -> None:
        """`rule` takes a rule's name and body; no text holds one of `tags`, and `shielded` writes constants so."""
        self.open_keys = False
        self._arena, self._layout, self._limits, self._rule = arena, layout, limits, rule
        self._tags, self._shielded = tags, shielded
        self._names: dict[int, str] = {}

    def name(self, place: int) -> str:
        """Return the name of a shape's rule, which is written when first asked for."""
        if place not in self._names:
            shape = self._arena.shapes[place]
            terminal = isinstance(shape, Literals) or (isinstance(shape, Number) and not shape.step)
            terminal = terminal or (isinstance(shape, Text) and not shape.patterns)
            mark = self._layout.mark
            self._names[place] = f"{mark.upper() if terminal else mark}{place}"
            self._rule(self._names[place], self._body(shape, self._names[place]))
        return self._names[place]

    def _body(self, shape: Shape, name: str) -> str:
        match shape:
            case Literals(texts):
                return " | ".join(quoted(self._shielded(text)) for text in texts)
            case Text():
                return self._text(shape)
            case Number():
                return self._number(shape)
            case Items():
                return self._items(shape, name)
            case Record():
                return self._record(shape, name)
            case Either(options):
                return " | ".join(map(self.name, options))

    def _text(self, shape: Text) -> str:
        if shape.patterns:
            return f"%json {json.dumps(string_schema(shape.least, shape.most, shape.patterns))}"
        return self._string(_CHARACTER, shape.least, shape.most)

    def _string(self, character: str, least: int, most: int, taken: Sequence[str] = ()) -> str:
        """Return an expression for a JSON string of so many characters that is none of `taken` and holds no tag."""
        body = f"/({character}){{{least},{most}}}/"
        if self._tags:
            tags = "|".join(map(escaped, self._tags))
            body += f" & ~/(?s:.*)({tags})(?s:.*)/"
        whole = rf'"\"" ( {body} ) "\""'
        return f"( {whole} ) & ~( {' | '.join(map(quoted, taken))} )" if taken else whole

    def _number(self, shape: Number) -> str:
        digits, places = self._limits.digits, self._limits.places
        if shape.low is None or shape.high is None:
            natural = f"-?(0|[1-9][0-9]{{0,{digits - 1}}})"
            return f"/{natural}/" if shape.whole else rf"/{natural}(\.[0-9]{{1,{places}}})?([eE][+-]?[0-9]{{1,2}})?/"
        low, high = shape.low, shape.high
        if shape.step:
            ends = {"minimum": int(low.value), "maximum": int(high.value), "multipleOf": shape.step}
            return f"%json {json.dumps({'type': 'integer', **ends})}"
        if shape.whole:
            return f"/{integers(int(low.value), int(high.value))}/"
        return f"/{decimals(low, high, shape.places)}/"

    def _items(self, shape: Items, name: str) -> str:
        """Write a rule for what may follow each of the first items; return the list's own."""
        comma, after = self._layout.comma, ""
        more = shape.most - len(shape.first)
        if shape.rest is not None and more:
            least, rest = max(0, shape.least - len(shape.first)), self.name(shape.rest)
            after = _times(f"({comma} {rest})", least, more) if shape.first else listed(rest, comma, least, more)
        for place in reversed(range(len(shape.first))):
            item = f"{comma if place else ''} {self.name(shape.first[place])} {after}"
            after = f"{name}_{place}" if place < shape.least or not place else f"{name}_{place}?"
            self._rule(f"{name}_{place}", item)
        return self._within("[", after, "]", shape.least < 1)

    def _record(self, shape: Record, name: str) -> str:
        """Write a rule for each key, at the beginning and after others; return the object's own.

        Where a key is optional, the rule at its place also leads to what follows without it.
        """
        comma, colon = self._layout.comma, self._layout.colon
        first, later = self._free_keys(shape, name)
        empty = (not first or not shape.least) and not (shape.some and shape.keys)
        for place in reversed(range(len(shape.keys))):
            key, value, must = shape.keys[place]
            pair = f"{quoted(self._shielded(as_json(key)))} {colon} {self.name(value)}"
            beginning = f"{pair} {later}"
            alone = must or not first or (shape.some and place == len(shape.keys) - 1)
            self._rule(f"{name}_{place}", beginning if alone else f"{beginning} | {first}")
            first, empty = f"{name}_{place}", empty and not must
            self._rule(f"{name}_{place}_later", f"{comma} {pair} {later}" if must else f"({comma} {pair})? {later}")
            later = f"{name}_{place}_later"
        return self._within("{", first, "}", empty)

    def _free_keys(self, shape: Record, name: str) -> tuple[str, str]:
        """Return rules for the keys that no schema lists, at the beginning (not none) and after others."""
        if shape.rest is None or not shape.most:
            return "", ""
        self.open_keys = True
        taken = [self._shielded(as_json(key)) for key in shape.taken]
        key = f"{name.upper()}K"
        self._rule(key, self._string(_KEY_CHARACTER, 1, LONGEST_FREE_KEY, taken))
        pair = f"{key} {self._layout.colon} {self.name(shape.rest)}"
        comma = self._layout.comma
        return listed(f"({pair})", comma, shape.least, shape.most), _times(f"({comma} {pair})", shape.least, shape.most)

    def _within(self, opening: str, content: str, closing: str, empty: bool) -> str:
        """Return an expression for what stands between brackets; nothing stands between them without a gap.

        After a gap a model is held to write something: led to a line of its own by one shape and refused the next, it
        would close the brackets again.
        """
        gap = self._layout.gap
        if content:
            content = f"({gap} {content} {gap}){'?' if empty else ''}"
        return f"{quoted(opening)} {content} {quoted(closing)}"


def _times(expression: str, least: int, most: int) -> str:
    return f"{expression}{{{least},{most}}}" if most else ""


def listed(item: str, comma: str, least: int, most: int) -> str:
    """Return an expression for `least` to `most` items, not none, with `comma` between them; `most` is at least 1."""
    return f"{item} {_times(f'({comma} {item})', max(0, least - 1), most - 1)}"


def escaped(text: str) -> str:
    """Return a regular expression for `text`, which may stand between slashes."""
    return re.escape(text).replace("/", r"\/")


def as_json(text: str) -> str:
    """Return `text` as a string of JSON."""
    return json.dumps(text, ensure_ascii=False)


def quoted(text: str) -> str:
    """Return `text` as a literal of the grammar, whatever it holds."""
    return json.dumps(text)
