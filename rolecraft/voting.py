"""Votes among candidates: which of them came to the same, and which one stands for all (Agent Distillation, 1.6).

Nothing here reads a judge or a task's reference. Not covered: answers that mean the same in other words.
"""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from fractions import Fraction

from rolecraft.step import Position
from rolecraft.types import Check, Json, Message, Trials, Turn, Usage

Outcome = tuple[Hashable, ...]
"""What a candidate came to; equal ones agree."""

_NUMBER = re.compile(
    r"(?<![\w.])[-+]?(?:(?:\d{1,3}(?:,\d{3}){1,12}(?!\d)|\d{1,60})(?:\.\d{1,60})?|\.\d{1,60})%?(?!\w|\.\d)"
)
_FRACTION = re.compile(r"\s*([-+]?\d{1,60})\s*/\s*(\d{1,60})\s*")
_LATEX_FRACTION = re.compile(r"\\d?frac\s*\{([-+]?\d{1,60})\}\s*\{(\d{1,60})\}")
_MARKED = re.compile(r"####\s*(?P<hashes>[^\n]+)|\banswer\s*(?:is|:|=)\s*(?P<words>[^\n]+)", re.IGNORECASE)
_DRESS = re.compile(r"\\(?:text|mathrm|mbox)\s*\{([^{}]*)\}|\\[,;:! ]|\^?\\circ|\*\*")
_MEASURE = re.compile(
    r"\W*(?:\w+\s*[=:]\s*|(?:about|only|exactly)\s+)?[€£¥]?\s*0\s*[€£¥%°]?(?:\s+[A-Za-z]+)*(?:[.,;(!].*)?",
    re.IGNORECASE,
)
"""A number, here 0, that is all there is to an answer but for what it is called, its currency and its units."""
_DIGITS = 9
"""So many significant digits of a number that is not whole count: beyond them lies the noise of floating point."""


@dataclass(frozen=True, slots=True)
class Ballot:
    """One candidate: what it came to (None: it failed, and cannot be chosen), and how likely its tokens were."""

    outcome: Outcome | None
    logprob: float = 0.0


@dataclass(frozen=True, slots=True)
class Election:
    """The place of the chosen candidate, how many failed, and the share of the others that agreed with it."""

    chosen: int
    failed: int
    agreement: float | None


def elect(ballots: Sequence[Ballot]) -> Election:
    """Return which candidate is chosen: of the most that agree, the likeliest, then the first.

    Of as many that agree the likeliest decides too. Where all have failed it is the first, whose error is told.
    """
    valid = [place for place, ballot in enumerate(ballots) if ballot.outcome is not None]
    if not valid:
        return Election(0, len(ballots), None)
    counts = Counter(ballots[place].outcome for place in valid)
    chosen = max(valid, key=lambda place: (counts[ballots[place].outcome], ballots[place].logprob, -place))
    share = counts[ballots[chosen].outcome] / len(valid)
    return Election(chosen, len(ballots) - len(valid), share)


@dataclass(slots=True)
class Tally:
    """What a strategy has tried so far, and what it spent beside the record."""

    strategy: str
    tried: int = 0
    failed: int = 0
    model_calls: int = 0
    tool_calls: int = 0
    usages: list[Usage] = field(default_factory=list)
    agreements: list[float] = field(default_factory=list)
    checks: list[Check] = field(default_factory=list)

    def vote(self, candidates: Sequence[Sequence[Turn]], election: Election) -> None:
        """Count a vote among candidates, each of some turns, which were written at the same time."""
        self.tried += len(candidates)
        self.failed += election.failed
        if election.agreement is not None:
            self.agreements.append(election.agreement)
        others = [turn for place, turns in enumerate(candidates) if place != election.chosen for turn in turns]
        self.model_calls += len(others)
        self.usages += [Usage(one.usage.prompt, one.usage.cached, one.usage.completion) for one in others]
        seconds = [sum(turn.usage.seconds for turn in turns) for turns in candidates]
        self.usages.append(Usage(seconds=max(seconds) - seconds[election.chosen]))

    def trials(self) -> Trials:
        """Return it all for the record."""
        agreed = sum(self.agreements) / len(self.agreements) if self.agreements else None
        usage = sum(self.usages, Usage())
        counts = (self.tried, self.failed, agreed, self.model_calls, self.tool_calls)
        return Trials(self.strategy, *counts, usage, tuple(self.checks))

    def spend(self, turns: Iterable[Turn]) -> None:
        """Count turns that are not in the record."""
        for turn in turns:
            self.model_calls += 1
            self.usages.append(turn.usage)


