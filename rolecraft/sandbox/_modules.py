"""Imports the modules that all sessions of a server share, and tells which files are theirs.

Runs inside the fork server: standard library only. Not covered: what lies inside the folder of an imported package is
readable as a whole, since packages read data files and import parts of themselves late.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Iterable, Mapping
from types import ModuleType

_STANDARD = "math statistics fractions itertools collections datetime re json dataclasses typing decimal".split()


def preload(modules: list[str], search: list[str]) -> list[str]:
    """Import `modules`, found in the folders `search`, and return the paths of all that came with them."""
    for name in _STANDARD:
        importlib.import_module(name)
    sys.path[:0] = search
    before = set(sys.modules)
    for name in modules:
        importlib.import_module(name)
    sys.path[: len(search)] = [""]
    return own_paths(set(sys.modules) - before, sys.modules)


def own_paths(names: Iterable[str], modules: Mapping[str, ModuleType]) -> list[str]:
    """Return the smallest paths that hold `names`: a package's own folder, a module's own file.

    The folder in which a package was found is not among them: beside it may lie anything, a script's folder its `.env`.
    """
    paths = set()
    for name in names:
        path = _package_path(name, modules)
        if path is not None:
            paths |= {path, f"{path}.libs"}  # wheels keep the shared libraries of `x/` in `x.libs/`
    return sorted(paths)


def _package_path(name: str, modules: Mapping[str, ModuleType]) -> str | None:
    """Return the folder of the outermost package that `name` belongs to, its file where it belongs to none.

    A package without an `__init__` is skipped: its folder is whatever has that name, `data/` say.
    """
    steps = name.split(".")
    for end in range(1, len(steps) + 1):
        file = getattr(modules.get(".".join(steps[:end])), "__file__", None)
        if isinstance(file, str) and os.path.isabs(file):
            folder, base = os.path.split(file)
            return folder if base.startswith("__init__.") else file
    return None
