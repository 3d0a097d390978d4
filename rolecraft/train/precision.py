"""Decides whether a run whose recipe says `bf16: auto` is tuned under bfloat16 autocast: where that is faster here.

What was decided is written into the run's settings, so that a resumed run keeps it wherever it goes on.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch

from rolecraft import bfloat16, workers
from rolecraft.recipe import Recipe, read_again
from rolecraft.train.trainer import arguments_for, device_of

_GAIN = 1.2
"""What a product must gain at least, since autocast also casts every weight and activation."""


def decide(recipe: Recipe, output_dir: Path, resume: bool) -> Recipe:
    """Return the recipe with `training.bf16` true or false; all processes of a run get the first one's answer."""
    if recipe.training.bf16 != "auto":
        return recipe
    known = _decided(output_dir, recipe) if resume else None
    chosen = _measured(recipe, output_dir) if known is None else known
    return replace(recipe, training=replace(recipe.training, bf16=chosen))


def _decided(output_dir: Path, recipe: Recipe) -> bool | None:
    """Return what the run in the folder was tuned with, if there is one."""
    written = output_dir / "settings.yaml"
    if not written.is_file():
        return None
    bf16 = read_again(written, recipe).training.bf16
    return bf16 if isinstance(bf16, bool) else None


def _measured(recipe: Recipe, output_dir: Path) -> bool:
    if not workers.is_worker():
        gain = bfloat16.gain(device_of(recipe.training))
        print(f"training.bf16 auto: {gain >= _GAIN} (a product in bfloat16 is {gain:.2f} times as fast as in float32)")
        return gain >= _GAIN
    # Started by torchrun: these arguments meet the other processes, and the first one decides.
    arguments = arguments_for(replace(recipe.training, bf16=False), output_dir)
    faster = torch.tensor(float(bfloat16.gain(arguments.device) >= _GAIN), device=arguments.device)
    if arguments.world_size > 1:
        torch.distributed.broadcast(faster, 0)
    return bool(faster)
