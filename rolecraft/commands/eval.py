"""Play a benchmark's tasks and score them."""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from dataclasses import replace
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
    from rolecraft.team import Team
    from rolecraft.types import Trajectory

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
    others = _others(options.against, split) if options.against else {}
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
    played = {name: _asked(run, replace(what, split=name), players, scores[name].n) for name, run in runs.items()}
    console.print(evaluate.score_table({what.name: scores, **evaluate.baselines(what)}))
    if any(len(found.families) > 1 for found in scores.values()):
        console.print(evaluate.family_table(scores))
    console.print(evaluate.calling_table(played))
    steps = evaluate.static_table(played)
    if parts := steps or evaluate.parts_table(played):
        console.print(parts)
    for name, run in runs.items() if steps else ():
        evaluate.write_static(run.path / "static.json", played[name])
    console.print(evaluate.failure_table(scores))
    for name, found in scores.items():
        if note := evaluate.lenient_note(found):
            console.print(f"{name}: {note}")
        if note := evaluate.trials_note(found):
            console.print(f"{name}: {note}")
    for name, other in others.items():
        console.print(evaluate.comparison(other.trajectories(), played[name]))
    console.print(f"trajectories: {output}; look at them with: rolecraft report {output}")
    if options.json:
        plain = {name: evaluate.scores_json(found) for name, found in scores.items()}
        for name in played if steps else ():
            plain[name]["static"] = evaluate.static_json(played[name])
        print(json.dumps(plain if "+" in split else plain[split]))


def _play_one(what: evaluate.Settings, *rest: Any, console: Console) -> dict[str, Scores]:
    from rolecraft import evaluate

    return {what.split: evaluate.run(what, *rest, console=console)}


def _asked(run: Run, what: evaluate.Settings, players: Team, count: int) -> list[Trajectory]:
    """Return the episodes of the `count` tasks that are asked; the folder may hold more, of a larger limit before."""
    from rolecraft import evaluate

    held = list(run.trajectories())
    if len(held) == count:  # making the tasks once more may take long
        return held
    asked = {task.id for task in evaluate.tasks(what, players)}
    return [record for record in held if record.task.id in asked]


def _others(folder: Path, split: str) -> dict[str, Run]:
    """Return the runs to compare with; raises NotFound, before anything is played, where one of them is not there."""
    from rolecraft.errors import NotFound

    found = _runs(folder, split)
    for run in found.values():
        if not run.finished():
            raise NotFound(
                f"--against: no played episodes in {str(run.path)!r}; name a folder that rolecraft eval wrote"
            )
    return found


def _runs(folder: Path, split: str) -> dict[str, Run]:
    """Return the run of each split: in the folder itself, or in one of its own where there are several."""
    from rolecraft.store import Run

    names = split.split("+")
    return {name: Run(folder / name if len(names) > 1 else folder) for name in names}
