"""Have a teacher solve tasks, and keep what it did right to train on."""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from dataclasses import fields
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from rolecraft.commands import _asking, _endpoint, _playing, _tasks
from rolecraft.commands._numbers import amount, count

if TYPE_CHECKING:
    from rolecraft import remote

GROUP = "tuning"

_ANSWERS = "answers"


def options(parser: argparse.ArgumentParser) -> None:
    """Add the verb's options."""
    _tasks.add_benchmark(parser)
    text = "which of its splits to collect on (default: train, where it has one)"
    parser.add_argument("--split", help=text)
    parser.add_argument("--samples", type=count, default=1, metavar="N", help="episodes of each task (default: 1)")
    parser.add_argument("--limit", type=count, metavar="N", help="only the first N tasks (default: all)")
    text = "begin each agent's first thought with the first step of the teacher's own chain of thought"
    parser.add_argument("--first-thought-prefix", action="store_true", help=text)
    text = "begin no more episodes once so many tokens are spent, of prompts and replies, over all resumed runs"
    parser.add_argument("--budget-tokens", type=count, metavar="N", help=text)
    text = "begin no more episodes once so many replies are asked for, over all resumed runs"
    parser.add_argument("--budget-requests", type=count, metavar="N", help=text)
    text = "keep episodes whose verdict is at least this (default: 1)"
    parser.add_argument("--min-score", type=amount, default=1.0, metavar="SCORE", help=text)
    text = "keep episodes with replies that could not be read as well"
    parser.add_argument("--keep-unparsed", action="store_true", help=text)
    text = "episodes that are played at once (default: 16)"
    parser.add_argument("--concurrency", type=count, default=16, metavar="N", help=text)
    text = "processes that play side by side (default: 1)"
    parser.add_argument("--workers", type=count, default=1, metavar="N", help=text)
    text = "the run folder; finished episodes are not repeated (default: runs/collect-<benchmark>-<split>-<seed>)"
    parser.add_argument("--output", type=Path, metavar="DIR", help=text)
    text = "another collection of the same tasks, whose yield is compared task by task"
    parser.add_argument("--against", type=Path, metavar="DIR", help=text)
    parser.add_argument("--json", action="store_true", help="print one JSON object as the last line")
    _asking.add_tools(parser, of=" of your own tasks")
    _playing.add_model(parser, seed_of="the tasks and of sampling")
    _playing.add_constrain(parser)
    _playing.add_first_call(parser)
    _playing.add_repeats(parser)
    _playing.add_strategy(parser)
    _endpoint.add_engine(parser)
    _endpoint.keep_defaults(parser)


def run(options: argparse.Namespace) -> None:
    """Play what is not in the run folder yet, write the rows that are kept, and print the yield."""
    from rich.console import Console

    from rolecraft import collect, evaluate, settings
    from rolecraft.store import Run

    console = Console(stderr=options.json)
    benchmark, own = _tasks.chosen(options)
    split = options.split or _training_split(benchmark)
    output = options.output or Path("runs") / f"collect-{Path(options.benchmark).stem}-{split}-{options.seed}"
    if options.engine and options.answer_cache is None:
        options.answer_cache, options.usual["answer_cache"] = output / _ANSWERS, None
    player, players = _playing.player_and_team(options)
    _playing.settle_weights(player, options)
    extra = settings.override({}, [f"options.{flag}" for flag in options.set]).get("options", {})
    what = evaluate.Settings(
        name=output.name,
        benchmark=benchmark,
        split=split,
        seed=options.seed,
        limit=options.limit,
        samples=options.samples,
        concurrency=options.concurrency,
        workers=options.workers,
        options={**own, **extra},
        strategy=_playing.strategy(options),
        first_thought=options.first_thought_prefix or None,
        model=_playing.identity(player, options),
        command=shlex.join(["rolecraft", *sys.argv[1:]]),
    )
    harvest = collect.run(
        what,
        players,
        partial(_playing.open_engine, player, options),
        Run(output),
        _playing.episode_settings(player, options),
        budget=collect.Budget(options.budget_tokens, options.budget_requests),
        rules=collect.Rules(options.min_score, options.keep_unparsed),
        lost=_lost(player),
        console=console,
    )
    console.print(collect.table(harvest))
    console.print(collect.told(harvest))
    if options.against:
        before, now = (map(collect.by_task, Run(one).trajectories()) for one in (options.against, output))
        console.print(evaluate.comparison(before, now))
    kept = output / collect.KEPT
    console.print(f"kept rows: {kept}; tune on them with: rolecraft train distill --data {kept}", soft_wrap=True)
    if options.json:
        print(json.dumps({one.name: getattr(harvest, one.name) for one in fields(harvest)}))


def _training_split(benchmark: str | Path) -> str:
    """Return the split to collect on: the first of those that the benchmark has, which is for training."""
    from rolecraft.catalog import find

    return str(getattr(find("benchmarks", benchmark), "SPLITS", ("train",))[0])


def _lost(player: str | remote.Settings) -> int:
    """Return how many requests a killed process left without an answer."""
    if isinstance(player, str) or player.cache is None:
        return 0
    from rolecraft import remote

    return remote.take_lost(player.cache)
