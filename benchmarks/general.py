"""What tuning costs of a model's general ability: perplexity and a cloze of HotpotQA's paragraphs, with and without it.

The base and the adapter read the same paragraphs (`hotpotqa/distractor_*_100.jsonl` of the public data, the folder that
ROLECRAFT_DATA names). Cloze: of four candidates, the last word of a sentence is the likeliest after what stands before
it in its paragraph; the others are last words of other sentences, of like form. Not covered: skills beyond this text.

    python benchmarks/general.py --adapter runs/lora --json
"""

from __future__ import annotations

import argparse
import json
import math
import random
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table
from torch.nn import functional

from rolecraft import model, scores
from rolecraft.benchmarks import _public

_LONGEST = 384  # tokens of a text
_WORD = re.compile(r"^(.*\s)([A-Za-z][a-z]{3,})\.$", re.DOTALL)
_LEAST_WORDS = 8
_CANDIDATES = 4


@dataclass(frozen=True, slots=True)
class Blank:
    """A text without its last word, and the candidates, of which the first is right."""

    text: str
    words: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Read:
    """What a model made of the texts: nats and tokens of each paragraph, and whether each blank was filled rightly."""

    nats: list[float]
    tokens: list[int]
    right: list[bool]

    @property
    def perplexity(self) -> float:
        """The exponential of the mean nats per token."""
        return math.exp(sum(self.nats) / sum(self.tokens))


def paragraphs() -> Iterator[list[str]]:
    """Yield the sentences of each paragraph, each paragraph once."""
    folder = _public.folder("hotpotqa", "HotpotQA's distractor_easy_100.jsonl and distractor_medium_100.jsonl")
    seen = set()
    for level in ("easy", "medium"):
        for line in (folder / f"distractor_{level}_100.jsonl").read_text(encoding="utf-8").splitlines():
            for title, sentences in json.loads(line)["context"]:
                if title not in seen:
                    seen.add(title)
                    yield list(sentences)


def blanks(found: Sequence[Sequence[str]], n: int, dice: random.Random) -> list[Blank]:
    """Return at most one blank of a paragraph, `n` in all if there are so many."""
    ends = []
    for sentences in found:
        fitting = [(place, match) for place, one in enumerate(sentences) if (match := _end(one))]
        if fitting:
            place, match = dice.choice(fitting)
            ends.append(("".join(sentences[:place]) + match.group(1), match.group(2)))
    words = sorted({word for _, word in ends})
    made = []
    for text, word in ends[:n]:
        alike = [one for one in words if one != word and one[0].isupper() == word[0].isupper()]
        made.append(Blank(text.rstrip(), (word, *dice.sample(alike, _CANDIDATES - 1))))
    return made


def _end(sentence: str) -> re.Match[str] | None:
    return _WORD.match(sentence) if len(sentence.split()) >= _LEAST_WORDS else None


def read(loaded: model.Loaded, texts: Sequence[str], cloze: Sequence[Blank], name: str) -> Read:
    """Have a model read everything."""
    nats, tokens, right = [], [], []
    for text in track(texts, f"{name}: paragraphs"):
        ids = loaded.tokenizer(text).input_ids[:_LONGEST]
        nats += _nats(loaded.model, [ids], [1])
        tokens.append(len(ids) - 1)
    for blank in track(cloze, f"{name}: cloze"):
        before = len(loaded.tokenizer(blank.text).input_ids)
        whole = [loaded.tokenizer(f"{blank.text} {word}").input_ids for word in blank.words]
        cut = max(0, max(map(len, whole)) - _LONGEST)
        lost = _nats(loaded.model, [ids[cut:] for ids in whole], [before - cut] * len(whole))
        right.append(lost[0] <= min(lost))
    return Read(nats, tokens, right)


