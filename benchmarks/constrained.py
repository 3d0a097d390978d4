"""What holding calls to a grammar costs and saves: model steps of a call beside free decoding, and the masks' time.

A free reply takes a step of the model for each token; a constrained one takes none for tokens that leave no choice. The
replies are those of toolworld's reference trajectories, token by token (`forced text`), and those that a model writes
greedily to the same prompts: the tuned one if a run has left an adapter, else a random one, which calls only under the
grammar. Times are CPU time of one thread, the ways interleaved. `python benchmarks/constrained.py --json`
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from tokenizers import AddedToken
from transformers import LlamaConfig, LlamaForCausalLM

from rolecraft import model, renderers
from rolecraft.benchmarks import toolworld
from rolecraft.engine import LocalEngine, Settings
from rolecraft.engine.matcher import Grammars, Matcher
from rolecraft.engine.matcher import Settings as GrammarSettings
from rolecraft.errors import UserError
from rolecraft.grammar import Wanted
from rolecraft.model import Loaded
from rolecraft.nano import corpus, tokenizer
from rolecraft.types import Completion, Message, Prompt, Sampling, Task

_ADAPTER = Path("runs/quickstart/adapter")
_FASTEST = "required, fast-forward"
WAYS = {
    "free": ("auto", True),
    "required, token by token": ("required", False),
    _FASTEST: ("required", True),
}
"""The choice that a prompt asks for, and whether forced tokens are computed together."""


@dataclass(frozen=True, slots=True)
class Measured:
    """What several replies, or several rounds, came to."""

    what: str
    unit: str
    values: tuple[float, ...]

    @property
    def median(self) -> float:
        """The middle one."""
        return statistics.median(self.values)

    def to_json(self) -> dict[str, float | int | str]:
        """Return the row as plain data."""
        return {
            "what": self.what,
            "unit": self.unit,
            "n": len(self.values),
            "mean": statistics.fmean(self.values),
            "median": self.median,
            "low": min(self.values),
            "high": max(self.values),
        }


@dataclass(frozen=True, slots=True)
class Told:
    """One of the executor's replies in a reference trajectory, its task and what came before."""

    task: Task
    before: tuple[Message, ...]
    reply: Message

    def asks(self, choice: str) -> Prompt:
        """Return the prompt that a model answers greedily with a reply of its own."""
        return Prompt(self.before, self.task.tools, "executor", choice=choice, sampling=Sampling(max_tokens=160))


def replies(count: int, seed: int) -> Iterator[Told]:
    """Yield the executor's replies in toolworld's reference trajectories."""
    for task in toolworld.tasks(toolworld.Settings(size=count), "test", seed):
        record = toolworld.reference(task, "mor")
        for place, message in enumerate(record.messages):
            if message.speaker == "executor":
                yield Told(task, record.messages[:place], message)


def steps(matcher: Matcher, ids: Sequence[int]) -> int:
    """Return how many calls of the model a reply takes, that of the prompt's end included; each computes a run."""
    place, count = 0, 1
    while place < len(ids):
        run = matcher.forced()
        assert tuple(run) == tuple(ids[place : place + len(run)]), "a reference reply is not what the grammar forces"
        for token in run:
            matcher.accept(token)
        place += len(run)
        if place < len(ids):
            matcher.accept(ids[place])
            place += 1
            count += place < len(ids)  # nothing follows the last token
    return count


def forced_text(name: str, words: Any, told: Sequence[Told]) -> list[Measured]:
    """Return the rows of reference replies in one chat format."""
    renderer = renderers.find(words, name)
    grammars = Grammars(renderer, words, len(words), GrammarSettings())
    tokens, left, families = [], [], dict[str, list[float]]()
    for one in told:
        ids = renderer.reply(one.reply)
        tokens.append(float(len(ids)))
        left.append(float(steps(grammars.start(Wanted(one.task.tools, "required")), ids)))
        families.setdefault(one.task.reference["family"], []).append(tokens[-1] / left[-1])
    who = f"{name}, forced text"
    return [
        Measured(f"{who}: free", "steps", tuple(tokens)),
        Measured(f"{who}: required", "steps", tuple(left)),
        *ratios(f"{who}: free / required, steps", tokens, left),
        *(Measured(f"{who}, {family}: free / required, steps", "times", tuple(v)) for family, v in families.items()),
    ]


