"""Measures decoding: a Mixture of Roles beside its base, the engine beside transformers' generate, n samples of one
prompt beside as many prompts.

CPU seconds of one thread, interleaved, median of rounds; random Llamas of about 7 and 28 million parameters.
`python benchmarks/decode.py --json`. Not covered: accelerators, and time to the first token.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import statistics
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import batching
import torch
import transformers
from rich.console import Console
from rich.table import Table

from rolecraft.adapters import mor
from rolecraft.engine import LocalEngine, Settings
from rolecraft.engine.model_runner import ModelRunner, cache_keys
from rolecraft.model import Loaded
from rolecraft.types import Message, Prompt, Sampling

_CACHED = 256
_ROLE_BARS = {"7M": 1.8, "28M": 1.35}
_GENERATE_BARS = {("7M", 1): 1.5, ("7M", 8): 1.3, ("28M", 1): 1.15, ("28M", 8): 1.15}
_BATCHES = (1, 8)


@dataclass(frozen=True, slots=True)
class Row:
    """Values of several rounds; `bar` is what the median must not exceed (`most`) or must reach."""

    what: str
    unit: str
    values: tuple[float, ...]
    bar: float | None = None
    most: bool = False

    @property
    def median(self) -> float:
        """The middle one."""
        return statistics.median(self.values)

    @property
    def verdict(self) -> str:
        """Tell whether the bar is met, in words; nothing without a bar."""
        if self.bar is None:
            return ""
        met = self.median <= self.bar if self.most else self.median >= self.bar
        return f"{'<=' if self.most else '>='} {self.bar:g}: {'met' if met else 'missed'}"

    def to_json(self) -> dict[str, float | int | str]:
        """Return the row as plain data."""
        low, high = min(self.values), max(self.values)
        found: dict[str, float | int | str] = {"what": self.what, "unit": self.unit, "n": len(self.values)}
        return found | {"median": self.median, "low": low, "high": high, "bar": self.verdict}


def with_roles(loaded: Loaded) -> Loaded:
    """Return a model with a Mixture of Roles of the paper's sizes that changes something."""
    settings = mor.Settings()
    model = mor.attach(loaded.model, settings).eval()
    for name, parameter in model.named_parameters():
        if "mor_B" in name:
            torch.nn.init.normal_(parameter, std=0.02)
    return replace(loaded, model=model, gate=mor.gate(settings))


@torch.inference_mode()
def step_seconds(runner: ModelRunner, roles: Sequence[int], steps: int) -> float:
    """Return the CPU seconds of `steps` steps of rows that hold `_CACHED` tokens, one row for each role id."""
    dice = random.Random(0)
    runner.cache.clear()
    runner.cache.reserve(len(roles), _CACHED + steps)
    for row, role in enumerate(roles):
        runner.prefill([(row, cache_keys([dice.randrange(10, 400) for _ in range(_CACHED)], [role] * _CACHED))])
    calls = [[(row, cache_keys([10 + step], [role])[0]) for row, role in enumerate(roles)] for step in range(steps)]
    began = time.process_time()
    for call in calls:
        runner.decode(call)
    return time.process_time() - began


def measure_roles(size: str, rounds: int, steps: int) -> list[Row]:
    """Return what a step of a Mixture of Roles takes beside one of its base, and both beside transformers' calls."""
    most, makers = max(_BATCHES), {"base": batching.build, "roles": lambda size: with_roles(batching.build(size))}
    runners = {
        (name, use_fused): ModelRunner(make(size), most, _CACHED + steps + 1, use_fused=use_fused)
        for name, make in makers.items()
        for use_fused in (True, False)
    }
    rows = []
    for batch in _BATCHES:
        works = {
            "base": (runners["base", True], [-1] * batch),
            "one role": (runners["roles", True], [0] * batch),
            "mixed roles": (runners["roles", True], [row % 3 for row in range(batch)]),
            "base, transformers": (runners["base", False], [-1] * batch),
            "one role, transformers": (runners["roles", False], [0] * batch),
        }
        if batch == 1:
            del works["mixed roles"]
        found: dict[str, list[float]] = {name: [] for name in works}
        for turn in range(rounds + 1):
            for name, (runner, roles) in works.items():
                seconds = step_seconds(runner, roles, steps)
                if turn:
                    found[name].append(1000 * seconds / steps)
        rows += [Row(f"{size}, batch {batch}: {name}", "ms a step", tuple(times)) for name, times in found.items()]
        rows += _role_ratios(size, batch, found)
    return rows


def _role_ratios(size: str, batch: int, found: dict[str, list[float]]) -> list[Row]:
    def ratio(first: str, second: str, bar: float | None = None) -> Row:
        values = tuple(a / b for a, b in zip(found[first], found[second], strict=True))
        return Row(f"{size}, batch {batch}: {first} / {second}", "times", values, bar, most=True)

    rows = [ratio("one role", "base", _ROLE_BARS[size])]
    if batch > 1:
        rows.append(ratio("mixed roles", "base"))
    return [*rows, ratio("base, transformers", "base"), ratio("one role, transformers", "one role")]


