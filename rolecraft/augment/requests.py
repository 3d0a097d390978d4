"""Other requests: two or three at once, or one that leaves out what a tool cannot do without."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from random import Random

from rolecraft.augment.masks import require_share
from rolecraft.augment.pool import Pool, single
from rolecraft.errors import SettingsError
from rolecraft.types import Json, Message, Task, ToolCall, ToolSpec, Trajectory

_JOINS = ("", "Also, ", "And then ", "After that, ")
_QUESTIONS = ("Could you tell me the {}?", "What is the {}?", "I need to know the {}. What is it?")
_LEAD = r"(?:\b(?:for|in|of|to|at|on|with|from|by|about|named|called)\s+)?(?:\b(?:the|a|an)\s+)?"
_TRIES = 5
_LEAST_WORDS = 3


@dataclass(frozen=True, slots=True)
class JoinRequests:
    """How many single requests are joined with others, and how many there are then at most."""

    share: float = 0.2
    most: int = 3

    def __post_init__(self) -> None:
        """Refuse numbers that cannot be meant."""
        require_share(self.share, "join_requests.share")
        if self.most < 2:
            raise SettingsError(f"join_requests.most is {self.most!r}; joined requests are at least 2")


@dataclass(frozen=True, slots=True)
class AskFirst:
    """How many single requests with one call lose a value that the call requires."""

    share: float = 0.1

    def __post_init__(self) -> None:
        """Refuse a share that is none."""
        require_share(self.share, "ask_first.share")


def join_requests(trajectory: Trajectory, settings: JoinRequests, draw: Random, pool: Pool) -> tuple[Trajectory, ...]:
    """Return the request with others of the pool after it, and the calls of all, made at once."""
    if draw.random() >= settings.share or not single(trajectory) or not pool.partners:
        return (trajectory,)
    joined = trajectory
    for _ in range(draw.randint(2, settings.most) - 1):
        for _ in range(_TRIES):
            found = _joined(joined, draw.choice(pool.partners), draw)
            if found is not None:
                joined = found
                break
    return (joined,)


def ask_first(trajectory: Trajectory, settings: AskFirst, draw: Random, pool: Pool) -> tuple[Trajectory, ...]:
    """Return the request without a value that its call requires, and the question for it.

    The value must stand in the request as it is, once; otherwise the trajectory stays. The question is made of the
    parameter's description, else of its name.
    """
    if draw.random() >= settings.share or not single(trajectory) or len(trajectory.messages[1].tool_calls) != 1:
        return (trajectory,)
    (call,) = trajectory.messages[1].tool_calls
    (spec, *_) = [spec for spec in trajectory.task.tools if spec.name == call.name]
    asked = [key for key in spec.parameters.get("required", ()) if key in call.arguments]
    draw.shuffle(asked)
    for key in asked:
        text = _without(trajectory.messages[0].content, call.arguments[key])
        if text is not None:
            question = draw.choice(_QUESTIONS).format(_said(spec, key))
            messages = (Message("user", text), Message("assistant", question))
            services = trajectory.task.reference.get("services", [])
            step = {"at": 1, "calls": [], "asks_for": [call.name], "services": services}
            reference = {**trajectory.task.reference, "steps": [step]}
            task = replace(trajectory.task, messages=messages[:1], reference=reference)
            return (replace(trajectory, task=task, messages=messages),)
    return (trajectory,)


def _joined(one: Trajectory, other: Trajectory, draw: Random) -> Trajectory | None:
    """Return both requests as one; None where their tools clash or a call would stand twice."""
    tools = {spec.name: spec for spec in one.task.tools}
    clash = any(tools.get(spec.name, spec) != spec for spec in other.task.tools)
    made = [(call.name, dict(call.arguments)) for call in one.messages[1].tool_calls]
    if clash or any((call.name, dict(call.arguments)) in made for call in other.messages[1].tool_calls):
        return None
    tools |= {spec.name: spec for spec in other.task.tools}
    calls = tuple(
        ToolCall(call.name, call.arguments, f"call_{place}")
        for place, call in enumerate((*one.messages[1].tool_calls, *other.messages[1].tool_calls))
    )
    first, second = one.messages[0].content.strip(), other.messages[0].content.strip()
    lead = draw.choice(_JOINS)
    lowered = second[0].lower() + second[1:] if lead and second[1:2].islower() else second
    text = f"{first}{'' if first[-1:] in '.?!' else '.'} {lead}{lowered}"
    services = [*one.task.reference.get("services", ()), *other.task.reference.get("services", ())]
    services = list(dict.fromkeys(services))
    written = [{"name": call.name, "arguments": call.arguments} for call in calls]
    reference: Mapping[str, Json] = {
        **one.task.reference,
        "services": services,
        "steps": [{"at": 1, "calls": written, "services": services}],
    }
    question = Message("user", text)
    task = Task(one.task.id, (question,), tuple(tools.values()), reference)
    return replace(one, task=task, messages=(question, Message("assistant", tool_calls=calls)))


def _without(text: str, value: Json) -> str | None:
    """Return the text without a value and the words that lead to it; None unless it stands there once."""
    if isinstance(value, bool) or not isinstance(value, str | int | float) or not str(value).strip():
        return None
    wanted = rf"(?<!\w){re.escape(str(value))}(?!\w)"
    if len(re.findall(wanted, text, re.IGNORECASE)) != 1:
        return None
    left = re.sub(f"{_LEAD}['\"]?{wanted}['\"]?", " ", text, count=1, flags=re.IGNORECASE)
    left = re.sub(r"\s+([.,?!;])", r"\1", " ".join(left.split())).strip(" ,;")
    return left if len(left.split()) >= _LEAST_WORDS else None


def _said(spec: ToolSpec, key: str) -> str:
    """Return what a parameter is, in words."""
    described = str(spec.parameters["properties"][key].get("description", ""))
    words = re.split(r"[(.;]| such as", described)[0].strip()
    words = words.removeprefix("The ").removeprefix("the ").removeprefix("A ").removeprefix("a ")
    return f"{words[:1].lower()}{words[1:]}" if words else key.replace("_", " ")
