"""Reads JSON and YAML that somebody else may have written: what Python's readers take or never end is refused.

That is: text that is no UTF-8, a key given twice, NaN and infinity, values nested too deeply, whole numbers of
thousands of digits, and YAML whose aliases stand for more than they are. Not covered: what keys and values mean.
"""

from __future__ import annotations

import json
import math
from collections.abc import Hashable, Iterator
from pathlib import Path
from typing import Any

import yaml

from rolecraft.errors import SettingsError

_DEPTH = 64
_OF_THE_MAPPING = ("tag:yaml.org,2002:merge", "tag:yaml.org,2002:value")  # keys that are read with what they stand in
_VALUES = 100_000
"""The most values in a YAML file, each counted as often as aliases repeat it."""


def read_text(path: Path) -> str:
    """Return the text of a UTF-8 file; raises SettingsError naming the file if it is none or cannot be read."""
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise SettingsError(f"{path}: byte {error.start} is not UTF-8; save the file as UTF-8 text") from error
    except OSError as error:
        raise SettingsError(f"{path} cannot be read: {error.strerror or error}") from error


def read_json(path: Path) -> dict[str, Any]:
    """Return the object in a JSON file; raises SettingsError that names the file and what is wrong with it."""
    try:
        data = json.loads(
            read_text(path), parse_constant=_no_constant, parse_float=_finite, object_pairs_hook=_no_duplicates
        )
        _require_flat(data)
    except (ValueError, RecursionError) as error:
        raise SettingsError(f"{path} is no valid JSON: {_told(error)}") from error
    if not isinstance(data, dict):
        raise SettingsError(f"{path} holds {type(data).__name__}; expected an object with keys")
    return data


def load_yaml(text: str) -> Any:
    """Return what YAML text holds; raises ValueError, in a line, for what is no YAML or cannot be meant."""
    try:
        loader = yaml.SafeLoader(text)
        try:
            node = loader.get_single_node()
            if node is None:
                return None
            _check(node, loader)
            data = loader.construct_document(node)
        finally:
            loader.dispose()
        _require_flat(data)
    except yaml.YAMLError as error:
        raise ValueError(" ".join(str(error).split())) from error
    except (RecursionError, OverflowError, AttributeError, TypeError) as error:
        raise ValueError(_told(error)) from error
    return data


def _check(node: yaml.Node, loader: yaml.SafeLoader) -> None:
    """Raise ValueError for a key given twice, and for more values than a file may stand for, aliases written out.

    So is a value that is not what it is said to be, as `!!int ""`.
    """
    left = _VALUES

    def visit(node: yaml.Node, above: tuple[int, ...]) -> None:
        nonlocal left
        left -= 1
        line = node.start_mark.line + 1
        if left < 0:
            raise ValueError(f"its aliases stand for more than {_VALUES:,} values; write out what is meant")
        if id(node) in above:
            raise ValueError(f"line {line}: a value that holds itself; write out what is meant")
        if len(above) >= _DEPTH:
            raise ValueError(f"line {line}: values nested more than {_DEPTH} deep")
        below = (*above, id(node))
        if isinstance(node, yaml.MappingNode):
            _require_distinct(node)
        elif isinstance(node, yaml.ScalarNode) and node.tag not in _OF_THE_MAPPING:
            _require_made(node, loader)
        for child in _children(node):
            visit(child, below)

    visit(node, ())


def _children(node: yaml.Node) -> Iterator[yaml.Node]:
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            yield key
            yield value
    elif isinstance(node, yaml.SequenceNode):
        yield from node.value


def _require_distinct(node: yaml.MappingNode) -> None:
    seen: dict[Hashable, int] = {}
    for key, _ in node.value:
        name = (key.tag, key.value) if isinstance(key, yaml.ScalarNode) else None
        if name is None:
            raise ValueError(f"line {key.start_mark.line + 1}: a key that is a list or a mapping; write a word")
        if name in seen and key.value != "<<":
            raise ValueError(
                f"line {key.start_mark.line + 1}: key {key.value!r} stands in line {seen[name]} already; keep one"
            )
        seen[name] = key.start_mark.line + 1


def _require_made(node: yaml.ScalarNode, loader: yaml.SafeLoader) -> None:
    """Raise ValueError for a scalar of which PyYAML makes nothing; it has no error of its own for all that it meets."""
    try:
        loader.construct_object(node)
    except (LookupError, TypeError, AttributeError, ArithmeticError, ValueError) as error:
        what = f"line {node.start_mark.line + 1}: {node.value[:40]!r} is no {node.tag.rpartition(':')[2]}"
        why = f" ({error})" if isinstance(error, ValueError) else ""
        raise ValueError(f"{what}{why}; write one, or put it in quotes") from error


def _require_flat(data: Any, depth: int = 0) -> None:
    """Raise ValueError for a number that is none, or for values nested too deeply."""
    if depth > _DEPTH:
        raise ValueError(f"values nested more than {_DEPTH} deep")
    if isinstance(data, float) and not math.isfinite(data):
        raise ValueError(f"{data} is no number that can be used; write a finite one")
    for item in data.values() if isinstance(data, dict) else data if isinstance(data, list | set) else ():
        _require_flat(item, depth + 1)


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is no number that can be used; write a finite one")


def _finite(text: str) -> float:
    value = float(text)
    return value if math.isfinite(value) else _no_constant(text)


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise ValueError(f"key {key!r} stands there twice; keep one")
        found[key] = value
    return found


def _told(error: Exception) -> str:
    return "values nested too deeply" if isinstance(error, RecursionError) else str(error)
