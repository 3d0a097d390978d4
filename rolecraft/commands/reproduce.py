"""Run a claim: tune its arms, play them, and say whether it holds here."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from rolecraft.commands._bases import place_of_base
from rolecraft.commands._numbers import count

GROUP = "measuring and showing"


def options(parser: argparse.ArgumentParser) -> None:
    """Add the verb's options."""
    parser.add_argument("claim", help="a YAML file, or the name of one in recipes/claims/")
    parser.add_argument("--seeds", type=count, metavar="N", help="run the first N tuning seeds only")
    parser.add_argument("--arms", type=_names, default=(), metavar="A,B", help="run these arms only")
    text = "of a claim on columns, play these only: benchmark:split, several with commas"
    parser.add_argument("--columns", type=_names, default=(), metavar="A,B", help=text)
    text = "of a claim on columns, play in these modes only"
    parser.add_argument("--modes", type=_names, default=(), metavar="A,B", help=text)
    text = "where a base lies that the claim names: a folder or a GGUF file; repeat it for each"
    parser.add_argument("--base", type=place_of_base, action="append", default=[], metavar="NAME=PATH", help=text)
    text = "cells that run side by side, one thread each (default: 2)"
    parser.add_argument("--workers", type=count, default=2, metavar="N", help=text)
    parser.add_argument("--dry-run", action="store_true", help="say what it would cost, and run nothing")
    parser.add_argument("--yes", action="store_true", help="run even if it takes longer than the claim allows")
    parser.add_argument("--report", action="store_true", help="write down what the finished cells say, and run nothing")
    text = "where finished cells are kept (default: results/claims)"
    parser.add_argument("--results", type=Path, default=Path("results/claims"), metavar="DIR", help=text)
    text = "the page of results to write (default: docs/claims.md)"
    parser.add_argument("--docs", type=Path, default=Path("docs/claims.md"), metavar="FILE", help=text)
    text = "where run folders go (default: runs/reproduce)"
    parser.add_argument("--output", type=Path, default=Path("runs/reproduce"), metavar="DIR", help=text)
    parser.add_argument("--json", action="store_true", help="print one JSON object as the last line")


def run(options: argparse.Namespace) -> None:
    """Run the cells that are not finished, and write down what all of them say."""
    from rich.console import Console

    from rolecraft import reproduce
    from rolecraft.reproduce import claim

    settings = reproduce.Settings(
        seeds=options.seeds,
        arms=options.arms,
        columns=options.columns,
        modes=options.modes,
        bases=dict(options.base),
        workers=options.workers,
        dry_run=options.dry_run,
        yes=options.yes,
        results=options.results,
        docs=options.docs,
        output=options.output,
    )
    act = reproduce.report if options.report else reproduce.reproduce
    found = act(claim.find(options.claim), settings, Console(stderr=options.json))
    if options.json:
        print(json.dumps(found))


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(",") if name.strip())
