"""What benchmarks share that ask for the next calls of a conversation and run none of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from rolecraft import team
from rolecraft.importers import NO_TOOL_FITS
from rolecraft.tools import Toolbox, ToolFailure
from rolecraft.types import Environment, Json, Judge, Message, Prompt, Task, ToolCall, ToolSpec, Trajectory


def open_told(task: Task, judge: Judge) -> Environment:
    """Open the task for one episode, which ends with its calls; its tools are told and cannot be run."""
    return Environment(task, Toolbox([_Told(spec) for spec in task.tools]), judge, calls_only=True)


def solved(task: Task, reply: Message, team_name: str, judge: Judge) -> Trajectory:
    """Return the episode that ends with a right reply, in the roles of a preset team."""
    messages = (*task.messages, *in_roles([reply], team_name))
    record = Trajectory(task.id, task, messages, stop="answered")
    return replace(record, verdict=judge(record))


def example(task: Task, reply: Message, team_name: str) -> tuple[Message, ...]:
    """Return a solved task as turns, its calls answered by `done`, since a conversation goes on only after that."""
    calls = tuple(replace(call, id=f"{task.id}_{place}") for place, call in enumerate(reply.tool_calls))
    results = (Message("tool", "done", tool_call_id=call.id, name=call.name) for call in calls)
    closing = (Message("assistant", "Done."),) if calls else ()
    asked = (message for message in task.messages if message.role != "system")
    return in_roles((*asked, replace(reply, tool_calls=calls), *results, *closing), team_name)


def after(task: Task, turns: Sequence[Message]) -> Task:
    """Return the task with `turns` before its question, and after its system message if it has one."""
    place = sum(message.role == "system" for message in task.messages[:1])
    return replace(task, messages=(*task.messages[:place], *turns, *task.messages[place:]))


def in_roles(messages: Sequence[Message], team_name: str) -> tuple[Message, ...]:
    """Return messages of a lone assistant as the roles of a preset team say them, where it has a rule for that."""
    players = team.find(team_name)
    return team.divided(messages, players) if players.divide else tuple(messages)


def never(prompt: Prompt) -> Message:
    """Say that no function fits."""
    return Message("assistant", NO_TOOL_FITS)


def always(prompt: Prompt) -> Message:
    """Call the first function, without arguments."""
    return Message("assistant", tool_calls=tuple(ToolCall(tool.name, {}) for tool in prompt.tools[:1]))


POLICIES = {"never calls": never, "always calls": always}
"""Trivial policies by the name of their row in a table, for what a score means."""


@dataclass(frozen=True, slots=True)
class _Told:
    """A function that the model is told of and that nobody has."""

    spec: ToolSpec

    def call(self, arguments: Mapping[str, Json]) -> str:
        raise ToolFailure("this function is described and cannot be run")

    def fork(self) -> _Told:
        return self

    def state(self) -> Json:
        return None

    def close(self) -> None:
        """Do nothing: there is nothing to free."""
