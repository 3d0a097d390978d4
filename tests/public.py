"""Where public data lie that tests may use, and how a test skips where they do not."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

FOLDER = Path(os.environ.get("ROLECRAFT_DATA") or Path(__file__).parents[2] / "shared/evaldata")


def needs(name: str) -> pytest.MarkDecorator:
    """Skip a test where the data set of that name is absent."""
    return pytest.mark.skipif(not (FOLDER / name).exists(), reason=f"needs the public data set {name} in {FOLDER}")