def outcome(before: Position, after: Position, *, by_code: bool = False) -> Outcome | None:
    """Return what a step came to: an answer, observations, calls that nobody runs, or who speaks next; None: it failed.

    A step fails whose call cannot be read or has failed, whose reply was cut, and that makes an episode go in circles.
    `by_code`: its speaker acts by code.
    """
    reply, new = after.turns[-1], after.messages[len(before.messages) :]
    observed = observations(new, by_code=by_code)
    if reply.message.unparsed is not None or reply.stop == "length" or any(one.failed for one in observed):
        return None
    if after.stop not in (None, "answered"):
        return None if after.stop in ("length", "repeated_call", "max_turns") else ("stop", after.stop)
    if after.stop == "answered":
        return final(after)
    if observed:
        return ("observed", *(canonical(message.content) for message in observed))
    return ("next", after.speaker)


def observations(messages: Sequence[Message], *, by_code: bool) -> list[Message]:
    """Return what a step was told: of one that acted by code what the code printed, not what its calls answered."""
    told = (message for message in messages if message.role == "tool")
    return [message for message in told if not (by_code and message.tool_call_id is not None)]


def final(end: Position) -> Outcome | None:
    """Return what an episode that was answered came to, None for another end and for an answer that says nothing."""
    return said(end.messages[-1], None, cut=False) if end.stop == "answered" else None


def said(message: Message, next_speaker: str | None, *, cut: bool) -> Outcome | None:
    """Return what a reply alone comes to, where somebody else runs the calls; None if it failed."""
    if message.unparsed is not None or (cut and not message.tool_calls):
        return None
    if message.tool_calls:
        return ("calls", *calls(message))
    if next_speaker is not None:
        return ("next", next_speaker)
    value = answer(message.content)
    return ("final", value) if value else None


def calls(message: Message) -> tuple[str, ...]:
    """Return the calls of a message so that equal ones compare equal, whatever their order."""
    return tuple(sorted(f"{call.name}({_spelled(dict(call.arguments))})" for call in message.tool_calls))


def answer(text: str) -> str:
    """Return the canonical value of a final answer: what is boxed or marked as the answer, else its whole text.

    Of a marked value that is one number with a unit or a currency, such as `$18.00`, the number counts. Reasoning in
    `<think>` does not.
    """
    text = text.rpartition("</think>")[2]
    marked = _boxed(text)
    if marked is None and (found := list(_MARKED.finditer(text))):
        marked = found[-1]["hashes"] or found[-1]["words"]
    if marked is None:
        return canonical(text)
    value = canonical(_DRESS.sub(r" \1 ", _LATEX_FRACTION.sub(r"\1/\2", marked.replace("\\%", "%"))).replace("$", " "))
    numbers = _NUMBER.findall(value)
    return canonical(numbers[0]) if len(numbers) == 1 and _MEASURE.fullmatch(_NUMBER.sub("0", value)) else value


def canonical(text: str) -> str:
    """Return a text so that equal ones compare equal: its blanks collapsed, a final stop off, numbers in one spelling.

    `1,234.0` is `1234`, `50%` is `0.5`, and a text that is a fraction alone is its value.
    """
    line = " ".join(text.split())
    if fraction := _FRACTION.fullmatch(line):
        return _value(fraction)
    line = line[:-1] if line.endswith(".") and not line.endswith("..") else line
    return _NUMBER.sub(lambda match: _plain(match[0]), line)


def likelihood(turns: Sequence[Turn]) -> float:
    """Return the mean log-probability of all tokens of some turns, 0 where none is told."""
    told = [one for turn in turns for one in turn.logprobs]
    return math.fsum(told) / len(told) if told else 0.0


def _boxed(text: str) -> str | None:
    """Return what stands in the last `\\boxed{...}`, whose braces may nest."""
    start = text.rfind("\\boxed{")
    if start < 0:
        return None
    depth = 0
    for place in range(start + len("\\boxed"), len(text)):
        depth += {"{": 1, "}": -1}.get(text[place], 0)
        if depth == 0:
            return text[start + len("\\boxed{") : place]
    return None


def _value(fraction: re.Match[str]) -> str:
    over = int(fraction[2])
    return _spelled_number(Fraction(int(fraction[1]), over)) if over else fraction[0].strip()


def _plain(number: str) -> str:
    value = Fraction(Decimal(number.rstrip("%").replace(",", "")))
    return _spelled_number(value / 100 if number.endswith("%") else value)


def _spelled_number(value: Fraction) -> str:
    return str(value.numerator) if value.denominator == 1 else f"{float(value):.{_DIGITS}g}"


def _spelled(value: Json) -> str:
    """Return JSON in which equal values are written alike."""

    def alike(part: Json) -> Json:
        if isinstance(part, Mapping):
            return {str(key): alike(item) for key, item in part.items()}
        if isinstance(part, list | tuple):
            return [alike(item) for item in part]
        if isinstance(part, float) and part.is_integer():
            return int(part)
        return " ".join(part.split()) if isinstance(part, str) else part  # 02134 and 2134 are other places

    return json.dumps(alike(value), sort_keys=True, ensure_ascii=False, default=str)
