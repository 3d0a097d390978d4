"""In which form a base's weights are multiplied by while it plays, and which of them is fastest on this machine.

Not covered: accelerators, where weights stay in the type that they are loaded in.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch

from rolecraft.engine.blocks import Blocks
from rolecraft.engine.packed import GROUP, Groups, Kind, fits_int4, to_bfloat16, to_int4, to_int8
from rolecraft.errors import SettingsError

Weights = Literal["auto", "float32", "bfloat16", "int8", "int4"]
"""`auto` is the fastest of those that lose next to nothing: 4 bits only where the base's file has no more."""

_GAIN = 1.15
"""A form that loses more is taken where it is at least so much faster."""
_TRIED_BYTES = 96 * 2**20
"""Of float32, so that a trial reads from memory as a step does, if the base is as large."""
_PROMPT_ROWS = 128
_ROUNDS = 5


@dataclass(frozen=True, slots=True)
class Choice:
    """How to pack, None for weights as they are; whether prompts have a copy in bfloat16; and why, in words."""

    kind: Kind | None
    prompts: bool = False
    why: str = ""


def choose(weights: Weights, config: Any, rows: int, dtype: str, device: str) -> Choice:
    """Return how to hold the weights of a base by its config, for `rows` replies at once.

    Raises SettingsError where they cannot be packed: on an accelerator, or if the whole model is in another type.
    """
    if weights == "float32":
        return Choice(None)
    here = device == "cpu" or (device == "auto" and torch.accelerator.current_accelerator(check_available=True) is None)
    if not here or dtype != "float32":
        what = f"the model is in {dtype} (--dtype)" if here else f"the model runs on {device!r} (--device)"
        if weights == "auto":
            return Choice(None, why=f"weights as loaded: {what}")
        raise SettingsError(
            f"engine.weights is {weights!r}, and {what}; weights are packed for the CPU in a model of float32: set it "
            "(--weights) to 'float32', or leave that out"
        )
    trial = Trial(config)
    if weights == "auto":
        return _fastest(trial, rows, Blocks(str(config.name_or_path)).share > 0.5)
    return Choice(weights, weights != "bfloat16" and trial.prompts_gain(weights) > 1)


def _fastest(trial: Trial, rows: int, has_four_bits: bool) -> Choice:
    """Return the form that a trial of this machine has fastest, by replies first."""
    kinds: tuple[Kind, ...] = ("bfloat16", "int8", "int4") if has_four_bits else ("bfloat16", "int8")
    best: Kind | None = None
    whole = least = trial.seconds(None, rows)
    for kind in kinds:
        seconds = trial.seconds(kind, rows)
        if seconds * _GAIN < least:
            best, least = kind, seconds
    if best is None:
        return Choice(None, why=f"weights in float32: no other form is faster here for {rows} at once")
    prompts = best != "bfloat16" and trial.prompts_gain(best) > 1
    return Choice(
        best, prompts, f"{best} chosen by trial, {whole / least:.1f} times as fast as float32 for {rows} at once"
    )


class Trial:
    """Products of random matrices of a base's shape, timed in each form."""

    def __init__(self, config: Any) -> None:
        """Make room for the shape of a base, by its config."""
        text = config.get_text_config()
        self._width = int(text.hidden_size)
        self._out = 2 * int(getattr(text, "intermediate_size", None) or 4 * text.hidden_size)
        size = 4 * self._width * self._out
        self._count = max(1, min(int(text.num_hidden_layers), -(-_TRIED_BYTES // size)))
        self._made: dict[Kind | None, list[Callable[[torch.Tensor], torch.Tensor]]] = {}

    @torch.inference_mode()
    def seconds(self, kind: Kind | None, rows: int) -> float:
        """Return the least that multiplying `rows` took in one of several rounds."""
        x, products = torch.ones(rows, self._width), self._products(kind)
        taken = []
        for _ in range(_ROUNDS):
            began = time.perf_counter()
            for product in products:
                product(x)
            taken.append(time.perf_counter() - began)
        return min(taken)

    def prompts_gain(self, kind: Kind) -> float:
        """Return how many times faster prompts are in bfloat16 than in the form of the replies."""
        return self.seconds(kind, _PROMPT_ROWS) / self.seconds("bfloat16", _PROMPT_ROWS)

    def _products(self, kind: Kind | None) -> list[Callable[[torch.Tensor], torch.Tensor]]:
        if kind not in self._made:
            self._made[kind] = [self._product(kind) for _ in range(self._count)]
        return self._made[kind]

    def _product(self, kind: Kind | None) -> Callable[[torch.Tensor], torch.Tensor]:
        out, width = self._out, self._width
        if kind is None:
            weight = torch.ones(width, out)
            return lambda x: torch.mm(x, weight)
        if kind == "int4" and fits_int4(width):
            scales = torch.ones(out, width // GROUP)
            groups = Groups(torch.ones(out, width, dtype=torch.uint8), scales, scales)
            return to_int4([groups]).product
        make = to_bfloat16 if kind == "bfloat16" else to_int8
        return make([torch.ones(out, width)]).product
