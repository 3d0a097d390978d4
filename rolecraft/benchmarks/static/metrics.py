"""α-UMi's static metrics of one step (arXiv 2401.07324, section 4.1): what was said beside what was annotated.

Each step has the metrics that count on it, so that a metric's mean over the steps that have it is the paper's figure.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Literal

from rolecraft.benchmarks.static.rouge import rouge_l
from rolecraft.types import Json

Plan = Literal["call", "finish", "give up"]
"""What a step decides to do: call tools, answer, or give up."""

Arguments = Mapping[str, Json] | None
"""A call's arguments; None where they are not JSON."""


@dataclass(frozen=True, slots=True)
class Step:
    """What a step does: its plan (None: it came to none), its calls' names and arguments, and its answer."""

    plan: Plan | None
    names: tuple[str, ...] = ()
    arguments: tuple[Arguments, ...] = ()
    answer: str = ""


def measure(said: Step, right: Step, tools: Collection[str]) -> dict[str, float]:
    """Return the metrics of a step whose right one is `right`, 0..1; of `hallucination` less is better.

    `plan`, on all steps: the plans are equal. `hallucination`, on all steps: a tool was called that there is not.
    `act`, where calls are right: the names are equal. `arg_f1`, there too: the arguments' F1, 0 where names differ.
    `arg_f1_easy` is that of the steps whose calls have no arguments and `arg_f1_hard` of the others, those with wrong
    names in both. `rouge_l`, where an answer is right; who gave none is taken to have said `none`.
    """
    found = {
        "plan": float(said.plan == right.plan),
        "hallucination": float(any(name not in tools for name in said.names)),
    }
    if right.plan == "call":
        found |= _of_calls(said, right)
    elif right.plan == "finish":
        found["rouge_l"] = rouge_l(said.answer if said.plan == "finish" else "none", right.answer)
    return found


def score(said: Step, right: Step) -> float:
    """Return how right a step is as a whole: 0 for another plan, else its arguments' F1, its answer's ROUGE-L, or 1."""
    if said.plan != right.plan:
        return 0.0
    if right.plan == "call":
        return _of_calls(said, right)["arg_f1"]
    if right.plan == "finish" and said.answer != right.answer:
        return rouge_l(said.answer, right.answer)
    return 1.0


def argument_f1(said: Arguments, right: Mapping[str, Json]) -> float:
    """Return the F1 of a call's arguments: an equal value counts 1, another one under the right key a half.

    Values are compared as they are. Of a call without arguments it is 1 if none were given.
    """
    if said is None or not right or not said:
        return float(said is not None and not right and not said)
    matched = sum(1.0 if _equal(said[key], value) else 0.5 for key, value in right.items() if key in said)
    precision, recall = matched / len(said), matched / len(right)
    return 2 * precision * recall / (precision + recall) if matched else 0.0


def _of_calls(said: Step, right: Step) -> dict[str, float]:
    named = said.names == right.names
    pairs = list(zip(said.arguments, right.arguments, strict=True)) if named else []
    f1 = sum(argument_f1(one, other or {}) for one, other in pairs) / len(pairs) if pairs else 0.0
    easy = not any(right.arguments)
    found = {"act": float(named), "arg_f1": f1}
    if easy or not named:
        found["arg_f1_easy"] = f1
    if not easy or not named:
        found["arg_f1_hard"] = f1
    return found


def _equal(one: Json, other: Json) -> bool:
    try:
        return bool(one == other)
    except RecursionError:  # nested a thousand deep: no annotation is
        return False