def ratios(what: str, more: Sequence[float], less: Sequence[float]) -> list[Measured]:
    """Return how many times `more` is `less`: reply by reply, and summed over all."""
    each = tuple(one / other for one, other in zip(more, less, strict=True))
    return [Measured(what, "times", each), Measured(f"{what}, summed", "times", (sum(more) / sum(less),))]


def tagged(words: Any) -> Any:
    """Return the tokenizer with Hermes' call tags added."""
    words.add_tokens([AddedToken(tag, special=False, normalized=False) for tag in ("<tool_call>", "</tool_call>")])
    return words


def random_model(words: Any) -> Loaded:
    """Return a random Llama of about 7 million parameters."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(words),
        hidden_size=256,
        intermediate_size=704,
        num_hidden_layers=8,
        num_attention_heads=8,
        num_key_value_heads=8,
        max_position_embeddings=1024,
        initializer_range=0.1,
    )
    return Loaded("random 7M", LlamaForCausalLM(config).eval(), words, renderers.find(words), "", "")


def player(adapter: Path) -> tuple[Loaded, bool]:
    """Return what writes, and whether it is tuned: an adapter that fits the base of today, else a random model."""
    try:
        return model.load("nano", adapter=adapter, merge=model.merges(adapter)), True
    except UserError as error:
        Console(stderr=True).print(f"no tuned model, so a random one writes: {error}")
        return random_model(tokenizer.train(0, documents=300)), False


class Counted:
    """An engine that counts the calls of its model: the one place that looks into it."""

    def __init__(self, loaded: Loaded, settings: Settings) -> None:
        self.engine = LocalEngine(loaded, settings)
        self.calls = 0
        runner: Any = self.engine._runner
        self._forward: Callable[..., torch.Tensor] = runner._forward
        runner._forward = self._count

    def _count(self, *arguments: Any) -> torch.Tensor:
        self.calls += 1
        return self._forward(*arguments)

    def reply(self, prompt: Prompt) -> tuple[Completion, int, float]:
        """Return the reply to a prompt that is computed beforehand, the calls it takes, and its CPU seconds."""
        engine = self.engine
        asyncio.run(engine.complete(replace(prompt, choice="auto", sampling=replace(prompt.sampling, max_tokens=1))))
        before, began = self.calls, time.process_time()
        (completion,) = asyncio.run(engine.complete(prompt))
        return completion, self.calls - before, time.process_time() - began


def written(loaded: Loaded, tuned: bool, told: Sequence[Told], rounds: int) -> list[Measured]:
    """Return the rows of what a model writes to the same prompts, one at a time."""
    ways = {way: how for way, how in WAYS.items() if tuned or how[0] == "required"}
    engines = {way: Counted(loaded, Settings(max_requests=1, fast_forward=ahead)) for way, (_, ahead) in ways.items()}
    calls: dict[str, list[float]] = {way: [] for way in ways}
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    same: dict[str, int] = dict.fromkeys(ways, 0)
    for number in range(rounds):
        for one in told:
            texts = {}
            for way, (choice, _) in ways.items():
                completion, count, spent = engines[way].reply(one.asks(choice))
                texts[way] = completion.turn.token_ids
                seconds[way].append(spent * 1e3)
                if number == 0:
                    calls[way].append(float(count))
            for way, ids in texts.items():
                same[way] += number == 0 and ids == texts[_FASTEST]
    for counted in engines.values():
        counted.engine.close()
    who = "tuned" if tuned else loaded.name
    rows = [Measured(f"{who}: {way}", "steps", tuple(values)) for way, values in calls.items()]
    rows += [Measured(f"{who}: {way}", "CPU ms", tuple(values)) for way, values in seconds.items()]
    for way in [way for way in ways if way != _FASTEST]:
        for unit, cost in (("steps", calls), ("CPU time", seconds)):
            rows += ratios(f"{who}: {way} / {_FASTEST}, {unit}", cost[way], cost[_FASTEST])
        rows.append(Measured(f"{who}: {way}, the same tokens as fast-forward", "share", (same[way] / len(told),)))
    return rows


def together(loaded: Loaded, tuned: bool, told: Sequence[Told], rounds: int) -> list[Measured]:
    """Return the rows of the same replies written sixteen at once, their prompts included."""
    ways = {way: how for way, how in WAYS.items() if tuned or how[0] == "required"}
    spent: dict[str, list[float]] = {way: [] for way in ways}

    async def ask(engine: LocalEngine, choice: str) -> None:
        await asyncio.gather(*(engine.complete(one.asks(choice)) for one in told))

    for _ in range(rounds):
        for way, (choice, ahead) in ways.items():
            with LocalEngine(loaded, Settings(max_requests=16, fast_forward=ahead)) as engine:
                began = time.process_time()
                asyncio.run(ask(engine, choice))
                spent[way].append((time.process_time() - began) * 1e3 / len(told))
    who = f"{'tuned' if tuned else loaded.name}, 16 at once"
    rows = [Measured(f"{who}: {way}", "CPU ms each", tuple(values)) for way, values in spent.items()]
    for way in [way for way in ways if way != _FASTEST]:
        rows += ratios(f"{who}: {way} / {_FASTEST}, CPU time", spent[way], spent[_FASTEST])[:1]
    return rows


def larger(size: int) -> Any:
    """Return a tokenizer like nano's with a vocabulary of `size`, for the masks' cost."""
    dice = Random(0)
    texts = ["".join(part for part, _ in corpus.document(dice, 160)) for _ in range(3000)]
    words = tokenizer.train(0, documents=20)
    many: Iterable[str] = (" ".join("".join(dice.choices("etaoinshrdlu", k=6)) for _ in range(400)) for _ in range(300))
    return words.train_new_from_iterator([*texts, *many], size)


def masks(name: str, words: Any, told: Sequence[Told]) -> list[Measured]:
    """Return what a token's mask, its acceptance and a set of tools cost, in microseconds."""
    renderer = renderers.find(words, "nano")
    began = time.process_time()
    grammars = Grammars(renderer, words, len(words), GrammarSettings())
    spent: dict[str, list[float]] = {"tokenizer, once": [time.process_time() - began]}
    logits = torch.randn(1, len(words))
    for one in told:
        matcher = timed(spent, "compile a set of tools", partial(grammars.start, Wanted(one.task.tools, "required")))
        for token in renderer.reply(one.reply):
            timed(spent, "forced tokens", matcher.forced)
            allowed = timed(spent, "mask", matcher.allowed)
            timed(spent, "apply the mask", partial(logits.masked_fill, ~allowed, float("-inf")))
            timed(spent, "accept", partial(matcher.accept, token))
    return [Measured(f"{name}: {what}", "us", tuple(1e6 * one for one in values)) for what, values in spent.items()]


