"""Who checks an action, and what of it: rules, the likelihood of yes, or a role that says yes or no, and why (CMAT).

The same questions are asked wherever an action is checked, in a strategy or by a server, and a checker is trained on
them (`row`). A team's checker is its role of that name; a team without one has the role that acts look at its own
action. Not covered: what follows from an opinion, and running calls.
"""

from __future__ import annotations

import asyncio
import json
import math
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from rolecraft.errors import ContextFull
from rolecraft.team import CHECKER, Team
from rolecraft.tools import misfit
from rolecraft.types import Check, Engine, Json, Message, Prompt, Sampling, ToolCall, ToolSpec, Turn

Kind = Literal["rules", "dry_run", "ranking", "role"]

_SHOWN = 300
_WHY = 160
_PROPOSED = "Proposed next step: {calls}\nIs it the right next step for the request? Answer yes, or no and why."
_DONE = "Last step: {calls}\nIs what it brought right, and of use for the request? Answer yes, or no and why."
_ANSWER = "Proposed answer: {text}\nDoes it answer the request, by what the tools returned? Answer yes, or no and why."
_SAID = re.compile(r"\b(yes|no)\b[\s\"',:;.}-]*(.*)", re.IGNORECASE | re.DOTALL)
_KEY = re.compile(r"^\W*why\W*", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Opinion:
    """Whether a checker finds a step right, why not, and the turns in which it was asked (none: it was not)."""

    right: bool
    why: str = ""
    turns: tuple[Turn, ...] = ()


@dataclass(frozen=True, slots=True)
class Asked:
    """Where a checker is asked: the engine, the team and who speaks in it, what was said, and the tools.

    `constrained` holds what it says to its form; `adapt` may change a prompt before it is sent.
    """

    engine: Engine
    team: Team
    speaker: str
    messages: tuple[Message, ...]
    tools: tuple[ToolSpec, ...]
    seed: int = 0
    constrained: bool = False
    adapt: Callable[[Prompt], Prompt] = lambda prompt: prompt


def objection(calls: Sequence[ToolCall], tools: Iterable[ToolSpec]) -> Opinion:
    """Return what the rules say of calls: is there such a tool, and do the arguments fit its schema?"""
    specs = {spec.name: spec for spec in tools}
    for call in calls:
        if call.name not in specs:
            return Opinion(False, f"there is no tool {call.name[:60]!r}; there are {', '.join(specs) or 'none'}")
        if (wrong := misfit(specs[call.name], call.arguments)) is not None:
            return Opinion(False, wrong)
    return Opinion(True)


async def likely(asked: Asked, question: str, threshold: float) -> Opinion:
    """Return the answer to a question of `asking` by the probability of yes beside that of no.

    Both words are scored: the log-probability of one that is drawn under a schema is the model's own, and so tells
    nothing of the other. Where there is no room to ask, they are.
    """
    prompt = _prompt(asked, question)
    try:
        said = await asyncio.gather(
            *(asked.engine.complete(replace(prompt, schema=_only(word))) for word in ("yes", "no"))
        )
    except ContextFull:
        return Opinion(True)
    turns = tuple(completion.turn for (completion,) in said)
    yes, no = (math.fsum(turn.logprobs) for turn in turns)
    right = 1 / (1 + math.exp(min(no - yes, 700.0))) >= threshold
    return Opinion(right, "" if right else "a checker finds it is not right", turns)


async def opinion(asked: Asked, question: str) -> Opinion:
    """Return what the checker says to a question of `asking`.

    One that says neither yes nor no, or has no room to, objects to nothing.
    """
    prompt = _prompt(asked, question)
    if asked.constrained:
        prompt = replace(prompt, schema=_FORM)
    try:
        (completion,) = await asked.engine.complete(prompt)
    except ContextFull:
        return Opinion(True)
    said = completion.message
    return replace(read(said.content or said.unparsed or ""), turns=(completion.turn,))


def asking(calls: Sequence[ToolCall] = (), *, after: bool = False, answer: str = "") -> str:
    """Return what a checker is asked of calls that are proposed, of those just made (`after`), or of an answer."""
    if not calls:
        return _ANSWER.format(text=_cut(answer))
    return (_DONE if after else _PROPOSED).format(calls=written(calls))


def read(text: str) -> Opinion:
    """Return the opinion in a checker's words: the first yes or no, and what follows a no."""
    said = _SAID.search(text[: 4 * _WHY])
    if said is None or said.group(1).lower() == "yes":
        return Opinion(True)
    why = " ".join(_KEY.sub("", said.group(2)).split()).rstrip('"} ')
    return Opinion(False, why[:_WHY] or "a checker finds it is not right")


def row(check: Check, messages: Sequence[Message], *, right: bool) -> tuple[Message, ...]:
    """Return the conversation that trains the role `checker` to say of a check what it should have said.

    `messages` are those of the record that it was made in.
    """
    question = Message("user", asking(check.calls, after=check.after, answer=check.answer))
    verdict = json.dumps({"right": "yes" if right else "no"}, separators=(",", ":"))  # as the engine holds it to be
    answer = Message("assistant", verdict, speaker=CHECKER)
    context = (replace(message, weight=0.0) if message.role == "assistant" else message for message in messages)
    return (*tuple(context)[: check.at], question, answer)


def critique(calls: Sequence[ToolCall], why: str) -> str:
    """Return what a role is told of calls that were not run."""
    return f"The call {written(calls[:1])} was not run: {why[:_SHOWN]}. Write another one, or answer."


def refused(checks: Iterable[Check]) -> set[int]:
    """Return the places of the actions that stand in a record though they were sent back."""
    return {check.at for check in checks if check.kept}


def rejection(why: str) -> str:
    """Return what a role is told of an answer that was not given."""
    return f"That answer was not given: {why[:_SHOWN]}. Call a tool, or give another answer."


def remark(why: str) -> str:
    """Return what a role is told of a step whose result the checker does not find right."""
    return f"A checker finds the last step not right: {why[:_SHOWN]}. Do it another way, or answer."


def written(calls: Sequence[ToolCall]) -> str:
    """Return calls as text that is not too long."""
    return "; ".join(_cut(f"{one.name}({json.dumps(dict(one.arguments), ensure_ascii=False, default=str)})")
                     for one in calls)  # fmt: skip


def _prompt(asked: Asked, question: str) -> Prompt:
    team = asked.team
    role = team.role(CHECKER if team.checks else asked.speaker)
    view = role.view(asked.messages, asked.tools)
    sampling = Sampling(max_tokens=80, seed=asked.seed)
    return asked.adapt(
        Prompt((*view, Message("user", question)), role.tools(asked.tools), role.name, choice="none", sampling=sampling)
    )


def _only(word: str) -> dict[str, Json]:
    """Return the schema of an object that says nothing but a word."""
    return {"type": "object", "properties": {"right": {"enum": [word]}}, "required": ["right"]}


_FORM: dict[str, Json] = {
    "type": "object",
    "properties": {"right": {"enum": ["yes", "no"]}, "why": {"type": "string", "maxLength": _WHY}},
    "required": ["right"],
}


def _cut(text: str) -> str:
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."
