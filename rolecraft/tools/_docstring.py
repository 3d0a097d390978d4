"""Reads a docstring, in Google's, NumPy's or Sphinx's style: what a tool does, and what each of its parameters is."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

_PARAMETERS = "Args Arguments Parameters Params Attributes".split()  # attributes are a record's
_PARAMETERS += ["Other Parameters", "Keyword Args", "Keyword Arguments"]
_OTHERS = "Returns? Yields? Receives? Raises Examples? Notes? Warnings? Warns References? Todo".split()
_TITLE = re.compile(rf"^({'|'.join([*_PARAMETERS, *_OTHERS, 'See Also'])})(:?)\s*$")
_ENTRY = re.compile(r"^(\*{0,2}\w+)\s*(?:\(.*?\))?\s*:\s*(.*)$")
_NUMPY_ENTRY = re.compile(r"^(\*{0,2}\w+(?:\s*,\s*\*{0,2}\w+)*)\s*(?::.*)?$")
_FIELD = re.compile(r"^[:@](\w+)\s*([^:]*):\s*(.*)$")
_PARAMETER_FIELDS = frozenset("param parameter arg argument key keyword".split())


def read(text: str) -> tuple[str, dict[str, str]]:
    """Return the text before the first section or field as one line, and the description of each parameter."""
    opening = ""
    described: dict[str, str] = {}
    for title, underlined, lines in _sections(text.splitlines()):
        if not title:
            told, fields = _fields(lines)
            opening = " ".join(" ".join(told).split())
            described |= fields
        elif title in _PARAMETERS:
            described |= _numpy_entries(lines) if underlined else _google_entries(lines)
    return opening, described


def _sections(lines: list[str]) -> Iterator[tuple[str, bool, list[str]]]:
    """Yield each section: its title, whether a line of dashes is under it, and its lines; the first has no title."""
    title, underlined, held = "", False, list[str]()
    numbers = iter(range(len(lines)))
    for number in numbers:
        head = _TITLE.match(lines[number])
        dashes = number + 1 < len(lines) and re.fullmatch(r"-{3,}\s*", lines[number + 1]) is not None
        if head and (head[2] or dashes):
            yield title, underlined, held
            title, underlined, held = head[1], dashes, []
            if dashes:
                next(numbers)
        else:
            held.append(lines[number])
    yield title, underlined, held


def _fields(lines: Iterable[str]) -> tuple[list[str], dict[str, str]]:
    """Return the lines before the first `:field:`, and the parameters' fields; `:type x:` and others are left out."""
    opening: list[str] = []
    described: dict[str, str] = {}
    name, seen = "", False
    for line in lines:
        field = _FIELD.match(line)
        if field:
            named = field[2].split()
            name, seen = named[-1].lstrip("*") if named and field[1] in _PARAMETER_FIELDS else "", True
            if name:
                described[name] = field[3].strip()
        elif not seen:
            opening.append(line)
        elif name and line.strip():
            described[name] = f"{described[name]} {line.strip()}".strip()
    return opening, described


def _google_entries(lines: Iterable[str]) -> dict[str, str]:
    described: dict[str, str] = {}
    last, indent = "", 0
    for line in filter(str.strip, lines):
        depth = len(line) - len(line.lstrip())
        entry = _ENTRY.match(line.strip()) if not last or depth <= indent else None
        if entry:
            last, indent = entry[1].lstrip("*"), depth
            described[last] = entry[2].strip()
        elif last:
            described[last] = f"{described[last]} {line.strip()}".strip()
    return described


def _numpy_entries(lines: Iterable[str]) -> dict[str, str]:
    described: dict[str, str] = {}
    names: list[str] = []
    for line in filter(str.strip, lines):
        entry = _NUMPY_ENTRY.match(line)
        if entry:
            names = [name.strip().lstrip("*") for name in entry[1].split(",")]
        for name in names:
            described[name] = "" if entry else f"{described[name]} {line.strip()}".strip()
    return described
