"""Finds a member of an open folder by its file name; nothing is registered anywhere."""

from __future__ import annotations

import difflib
import importlib
import pkgutil
from pathlib import Path
from types import ModuleType

from rolecraft import loader
from rolecraft.errors import NotFound


def names(folder: str) -> list[str]:
    """Return the members of `rolecraft/<folder>/`, sorted; names that begin with an underscore are private."""
    package = importlib.import_module(f"rolecraft.{folder}")
    return sorted(m.name for m in pkgutil.iter_modules(package.__path__) if not m.name.startswith("_"))


def find(folder: str, name: str) -> ModuleType:
    """Return the module `rolecraft/<folder>/<name>`, or the one in the file `name` if it is a path to a `.py` file.

    Raises NotFound with the members there are and the nearest name.
    """
    if name.endswith(".py"):
        if not Path(name).is_file():
            raise NotFound(f"no file {name!r}; give a path to a Python file that exists")
        return loader.load(Path(name))
    known = names(folder)
    if name in known:
        return importlib.import_module(f"rolecraft.{folder}.{name}")
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    raise NotFound(f"no {name!r} in {folder}/: it has {', '.join(known) or 'nothing'}.{hint}")
