"""BFCL's questions and answers on disk, and the sample of them that is asked.

They come with the package `bfcl-eval`, or lie in the folder that the environment variable ROLECRAFT_BFCL names.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path

from rolecraft.errors import DataError, MissingExtra, NotFound
from rolecraft.types import Json

FOLDER = "ROLECRAFT_BFCL"
_PREFIX = "BFCL_v4_"


def absent() -> MissingExtra:
    """Return the error that says how BFCL is installed: no extra can ask for a package without what it depends on."""
    return MissingExtra("bfcl-eval", command="pip install --no-deps bfcl-eval==2026.3.23")


def rows(category: str, seed: int) -> tuple[Mapping[str, Json], ...]:
    """Return a category's rows, in an order that `seed` and their ids decide: the first ones are the same everywhere.

    A row has `id`, `question`, `function` and, where the category has one, `ground_truth`. Raises MissingExtra where
    the package is not installed, NotFound without the file, and DataError for one that cannot be read.
    """
    place = folder()
    found = list(_read(place / f"{_PREFIX}{category}.json"))
    if "relevance" not in category:
        answers = {row["id"]: row for row in _read(place / "possible_answer" / f"{_PREFIX}{category}.json")}
        if lost := next((row["id"] for row in found if row["id"] not in answers), None):
            raise DataError(f"{place}: row {lost!r} of {category} has no possible answer; install bfcl-eval anew")
        found = [{**row, "ground_truth": answers[row["id"]]["ground_truth"]} for row in found]
    return tuple(sorted(found, key=lambda row: hashlib.sha256(f"bfcl {seed} {row['id']}".encode()).digest()))


def folder() -> Path:
    """Return where the data lie; raises MissingExtra where the package is not installed."""
    package = importlib.util.find_spec("bfcl_eval")
    if package is None or not package.submodule_search_locations:
        raise absent()  # whatever the data: the checker is in the package
    given = os.environ.get(FOLDER)
    return Path(given) if given else Path(package.submodule_search_locations[0]) / "data"


def _read(path: Path) -> Iterator[dict[str, Json]]:
    """Yield the rows of a file: JSON Lines, whatever its name says."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError as error:
        raise NotFound(f"no file {str(path)!r}; set {FOLDER} to a folder with BFCL's data, or unset it") from error
    for number, line in enumerate(lines, 1):
        try:
            row = json.loads(line)
            yield {"id": row["id"], **row}
        except (ValueError, KeyError, TypeError) as error:
            raise DataError(f"{path}:{number}: no row of BFCL ({error}); install bfcl-eval anew") from error
