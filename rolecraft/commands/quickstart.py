"""Tune a model and show its score before and after: the embedded one in minutes, a real one in hours."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from rolecraft.commands._bases import place_of_base
from rolecraft.commands._numbers import count
from rolecraft.errors import UserError

GROUP = "getting started"

CLAIM = "mor-vs-lora-real"
"""The claim of which the real profile is a part: these arms."""
ARMS = ("untuned-0shot", "lora")
NANO: dict[str, Any] = {"recipe": "quickstart", "n": 210, "seed": 29}
"""The nano profile's settings where nobody gives others."""


def options(parser: argparse.ArgumentParser) -> None:
    """Add the verb's options."""
    text = "nano: the embedded model; real: SmolLM2-135M-Instruct, on the data in ROLECRAFT_DATA (default: nano)"
    parser.add_argument("--profile", choices=("nano", "real"), default="nano", help=text)
    text = "where a real profile's base lies, if not with the hub: smollm2=PATH of a folder or a GGUF file"
    parser.add_argument("--base", type=place_of_base, action="append", default=[], metavar="NAME=PATH", help=text)
    text = "the run folder (default: runs/quickstart, or runs/quickstart-real)"
    parser.add_argument("--output", type=Path, metavar="DIR", help=text)
    parser.add_argument("--recipe", help="nano: quickstart, long, or a YAML file (default: quickstart)")
    parser.add_argument("--n", type=count, metavar="N", help="nano: tasks played per split (default: 210)")
    parser.add_argument("--seed", type=int, metavar="N", help="nano: the seed of the held-out tasks (default: 29)")
    text = "processes that tune and play side by side (default: 2)"
    parser.add_argument("--processes", type=count, default=2, metavar="N", help=text)
    parser.add_argument("--resume", action="store_true", help="go on with an interrupted run, as real always does")


def run(options: argparse.Namespace) -> None:
    """Tune and play; the scores are printed and kept in the run folder."""
    if options.profile == "real":
        _real(options)
        return
    from rolecraft import recipe

    if options.base:
        raise UserError("--base is of the real profile; give --profile real, or leave it out")
    asked = {name: default if (told := getattr(options, name)) is None else told for name, default in NANO.items()}
    recipe.check(recipe.find_recipe(asked["recipe"]))
    from rolecraft.nano import quickstart

    settings = quickstart.Settings(**asked, processes=options.processes)
    quickstart.quickstart(settings, options.output or Path("runs/quickstart"), resume=options.resume)


def _real(options: argparse.Namespace) -> None:
    """Play a pretrained model untuned, tune a LoRA by recipes/real.yaml and play again: two arms of a claim, one seed.

    What is finished in the folder is not done again.
    """
    from rich.console import Console

    from rolecraft import reproduce
    from rolecraft.reproduce import claim

    if stray := [name for name in NANO if getattr(options, name) is not None]:
        raise UserError(f"--{stray[0]} is of the nano profile; leave it out, or run recipes/claims/{CLAIM}.yaml")
    output = options.output or Path("runs/quickstart-real")
    settings = reproduce.Settings(
        seeds=1,
        arms=ARMS,
        bases=dict(options.base),
        workers=options.processes,
        yes=True,
        results=output / "cells",
        docs=output / "report.md",
        output=output,
    )
    reproduce.reproduce(claim.find(CLAIM), settings, Console())
