"""Members of an open folder are found by file name, and a misspelt name is answered with the nearest one."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest

from rolecraft import catalog
from rolecraft.errors import NotFound


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An open folder of its own: `rolecraft.zoo` with two members, a private one and a package."""
    package = tmp_path / "zoo"
    (package / "lions").mkdir(parents=True)
    for name in ("__init__.py", "math.py", "sums.py", "_private.py", "lions/__init__.py"):
        (package / name).write_text(f"NAME = {name!r}\n")
    rolecraft = importlib.import_module("rolecraft")
    monkeypatch.setattr(rolecraft, "__path__", [*rolecraft.__path__, str(tmp_path)])
    yield "zoo"
    for name in [name for name in importlib.sys.modules if name.startswith("rolecraft.zoo")]:
        del importlib.sys.modules[name]


def test_members_are_files_and_packages_in_order_but_not_private_ones(folder):
    assert catalog.names(folder) == ["lions", "math", "sums"]


def test_a_member_is_found_by_its_file_name(folder):
    assert catalog.find(folder, "math").NAME == "math.py"


def test_a_misspelt_name_is_answered_with_the_nearest(folder):
    with pytest.raises(NotFound) as caught:
        catalog.find(folder, "sum")
    assert str(caught.value) == "no 'sum' in zoo/: it has lions, math, sums. Did you mean 'sums'?"


def test_a_name_like_no_other_is_answered_without_a_guess(folder):
    with pytest.raises(NotFound) as caught:
        catalog.find(folder, "qqqq")
    assert str(caught.value) == "no 'qqqq' in zoo/: it has lions, math, sums."


@pytest.mark.parametrize("name", ["_private", "__init__", "", "lions.math", "../zoo/math"])
def test_nothing_but_members_is_found(folder, name):
    with pytest.raises(NotFound):
        catalog.find(folder, name)


def test_a_users_own_file_is_run_wherever_a_name_is_accepted(folder, tmp_path):
    path = tmp_path / "mine.py"
    path.write_text("NAME = 'mine'\n")
    assert catalog.find(folder, path).NAME == "mine"


def test_what_is_typed_is_a_file_of_the_users_own_if_it_ends_like_one():
    assert [catalog.given(word) for word in ("sql", "a/mine.py")] == ["sql", Path("a/mine.py")]


def test_text_runs_no_file(folder, tmp_path):
    path = tmp_path / "mine.py"
    path.write_text("raise SystemExit('it ran')\n")
    with pytest.raises(NotFound, match=r"mine.py' is a Python file, .* name it yourself .* zoo/: lions, math, sums"):
        catalog.find(folder, str(path))


def test_an_absent_file_is_not_found(tmp_path):
    with pytest.raises(NotFound, match=r"no file '.*mine\.py'; give a path to a Python file that exists"):
        catalog.find("tools", tmp_path / "mine.py")


def test_the_real_folder_of_tools_is_listed():
    assert {"calculator", "search", "sql"} <= set(catalog.names("tools"))
