"""A training step of a Mixture of Roles beside PEFT's LoRAs and a loop over all its LoRAs, in one run on one thread.

The model is a random Llama (width 512, 4 layers; `--width 1024 --layers 2` for a wider one),
one sequence of 512 tokens, of which 340, 92 and 80 are the three roles'. CPU time of forward and backward, interleaved,
median of rounds. `python benchmarks/mor_layer.py --json`
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
import warnings
from collections.abc import Callable
from typing import Any

import torch
import transformers
from peft import LoraConfig, get_peft_model
from rich.console import Console
from rich.table import Table
from torch import nn

from rolecraft.adapters import mor

_TOTAL, _ACTIVE = 224, 64
"""Ranks: 14 LoRAs of 16, and the 4 of them (one shared, three routed) that serve a token of reasoner or executor."""


def base(width: int, layers: int, dtype: torch.dtype) -> Any:
    """Return a random Llama, the same every time."""
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=1024,
        hidden_size=width,
        intermediate_size=4 * width,
        num_hidden_layers=layers,
        num_attention_heads=8,
        num_key_value_heads=8,
        tie_word_embeddings=True,
    )
    return transformers.LlamaForCausalLM(config).to(dtype)


class DenseLoop(nn.Module):
    """Every LoRA for every token, one after the other, its output scaled by the token's weight: the released code's
    way."""

    def __init__(self, layer: mor.MoRLinear) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the base's output and what the LoRAs add, (..., out)."""
        layer, plan = self.layer, self.layer.gate.plan
        mixture, kept = layer.mixtures["default"], layer.weights("default")
        rows = x.reshape(-1, x.shape[-1])
        router = kept.router.to(x.dtype)
        w_NE, _ = mor.mixing(rows, router, plan.masks(mixture), mixture)
        added = layer.base_layer(x).reshape(-1, layer.out_features)
        for place in range(mixture.total):
            rank = slice(place * mixture.r, (place + 1) * mixture.r)
            low = rows @ kept.A[rank].to(x.dtype).T
            added = added + w_NE[:, place, None] * (low @ kept.B[rank].to(x.dtype))
        return added.view(*x.shape[:-1], -1)


def looped(model: Any) -> Any:
    """Put a `DenseLoop` in the place of each layer's own way."""
    for path, layer in list(mor.layers(model).items()):
        parent, _, name = path.rpartition(".")
        setattr(model.get_submodule(parent), name, DenseLoop(layer))
    return model


def variants(width: int, layers: int, dtype: torch.dtype) -> dict[str, Any]:
    """Return the models to compare by name."""

    def lora(r: int, cast: bool = True) -> Any:
        config = LoraConfig(r=r, lora_alpha=r, target_modules="all-linear")
        return get_peft_model(base(width, layers, dtype), config, autocast_adapter_dtype=cast)

    def mixture() -> Any:
        return get_peft_model(base(width, layers, dtype), mor.MoRConfig())

    found = {
        "mor": mixture(),
        "peft total rank": lora(_TOTAL),
        "peft active rank": lora(_ACTIVE),
        "dense loop": looped(mixture()),
    }
    if dtype == torch.bfloat16:
        found["peft total rank, adapters in bf16"] = lora(_TOTAL, cast=False)
        found["peft active rank, adapters in bf16"] = lora(_ACTIVE, cast=False)
    return found


Clock = Callable[[], float]
"""Returns seconds; that of an accelerator first waits until it has done what it was told."""


def step(model: Any, ids: torch.Tensor, role_ids: torch.Tensor, clock: Clock = time.process_time) -> float:
    """Return the seconds of one forward and backward pass."""
    inner = model.base_model.model
    inputs = {"role_ids": role_ids} if hasattr(inner, "mor_gate") else {}
    began = clock()
    model(input_ids=ids, use_cache=False, **inputs).logits.float().logsumexp(-1).mean().backward()
    seconds = clock() - began
    for parameter in model.parameters():
        parameter.grad = None
    return seconds


def batch(rows: int = 1) -> tuple[torch.Tensor, torch.Tensor]:
    """Return ids and role ids (rows, 512), the roles in four runs."""
    ids = torch.randint(0, 1024, (rows, 512), generator=torch.Generator().manual_seed(1))
    return ids, torch.tensor([[0] * 200 + [1] * 92 + [0] * 140 + [2] * 80]).repeat(rows, 1)


def measure(
    models: dict[str, Any],
    rounds: int,
    say: Callable[[str], None],
    given: tuple[torch.Tensor, torch.Tensor] | None = None,
    clock: Clock = time.process_time,
) -> dict[str, list[float]]:
    """Return each model's seconds in each round; all are run once before, and take turns.

    `given` are ids and role ids, those of `batch` unless said otherwise.
    """
    ids, role_ids = given or batch()
    times: dict[str, list[float]] = {name: [] for name in models}
    for turn in range(rounds + 1):
        for name, model in models.items():
            seconds = step(model.train(), ids, role_ids, clock)
            if turn:
                times[name].append(seconds)
        say(f"round {turn} of {rounds}")
    return times


def ratios(times: dict[str, list[float]], other: str) -> list[float]:
    """Return MoR's time over the other's, round by round."""
    return [one / two for one, two in zip(times["mor"], times[other], strict=True)]


def show(console: Console, title: str, times: dict[str, list[float]]) -> None:
    """Print the table: median milliseconds with the quartiles, and MoR's share of them."""
    table = Table(title=f"{title}, n = {len(times['mor'])} rounds", title_justify="left")
    for name in ("model", "ms (quartiles)", "MoR's time over it (quartiles)"):
        table.add_column(name, justify="left" if name == "model" else "right")
    for name, seconds in times.items():
        low, middle, high = statistics.quantiles([1000 * one for one in seconds], n=4)
        a, b, c = statistics.quantiles(ratios(times, name), n=4)
        table.add_row(name, f"{middle:.0f} ({low:.0f}-{high:.0f})", f"{b:.2f} ({a:.2f}-{c:.2f})")
    console.print(table)


def main() -> None:
    """Measure float32 and bfloat16, print both tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument("--width", type=int, default=512)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--json", action="store_true", help="print one JSON object as the last line")
    options = parser.parse_args()
    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()
    warnings.simplefilter("ignore")
    console = Console(stderr=options.json, width=110)
    for dtype in (torch.float32, torch.bfloat16):
        models = variants(options.width, options.layers, dtype)
        times = measure(models, options.rounds, lambda line: console.print(line, end="\r"))
        show(console, f"a step of width {options.width}, {options.layers} layers, {str(dtype)[6:]}, one thread", times)
        if dtype == torch.float32:
            against = {"total_rank": "peft total rank", "active_rank": "peft active rank"}
            result = {f"step_vs_peft_{key}": statistics.median(ratios(times, name)) for key, name in against.items()}
            result["step_vs_dense_loop"] = statistics.median(ratios(times, "dense loop"))
        del models
    if options.json:
        print(json.dumps({key: round(value, 3) for key, value in result.items()}))


if __name__ == "__main__":
    main()
