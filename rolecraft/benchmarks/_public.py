"""Where a benchmark finds a public data set that does not come with a package, and the order of its rows."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TypeVar

from rolecraft.errors import NotFound

FOLDER = "ROLECRAFT_DATA"
"""The environment variable that names the folder of data sets."""

_Item = TypeVar("_Item")


def place(name: str) -> Path:
    """Return the path of that name in the folder that ROLECRAFT_DATA names, else in `data`; nothing may be there."""
    return Path(os.environ.get(FOLDER) or "data") / name


def folder(name: str, source: str) -> Path:
    """Return the folder of a data set: see `place`; raises NotFound that says where it comes from."""
    path = place(name)
    if not path.is_dir():
        raise NotFound(f"no folder {str(path)!r}; put {source} there, or set {FOLDER} to the folder that has {name!r}")
    return path


def drawn(items: Iterable[_Item], key: Callable[[_Item], str], seed: int) -> list[_Item]:
    """Return the items in an order that `seed` and their keys alone decide, the same on every machine."""
    return sorted(items, key=lambda item: hashlib.sha256(f"{seed} {key(item)}".encode("utf-8", "replace")).digest())
