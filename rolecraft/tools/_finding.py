"""Finds the tools of a member of this folder, or of a user's own Python file."""

from __future__ import annotations

import inspect
import traceback
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from rolecraft import catalog
from rolecraft.errors import NotFound, RolecraftError, UserError
from rolecraft.settings import from_dict
from rolecraft.tools._contract import ToolLike
from rolecraft.tools._function import Tool


def find(name: str | Path, settings: Mapping[str, Any] | None = None) -> tuple[ToolLike, ...]:
    """Return the tools of a member of this folder, or (a `Path`) of a user's `.py` file.

    `settings` go to its `Settings`. Raises NotFound for a misspelt name and SettingsError for settings that it does
    not have.
    """
    module = _run_file(name) if isinstance(name, Path) else catalog.find("tools", name)
    return _tools_in(module, settings)


def load_tools(path: Path) -> tuple[ToolLike, ...]:
    """Return every tool in a user's own `.py` file, in the order written.

    Raises NotFound when the file is absent and UserError, with file and line, when it does not run or has no tool.
    """
    if path.suffix != ".py":
        raise NotFound(f"{str(path)!r} is no Python file; give a path that ends in .py")
    return find(path)


def _run_file(path: Path) -> ModuleType:
    try:
        return catalog.find("tools", path)
    except RolecraftError as error:
        if isinstance(error, NotFound) and not path.is_file():
            raise
        raise UserError(f"{_place(path, error)}: {error}") from error
    except (Exception, SystemExit) as error:  # the user's file may raise anything
        raise UserError(f"{_place(path, error)}: {type(error).__name__}: {error}") from error


def _place(path: Path, error: BaseException) -> str:
    """Return `file, line n` for the deepest line of `path`, or of a file beside it, that led to `error`."""
    folder = path.absolute().parent
    frames = [(frame.filename, frame.lineno) for frame in traceback.extract_tb(error.__traceback__)]
    if isinstance(error, SyntaxError) and error.filename is not None:
        frames.append((error.filename, error.lineno))
    for name, line in reversed(frames):
        if Path(name).is_relative_to(folder):
            return f"{path.parent / Path(name).relative_to(folder)}, line {line}"
    return str(path)


def _tools_in(module: ModuleType, settings: Mapping[str, Any] | None) -> tuple[ToolLike, ...]:
    name = module.__name__.rpartition(".")[2]
    written = {id(value): value for value in vars(module).values()}
    found = [member for value in written.values() for member in ([value] if _is_tool(value) else _methods(value))]
    kind, opener = vars(module).get("Settings"), vars(module).get("open")
    if kind is not None and opener is not None:
        found.append(opener(from_dict(kind, settings, name)))
    elif settings:
        raise UserError(f"{name!r} takes no settings; got {', '.join(map(repr, settings))}")
    if not found:
        raise UserError(f"no @tool in {module.__file__}: {_remedy(module)} (from rolecraft.tools import tool)")
    return tuple(found)


def _methods(value: object) -> list[ToolLike]:
    """Return the tools among the methods of an object, in the order written."""
    kind, found = type(value), list[ToolLike]()
    for name in [] if isinstance(value, type | ModuleType) else _tool_names(kind):
        written = inspect.getattr_static(kind, name)
        bound = _unwrapped(written).__get__(kind if isinstance(written, classmethod) else value, kind)
        found.append(bound)
    return found


def _unwrapped(written: Any) -> Any:
    return written.__func__ if isinstance(written, classmethod | staticmethod) else written


def _tool_names(kind: type) -> list[str]:
    """Return the names of the attributes of a class that are tools, those of its bases first."""
    if kind.__module__ == "builtins":  # what most values of a module are: functions, texts, numbers
        return []
    written = dict[str, Any]()
    for base in reversed(kind.__mro__):
        written.update(vars(base))
    return [name for name, value in written.items() if isinstance(_unwrapped(value), Tool)]


def _remedy(module: ModuleType) -> str:
    own = [(name, value) for name, value in vars(module).items() if getattr(value, "__module__", "") == module.__name__]
    for name, value in own:
        if isinstance(value, type) and _tool_names(value):
            return f"class {name!r} has tools; make an object of it, {name.lower()} = {name}()"
    functions = [name for name, value in own if inspect.isfunction(value)]
    return f"put it above {functions[0]!r}" if functions else "write a function and put it above"


def _is_tool(value: object) -> bool:
    return not isinstance(value, type) and isinstance(value, ToolLike)
