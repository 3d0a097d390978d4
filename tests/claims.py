"""Claims small enough for tests: two steps on the nano base, two tasks of one turn; and finished cells made up."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

from rolecraft.reproduce import claim
from rolecraft.reproduce.cells import Played, Result, Tuning

FAMILY = {"families": ["hub"]}
SMALL: dict[str, Any] = {
    "title": "Large against small",
    "question": "Does a larger rank help?",
    "source": "nobody, Table 0",
    "recipe": "quickstart",
    "settings": {
        "data": {"size": 8, "options": FAMILY},
        "adapter": {"r": 2, "lora_alpha": 4},
        "training": {"max_steps": 2, "per_device_train_batch_size": 2},
    },
    "arms": {"small": {}, "large": {"says": "rank 4", "settings": {"adapter": {"r": 4}}}},
    "seeds": [0, 1],
    "evaluation": {
        "splits": ["test"],
        "n": 2,
        "development_splits": ["test"],
        "development_n": 2,
        "options": FAMILY,
        "max_turns": 1,
        "max_tokens": 4,
    },
    "comparisons": [{"better": "large", "than": "small", "decides": "test"}],
}


def write(folder: Path, name: str = "small", /, **changes: Any) -> Path:
    """Write a small claim's YAML, with other keys if given, and return its path."""
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump({**json.loads(json.dumps(SMALL)), **changes}, sort_keys=False))
    return path


def make(folder: Path, /, **changes: Any) -> claim.Claim:
    """Return a small claim."""
    return claim.load(write(folder, **changes))


def result(arm: str, seed: int, outcomes: str, *, logged: Mapping[str, float] | None = None, **changes: Any) -> Result:
    """Return a finished cell in which the tasks of split `test` came out so."""
    values = [int(one) for one in outcomes]
    played = Played(sum(values) / len(values), len(values), (0.0, 1.0), 11, "digest", outcomes)
    configuration = {"stages": [{"model": {"base": "nano"}}], "weights": "abc"}
    found = Result("small", arm, seed, None, configuration, {"test": played})
    tuning = Tuning(1000, 100, 20_000, 30.0, logged=logged or {})
    return replace(found, **{"tuning": tuning, "machine": {"cores": 2, "torch": "2"}, **changes})


def table(arms: Mapping[str, Sequence[str]]) -> dict[str, dict[int, Result]]:
    """Return finished cells by arm and seed from the outcomes of each arm's seeds."""
    return {arm: {seed: result(arm, seed, text) for seed, text in enumerate(rows)} for arm, rows in arms.items()}


SHORT = {"max_tokens": 4, "max_turns": 1, "max_context": 1024}
ON_COLUMNS: dict[str, Any] = {
    **{key: SMALL[key] for key in ("title", "question", "source", "recipe", "settings")},
    "arms": {"untuned": {"base": "nano"}, "tuned": {}},
    "seeds": [0],
    "evaluation": {
        "modes": {"free": SHORT, "constrained": {**SHORT, "constrain": True}},
        "columns": {"toolworld:test": {"n": 2, "options": FAMILY}, "toolworld:tools": {"n": 2, "options": FAMILY}},
    },
    "comparisons": [{"better": "tuned/free", "than": "untuned/free", "decides": "toolworld:test"}],
}
"""A claim on columns: the base nano as it is, and tuned for two steps."""


def on_columns(folder: Path, /, **changes: Any) -> Path:
    """Write a small claim on columns, with other keys if given, and return its path."""
    path = folder / "wide.yaml"
    path.write_text(yaml.safe_dump({**json.loads(json.dumps(ON_COLUMNS)), **changes}, sort_keys=False))
    return path
