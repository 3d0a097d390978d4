"""What a hand-over between roles costs: one stream of keys and values beside three other ways, in one run on one
thread.

An episode of four rounds (reasoner 60 tokens, executor 40, observation 120) and a last reasoner (40) and summarizer
(60) after a prompt is played with given tokens by one and the same Mixture of Roles under three assignments of role
ids. `stream` is ours; `re-encode` computes the whole view at every hand-over (alpha-UMi, PEFT's set_adapter); `cache
per adapter` computes what each role has not seen yet (servers of many LoRAs); `activated` computes the last reply again
(activated LoRA). CPU time, interleaved, median of rounds. `python benchmarks/handover.py --json`
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
import transformers
from rich.console import Console
from rich.table import Table

from rolecraft.adapters import mor
from rolecraft.engine.model_runner import ModelRunner, cache_keys
from rolecraft.gate import Gate
from rolecraft.model import Loaded

_VOCABULARY = 1024
_HEADER = 3
_ROUND = (("reasoner", 60), ("executor", 40), (None, 120))
_END = (("reasoner", 40), ("summarizer", 60))
WAYS = {
    "stream": ("stream", False),
    "re-encode": ("reencode", True),
    "cache per adapter": ("reencode", False),
    "activated": ("activated", False),
}
"""How role ids are assigned, and whether everything is forgotten at a hand-over."""


@dataclass(slots=True)
class Cost:
    """What one episode took: tokens of prompts computed, those of them computed before, and CPU seconds."""

    prefilled: int = 0
    again: int = 0
    prefill_seconds: float = 0.0
    seconds: float = 0.0
    hand_overs: int = 0


@dataclass(slots=True)
class Conversation:
    """Tokens so far, who wrote each, and which of them some role has computed already."""

    ids: list[int]
    speakers: list[str | None]
    computed: int = 0
    random: random.Random = field(default_factory=lambda: random.Random(1))

    def say(self, speaker: str | None, count: int) -> list[int]:
        """Append `count` tokens of `speaker` and return them."""
        new = [self.random.randrange(10, _VOCABULARY) for _ in range(count)]
        self.ids += new
        self.speakers += [speaker] * count
        return new


def loaded(width: int, layers: int, assignment: Any) -> Loaded:
    """Return a random Llama with a Mixture of Roles of the paper's sizes, the same numbers for each assignment."""
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=_VOCABULARY,
        hidden_size=width,
        intermediate_size=11 * width // 4,
        num_hidden_layers=layers,
        num_attention_heads=8,
        num_key_value_heads=8,
        max_position_embeddings=4096,
        tie_word_embeddings=True,
    )
    settings = mor.Settings(assignment=assignment)
    model = mor.attach(transformers.LlamaForCausalLM(config), settings).eval()
    for name, parameter in model.named_parameters():
        if "mor_B" in name:
            torch.nn.init.normal_(parameter, std=0.02)
    no_text: Any = None
    return Loaded("random", model, no_text, no_text, "", "", gate=mor.gate(settings))


@torch.inference_mode()
def play(runner: ModelRunner, gate: Gate, prompt: int, *, forgets: bool) -> Cost:
    """Play the episode on an empty cache; reply tokens are given, so every way writes the same."""
    runner.cache.clear()
    talk, cost = Conversation([], []), Cost()
    talk.say(None, prompt)
    for speaker, count in _ROUND * 4 + _END:
        if speaker is None:
            talk.say(None, count)
            continue
        if forgets:
            runner.cache.clear()
        _turn(runner, gate, talk, speaker, count, cost)
    return cost


def _turn(runner: ModelRunner, gate: Gate, talk: Conversation, speaker: str, count: int, cost: Cost) -> None:
    start = len(talk.ids)
    talk.say(speaker, _HEADER)
    keys = cache_keys(talk.ids, gate.ids(talk.speakers, speaker, start))
    began = time.process_time()
    row, known = runner.cache.allocate(keys, ())
    runner.prefill([(row, keys[known:])])
    cost.prefill_seconds += time.process_time() - began
    cost.prefilled += len(keys) - known
    cost.again += max(0, talk.computed - known)
    cost.hand_overs += 1
    role = gate.roles.index(speaker)
    for token in talk.say(speaker, count)[:-1]:
        runner.decode([(row, cache_keys((token,), (role,))[0])])
    talk.computed = len(talk.ids) - 1  # the last token of a reply is computed by whoever speaks next
    cost.seconds += time.process_time() - began


def show(console: Console, costs: dict[str, list[Cost]], title: str) -> None:
    """Print tokens and medians, and how many times the stream's time each other way takes."""
    table = Table(title=title, title_justify="left")
    for name in (
        "way",
        "prompt tokens computed",
        "of them again",
        "prefill ms",
        "episode ms (quartiles)",
        "over stream",
    ):
        table.add_column(name, justify="left" if name == "way" else "right")
    for name, found in costs.items():
        low, middle, high = statistics.quantiles([1000 * one.seconds for one in found], n=4)
        prefill = 1000 * statistics.median(one.prefill_seconds for one in found)
        row = (
            f"{found[0].prefilled:,}",
            f"{found[0].again:,}",
            f"{prefill:,.0f}",
            f"{middle:,.0f} ({low:,.0f}-{high:,.0f})",
        )
        table.add_row(name, *row, f"{speed_up(costs, name):.2f}")
    console.print(table)


def speed_up(costs: dict[str, list[Cost]], name: str) -> float:
    """Return the median over rounds of the other way's episode time over the stream's."""
    pairs = zip(costs[name], costs["stream"], strict=True)
    return statistics.median(other.seconds / ours.seconds for other, ours in pairs)


def measure(width: int, layers: int, prompt: int, rounds: int) -> dict[str, list[Cost]]:
    """Return each way's costs; all are played once before, and take turns."""
    players = {name: loaded(width, layers, assignment) for name, (assignment, _) in WAYS.items()}
    decoders = {name: ModelRunner(one, 4, 4000) for name, one in players.items()}
    costs: dict[str, list[Cost]] = {name: [] for name in WAYS}
    for turn in range(rounds + 1):
        for name, (_, forgets) in WAYS.items():
            gate = players[name].gate
            assert gate is not None
            cost = play(decoders[name], gate, prompt, forgets=forgets)
            if turn:
                costs[name].append(cost)
    return costs


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print one table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--width", type=int, default=512)
    parser.add_argument("--layers", type=int, default=8)
    parser.add_argument("--prompt", type=int, default=600)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", action="store_true", help="print one JSON object as the last line")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()
    warnings.simplefilter("ignore")
    costs = measure(options.width, options.layers, options.prompt, options.rounds)
    stream = costs["stream"][0]
    title = (
        f"one episode of {stream.hand_overs} turns, width {options.width}, {options.layers} layers, "
        f"prompt {options.prompt}, one thread, n = {options.rounds} rounds"
    )
    show(Console(stderr=options.json, width=120), costs, title)
    if options.json:
        found = {f"vs_{key}": round(speed_up(costs, name), 3) for key, name in _KEYS.items()}
        print(json.dumps({"recomputed_tokens_per_handover": stream.again / stream.hand_overs, **found}))


_KEYS = {"reencode": "re-encode", "adapter_cache": "cache per adapter", "activated": "activated"}


if __name__ == "__main__":
    main()
