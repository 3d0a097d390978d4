"""Tune the embedded model and show its score before and after."""

from __future__ import annotations

import argparse
from pathlib import Path

from rolecraft.commands._numbers import count

GROUP = "getting started"


def options(parser: argparse.ArgumentParser) -> None:
    """Add the verb's options."""
    text = "the run folder (default: runs/quickstart)"
    parser.add_argument("--output", type=Path, default=Path("runs/quickstart"), metavar="DIR", help=text)
    parser.add_argument("--recipe", default="quickstart", help="quickstart, long, or a YAML file (default: quickstart)")
    parser.add_argument("--n", type=count, default=210, metavar="N", help="tasks played per split (default: 210)")
    parser.add_argument(
        "--seed", type=int, default=29, metavar="N", help="the seed of the held-out tasks (default: 29)"
    )
    text = "processes that tune and play side by side (default: 2)"
    parser.add_argument("--processes", type=count, default=2, metavar="N", help=text)
    parser.add_argument("--resume", action="store_true", help="go on with an interrupted run")


def run(options: argparse.Namespace) -> None:
    """Tune and play; the scores are printed and kept in the run folder."""
    from rolecraft import recipe

    recipe.check(recipe.find_recipe(options.recipe))
    from rolecraft.nano import quickstart

    settings = quickstart.Settings(options.recipe, options.n, options.seed, options.processes)
    quickstart.quickstart(settings, options.output, resume=options.resume)
