"""Play a benchmark's tasks and score them."""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rolecraft.commands import _asking, _endpoint, _playing, _tasks
from rolecraft.commands._numbers import count, whole

if TYPE_CHECKING:
    from rich.console import Console

    from rolecraft import evaluate
    from rolecraft.scores import Scores
    from rolecraft.store import Run

GROUP = "measuring and showing"


def options(parser: argparse.ArgumentParser) -> None:
    """Add the verb's options."""
    _tasks.add_benchmark(parser)
    text = "which of its splits to play, several as a+b (default: those that it reports, else test, else all)"
    parser.add_argument("--split", help=text)
    text = "solved tasks shown before each question, where the benchmark has some to show (default: 0)"
    parser.add_argument("--shots", type=whole, default=0, metavar="N", help=text)
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
    _playing.add_first_call(parser)
    _playing.add_repeats(parser)
    _playing.add_strategy(parser)
    _playing.add_memory(parser)
    _playing.add_fold(parser)
    _endpoint.add_engine(parser)
    _endpoint.keep_defaults(parser)


def run(options: argparse.Namespace) -> None:
    """Play what is not in the run folder yet, and print the scores of all."""
    from rich.console import Console

    from rolecraft import evaluate, settings
    from rolecraft.store import Run

    console = Console(stderr=options.json)
    player, players = _playing.player_and_team(options)
    _playing.settle_weights(player, options)
    extra = settings.override({}, [f"options.{flag}" for flag in options.set]).get("options", {})
    benchmark, own = _tasks.chosen(options)
    split = options.split or evaluate.splits(benchmark)
    output = options.output or Path("runs") / f"eval-{Path(options.benchmark).stem}-{split}-{options.seed}"
    what = evaluate.Settings(
        name=output.name,
        benchmark=benchmark,
        split=split,
        seed=options.seed,
        limit=options.limit,
        shots=options.shots,
        concurrency=options.concurrency,
        workers=options.workers,
        options={**own, **extra},
        strategy=_playing.strategy(options),
        memory=options.memory,
        model=_playing.identity(player, options),
        command=shlex.join(["rolecraft", *sys.argv[1:]]),
    )
    opened = partial(_playing.open_engine, player, options)
    play = evaluate.play_splits if "+" in split else _play_one
    scores = play(what, players, opened, Run(output), _playing.episode_settings(player, options), console=console)
    runs = _runs(output, split)
    console.print(evaluate.score_table({what.name: scores, **evaluate.baselines(what)}))
    if any(len(found.families) > 1 for found in scores.values()):
        console.print(evaluate.family_table(scores))
    console.print(evaluate.calling_table({name: run.trajectories() for name, run in runs.items()}))
    steps = evaluate.static_table({name: run.trajectories() for name, run in runs.items()})
    if parts := steps or evaluate.parts_table({name: run.trajectories() for name, run in runs.items()}):
        console.print(parts)
    for run in runs.values() if steps else ():
        evaluate.write_static(run.path / "static.json", run.trajectories())
    console.print(evaluate.failure_table(scores))
    for name, found in scores.items():
        if note := evaluate.lenient_note(found):
            console.print(f"{name}: {note}")
        if note := evaluate.trials_note(found):
            console.print(f"{name}: {note}")
    for name, other in _runs(options.against, split).items() if options.against else ():
        console.print(evaluate.comparison(other.trajectories(), runs[name].trajectories()))
    console.print(f"trajectories: {output}; look at them with: rolecraft report {output}")
    if options.json:
        plain = {name: evaluate.scores_json(found) for name, found in scores.items()}
        for name, run in runs.items() if steps else ():
            plain[name]["static"] = evaluate.static_json(run.trajectories())
        print(json.dumps(plain if "+" in split else plain[split]))


def _play_one(what: evaluate.Settings, *rest: Any, console: Console) -> dict[str, Scores]:
    from rolecraft import evaluate

    return {what.split: evaluate.run(what, *rest, console=console)}


def _runs(folder: Path, split: str) -> dict[str, Run]:
    """Return the run of each split: in the folder itself, or in one of its own where there are several."""
    from rolecraft.store import Run

    names = split.split("+")
    return {name: Run(folder / name if len(names) > 1 else folder) for name in names}
