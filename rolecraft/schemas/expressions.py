r"""Reads the regular expressions of ECMA-262, the `pattern` of JSON Schema, into a spelling that all engines share.

`\d`, `\w`, `\s`, `.` and Unicode properties become plain ranges of characters, so that the engine that judges and the
one that writes see the same texts. Python's `(?P<name>...)`, `(?i)`, `\A` and `\Z` are read too. Not covered: the `v`
flag's operations on sets, and names of properties that the `regex` package does not know.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import regex

Ranges = tuple[tuple[int, int], ...]

_MOST_CHARACTERS = 10_000
_MOST_SIZE = 50_000  # characters, counted repetitions written out: what `regex` soon compiles
_DEEPEST = 50
_MOST_PROPERTIES = 16  # of Unicode; each takes some 15 ms to look up
_SURROGATES = (0xD800, 0xDFFF)
_LAST = 0x10FFFF
_DIGIT: Ranges = ((48, 57),)
_WORD: Ranges = ((48, 57), (65, 90), (95, 95), (97, 122))
_SPACE: Ranges = (
    *((9, 13), (32, 32), (160, 160), (0x1680, 0x1680), (0x2000, 0x200A), (0x2028, 0x2029)),
    *((0x202F, 0x202F), (0x205F, 0x205F), (0x3000, 0x3000), (0xFEFF, 0xFEFF)),
)
_LINE_ENDS: Ranges = ((10, 10), (13, 13), (0x2028, 0x2029))
_CLASSES = {"d": _DIGIT, "w": _WORD, "s": _SPACE}
_CONTROLS = {"n": 10, "t": 9, "r": 13, "v": 11, "f": 12, "0": 0}
_HEXADECIMAL = {"x": 2, "u": 4}
_GROUPS = {
    "?=": "a look-ahead",
    "?!": "a look-ahead",
    "?<=": "a look-behind",
    "?<!": "a look-behind",
    "?>": "an atomic group",
}
_COUNT = regex.compile(r"\{(\d{0,9})(,?)(\d{0,9})\}")
_NAME = regex.compile(r"\?P?<([^\W\d]\w*)>")
_FLAGS = regex.compile(r"\?([a-z]+)([:)])")
_PROPERTY = regex.compile(r"\{([\w=]{1,60})\}|([A-Z])")


class Malformed(Exception):
    """An expression that is none; the message says why, as a verb."""


@dataclass(frozen=True, slots=True)
class Expression:
    """An expression in plain spelling; `beyond` names what of it no automaton keeps: look-ahead, back references ..."""

    text: str
    beyond: tuple[str, ...]


@lru_cache(maxsize=1024)
def read(pattern: str) -> Expression:
    """Return what `pattern` says; raises Malformed."""
    if len(pattern) > _MOST_CHARACTERS:
        raise Malformed(f"has {len(pattern)} characters; at most {_MOST_CHARACTERS} are read")
    reader = _Reader(pattern)
    text, size = reader.alternatives(0)
    if reader.rest:
        raise Malformed(f"has a ')' too many at {reader.at}")
    if size > _MOST_SIZE:
        raise Malformed("repeats too much")
    if any(number > reader.groups for number in reader.referred):
        raise Malformed("refers to a group that it does not have")
    return Expression(text, tuple(reader.beyond))


def found(pattern: str, text: str, seconds: float) -> bool:
    """Tell whether `pattern` matches anywhere in `text`; raises Malformed, and TimeoutError where it takes too long."""
    return compiled(pattern).search(text, timeout=max(seconds, 1e-3)) is not None


@lru_cache(maxsize=256)
def compiled(pattern: str) -> Any:
    """Return `pattern` as the `regex` package has it; raises Malformed."""
    try:
        return regex.compile(read(pattern).text, regex.V0 | regex.ASCII)
    except (regex.error, RecursionError, OverflowError) as error:
        raise Malformed(f"is not understood ({error})") from error


class _Reader:
    """Reads one expression from left to right; each part is (its plain spelling, its size written out)."""

    def __init__(self, pattern: str) -> None:
        self.at, self.groups = 0, 0
        self.beyond: dict[str, None] = {}
        self._properties: set[str] = set()
        self.referred: list[int] = []
        self._pattern, self._dot = pattern, _without(_LINE_ENDS)
        self._named: dict[str, int] = {}

    @property
    def rest(self) -> str:
        """What is still to be read."""
        return self._pattern[self.at :]

    def alternatives(self, depth: int) -> tuple[str, int]:
        """Read up to the end, or to the bracket that ends a group."""
        if depth > _DEEPEST:
            raise Malformed(f"is nested more than {_DEEPEST} deep")
        texts, size, begun = [""], 0, True
        while begun:
            while self._peek() not in ("", "|", ")"):
                text, inner = self._repeated(depth)
                texts[-1] += text
                size += inner
            begun = self._take("|")
            texts += [""] * begun
        return "|".join(texts), size

    def _peek(self) -> str:
        return self._pattern[self.at : self.at + 1]

    def _take(self, text: str) -> bool:
        taken = self._pattern.startswith(text, self.at)
        self.at += len(text) * taken
        return taken

    def _match(self, expression: Any) -> Any:
        match = expression.match(self._pattern, self.at)
        self.at = match.end() if match else self.at
        return match

    def _repeated(self, depth: int) -> tuple[str, int]:
        if self._peek() in ("*", "+", "?") or (self._peek() == "{" and self._counts(peek=True)):
            raise Malformed(f"has nothing to repeat at {self.at}")
        text, size = self._atom(depth)
        counts = self._counts()
        if counts is None:
            return text, size
        least, most = counts
        if most is not None and most < least:
            raise Malformed(f"repeats {least} to {most} times")
        if self._take("+"):
            self.beyond["a possessive repetition"] = None
            text = f"(?>(?:{text}){{{least},{'' if most is None else most}}})"
            return text, size * max(1, least)
        self._take("?")
        if self._counts(peek=True):
            raise Malformed(f"has nothing to repeat at {self.at}")
        times = {(0, None): "*", (1, None): "+", (0, 1): "?"}.get(counts, f"{{{least},{'' if most is None else most}}}")
        return f"(?:{text}){times}", size * max(1, least)

    def _counts(self, peek: bool = False) -> tuple[int, int | None] | None:
        """Read how often something is repeated: (least, most); None where it is not."""
        begin = self.at
        simple = {"*": (0, None), "+": (1, None), "?": (0, 1)}.get(self._peek())
        counted = None if simple else self._match(_COUNT)
        self.at = begin if peek else self.at + bool(simple)
        if counted is None or not (counted[1] or counted[3]):
            self.at = self.at if simple else begin
            return simple
        least = int(counted[1] or 0)
        return least, int(counted[3]) if counted[3] else None if counted[2] else least

    def _atom(self, depth: int) -> tuple[str, int]:
        character = self._pattern[self.at]
        self.at += 1
        if character == "(":
            return self._group(depth)
        if character == "[":
            return self._spelled(self._class()), 1
        if character == "\\":
            return self._escape(), 1
        if character == ".":
            return self._spelled(self._dot), 1
        if character in "^$":
            return r"\A" if character == "^" else r"\z", 1
        return self._spelled(((ord(character), ord(character)),)), 1

    def _group(self, depth: int) -> tuple[str, int]:
        opening = next((opening for opening in (*_GROUPS, "?:") if self._take(opening)), "")
        if opening in _GROUPS:
            self.beyond[_GROUPS[opening]] = None
        elif not opening and self._take("?P="):
            return self._reference(self._until(")"))
        elif not opening and (named := self._match(_NAME)):
            self._named.setdefault(named[1], self.groups + 1)
        elif not opening and self._peek() == "?":
            opening = self._flags()
            if not opening:
                return "", 0
        self.groups += not opening
        text, size = self.alternatives(depth + 1)
        if not self._take(")"):
            raise Malformed("has a '(' that is not closed")
        return f"({opening}{text})", size

    def _flags(self) -> str:
        """Read Python's inline flags; those for a group are returned."""
        whole = self.at == 1
        flags = self._match(_FLAGS)
        unknown = set(flags[1]) - set("isu") if flags else {"?"}
        if flags is None or unknown or (not whole and flags[2] == ")"):
            raise Malformed(f"has a group that begins with '(?' at {self.at}, which ECMA-262 does not have")
        if "s" in flags[1]:
            self._dot = _without(())
        if "i" in flags[1]:
            self.beyond["an inline flag"] = None
        if flags[2] == ")":
            return self._whole("i" in flags[1])
        return f"?{'i' if 'i' in flags[1] else ''}:"

    def _whole(self, ignores_case: bool) -> str:
        """Read what flags without a group are for: all the rest, which ends where the pattern does."""
        self._pattern += ")"
        return "?i:" if ignores_case else "?:"

    def _until(self, end: str) -> str:
        name, closed, _ = self.rest.partition(end)
        if not closed:
            raise Malformed(f"has no {end!r} after {self.at}")
        self.at += len(name) + 1
        return name

    def _reference(self, name: str) -> tuple[str, int]:
        """Return a back reference; one to a group that took no part matches, as in ECMA-262."""
        number = int(name) if name.isdecimal() else self._named.get(name, 0)
        if not number:
            raise Malformed(f"refers to a group {name[:40]!r} that it does not have")
        self.beyond["a back reference"] = None
        self.referred.append(number)
        return f"(?:(?({number})\\{number}|))", 1

    def _escape(self) -> str:
        """Read what stands behind a backslash outside of a class."""
        sign = self._peek()
        if sign in ("b", "B"):
            self.at += 1
            self.beyond["a boundary"] = None
            return f"\\{sign}"
        if sign in ("A", "Z", "z"):
            self.at += 1
            return r"\A" if sign == "A" else r"\z"
        if sign.isdecimal() and sign != "0":
            digits = "".join(itertools.takewhile(str.isdecimal, self.rest[:4]))
            self.at += len(digits)
            return self._reference(digits)[0]
        if self._take("k<"):
            return self._reference(self._until(">"))[0]
        return self._spelled(self._escaped())

    def _escaped(self) -> Ranges:
        """Read an escape that stands for characters."""
        sign = self._peek()
        self.at += 1
        if sign.lower() in _CLASSES and sign:
            ranges = _CLASSES[sign.lower()]
            return ranges if sign.islower() else _without(ranges)
        if sign in ("p", "P"):
            named = self._match(_PROPERTY)
            if named is None:
                raise Malformed(f"has '\\{sign}' without a property in braces at {self.at}")
            self._properties.add(name := named[1] or named[2])
            if len(self._properties) > _MOST_PROPERTIES:
                raise Malformed(f"has more than {_MOST_PROPERTIES} Unicode properties")
            ranges = _having(name)
            return ranges if sign == "p" else _without(ranges)
        code = self._code(sign)
        return ((code, code),)

    def _code(self, sign: str) -> int:
        if sign in _CONTROLS and sign:
            return _CONTROLS[sign]
        if sign == "c" and self._peek().isascii() and self._peek().isalpha():
            self.at += 1
            return ord(self._pattern[self.at - 1]) % 32
        if sign in _HEXADECIMAL:
            return self._hexadecimal(_HEXADECIMAL[sign])
        if not sign or (sign.isascii() and sign.isalnum()):
            raise Malformed(f"has the escape '\\{sign}', which ECMA-262 does not have")
        return ord(sign)

    def _hexadecimal(self, length: int) -> int:
        code = self._digits(self._until("}") if self._take("{") else self._next(length))
        low = self.rest[2:6]
        if 0xD800 <= code < 0xDC00 and self.rest.startswith("\\u") and low[:2].lower() in ("dc", "dd", "de", "df"):
            self.at += 6
            return 0x10000 + ((code - 0xD800) << 10) + self._digits(low) - 0xDC00
        return code

    def _next(self, length: int) -> str:
        self.at += length
        return self._pattern[self.at - length : self.at].ljust(length)

    def _digits(self, text: str) -> int:
        try:
            code = int(text, 16) if text.isalnum() else -1
        except ValueError:
            code = -1
        if not 0 <= code <= _LAST:
            raise Malformed(f"has {text[:10]!r} for a character's number at {self.at}")
        return code

    def _class(self) -> Ranges:
        """Read a class up to its end."""
        excludes, ranges = self._take("^"), list[tuple[int, int]]()
        while not self._take("]"):
            first = self._member()
            if self._peek() == "-" and self.rest[1:2] not in ("", "]"):
                self.at += 1
                last = self._member()
                if len(first) == len(last) == 1 and first[0][0] == first[0][1] and last[0][0] == last[0][1]:
                    if last[0][0] < first[0][0]:
                        raise Malformed(f"has a range that ends before it begins at {self.at}")
                    first = ((first[0][0], last[0][0]),)
                else:
                    first = (*first, *last, (45, 45))
            ranges += first
        return _without(ranges) if excludes else _merged(ranges)

    def _member(self) -> Ranges:
        if not self.rest:
            raise Malformed("has a '[' that is not closed")
        if not self._take("\\"):
            self.at += 1
            code = ord(self._pattern[self.at - 1])
            return ((code, code),)
        if self._take("b"):
            return ((8, 8),)
        return ((45, 45),) if self._take("-") else self._escaped()

    def _spelled(self, ranges: Iterable[tuple[int, int]]) -> str:
        """Spell a class out; surrogates, which no text holds, are left out."""
        pieces = [_piece(low, high) for low, high in _merged(ranges)]
        if not pieces:
            self.beyond["a class without characters"] = None
            return "(?!)"
        return pieces[0] if len(pieces) == 1 and "-" not in pieces[0] else f"[{''.join(pieces)}]"


