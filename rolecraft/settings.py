"""Turns YAML and flags into frozen dataclasses and back; an unknown key is an error with the nearest name."""

from __future__ import annotations

import copy
import dataclasses
import difflib
import math
import reprlib
import types
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml

from rolecraft import parsing
from rolecraft.errors import NotFound, SettingsError

_Settings = TypeVar("_Settings")
_SHOWN = 200


def read_yaml(path: Path) -> dict[str, Any]:
    """Return the mapping in a YAML file; raises NotFound or SettingsError naming the file."""
    if not path.is_file():
        raise NotFound(f"no file {str(path)!r}; give a path to a YAML file that exists")
    try:
        data = parsing.load_yaml(parsing.read_text(path))
    except ValueError as error:
        raise SettingsError(f"{path}: not valid YAML: {error}") from error
    if data is None:
        return {}
    if not isinstance(data, dict):
        raise SettingsError(f"{path}: expected sections with keys, got {type(data).__name__}")
    return data


def override(data: Mapping[str, Any], flags: Sequence[str]) -> dict[str, Any]:
    """Return `data` with `section.key=value` flags applied, at any depth; values are read as YAML."""
    merged = copy.deepcopy(dict(data))
    for flag in flags:
        path, equals, value = flag.partition("=")
        *sections, key = path.split(".")
        if not equals or not sections or not all((*sections, key)):
            raise SettingsError(f"cannot read override {flag!r}; write it as section.key=value")
        target = merged
        for section in sections:
            target = target.setdefault(section, {})
            if not isinstance(target, dict):
                raise SettingsError(f"cannot set {path!r}: {section!r} holds {_shown(target)}, not a section")
        try:
            target[key] = parsing.load_yaml(value)
        except ValueError as error:
            raise SettingsError(f"cannot read override {flag!r}: its value is not valid YAML ({error})") from error
    return merged


def from_dict(kind: type[_Settings], data: Mapping[str, Any] | None, where: str = "") -> _Settings:
    """Return a `kind` from `data`; raises SettingsError for an unknown key or a value of the wrong type."""
    place = where or kind.__name__
    if not isinstance(data, Mapping | None):
        raise SettingsError(f"{place} is {_shown(data)} ({type(data).__name__}); expected keys with values")
    values = dict(data or {})
    hints = typing.get_type_hints(kind)
    known = [f.name for f in dataclasses.fields(kind)]  # type: ignore[arg-type]
    for key in values:
        if key not in known:
            near = difflib.get_close_matches(str(key), known, n=1, cutoff=0.5)
            hint = f" Did you mean {near[0]!r}?" if near else f" It has: {', '.join(known)}."
            raise SettingsError(f"unknown key {key!r} in {place}.{hint}")
    read = {key: _read(hints[key], value, f"{place}.{key}") for key, value in values.items()}
    try:
        return kind(**read)
    except TypeError as error:
        raise SettingsError(f"{place}: {error}") from error


def require_choice(value: Any, choices: Sequence[Any], where: str) -> None:
    """Raise SettingsError unless `value`, which stands at `where`, is one of the choices."""
    if value not in choices:
        raise SettingsError(f"{where} is {_shown(value)}; it must be one of {', '.join(map(repr, choices))}")


def to_dict(settings: Any) -> dict[str, Any]:
    """Return a settings dataclass as plain YAML-ready data."""
    data = dataclasses.asdict(settings)
    return {key: _plain(value) for key, value in data.items()}


def write_yaml(path: Path, data: Mapping[str, Any]) -> None:
    """Write `data` as YAML, keys in the order given."""
    path.write_text(yaml.safe_dump(dict(data), sort_keys=False, allow_unicode=True), encoding="utf-8")


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return str(value) if isinstance(value, Path) else value


def _read(hint: Any, value: Any, where: str) -> Any:
    """Check and convert `value` to the annotated type `hint`."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any:
        return value
    if origin in (typing.Union, types.UnionType):
        return _read_union(arguments, value, where)
    if origin is typing.Literal:
        require_choice(value, arguments, where)
        return value
    if origin is tuple and isinstance(value, list | tuple):
        return tuple(_read(arguments[0], item, f"{where}[{i}]") for i, item in enumerate(value))
    if origin in (dict, Mapping) and isinstance(value, Mapping):
        return dict(value)
    if dataclasses.is_dataclass(hint) and isinstance(value, Mapping):
        return from_dict(typing.cast("type[Any]", hint), value, where)
    return _read_scalar(hint, value, where)


def _read_union(arguments: tuple[Any, ...], value: Any, where: str) -> Any:
    if value is None and type(None) in arguments:
        return None
    problems = []
    for argument in arguments:
        if argument is type(None):
            continue
        try:
            return _read(argument, value, where)
        except SettingsError as error:
            problems.append(str(error))
    raise SettingsError(problems[0] if len(problems) == 1 else f"{where} is {_shown(value)}; expected {arguments}")


def _read_scalar(hint: Any, value: Any, where: str) -> Any:
    if hint is Path and isinstance(value, str):
        return Path(value)
    if hint is float and isinstance(value, int | float | str) and not isinstance(value, bool):
        return _read_float(value, where)
    if isinstance(hint, type) and isinstance(value, hint) and (hint is bool or not isinstance(value, bool)):
        return value
    expected = getattr(hint, "__name__", str(hint))
    raise SettingsError(f"{where} is {_shown(value)} ({type(value).__name__}); expected {expected}")


def _read_float(value: float | str, where: str) -> float:
    """Return a finite number; YAML 1.1 reads 1e-4 as text."""
    try:
        number = float(value)
    except ValueError as error:
        raise SettingsError(f"{where} is {_shown(value)} (str); expected float") from error
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise SettingsError(f"{where} is {_shown(value)} ({type(value).__name__}); expected a finite number")
    return number


def _shown(value: Any) -> str:
    """Return a value as an error may quote it."""
    if isinstance(value, int) and value.bit_length() > _SHOWN:  # Python refuses to write thousands of digits
        return f"a whole number of {value.bit_length()} bits"
    text = reprlib.repr(value) if isinstance(value, Mapping | list | tuple) else repr(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."
