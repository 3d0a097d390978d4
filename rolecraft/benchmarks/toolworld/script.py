"""Turns a task's script into a played trajectory in a team's roles, and trajectories into examples for a prompt."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

from rolecraft import agent, team
from rolecraft.benchmarks._scripted import Scripted
from rolecraft.benchmarks.toolworld.draft import script_of
from rolecraft.types import Environment, Message, Prompt, Task, ToolCall, ToolSpec, Trajectory


def replies(task: Task, team_name: str | Path) -> tuple[Message, ...]:
    """Return the assistant messages of the task's right solution in a team's roles; raises NotFound for another team.

    `single`: thought and calls in one message, then the answer. Of a team with a rule to divide that, as of `mor`, the
    first role decides (subject, signature, who is next), the next one copies, the last one answers.
    """
    steps, closing, answer = script_of(task)
    acts = tuple(Message("assistant", step.thought, step.calls, speaker="assistant") for step in steps)
    if "assistant" in team.find(team_name, instructions=False).speakers:
        last = f"{closing} {answer}" if not task.tools else answer  # the working of a task without tools is the answer
    else:
        last = f"<think>{closing}</think>{answer}"
    return in_roles((*acts, Message("assistant", last, speaker="assistant")), team_name)


def in_roles(messages: Sequence[Message], team_name: str | Path) -> tuple[Message, ...]:
    """Return a lone assistant's messages as a team's roles say them; raises NotFound for a team without a rule."""
    players = team.find(team_name, instructions=False)
    return tuple(messages) if "assistant" in players.speakers else team.divided(messages, players)


async def play(environment: Environment, team_name: str | Path) -> Trajectory:
    """Play the task's script with its real tools, by the agent's own rules, and return the judged record."""
    return await play_messages(environment, team_name, replies(environment.task, team_name))


async def play_messages(environment: Environment, team_name: str | Path, messages: Sequence[Message]) -> Trajectory:
    """Play the messages as what the team's roles say, with the world's real tools, and return the judged record."""
    task = environment.task
    before = sum(message.role == "assistant" for message in task.messages)

    def read_out(prompt: Prompt) -> Message:
        written = sum(message.role == "assistant" for message in prompt.messages) - before
        return messages[written]

    players = team.find(team_name, instructions=False)
    settings = agent.Settings(max_turns=len(messages) + 1, max_calls_per_turn=16)
    played = await agent.episode(environment, players, Scripted(read_out), settings)
    return replace(played, turns=())  # no model wrote it: there are no exact tokens to keep


def play_now(environment: Environment, team_name: str | Path, messages: Sequence[Message] | None = None) -> Trajectory:
    """Play the task's script, or `messages`, to the end and close the world.

    It happens in a thread of its own, so that event loops can call it too.
    """
    try:
        said = replies(environment.task, team_name) if messages is None else messages
        with ThreadPoolExecutor(1) as thread:
            return thread.submit(asyncio.run, play_messages(environment, team_name, said)).result()
    finally:
        environment.toolbox.close()


def example(trajectory: Trajectory) -> str:
    """Return a trajectory as plain text, in the layout of the nano format: tools, then a heading for each speaker."""
    lines = ["Tools:", *(_tool_line(spec) for spec in trajectory.task.tools)]
    for message in trajectory.messages:
        calls = [_written(call) for call in message.tool_calls]
        lines += [message.speaker or message.role, *filter(None, [message.content]), *calls]
    return "\n".join(lines)


def with_examples(task: Task, examples: Sequence[str]) -> Task:
    """Return the task with `examples` in its system message, before anything that stood there."""
    rest = task.messages
    text = "\n\n".join(f"Example:\n{example}" for example in examples)
    if rest and rest[0].role == "system":
        text, rest = f"{text}\n\n{rest[0].content}", rest[1:]
    return replace(task, messages=(Message("system", text), *rest))


def _tool_line(spec: ToolSpec) -> str:
    return f"{spec.description}:{spec.name}({', '.join(spec.parameters['properties'])})"


def _written(call: ToolCall) -> str:
    return json.dumps({"name": call.name, "args": dict(call.arguments)}, ensure_ascii=False, separators=(",", ":"))