def timed(spent: dict[str, list[float]], what: str, work: Callable[[], Any]) -> Any:
    """Return what `work` does, its CPU seconds added to `spent`."""
    began = time.thread_time()
    answer = work()
    spent.setdefault(what, []).append(time.thread_time() - began)
    return answer


def main() -> None:
    """Read the flags, measure, and show the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--n", type=int, default=42, help="toolworld tasks")
    parser.add_argument("--seed", type=int, default=13)
    parser.add_argument("--rounds", type=int, default=1, help="of what a model writes")
    parser.add_argument("--adapter", type=Path, default=_ADAPTER)
    parser.add_argument("--vocabulary", type=int, default=8192, help="of the larger tokenizer")
    parser.add_argument("--json", action="store_true", help="print one JSON object as the last line")
    flags = parser.parse_args()
    torch.set_num_threads(1)
    told = list(replies(flags.n, flags.seed))
    loaded, tuned = player(flags.adapter)
    rows = forced_text("nano", loaded.tokenizer, told)
    rows += forced_text("hermes", tagged(tokenizer.train(0, documents=300)), told)
    rows += written(loaded, tuned, told, flags.rounds)
    rows += together(loaded, tuned, told, max(3, flags.rounds))
    rows += masks(f"{len(loaded.tokenizer):,} tokens", loaded.tokenizer, told)
    words = larger(flags.vocabulary)
    rows += masks(f"{len(words):,} tokens", words, told)
    table = Table(
        "what", "n", "mean", "median", "spread", "unit", title=f"executor's replies of {flags.n} toolworld tasks"
    )
    for row in rows:
        spread = f"{min(row.values):.2f} to {max(row.values):.2f}"
        mean = statistics.fmean(row.values)
        table.add_row(row.what, str(len(row.values)), f"{mean:.2f}", f"{row.median:.2f}", spread, row.unit)
    Console(width=140).print(table)
    if flags.json:
        print(
            json.dumps({"tasks": flags.n, "seed": flags.seed, "tuned": tuned, "rows": [row.to_json() for row in rows]})
        )


if __name__ == "__main__":
    main()
