"""Tune an adapter as a recipe says."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from rolecraft.commands import _overrides
from rolecraft.commands._numbers import count

GROUP = "tuning"


def options(parser: argparse.ArgumentParser) -> None:
    """Add the verb's options."""
    parser.add_argument("recipe", help="a YAML file, or the name of one in recipes/")
    _overrides.add(parser, "SECTION.KEY=VALUE", "change a setting of the recipe", beside="recipe")
    parser.add_argument(
        "--base",
        metavar="MODEL",
        help="nano, smollm2, a folder, a GGUF file, or a name on the hub (default: the recipe's)",
    )
    parser.add_argument("--data", metavar="FILE", help="a JSONL or JSON file of trajectories (default: the recipe's)")
    parser.add_argument(
        "--importer",
        metavar="FORMAT",
        help="the data's format: openai, glaive, ... (default: the recipe's, else openai)",
    )
    text = "what a row that cannot be read does (default: the recipe's, else stop)"
    parser.add_argument("--on-bad-row", choices=("stop", "skip"), help=text)
    text = "what keys that nothing reads do to a row (default: the recipe's, else refuse)"
    parser.add_argument("--unknown-keys", choices=("refuse", "drop"), help=text)
    parser.add_argument("--output", type=Path, metavar="DIR", help="the run folder (default: runs/<recipe's name>)")
    text = "processes that train in parallel, each on its part of a batch (default: the recipe's, else 1)"
    parser.add_argument("--processes", type=count, metavar="N", help=text)
    text = "learn from the answers that `rolecraft serve --record RUN` kept, by --rewards; no task is played"
    parser.add_argument("--from", dest="recorded", type=Path, metavar="RUN", help=text)
    text = 'the rewards of their episodes: lines of {"episode": NAME, "reward": NUMBER}'
    parser.add_argument("--rewards", type=Path, metavar="FILE", help=text)
    parser.add_argument("--resume", action="store_true", help="go on from the last checkpoint")


def run(options: argparse.Namespace) -> None:
    """Tune; the adapter, its card and the metrics are written to the run folder."""
    from rolecraft import recipe, stages

    short = {"model.base": options.base, "data.path": options.data, "data.importer": options.importer}
    short |= {"data.on_bad_row": options.on_bad_row, "data.unknown_keys": options.unknown_keys}
    short |= {"training.processes": options.processes}
    flags = [f"{key}={value}" for key, value in short.items() if value is not None] + options.set
    path = recipe.find_recipe(options.recipe)
    output = options.output or Path("runs") / path.stem
    recorded = {"recorded": options.recorded, "rewards": options.rewards}
    told = [f"reinforcement.{key}={json.dumps(str(value))}" for key, value in recorded.items() if value]
    stages.check(path, flags if stages.are_in(path) else flags + told)
    if options.recorded is not None or options.rewards is not None:
        _learn_recorded(path, flags, output, options)
        return
    from rolecraft.train.stages import launch

    launch(path, output, flags=flags, resume=options.resume)


def _learn_recorded(path: Path, flags: list[str], output: Path, options: argparse.Namespace) -> None:
    """Learn from what a server recorded; raises SettingsError for a record without rewards, or the other way."""
    from rolecraft.errors import SettingsError

    if options.recorded is None or options.rewards is None:
        there, missing = ("--rewards", "--from RUN") if options.recorded is None else ("--from", "--rewards FILE")
        raise SettingsError(f"{there} is given and {missing} is not; a record is learned from by its rewards")
    from rolecraft.train import recorded, train

    recipe = recorded.read(path, flags, options.recorded, options.rewards, base=options.base)
    train(recipe, output, options.resume)