def measure_generate(size: str, rounds: int, tokens: int) -> list[Row]:
    """Return tokens a second of the whole engine and of transformers' generate, for the same greedy replies."""
    loaded, untouched = batching.build(size), batching.build(size)  # the engine turns its matrices round
    prompts = batching.questions(max(_BATCHES), tokens)
    rows = []
    with LocalEngine(loaded, Settings(max_requests=max(_BATCHES))) as engine:
        for batch in _BATCHES:
            asked = prompts[:batch]
            works: dict[str, Callable[[], object]] = {
                "engine": lambda asked=asked: batching.together(engine, asked),  # type: ignore[misc]
                "generate": lambda asked=asked: batching.generate(untouched, asked),  # type: ignore[misc]
            }
            rates: dict[str, list[float]] = {name: [] for name in works}
            for turn in range(rounds + 1):
                for name, work in works.items():
                    engine.forget()
                    seconds = batching.seconds(work)
                    if turn:
                        rates[name].append(batch * tokens / seconds)
            rows += [Row(f"{size}, batch {batch}: {name}", "tokens/s", tuple(rate)) for name, rate in rates.items()]
            ratios = tuple(a / b for a, b in zip(rates["engine"], rates["generate"], strict=True))
            name = f"{size}, batch {batch}: engine / generate"
            rows.append(Row(name, "times", ratios, _GENERATE_BARS[size, batch]))
    return rows


def measure_prefill(size: str, rounds: int, tokens: int) -> list[Row]:
    """Return prompt tokens a second in float32 and bfloat16, and how the second changes what is said next."""
    loaded, untouched, dice = batching.build(size), batching.build(size), random.Random(0)
    runners = {
        "float32": ModelRunner(loaded, 1, tokens + 1),
        "bfloat16": ModelRunner(loaded, 1, tokens + 1, prefill_dtype="bfloat16"),
        "transformers, float32": ModelRunner(untouched, 1, tokens + 1, use_fused=False),
    }
    rates: dict[str, list[float]] = {name: [] for name in runners}
    said: dict[str, list[torch.Tensor]] = {name: [] for name in runners}
    for turn in range(rounds + 1):
        prompt = [dice.randrange(10, 400) for _ in range(tokens)]
        for name, runner in runners.items():
            runner.cache.clear()
            began = time.process_time()
            with torch.inference_mode():
                logits_KV = runner.prefill([(0, prompt.copy())], 64)[0]
            if turn:
                rates[name].append(tokens / (time.process_time() - began))
                said[name].append(logits_KV)
    rows = [Row(f"{size}, prompt of {tokens}: {name}", "tokens/s", tuple(rate)) for name, rate in rates.items()]
    pairs = list(zip(said["bfloat16"], said["float32"], strict=True))
    same = tuple(float((a.argmax(-1) == b.argmax(-1)).float().mean()) for a, b in pairs)
    off = tuple(float((a - b).abs().max() / b.abs().max()) for a, b in pairs)
    rows.append(Row(f"{size}: likeliest token the same in bfloat16", "share of 64", same))
    return [*rows, Row(f"{size}: largest difference of logits", "of the largest", off)]


def measure_samples(size: str, rounds: int, count: int, words: int, tokens: int) -> list[Row]:
    """Return what `count` samples of one prompt take beside `count` prompts of the same length."""
    loaded = batching.build(size)
    sampling = Sampling(temperature=1.0, max_tokens=tokens)

    def prompt(number: int, n: int) -> Prompt:
        text = f"{number} " + "rank of Plalples and debt of Ro. " * words
        return Prompt((Message("user", text),), sampling=replace(sampling, n=n, seed=number))

    with LocalEngine(loaded, Settings(max_requests=count)) as engine:
        works: dict[str, list[Prompt]] = {
            f"{count} samples of one prompt": [prompt(0, count)],
            f"{count} prompts": [prompt(number, 1) for number in range(count)],
        }
        length = len(loaded.renderer.prompt(works[f"{count} prompts"][0].messages, (), "assistant"))
        found: dict[str, list[float]] = {name: [] for name in works}
        for turn in range(rounds + 1):
            for name, prompts in works.items():
                engine.forget()
                seconds = batching.seconds(lambda prompts=prompts: _complete(engine, prompts))  # type: ignore[misc]
                if turn:
                    found[name].append(1000 * seconds)
    title = f"{size}, {length} tokens and {tokens} each"
    first, second = found.values()
    rows = [Row(f"{title}: {name}", "ms", tuple(times)) for name, times in found.items()]
    ratios = tuple(b / a for a, b in zip(first, second, strict=True))
    return [*rows, Row(f"{title}: {count} prompts / {count} samples", "times", ratios)]


def _complete(engine: LocalEngine, prompts: Sequence[Prompt]) -> None:
    async def ask() -> None:
        await asyncio.gather(*(engine.complete(prompt) for prompt in prompts))

    asyncio.run(ask())


def show(console: Console, rows: Sequence[Row]) -> None:
    """Print the table."""
    table = Table("what", "n", "median", "low to high", "unit", "bar")
    for row in rows:
        spread = f"{_short(min(row.values))} to {_short(max(row.values))}"
        table.add_row(row.what, str(len(row.values)), _short(row.median), spread, row.unit, row.verdict)
    console.print(table)


def _short(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def main() -> None:
    """Read the flags, measure, and show the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", nargs="+", default=["7M", "28M"], choices=list(_ROLE_BARS))
    parser.add_argument("--parts", nargs="+", default=["roles", "generate", "prefill", "samples"])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--steps", type=int, default=24, help="steps of each round, and tokens of each reply")
    parser.add_argument("--json", action="store_true", help="print one JSON object as the last line")
    flags = parser.parse_args()
    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()
    warnings.simplefilter("ignore")
    rows: list[Row] = []
    for size in flags.sizes:
        if "roles" in flags.parts:
            rows += measure_roles(size, flags.rounds, flags.steps)
        if "generate" in flags.parts:
            rows += measure_generate(size, flags.rounds, 2 * flags.steps)
        if "prefill" in flags.parts:
            rows += measure_prefill(size, flags.rounds, 512)
    if "samples" in flags.parts:
        rows += measure_samples("7M", flags.rounds, 8, 40, 8)
    show(Console(stderr=flags.json, width=120), rows)
    if flags.json:
        print(json.dumps({"rows": [row.to_json() for row in rows]}))


if __name__ == "__main__":
    main()
