"""The first-thought prefix (Agent Distillation, section 1.3): a teacher's chain of thought begins its first reply.

The teacher is asked first to reason without tools; the first step of that answer, up to a blank line, begins the
agent's first reply, which goes on from there. The prefix is part of the reply, in the record and in what is trained.
It makes data, and students play without it. Not covered: engines that cannot begin a reply, which refuse by name.
"""

from __future__ import annotations

import re
from dataclasses import replace

from rolecraft.agent import Player
from rolecraft.errors import ContextFull
from rolecraft.step import Episode
from rolecraft.types import Message, Prompt, Trajectory, Trials, Turn, Usage

NAME = "first_thought"

_TEXT = (
    "Solve the task by reasoning step by step, without tools. Write each step as a short paragraph, with a blank line "
    "between steps, and the answer at the end."
)
_MOST_CHARS = 600
_NOT_TEXT = re.compile(r"```|~~~|<\|?/?[A-Za-z_]+\|?>|\[/?[A-Z_]{3,}\]")
"""Where a first step stops being words: a block of code, and what chat formats mark their parts with."""


def prefixed(player: Player) -> Player:
    """Return a player that asks for a chain of thought first, and then plays with its first step as the prefix.

    Where there is no room for one it plays without.
    """

    async def play(episode: Episode) -> Trajectory:
        try:
            turn = await reason(episode)
        except ContextFull:
            return await player(episode)
        record = await player(replace(episode, prefix=first_step(turn.message.content)))
        return replace(record, trials=_with(record.trials, turn.usage))

    return play


async def reason(episode: Episode) -> Turn:
    """Return the teacher's answer to the task without tools."""
    asked = [message for message in episode.task.messages if message.role != "system"]
    messages = (Message("system", _TEXT), *asked)
    sampling = replace(episode.settings.sampling, n=1, seed=episode.seed)
    prompt = Prompt(messages, speaker=episode.team.first, choice="none", sampling=sampling)
    (completion,) = await episode.engine.complete(prompt)
    return completion.turn


def first_step(text: str) -> str:
    """Return the first step of a chain of thought as a reply begins with it, "" where it has none."""
    step = text.rpartition("<think>")[2].strip().split("\n\n")[0]
    cut = _NOT_TEXT.search(step)
    words = step[: cut.start() if cut else _MOST_CHARS][:_MOST_CHARS].strip()
    return f"{words}\n\n" if words else ""


def _with(trials: Trials | None, usage: Usage) -> Trials:
    """Return what was tried, the chain of thought among it."""
    if trials is None:
        return Trials(NAME, model_calls=1, usage=usage)
    return replace(trials, model_calls=trials.model_calls + 1, usage=trials.usage + usage)
