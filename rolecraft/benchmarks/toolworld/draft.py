"""A task before it is written down: the question, its tools, what a right episode does, and what its judge expects."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from rolecraft.benchmarks.toolworld.world import Lookup, Table, ToolData
from rolecraft.benchmarks.toolworld.world import from_json as world_from_json
from rolecraft.benchmarks.toolworld.world import to_json as world_to_json
from rolecraft.errors import DataError
from rolecraft.types import Json, Message, Task, ToolCall


@dataclass(frozen=True, slots=True)
class Step:
    """What the reasoner writes before it hands over to the executor, and the calls that follow, all in one turn."""

    thought: str
    calls: tuple[ToolCall, ...]


@dataclass(frozen=True, slots=True)
class Needed:
    """A call that must have been made: the tool, its exact arguments (None: any), and what the observation shows.

    One of the alternatives in `shows` must appear in full, over all observations of such calls.
    """

    name: str
    arguments: Mapping[str, str] | None
    shows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True, slots=True)
class Draft:
    """One task. `needed` groups alternatives: of each group one must hold.

    `labels` pairs each answer with what it belongs to. `forbidden` are other candidates: an answer that lists them is
    no answer. `last_number` asks that the answer's last number, those of the question aside, is the right one.
    `refusal` asks that the answer says that no tool fits, and that no call was made. `system` is told before the
    question. `state` is the state that tools are to be left in, by their names.
    """

    question: str
    tools: tuple[ToolData, ...]
    steps: tuple[Step, ...]
    closing: str
    answer: str
    answers: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()
    forbidden: tuple[str, ...] = ()
    needed: tuple[tuple[Needed, ...], ...] = ()
    last_number: bool = False
    refusal: bool = False
    system: str = ""
    state: Mapping[str, Json] | None = None


HAVE_RESULT = "I have the result."
HAVE_RESULTS = "I have the results."
NO_TOOL = "Use:none."

_KEYS = ("world", "answers", "labels", "forbidden", "needed", "last_number", "refusal")


def to_task(draft: Draft, family: str, task_id: str) -> Task:
    """Return the task; everything that opening and judging need is JSON in its reference."""
    reference: dict[str, Json] = {
        "family": family,
        "answers": list(draft.answers),
        "labels": list(draft.labels),
        "forbidden": list(draft.forbidden),
        "needed": [[_needed_to_json(needed) for needed in group] for group in draft.needed],
        "last_number": draft.last_number,
        "refusal": draft.refusal,
        "ordered": not any(len(step.calls) > 1 for step in draft.steps),
        "script": {
            "steps": [
                {"thought": step.thought, "calls": [_call_to_json(call) for call in step.calls]} for step in draft.steps
            ],
            "closing": draft.closing,
            "answer": draft.answer,
        },
        "world": [world_to_json(tool) for tool in draft.tools],
    }
    if draft.tools:  # without a tool the calls are no part of the task
        reference["calls"] = [
            {**_call_to_json(call), "group": group} for group, step in enumerate(draft.steps) for call in step.calls
        ]
    if draft.state is not None:
        reference["state"] = dict(draft.state)
    specs = tuple(tool.spec for tool in draft.tools)
    told = (Message("system", draft.system),) if draft.system else ()
    return Task(task_id, (*told, Message("user", draft.question)), specs, reference)


def world_of(task: Task) -> tuple[ToolData, ...]:
    """Return the tools in a task's reference; raises DataError if the task is not one of toolworld's."""
    missing = [key for key in _KEYS if key not in task.reference]
    if missing:
        raise DataError(f"task {task.id!r} has no {missing[0]!r} in its reference; only tasks of toolworld open here")
    raw = task.reference["world"]
    if not isinstance(raw, list | tuple):
        raise DataError(f"task {task.id!r}: 'world' must be a list of tools, got {str(raw)[:80]!r}")
    return tuple(world_from_json(item, f"task {task.id!r}") for item in raw)


def script_of(task: Task) -> tuple[tuple[Step, ...], str, str]:
    """Return the steps, the closing thought and the answer of a task's right solution; raises DataError if absent."""
    try:
        script = task.reference["script"]
        steps = tuple(
            Step(step["thought"], tuple(ToolCall(c["name"], dict(c["arguments"])) for c in step["calls"]))
            for step in script["steps"]
        )
        return steps, script["closing"], script["answer"]
    except (KeyError, TypeError) as error:
        raise DataError(f"task {task.id!r} has no readable 'script' in its reference: {error}") from error


def signature(tool: ToolData) -> str:
    """Return `name(parameter)`, as the nano format shows tools and as the reasoner writes them."""
    return f"{tool.spec.name}({', '.join(tool.spec.parameters['properties'])})"


def without_signatures(draft: Draft) -> Draft:
    """Return the draft with thoughts that name functions and not their parameters: `Use:read_debt.`"""
    steps = (replace(step, thought=re.sub(r"(Use:\w+)\([^)]*\)", r"\1", step.thought)) for step in draft.steps)
    return replace(draft, steps=tuple(steps))


def look_up(tool: Lookup, key: str) -> ToolCall:
    """Return the call of a look-up function for one key."""
    return ToolCall(tool.name, {tool.parameter: key})


def needs(tool: Lookup, key: str) -> Needed:
    """Return the requirement that a function was called for one key and answered."""
    return Needed(tool.name, {tool.parameter: key}, ((tool.values[key],),))


def others(tools: Sequence[ToolData], answers: Sequence[str], question: str) -> tuple[str, ...]:
    """Return every number in the tools that is neither an answer nor named in the question."""
    numbers: dict[str, None] = {}
    for tool in tools:
        numbers.update(dict.fromkeys(_numbers(tool)))
    named = {*answers, *re.findall(r"\d+", question)}
    return tuple(number for number in numbers if number not in named)


def _numbers(tool: ToolData) -> list[str]:
    if isinstance(tool, Lookup):
        return [value for value in tool.values.values() if value.isdigit()]
    if isinstance(tool, Table):
        return [str(cell) for row in tool.rows for cell in row if isinstance(cell, int)]
    return []


def _call_to_json(call: ToolCall) -> dict[str, Any]:
    return {"name": call.name, "arguments": dict(call.arguments)}


def _needed_to_json(needed: Needed) -> dict[str, Json]:
    arguments = None if needed.arguments is None else dict(needed.arguments)
    return {"name": needed.name, "arguments": arguments, "shows": [list(texts) for texts in needed.shows]}
