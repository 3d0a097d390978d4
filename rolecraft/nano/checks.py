"""Checks what the nano base can do before any tuning: copy at 1,000 tokens, look up, choose among functions."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random
from typing import Any

import torch

from rolecraft.benchmarks.toolworld import names, topics
from rolecraft.nano import language

_Probe = tuple[list[int], list[int]]
"""Prompt ids and the ids of the right answer."""


@dataclass(frozen=True, slots=True)
class Check:
    """One skill: the share of `n` probes answered exactly by greedy decoding, and what the base must reach."""

    name: str
    n: int
    accuracy: float
    bar: float

    @property
    def passed(self) -> bool:
        """Whether the accuracy reaches the bar."""
        return self.accuracy >= self.bar


def check(model: Any, tokenizer: Any, *, n: int = 200, seed: int = 7) -> list[Check]:
    """Return the base's checks over `n` probes each, with unseen names throughout."""
    random = Random(seed)
    copies = [_copy_probe(random, tokenizer, 1000) for _ in range(max(8, n // 8))]
    look_ups = [_distant_probe(random, tokenizer, 200) for _ in range(max(8, n // 2))]
    choices = [_choice_probe(random, tokenizer) for _ in range(n)]
    return [
        Check("copying at 1,000 tokens, per token", len(copies), _token_accuracy(model, copies), 0.95),
        Check("look-up across 200 tokens", len(look_ups), _exact(model, look_ups), 0.75),
        Check("choice among four functions", len(choices), _exact(model, choices), 0.90),
    ]


def _encode(tokenizer: Any, text: str) -> list[int]:
    return list(tokenizer.backend_tokenizer.encode(text, add_special_tokens=False).ids)


def _item(random: Random) -> str:
    return names.entity(random, unseen=True) if random.random() < 0.7 else str(random.randrange(10_000))


def _copy_probe(random: Random, tokenizer: Any, length: int) -> _Probe:
    """A list of names and numbers and its repetition, `length` tokens together."""
    text = _item(random)
    while len(_encode(tokenizer, text)) < length // 2 - 8:
        text += f" {_item(random)}"
    return _encode(tokenizer, f"Copy: {text}\n"), _encode(tokenizer, text + "\n")


def _distant_probe(random: Random, tokenizer: Any, length: int) -> _Probe:
    """Facts of `length` tokens; the first one is asked for."""
    entity, value = names.entity(random, unseen=True), str(random.randrange(100, 100_000))
    text = f"{entity}: {value}\n"
    while len(_encode(tokenizer, text)) < length - 30:
        text += f"{names.entity(random, unseen=True)}: {random.randrange(100, 100_000)}\n"
    return _encode(tokenizer, f"{text}{entity}? "), _encode(tokenizer, value + "\n")


def _choice_probe(random: Random, tokenizer: Any) -> _Probe:
    """Four described functions with nonsense names, and a request for one of them."""
    kind, entity = random.choice(topics.KINDS), names.entity(random, unseen=True)
    lines, signatures = [], {}
    for topic in random.sample(topics.TOPICS, 4):
        name = f"{names.nonsense(random, unseen=True)}_{names.nonsense(random, unseen=True)}"
        signatures[topic] = f"{name}({random.choice(topics.PARAMETERS)})"
        lines.append(f"{random.choice(language.DESCRIPTIONS).format(t=topic, k=kind)}:{signatures[topic]}\n")
    topic = random.choice(list(signatures))
    question = language.request(random, topic, entity, kind)
    prompt = f"Tools:\n{''.join(lines)}{question} Use:\nThe {topic} of {entity}:"
    return _encode(tokenizer, prompt), _encode(tokenizer, signatures[topic] + "\n")


@torch.inference_mode()
def _predictions(model: Any, probe: _Probe) -> list[bool]:
    """Return for each answer token whether it is the most likely one after the right tokens before it."""
    prompt, answer = probe
    logits_TV = model(input_ids=torch.tensor([prompt + answer])).logits[0]
    best = logits_TV[len(prompt) - 1 : -1].argmax(-1).tolist()
    return [got == right for got, right in zip(best, answer, strict=True)]


def _exact(model: Any, probes: list[_Probe]) -> float:
    return sum(all(_predictions(model, probe)) for probe in probes) / len(probes)


def _token_accuracy(model: Any, probes: list[_Probe]) -> float:
    hits = [hit for probe in probes for hit in _predictions(model, probe)]
    return sum(hits) / len(hits)
