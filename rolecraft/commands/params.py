"""Count the parameters that a recipe trains, without loading weights."""

from __future__ import annotations

import argparse
import json

from rolecraft.commands import _overrides

GROUP = "tuning"


def options(parser: argparse.ArgumentParser) -> None:
    """Add the verb's options."""
    parser.add_argument("--base", required=True, metavar="CONFIG", help="a config.json, a model's folder, or nano")
    parser.add_argument("--recipe", required=True, help="a YAML file, or the name of one in recipes/")
    _overrides.add(parser, "SECTION.KEY=VALUE", "change a setting of the recipe")
    parser.add_argument("--json", action="store_true", help="print one JSON object as the last line")


def run(options: argparse.Namespace) -> None:
    """Print the count, and its share of the base's."""
    from rolecraft import bases, recipe

    bases.find_config(options.base)
    chosen = recipe.load_recipe(recipe.find_recipe(options.recipe), options.set)
    from rolecraft import train

    counted = train.count_parameters(options.base, chosen)
    if options.json:
        print(json.dumps(counted))
        return
    trainable, base, own = counted["trainable"], counted["base"], counted["own"]
    if own == trainable:
        print(f"{trainable:,} of the base's own {base:,} parameters are trained: {trainable / base:.2%}")
        return
    print(
        f"{trainable:,} trainable parameters beside the base's {base:,}, which stay as they are: "
        f"{trainable / (trainable + base):.2%} of the two together, {trainable / base:.2%} of the base"
    )
    if virtual := counted.get("virtual_tokens"):
        print(f"{virtual} virtual tokens stand before every prompt and take as much of the context")
