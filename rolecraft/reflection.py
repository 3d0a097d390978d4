"""Has a model reflect on its failed episodes of training tasks, and keeps what it says as lessons (Reflexion, CMAT).

What went wrong is told by its class (judges.failures), never by the judge's reason, which may hold the answer. Not
covered: which tasks are for training (the caller's business), and whether a lesson is right.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from pathlib import Path

from rolecraft.errors import ContextFull
from rolecraft.judges.failures import CLASSES, failure
from rolecraft.lessons import Lesson, Lessons, question_of, told
from rolecraft.types import Engine, Json, Message, Prompt, Sampling, Task, ToolCall, Trajectory

_ANSWERS = ("answer", "answers", "label", "exact", "contains", "number", "value", "maths")
TOO_LONG = "too long"
"""The outcome of an episode that a model has no room to be told of."""
_SHOWN = 300
_STEPS = 12
_ASKED = (
    "An agent tried the task below and failed. Say in one sentence what it should do differently at tasks of this "
    "kind. Write advice that holds for other questions too: name no value of this one, and give no answer."
)
_AGAIN = (
    "You tried the task below, and it failed. Say in one sentence what went wrong and what you will do differently "
    "when you try it again: which tool, with which values."
)


def family_of(task: Task) -> str:
    """Return the family whose lessons a task takes and gives; tasks without one share a family."""
    return str(task.reference.get("family", ""))


def answers_of(task: Task) -> list[str]:
    """Return the texts in a task's reference that are its answer, which no lesson may hold."""
    return [text for key in _ANSWERS for text in _texts(task.reference.get(key))]


def ask(record: Trajectory, steps: int = _STEPS) -> Prompt:
    """Return what a model is asked to say of a failed episode, of which it is told the last `steps` lines."""
    why = CLASSES.get(failure(record) or "", "did not come to an answer")
    return _prompt(_ASKED, record.task, record.messages, why, steps)


def ask_again(task: Task, messages: Sequence[Message], why: str) -> Prompt:
    """Return what a model is asked to say of its own try of a task, which it is about to try again.

    `messages` are those of the try, and `why` it failed by what is known without its judge.
    """
    return _prompt(_AGAIN, task, messages, why)


def _prompt(asked: str, task: Task, messages: Sequence[Message], why: str, most: int = _STEPS) -> Prompt:
    steps = "\n".join(_steps(messages[len(task.messages) :])[-most:])
    text = f"Task: {_short(question_of(task))}\n{steps}\nWhat went wrong: it {why}."
    sampling = Sampling(max_tokens=80)
    return Prompt((Message("system", asked), Message("user", text)), choice="none", sampling=sampling)


async def learn(
    records: Iterable[Trajectory], engine: Engine, lessons: Lessons, concurrency: int = 8
) -> AsyncIterator[tuple[str, str]]:
    """Ask for a lesson from each failed episode and keep it; yield its outcome and what was said, as they come.

    An episode whose task has taught something already is not asked about again, so a call that was stopped goes on. Of
    one that leaves no room for a reply fewer of the last steps are told; if the very last is too much, the outcome is
    `too long`.
    """
    known = lessons.tasks()
    waiting = [record for record in records if failure(record) and record.task.id not in known]
    for start in range(0, len(waiting), concurrency):
        batch = waiting[start : start + concurrency]
        replies = await asyncio.gather(*(_reply(record, engine) for record in batch))
        for record, reply in zip(batch, replies, strict=True):
            if reply is None:
                yield TOO_LONG, _short(question_of(record.task))
                continue
            said = first_sentences(reply)
            lesson = Lesson(family_of(record.task), "reflection", question_of(record.task), said, (record.task.id,))
            yield lessons.add(lesson, answers_of(record.task)), said


async def _reply(record: Trajectory, engine: Engine) -> str | None:
    """Return what a model says of an episode, told as much of it as there is room for; None: there is none at all."""
    steps = _STEPS
    while steps:
        try:
            found, *_ = await engine.complete(ask(record, steps))
        except ContextFull:
            steps //= 2
        else:
            return found.message.content
    return None


def reminded(tasks: Sequence[Task], memory: Path, *, any_family: bool = False) -> tuple[Task, ...]:
    """Return tasks that are told what a memory has for them, but for what they taught themselves; nothing is added."""
    with Lessons(memory, frozen=True) as lessons:
        families = [None if any_family else family_of(task) for task in tasks]
        found = [
            lessons.find(family, question_of(task), without=task.id)
            for family, task in zip(families, tasks, strict=True)
        ]
    return tuple(told(task, some) for task, some in zip(tasks, found, strict=True))


def first_sentences(text: str) -> str:
    """Return the first paragraph of what a model said, without marks of a list or an introduction before it."""
    lines = [line.strip(" -*#>\"'") for line in text.strip().split("\n")]
    return next((line for line in lines if len(line.split()) > 2 and not line.endswith(":")), "")


def summary(outcomes: Mapping[str, int]) -> str:
    """Return in words what became of the lessons."""
    left_out = outcomes.get(TOO_LONG, 0)
    told = ", ".join(f"{outcomes.get(name, 0)} {name}" for name in ("added", "merged", "refused"))
    more = f"; {left_out} left out, too long for the model's context" if left_out else ""
    return f"{sum(outcomes.values()) - left_out} failed episodes asked about: {told}{more}"


def _steps(messages: Sequence[Message]) -> list[str]:
    lines = []
    for message in messages:
        if message.role == "tool":
            lines.append(f"Result: {_short(message.content)}")
            continue
        if message.content:
            lines.append(f"Agent: {_short(message.content)}")
        lines += [f"Call: {_written(call)}" for call in message.tool_calls]
        if message.unparsed is not None:
            lines.append(f"A call that cannot be read: {_short(message.unparsed)}")
    return lines


def _written(call: ToolCall) -> str:
    return _short(f"{call.name}({json.dumps(dict(call.arguments), ensure_ascii=False, default=str)})")


def _short(text: str) -> str:
    flat = " ".join(text.split())
    return flat if len(flat) <= _SHOWN else flat[:_SHOWN] + " ..."


def _texts(value: Json) -> list[str]:
    if isinstance(value, Mapping):
        return [text for one in value.values() for text in _texts(one)]
    if isinstance(value, list | tuple):
        return [text for one in value for text in _texts(one)]
    return [] if value is None or isinstance(value, bool) else [str(value)]