@torch.inference_mode()
def _nats(network: Any, rows: Sequence[list[int]], starts: Sequence[int]) -> list[float]:
    """Return the summed negative log-probability of each row's tokens from its start on."""
    width = max(map(len, rows))
    ids_BT = torch.tensor([row + [0] * (width - len(row)) for row in rows])
    logits_BTV = network(input_ids=ids_BT, use_cache=False).logits[:, :-1].float()
    losses_BT = functional.cross_entropy(logits_BTV.transpose(1, 2), ids_BT[:, 1:], reduction="none")
    return [
        float(losses_T[start - 1 : len(row) - 1].sum())
        for losses_T, row, start in zip(losses_BT, rows, starts, strict=True)
    ]


def compare(base: Read, tuned: Read) -> dict[str, Any]:
    """Return both models' figures, the ratio of perplexities with its interval over paragraphs, and the paired test."""
    better = sum(b and not a for a, b in zip(base.right, tuned.right, strict=True))
    worse = sum(a and not b for a, b in zip(base.right, tuned.right, strict=True))
    rows = list(zip(base.nats, tuned.nats, base.tokens, strict=True))
    dice, ratios = random.Random(0), []
    for _ in range(2000):
        drawn = dice.choices(rows, k=len(rows))
        ratios.append(math.exp(sum(b - a for a, b, _ in drawn) / sum(count for *_, count in drawn)))
    ratios.sort()
    return {
        "paragraphs": len(base.nats),
        "tokens": sum(base.tokens),
        "perplexity": [base.perplexity, tuned.perplexity],
        "ratio": tuned.perplexity / base.perplexity,
        "ratio_interval": [ratios[50], ratios[-51]],
        "blanks": len(base.right),
        "cloze": [100 * sum(one.right) / len(one.right) for one in (base, tuned)],
        "cloze_intervals": [scores.wilson(sum(one.right), len(one.right)) for one in (base, tuned)],
        "cloze_p": scores.mcnemar(better, worse),
    }


def show(console: Console, found: dict[str, Any]) -> None:
    """Print the figures as a table."""
    table = Table("", "base", "tuned", "change")
    ratio, (low, high) = found["ratio"], found["ratio_interval"]
    base, tuned = found["perplexity"]
    table.add_row(
        f"perplexity, {found['paragraphs']} paragraphs, {found['tokens']:,} tokens",
        f"{base:.2f}",
        f"{tuned:.2f}",
        f"{100 * (ratio - 1):+.1f} % ({100 * (low - 1):+.1f} to {100 * (high - 1):+.1f})",
    )
    told = [
        f"{score:.1f} ({100 * low:.0f}-{100 * high:.0f})"
        for score, (low, high) in zip(found["cloze"], found["cloze_intervals"], strict=True)
    ]
    change = f"{found['cloze'][1] - found['cloze'][0]:+.1f} (p = {found['cloze_p']:.2g})"
    table.add_row(f"cloze, n = {found['blanks']}", *told, change)
    console.print(table)


def main() -> None:
    """Read with the base, then with the adapter, and print both."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--adapter", type=Path, required=True, metavar="DIR", help="the folder of a trained adapter")
    parser.add_argument("--base", metavar="MODEL", help="the base (default: the adapter's)")
    parser.add_argument("--paragraphs", type=int, default=100, metavar="N", help="read for perplexity (default: 100)")
    parser.add_argument("--n", type=int, default=300, metavar="N", help="blanks (default: 300)")
    parser.add_argument("--seed", type=int, default=0, metavar="N")
    parser.add_argument("--json", action="store_true", help="print one JSON object as the last line")
    options = parser.parse_args()
    model.limit_threads()
    dice = random.Random(options.seed)
    found = list(paragraphs())
    dice.shuffle(found)
    texts = ["".join(sentences) for sentences in found[: options.paragraphs]]
    cloze = blanks(found[options.paragraphs :], options.n, dice)
    base = options.base or json.loads((options.adapter / "contract.json").read_text(encoding="utf-8"))["base"]
    read_by = [
        read(model.load(base, adapter=adapter), texts, cloze, name)
        for name, adapter in (("base", None), ("tuned", options.adapter))
    ]
    made = compare(*read_by)
    show(Console(stderr=options.json), made)
    if options.json:
        print(json.dumps(made))


if __name__ == "__main__":
    main()
