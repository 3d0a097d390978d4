"""Other wordings of the frames, for training data alone; `wordings.yaml` holds them, by the name in `Frames.wording`.

They were written without sight of the held-out frames, and those of them that come near one are left out
(tests/test_benchmarks_toolworld_wordings.py).
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from importlib.resources import files

import yaml


@functools.cache
def read() -> Mapping[str, tuple[str, ...]]:
    """Return the frames by name, read once."""
    text = files("rolecraft.benchmarks.toolworld").joinpath("wordings.yaml").read_text(encoding="utf-8")
    return {name: tuple(found) for name, found in yaml.load(text, yaml.CSafeLoader).items()}