@lru_cache(maxsize=64)
def _having(name: str) -> Ranges:
    """Return the characters with a Unicode property."""
    codes = np.arange(_LAST + 1, dtype="<u4")
    every = np.delete(codes, slice(_SURROGATES[0], _SURROGATES[1] + 1)).tobytes().decode("utf-32-le")
    try:
        runs = regex.finditer(rf"\p{{{name}}}+", every)
        bounds = [(ord(every[run.start()]), ord(every[run.end() - 1])) for run in runs]
    except regex.error as error:
        raise Malformed(f"has the property {name!r}, which is not known") from error
    return _merged(bounds)


def _merged(ranges: Iterable[tuple[int, int]]) -> Ranges:
    """Return ranges in order, none of which touches another, without surrogates."""
    below, above = _SURROGATES[0] - 1, _SURROGATES[1] + 1
    halves = (half for low, high in ranges for half in ((low, min(high, below)), (max(low, above), high)))
    merged: list[tuple[int, int]] = []
    for low, high in sorted(half for half in halves if half[0] <= half[1]):
        if merged and low <= merged[-1][1] + 1:
            merged[-1] = (merged[-1][0], max(merged[-1][1], high))
        else:
            merged.append((low, high))
    return tuple(merged)


def _without(ranges: Iterable[tuple[int, int]]) -> Ranges:
    """Return all other characters."""
    ends = [-1, *(end for pair in _merged(ranges) for end in pair), _LAST + 1]
    return _merged((low + 1, high - 1) for low, high in zip(ends[::2], ends[1::2], strict=True))


def _piece(low: int, high: int) -> str:
    return _sign(low) if low == high else f"{_sign(low)}-{_sign(high)}"


def _sign(code: int) -> str:
    sign = chr(code)
    return sign if not sign.isascii() or sign.isalnum() else f"\\x{code:02x}"
