"""Runs a Python file that the user named, which may import the modules beside it.

The folder is not put on `sys.path`: only imports written in its own files look there first, now and when their
functions run. So a neighbour called `requests.py` is nobody else's `requests`, and two folders may have a `helpers.py`
each. Neighbours are loaded once per folder; the standard library and `rolecraft` are never looked for beside a file.

Not covered: a folder without `__init__.py` is no neighbour, as it may hold data; `importlib.import_module` and pickles
ask Python alone, which knows no neighbours.
"""

from __future__ import annotations

import builtins
import hashlib
import importlib
import importlib.util
import sys
import threading
from collections.abc import Mapping, Sequence
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from pathlib import Path
from types import ModuleType
from typing import Any

_OWN = "_rolecraft_"
"""How the names of modules begin that are a user's own."""


def load(path: Path) -> ModuleType:
    """Run the file and return its module, which is not `__main__`; raises whatever the file raises."""
    whole = path.absolute()
    package = _package(whole.parent)
    name = f"{package}.{path.stem.replace('.', '_')}"
    importlib.invalidate_caches()  # a neighbour may be younger than the last look into the folder
    spec = importlib.util.spec_from_file_location(name, whole, loader=_Loader(name, str(whole), package))
    assert spec is not None, path
    return _run(spec)


def origin(thing: object) -> Path | None:
    """Return the file that defined a function or class, if it is a user's own: another process must `load` it first."""
    module = sys.modules.get(getattr(thing, "__module__", None) or "")
    return Path(module.__file__) if module and module.__file__ and module.__name__.startswith(_OWN) else None


class _Loader(SourceFileLoader):
    """Runs a file whose imports look beside the user's file first."""

    def __init__(self, name: str, path: str, package: str) -> None:
        super().__init__(name, path)
        self._package = package

    def exec_module(self, module: ModuleType) -> None:
        """Run the module with an `__import__` of its own, which functions keep for imports in their bodies."""
        vars(module)["__builtins__"] = {**vars(builtins), "__import__": self._import}
        super().exec_module(module)

    def _import(
        self,
        name: str,
        globals: Mapping[str, object] | None = None,
        locals: Mapping[str, object] | None = None,
        fromlist: Sequence[str] | None = (),
        level: int = 0,
    ) -> Any:
        whole = f"{self._package}.{name}"
        if level:
            inside = str((globals or {}).get("__package__", ""))
            whole = importlib.util.resolve_name("." * level + name, inside)
        elif not _stands_beside(self._package, name.partition(".")[0]):
            return builtins.__import__(name, globals, locals, fromlist or (), level)
        with vars(sys.modules[self._package])["lock"]:
            return self._imported(whole, fromlist or ())

    def _imported(self, whole: str, fromlist: Sequence[str]) -> ModuleType:
        module = _neighbour(whole, self._package)
        for part in fromlist:
            if not hasattr(module, part) and hasattr(module, "__path__") and _find(f"{whole}.{part}", module):
                _neighbour(f"{whole}.{part}", self._package)
        return module if fromlist else sys.modules[".".join(whole.split(".")[:2])]


def _package(folder: Path) -> str:
    """Return the name of the package that stands for a folder, made at the first look."""
    name = f"{_OWN}{hashlib.sha256(str(folder.resolve()).encode()).hexdigest()[:12]}"
    if name not in sys.modules:
        package = ModuleType(name)
        package.__path__ = [str(folder)]
        vars(package)["lock"] = threading.RLock()  # no thread may see a neighbour that another is still loading
        sys.modules.setdefault(name, package)
    return name


def _stands_beside(package: str, top: str) -> bool:
    known = top in sys.stdlib_module_names or top == "rolecraft"
    found = None if known else _find(f"{package}.{top}", sys.modules[package])
    return (
        found is not None and found.loader is not None
    )  # a folder without __init__.py is no neighbour: it may be data


def _find(name: str, parent: ModuleType) -> ModuleSpec | None:
    return sys.modules[name].__spec__ if name in sys.modules else PathFinder.find_spec(name, parent.__path__)


def _neighbour(name: str, package: str) -> ModuleType:
    """Return the module `name` of the package, loaded after the packages it lies in."""
    if name in sys.modules:
        return sys.modules[name]
    above, _, last = name.rpartition(".")
    parent = _neighbour(above, package)
    spec = _find(name, parent)
    if spec is None:
        raise ModuleNotFoundError(f"no module named {name.partition('.')[2]!r}", name=name.partition(".")[2])
    if isinstance(spec.loader, SourceFileLoader):
        spec.loader = _Loader(name, spec.loader.path, package)
    module = _run(spec)
    setattr(parent, last, module)
    return module


def _run(spec: ModuleSpec) -> ModuleType:
    """Run a module under its name, by which dataclasses and type hints look up where they were written."""
    assert spec.loader is not None, spec.name
    module = importlib.util.module_from_spec(spec)
    before = sys.modules.get(spec.name)
    sys.modules[spec.name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        if before is None:
            del sys.modules[spec.name]
        else:
            sys.modules[spec.name] = before
        raise
    return sys.modules[spec.name]
