"""Finds a member of an open folder by its file name; nothing is registered anywhere.

A name is text and finds members alone, wherever it was read: a recipe, a contract or a tokenizer's config runs no file.
A user's own file is run where it is given as a `Path`, which only Python and the command line make (see `given`).
"""

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


def given(word: str) -> str | Path:
    """Return what a user named on the command line, as `find` takes it; a word that ends in `.py` is their own file.

    Never called on what a file holds.
    """
    return Path(word) if word.endswith(".py") else word


def find(folder: str, name: str | Path) -> ModuleType:
    """Return the module `rolecraft/<folder>/<name>`; a `Path` is a user's own Python file, which is run.

    Raises NotFound with the members there are and the nearest name.
    """
    if isinstance(name, Path):
        if not name.is_file():
            raise NotFound(f"no file {str(name)!r}; give a path to a Python file that exists")
        return loader.load(name)
    known = names(folder)
    if name.endswith(".py"):
        raise NotFound(
            f"{name!r} is a Python file, and no file is run because another one names it; name it yourself on the "
            f"command line (in Python: as a Path), or a member of {folder}/: {', '.join(known) or 'none'}"
        )
    if name in known:
        return importlib.import_module(f"rolecraft.{folder}.{name}")
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    raise NotFound(f"no {name!r} in {folder}/: it has {', '.join(known) or 'nothing'}.{hint}")
