"""Whether prompts are multiplied in bfloat16: about twice as fast where the processor can, and not the same numbers.

A prompt computed at once and one continued from cached rows then differ by bfloat16's rounding, so it is not the
default. Not covered: models that are kept in another type than float32, and those that `layout` does not read.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import torch

from rolecraft import bfloat16
from rolecraft.engine.layout import Network, changed

PrefillDtype = Literal["auto", "float32", "bfloat16"]
"""`auto` is bfloat16 where a trial product of this machine is faster by half in it."""

_GAIN = 1.5


def pays(dtype: PrefillDtype, like: torch.Tensor) -> bool:
    """Tell whether to multiply prompts in bfloat16 for a model of tensors like this one; `auto` tries it out."""
    if dtype == "float32" or like.dtype != torch.float32:
        return False
    return dtype == "bfloat16" or bfloat16.gain(like.device) >= _GAIN


def halved(network: Network) -> Network:
    """Return the network for prompts: with a second copy of its matrices, in bfloat16, half as large as the first."""
    return changed(network, lambda one: replace(one, half=torch.cat(one.weights, 1).to(torch.bfloat16)))
