"""Fold an adapter into its base: a whole model's folder that any program loads."""

from __future__ import annotations

import argparse
from pathlib import Path

GROUP = "tuning"


def options(parser: argparse.ArgumentParser) -> None:
    """Add the verb's options."""
    parser.add_argument(
        "adapter", type=Path, metavar="ADAPTER", help="the folder of a trained LoRA adapter, or of full tuning"
    )
    parser.add_argument("out", type=Path, metavar="OUT", help="the folder to write, which is not there yet")
    parser.add_argument("--base", metavar="MODEL", help="the base it was tuned on (default: what its contract names)")
    text = "the team it was tuned for, where that is a .py file of your own (default: what its contract names)"
    parser.add_argument("--team", metavar="FILE", help=text)
    text = "the type of the weights that are written (default: bfloat16)"
    parser.add_argument("--dtype", default="bfloat16", choices=("float32", "bfloat16", "float16"), help=text)


def run(options: argparse.Namespace) -> None:
    """Write the model, its tokenizer and the template of the prompts it was trained on."""
    from rolecraft import bases, contract, team
    from rolecraft.catalog import given
    from rolecraft.errors import SettingsError

    bases.require_adapter(options.adapter)
    made = contract.read(options.adapter)
    base = options.base or (contract.base_of(made, options.adapter) if made else None)
    if base is None:
        raise SettingsError(f"{options.adapter} has no {contract.FILE} that names its base; name it with --base")
    if options.out.exists():
        raise SettingsError(f"{options.out} is there already; name a folder that is not, and nothing is overwritten")

    import torch

    from rolecraft import model

    if not model.merges(options.adapter):
        what = (
            "a LoRA in it would go in, but the virtual tokens of P-tuning ('prompt') stand in the prompt"
            if model.folds(options.adapter)
            else "what it adds depends on the token (a Mixture of Roles, 'mor') or stands in the prompt"
        )
        raise SettingsError(
            f"{options.adapter} cannot be merged: {what}, which the weights of a plain model do not hold; serve it "
            f"with: rolecraft serve --adapter {options.adapter}"
        )
    # In float32, for sums of bfloat16 numbers lose most of what an adapter adds.
    loaded = model.load(base, adapter=options.adapter, merge=True)
    taught = (made.team if made else None) or "single"
    players = team.find(
        given(options.team) if options.team else taught, instructions=made.instructions if made else True
    )
    partial = options.out.with_name(f"{options.out.name}.partial")
    loaded.model.to(getattr(torch, options.dtype)).save_pretrained(str(partial))
    model.save_tokenizer(loaded, players, partial)
    partial.rename(options.out)
    what = f"{base} with {options.adapter} folded in"
    if bases.is_whole(options.adapter):  # nothing is folded: the model without its run, in another type
        what = f"{options.adapter}, which was whole already, in {options.dtype}"
    print(f"{options.out}: {what}; play it with: rolecraft chat --base {options.out}")
