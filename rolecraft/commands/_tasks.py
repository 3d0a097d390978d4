"""What the verbs that play a benchmark's tasks, or a user's own, share: how they are named, and their options."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rolecraft.commands import _overrides

_ROWS = (".jsonl", ".json")
_BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


def add_benchmark(parser: argparse.ArgumentParser) -> None:
    """Add the argument that names the tasks, and the benchmark's own options."""
    text = "the name of a benchmark, its .py file, or a .jsonl file of tasks of your own (default: toolworld)"
    parser.add_argument("benchmark", nargs="?", default="toolworld", help=text)
    _overrides.add(parser, "KEY=VALUE", "set an option of the benchmark", beside="benchmark", listing=_listing)


def chosen(options: argparse.Namespace) -> tuple[str | Path, dict[str, Any]]:
    """Return the benchmark, and, of tasks of the user's own, its options; raises SettingsError for tools of others."""
    from rolecraft.catalog import find, given
    from rolecraft.errors import SettingsError

    if Path(options.benchmark).suffix not in _ROWS:
        if options.tools or options.system:
            raise SettingsError(
                f"{options.benchmark!r} has its own tools and conversations; --tools and --system are for a .jsonl "
                "file of your own tasks"
            )
        return given(options.benchmark), {}
    tools = tuple(map(given, options.tools))
    return "tasks", {
        "path": Path(options.benchmark),
        "tools": tools,
        "tool_seconds": options.tool_seconds,
        "tool_chars": options.tool_chars,
        "system": options.system,
        "unsafe": options.unsafe,
        "digest": find("benchmarks", "tasks").digest(tools),
    }


def _listing(words: Sequence[str]) -> str:
    """Return the options of the benchmark that the words name, else of the default one."""
    for name in (*(word for word in words if not word.startswith("-")), "toolworld"):
        members = (_BENCHMARKS / f"{name}.py", _BENCHMARKS / name / "__init__.py")
        for path in (Path(name),) if name.endswith(".py") else members:
            if path.is_file():
                return _overrides.settings_in(path, f"options of {name}")
    return ""
