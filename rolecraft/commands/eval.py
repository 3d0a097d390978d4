"""Play a benchmark's tasks and score them."""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from rolecraft.commands import _asking, _endpoint, _overrides, _playing
from rolecraft.commands._numbers import count

GROUP = "measuring and showing"

_ROWS = (".jsonl", ".json")
_BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


def options(parser: argparse.ArgumentParser) -> None:
    """Add the verb's options."""
    text = "the name of a benchmark, its .py file, or a .jsonl file of tasks of your own (default: toolworld)"
    parser.add_argument("benchmark", nargs="?", default="toolworld", help=text)
    _overrides.add(parser, "KEY=VALUE", "set an option of the benchmark", beside="benchmark", listing=_listing)
    parser.add_argument("--split", default="test", help="which of its splits to play (default: test)")
    parser.add_argument("--limit", type=count, metavar="N", help="play only the first N tasks (default: all)")
    parser.add_argument(
        "--workers", type=count, default=1, metavar="N", help="processes that play side by side (default: 1)"
    )
    text = "episodes that each process plays at once (default: 32)"
    parser.add_argument("--concurrency", type=count, default=32, metavar="N", help=text)
    text = "the run folder; finished episodes are not repeated (default: runs/eval-<benchmark>-<split>-<seed>)"
    parser.add_argument("--output", type=Path, metavar="DIR", help=text)
    parser.add_argument("--against", type=Path, metavar="DIR", help="the run folder to compare with, task by task")
    parser.add_argument("--json", action="store_true", help="print one JSON object as the last line")
    _asking.add_tools(parser, of=" of your own tasks")
    _playing.add_model(parser, seed_of="the tasks and of sampling")
    _playing.add_constrain(parser)
    _playing.add_repeats(parser)
    _endpoint.add_engine(parser)
    _endpoint.keep_defaults(parser)


def run(options: argparse.Namespace) -> None:
    """Play what is not in the run folder yet, and print the scores of all."""
    from rich.console import Console

    from rolecraft import evaluate, settings
    from rolecraft.store import Run

    console = Console(stderr=options.json)
    player, players = _playing.player_and_team(options)
    extra = settings.override({}, [f"options.{flag}" for flag in options.set]).get("options", {})
    benchmark, own = _chosen(options)
    output = options.output or Path("runs") / f"eval-{Path(options.benchmark).stem}-{options.split}-{options.seed}"
    what = evaluate.Settings(
        name=output.name,
        benchmark=benchmark,
        split=options.split,
        seed=options.seed,
        limit=options.limit,
        concurrency=options.concurrency,
        workers=options.workers,
        options={**own, **extra},
        model=_playing.identity(player, options),
        command=shlex.join(["rolecraft", *sys.argv[1:]]),
    )
    run = Run(output)
    opened = partial(_playing.open_engine, player, options)
    scores = evaluate.run(what, players, opened, run, _playing.episode_settings(player, options), console=console)
    console.print(evaluate.score_table({what.name: {options.split: scores}}))
    console.print(evaluate.family_table({options.split: scores}))
    console.print(evaluate.failure_table({options.split: scores}))
    if note := evaluate.lenient_note(scores):
        console.print(note)
    if options.against is not None:
        console.print(evaluate.comparison(Run(options.against).trajectories(), run.trajectories()))
    console.print(f"trajectories: {output}; look at them with: rolecraft report {output}")
    if options.json:
        print(json.dumps(evaluate.scores_json(scores)))


def _chosen(options: argparse.Namespace) -> tuple[str | Path, dict[str, Any]]:
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
