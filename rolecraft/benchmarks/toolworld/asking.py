"""How a question is asked: a frame of those that a split may use, filled in, now and then with words around it."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

from rolecraft.benchmarks.toolworld.wordings import read as read_wordings


@dataclass(frozen=True, slots=True)
class Sentences:
    """Which frames a split asks in: training or held-out ones; and in what share, for training, other wordings."""

    unseen: bool = False
    varied: float = 0.0


@dataclass(frozen=True, slots=True)
class Frames:
    """Sentence frames with `{placeholders}`; the held-out ones belong to the `phrasing` split alone.

    `wording` names the other wordings that training data may use (wordings.yaml).
    """

    training: tuple[str, ...]
    held_out: tuple[str, ...]
    wording: str

    def pick(self, random: Random, sentences: Sentences) -> str:
        """Return one frame of those that `sentences` admits."""
        if sentences.unseen:
            return random.choice(self.held_out)
        if sentences.varied and random.random() < sentences.varied:
            return random.choice(read_wordings()[self.wording])
        return random.choice(self.training)


OPENERS = Frames(
    wording="openers",
    training=(
        "Hello. ",
        "Hi there. ",
        "Please help me. ",
        "One question. ",
        "I have a question. ",
        "I am in a hurry. ",
        "This is for a report. ",
        "We are in a meeting. ",
        "Quick one: ",
        "Listen. ",
        "Good morning. ",
        "I hope you can help. ",
    ),
    held_out=("Sorry to bother you once more. ", "Long story short: ", "Right, so ", "If you have a minute: "),
)
CLOSERS = Frames(
    wording="closers",
    training=(" Thanks.", " Thank you.", " It is urgent.", " I need it today.", " Be quick.", " Can you help?"),
    held_out=(" Much appreciated.", " Cheers.", " No need to explain."),
)
_OPENED, _CLOSED = 0.15, 0.1


def ask(random: Random, frames: Frames, values: dict[str, str], sentences: Sentences) -> str:
    """Return a question: one frame filled with `values`, now and then with a sentence before or after it."""
    text = frames.pick(random, sentences).format(**values)
    if random.random() < _OPENED:
        text = OPENERS.pick(random, sentences) + text
    if random.random() < _CLOSED and text[-1] in ".?":
        text += CLOSERS.pick(random, sentences)
    return text
