"""Measures the local engine: replies together against one by one, reused beginnings against fresh, generate beside.

All figures are processor seconds of one thread, which a busy machine does not distort; the variants take turns within
each round. Not covered: accelerators, and time to the first token.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from rich.console import Console
from rich.table import Table
from transformers import LlamaConfig, LlamaForCausalLM

from rolecraft import renderers
from rolecraft.engine import LocalEngine, Settings
from rolecraft.model import Loaded
from rolecraft.nano import language, tokenizer
from rolecraft.types import Message, Prompt, Sampling

_SIZES = {"1M": (128, 5, 352), "7M": (256, 8, 704), "28M": (512, 8, 1408)}


@dataclass(frozen=True, slots=True)
class Measured:
    """Ratios or rates of several rounds."""

    what: str
    unit: str
    values: tuple[float, ...]

    @property
    def median(self) -> float:
        """The middle one."""
        return statistics.median(self.values)

    def to_json(self) -> dict[str, float | int | str]:
        """Return the row as plain data."""
        low, high = min(self.values), max(self.values)
        return {
            "what": self.what,
            "unit": self.unit,
            "n": len(self.values),
            "median": self.median,
            "low": low,
            "high": high,
        }


def build(size: str) -> Loaded:
    """Return a random Llama of about `size` parameters that never ends a reply by itself."""
    hidden, layers, feed_forward = _SIZES[size]
    return random_llama(
        size,
        hidden_size=hidden,
        intermediate_size=feed_forward,
        num_hidden_layers=layers,
        num_attention_heads=hidden // 32,
        num_key_value_heads=hidden // 32,
    )


def random_llama(name: str, **shape: int | bool) -> Loaded:
    """Return a random Llama of some shape, the same every time, that writes known words and never ends by itself."""
    words = tokenizer.train(0, documents=300)
    told = {"vocab_size": len(words), "max_position_embeddings": 1024, "initializer_range": 0.1, "eos_token_id": None}
    torch.manual_seed(0)
    model = LlamaForCausalLM(LlamaConfig(**{**told, **shape})).eval()
    renderer = renderers.find(words)
    with torch.no_grad():  # the largest of a thousand random logits is never 0
        model.lm_head.weight[sorted(renderer.stop_ids)] = 0.0
        model.lm_head.weight[len(words) :] = 0.0
    return Loaded(name, model, words, renderer, "", "")


def questions(count: int, tokens: int) -> list[Prompt]:
    """Return prompts of different lengths that share no more than their first tokens."""
    dice = random.Random(0)
    texts = (" ".join(language.word(dice) for _ in range(dice.randint(8, 24))) for _ in range(count))
    return [Prompt((Message("user", text),), sampling=Sampling(max_tokens=tokens)) for text in texts]


def seconds(work: Callable[[], object]) -> float:
    """Return the processor seconds that `work` takes."""
    began = time.process_time()
    work()
    return time.process_time() - began


def together(engine: LocalEngine, prompts: Sequence[Prompt]) -> None:
    """Ask everything at once."""

    async def ask() -> None:
        await asyncio.gather(*(engine.complete(prompt) for prompt in prompts))

    asyncio.run(ask())


def singly(engine: LocalEngine, prompts: Sequence[Prompt]) -> None:
    """Ask one after the other."""

    async def ask() -> None:
        for prompt in prompts:
            await engine.complete(prompt)

    asyncio.run(ask())


def conversation(engine: LocalEngine, turns: int, tokens: int, fresh: bool) -> None:
    """Play an episode whose prompts each extend the last; `fresh` forgets everything between them."""

    async def play() -> None:
        messages: tuple[Message, ...] = (Message("user", "rank of Plalples. " * 12),)
        for turn in range(turns):
            if fresh:
                engine.forget()
            (reply,) = await engine.complete(Prompt(messages, sampling=Sampling(max_tokens=tokens)))
            messages = (*messages, reply.message, Message("tool", f"the rank is {turn}. " * 4))

    engine.forget()
    asyncio.run(play())


def generate(loaded: Loaded, prompts: Sequence[Prompt]) -> None:
    """Let transformers write the same replies, as one left-padded batch."""
    ids = [loaded.renderer.prompt(p.messages, p.tools, p.speaker) for p in prompts]
    width = max(map(len, ids))
    batch = torch.tensor([[0] * (width - len(row)) + list(row) for row in ids])
    mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in ids])
    with torch.inference_mode():
        loaded.model.generate(
            input_ids=batch.to(loaded.device),
            attention_mask=mask.to(loaded.device),
            max_new_tokens=prompts[0].sampling.max_tokens,
            do_sample=False,
            pad_token_id=0,
        )


def measure(size: str, count: int, tokens: int, rounds: int) -> list[Measured]:
    """Return the rows of one model size."""
    loaded, untouched = build(size), build(size)  # the engine lays a model's matrices out anew, which helps generate
    prompts = questions(count, tokens)
    few = prompts[: max(2, count // 8)]
    short = [replace(p, sampling=replace(p.sampling, max_tokens=4)) for p in prompts]
    rates: dict[str, list[float]] = {}
    with LocalEngine(loaded, Settings(max_requests=count)) as engine:
        works: dict[str, tuple[int, Callable[[], object]]] = {
            "together": (count * tokens, lambda: together(engine, prompts)),
            "one by one": (len(few) * tokens, lambda: singly(engine, few)),
            "generate, one batch": (count * tokens, lambda: generate(untouched, prompts)),
            "generate, one by one": (len(few) * tokens, lambda: [generate(untouched, [p]) for p in few]),
            "episode, beginning reused": (8 * tokens, lambda: conversation(engine, 8, tokens, fresh=False)),
            "episode, each turn fresh": (8 * tokens, lambda: conversation(engine, 8, tokens, fresh=True)),
        }
        for warm_up in (lambda: together(engine, short), lambda: conversation(engine, 8, tokens, fresh=False)):
            warm_up()
        for _ in range(rounds):
            for name, (written, work) in works.items():
                engine.forget()
                rates.setdefault(name, []).append(written / seconds(work))
    rows = [Measured(f"{size}: {name}", "tokens/s", tuple(values)) for name, values in rates.items()]
    pairs = [
        ("together", "one by one"),
        ("together", "generate, one batch"),
        ("one by one", "generate, one by one"),
        ("episode, beginning reused", "episode, each turn fresh"),
    ]
    for first, second in pairs:
        ratios = tuple(a / b for a, b in zip(rates[first], rates[second], strict=True))
        rows.append(Measured(f"{size}: {first} / {second}", "times", ratios))
    return rows


def main() -> None:
    """Read the flags, measure, and show the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", nargs="+", default=["1M", "7M"], choices=list(_SIZES))
    parser.add_argument("--sequences", type=int, default=32)
    parser.add_argument("--tokens", type=int, default=48, help="tokens of each reply")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", action="store_true", help="print one JSON object as the last line")
    flags = parser.parse_args()
    torch.set_num_threads(1)
    rows = [row for size in flags.sizes for row in measure(size, flags.sequences, flags.tokens, flags.rounds)]
    table = Table(
        "what", "n", "median", "spread", "unit", title=f"{flags.sequences} sequences of {flags.tokens} tokens"
    )
    for row in rows:
        spread = f"{min(row.values):.2f} to {max(row.values):.2f}"
        table.add_row(row.what, str(len(row.values)), f"{row.median:.2f}", spread, row.unit)
    Console().print(table)
    if flags.json:
        print(
            json.dumps({"sequences": flags.sequences, "tokens": flags.tokens, "rows": [row.to_json() for row in rows]})
        )


if __name__ == "__main__":
    main()
