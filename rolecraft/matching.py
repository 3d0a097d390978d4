"""Refuses regular expressions over the names of a model's layers that are none, or that do not come to an end."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Collection, Mapping
from typing import Any

from rolecraft.errors import SettingsError

SECONDS = 5.0
"""What matching may take; a model's layers take milliseconds, and a pattern that is wrong takes for ever."""

_MATCH = r"""
import json, re, sys
patterns, names = json.load(sys.stdin)
for pattern in patterns:
    for name in names:
        re.fullmatch(pattern, name), re.match(rf"(.*\.)?({pattern})($|\..*)", name)
"""


def require_quick(patterns: Mapping[str, Any], names: Collection[str]) -> None:
    """Raise SettingsError for a pattern that is no regular expression, or takes seconds to match the layers' `names`.

    `patterns` are by the setting that has them: text, or a collection of texts; None and plain names are passed over.
    """
    for setting, value in patterns.items():
        asked = [one for one in _texts(value) if not one.replace("-", "").replace(".", "").isidentifier()]
        fault = _fault(asked, names) if asked else None
        if fault is not None:
            text = repr(value) if len(repr(value)) <= 80 else f"{repr(value)[:80]}..."
            raise SettingsError(f"{setting} is {text}, which {fault}; write it simpler, or name the layers in a list")


def _fault(patterns: Collection[str], names: Collection[str]) -> str | None:
    """Match in a process of its own: nothing in this one could stop a match that has begun."""
    task = json.dumps([list(patterns), sorted(names)])
    words = [sys.executable, "-I", "-S", "-c", _MATCH]
    try:
        done = subprocess.run(words, input=task, capture_output=True, text=True, timeout=SECONDS, check=False)
    except subprocess.TimeoutExpired:
        return f"takes more than {SECONDS:g} s to match the names of this model's layers"
    return f"is no regular expression ({done.stderr.strip().splitlines()[-1]})" if done.returncode else None


def _texts(value: Any) -> list[str]:
    values = [value] if isinstance(value, str) else value if isinstance(value, list | tuple | set | dict) else []
    return [one for one in values if isinstance(one, str)]
