"""Modules given to a session bring their own files into it, and nothing that lies beside them."""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from rolecraft.sandbox import Limits, _confine, _modules, layers, process

PATIENT = Limits(seconds=60.0)
WITHOUT = [frozenset[str](), frozenset(("mounts",))]


@pytest.fixture
def project(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A script's folder on the search path before the packages of the `.venv` in it, and secrets all over it."""
    folder = Path(tempfile.mkdtemp(prefix="project-"))
    folder.chmod(0o755)
    packages = folder / ".venv" / "lib" / "site-packages"
    (packages / "boxed_package" / "inner").mkdir(parents=True)
    (packages / "boxed_package" / "__init__.py").write_text("import fractions, shelve, boxed_module\n")
    (packages / "boxed_package" / "late.py").write_text("x = 3\n")
    (packages / "boxed_package" / "data.txt").write_text("data")
    (packages / "boxed_module.py").write_text("")
    (folder / "boxed_helper.py").write_text("y = 4\n")
    (folder / "boxed_space" / "inner").mkdir(parents=True)
    (folder / "boxed_space" / "inner" / "__init__.py").write_text("")
    for place in (folder, folder / ".venv", folder / ".local", folder / "boxed_space", packages, packages / "keyring"):
        place.mkdir(exist_ok=True)
        (place / "secret.txt").write_text("secret")
    monkeypatch.syspath_prepend(str(packages))
    monkeypatch.syspath_prepend(str(folder))
    yield folder
    shutil.rmtree(folder)


MODULES = ("boxed_package", "boxed_helper", "boxed_space.inner")


@pytest.mark.parametrize("without", WITHOUT, ids=["everything", "no mounts"])
def test_nothing_beside_a_module_can_be_read(project: Path, without: frozenset[str]):
    if not layers()["seccomp"]:
        pytest.skip("no system-call filter on this machine")
    secrets = [str(path) for path in sorted(project.rglob("secret.txt"))]
    assert len(secrets) == 6
    with process.open_session(PATIENT, modules=MODULES, without=without) as session:
        assert session.run("import boxed_package.late, boxed_helper\nboxed_package.late.x").output == "3\n"
        data = project / ".venv/lib/site-packages/boxed_package/data.txt"
        assert session.run(f"open({str(data)!r}).read()").output == "'data'\n"
        for path in secrets:
            outcome = session.run(f"open({path!r}).read()")
            assert str(outcome.error).startswith(("FileNotFoundError", "PermissionError")), outcome
        for folder in (project, project / ".venv", project / "boxed_space"):
            listing = session.run(f"import os\nos.listdir({str(folder)!r})")
            assert "secret" not in listing.output, listing


def test_modules_cost_no_layer(project: Path):
    with process.open_session(PATIENT, modules=MODULES) as session:
        assert session._servers.server(MODULES).layers == layers()


def test_a_relative_search_path_means_the_applications_folder(project: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(project)
    monkeypatch.setattr(sys, "path", [".", *(path for path in sys.path if path != str(project))])
    with process.open_session(PATIENT, modules=("boxed_helper",)) as session:
        assert session.run("import boxed_helper\nboxed_helper.y").output == "4\n"


def module(file: object) -> ModuleType:
    made = ModuleType("made")
    made.__file__ = file  # type: ignore[assignment]
    return made


@pytest.mark.parametrize(
    ("files", "paths"),
    [
        ({"a": "/p/a.py"}, ["/p/a.py"]),
        ({"a": "/p/a.cpython-311.so"}, ["/p/a.cpython-311.so"]),
        ({"a": "/p/a/__init__.py", "a.b": "/p/a/b.py"}, ["/p/a"]),
        ({"a": None, "a.b": "/p/a/b/__init__.py", "a.b.c": "/p/a/b/c.py"}, ["/p/a/b"]),
        ({"a": None, "a.b": "/p/a/b.py"}, ["/p/a/b.py"]),
        ({"a": None}, []),
        ({"a": "lies.py"}, []),
        ({"a": 7}, []),
    ],
)
def test_the_smallest_paths_are_told(files: dict[str, object], paths: list[str]):
    modules = {name: module(file) for name, file in files.items()}
    assert [path for path in _modules.own_paths(modules, modules) if not path.endswith(".libs")] == paths


def test_what_the_standard_library_shows_is_not_shown_again():
    library = _confine._library()
    packages = f"{library}/site-packages"
    paths = {library, "/p"}
    assert _confine._is_inside(f"{library}/json", paths)
    assert _confine._is_inside("/p/a", paths)
    assert not _confine._is_inside("/pa", paths)
    assert not _confine._is_inside(library, {library, "/"})
    assert not _confine._is_inside(f"{packages}/numpy", paths)
    assert _confine._is_inside(f"{packages}/numpy/x.so", {*paths, f"{packages}/numpy"})
