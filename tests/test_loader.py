"""A user's Python file may import what lies beside it, and nobody else notices."""

from __future__ import annotations

import json
import sys
import textwrap
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy
import pytest

from rolecraft import loader
from rolecraft.tools import search


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(textwrap.dedent(text), encoding="utf-8")
    return path


def test_a_file_imports_its_neighbours_and_packages_beside_it(tmp_path):
    write(tmp_path / "helpers.py", "import more\nfrom parts.inner import DEEP\nx = more.X + DEEP\n")
    write(tmp_path / "more.py", "X = 1\n")
    write(tmp_path / "parts/__init__.py", "from . import inner\nfrom .inner import DEEP as AGAIN\n")
    write(tmp_path / "parts/inner.py", "import helpers\nDEEP = 2\n")
    text = "from helpers import *\nimport parts.inner as p\nimport parts\nfrom .more import X\n"
    module = loader.load(write(tmp_path / "mine.py", text))
    assert (module.x, module.p.DEEP, module.parts.AGAIN, module.X) == (3, 2, 2, 1)


def test_an_import_in_a_function_finds_its_neighbour_when_it_is_called(tmp_path):
    write(tmp_path / "helpers.py", "x = 5\n")
    module = loader.load(write(tmp_path / "mine.py", "def f():\n    from helpers import x\n    return x\n"))
    assert module.f() == 5


def test_a_thread_does_not_see_a_neighbour_that_another_is_still_loading(tmp_path):
    write(tmp_path / "late.py", "import time\ntime.sleep(0.1)\nx = 5\n")
    module = loader.load(write(tmp_path / "mine.py", "def f():\n    import late\n    return late.x\n"))
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(lambda _: module.f(), range(4))) == [5] * 4


def test_two_folders_with_a_neighbour_of_one_name_each_have_their_own(tmp_path):
    found = []
    for name in ("a", "b"):
        write(tmp_path / name / "helpers.py", f"x = {name!r}\n")
        found.append(loader.load(write(tmp_path / name / "mine.py", "import helpers\nx = helpers.x\n")).x)
    assert found == ["a", "b"]


def test_a_neighbour_shadows_no_package_for_others_and_python_is_left_as_it_was(tmp_path):
    write(tmp_path / "numpy.py", "x = 'mine'\n")
    write(tmp_path / "json.py", "raise SystemExit\n")
    path, names = list(sys.path), {name for name in sys.modules if not name.startswith("_rolecraft_")}
    text = "import numpy, json\nimport rolecraft.tools.search\nx = numpy.x\n"
    module = loader.load(write(tmp_path / "mine.py", text))
    assert module.x == "mine"
    assert sys.modules["numpy"] is numpy
    assert search.np is numpy
    assert vars(module)["json"] is json
    assert sys.path == path
    assert {name for name in sys.modules if not name.startswith("_rolecraft_")} == names


def test_a_file_is_not_run_as_a_script_and_its_relative_path_serves(tmp_path, monkeypatch):
    write(tmp_path / "mine.py", "import helpers\nran = __name__ == '__main__'\n")
    write(tmp_path / "helpers.py", "")
    monkeypatch.chdir(tmp_path)
    assert loader.load(Path("mine.py")).ran is False


def test_dataclasses_with_annotations_as_text_are_made(tmp_path):
    text = """
        from __future__ import annotations
        from dataclasses import dataclass
        from typing import ClassVar

        @dataclass
        class Point:
            x: int
            kind: ClassVar[str] = "p"
        """
    assert loader.load(write(tmp_path / "mine.py", text)).Point(1).x == 1


def test_a_neighbour_that_is_missing_or_broken_is_told_and_not_kept(tmp_path):
    path = write(tmp_path / "mine.py", "import helpers\n")
    with pytest.raises(ModuleNotFoundError, match="helpers"):
        loader.load(path)
    broken = write(tmp_path / "helpers.py", "1 / 0\n")
    with pytest.raises(ZeroDivisionError):
        loader.load(path)
    broken.write_text("x = 'a longer text than before'\n")
    assert loader.load(path).helpers.x
