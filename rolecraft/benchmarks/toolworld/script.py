"""Turns a task's script into a played trajectory in a team's roles, and trajectories into examples for a prompt."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

from rolecraft import agent, team
from rolecraft.benchmarks._scripted import Scripted
from rolecraft.benchmarks.toolworld.draft import Step, script_of
from rolecraft.errors import NotFound
from rolecraft.types import Environment, Message, Prompt, Task, ToolCall, ToolSpec, Trajectory


def replies(task: Task, team_name: str) -> tuple[Message, ...]:
    """Return the assistant messages of the task's right solution in a team's roles; raises NotFound for another team.

    `mor`: the reasoner decides (subject, signature, who is next), the executor copies, the summarizer answers.
    `single`: thought and calls in one message, then the answer.
    """
    steps, closing, answer = script_of(task)
    if team_name == "mor":
        return (
            *(message for step in steps for message in _by_two(step)),
            Message("assistant", f"{closing} Next: summarizer.", speaker="reasoner"),
            Message("assistant", answer, speaker="summarizer"),
        )
    if team_name == "single":
        last = f"{closing} {answer}" if not task.tools else answer  # the working of a task without tools is the answer
        acts = (Message("assistant", step.thought, step.calls, speaker="assistant") for step in steps)
        return (*acts, Message("assistant", last, speaker="assistant"))
    raise NotFound(f"toolworld has no reference for team {team_name!r}; it has mor and single")


def _by_two(step: Step) -> tuple[Message, Message]:
    return (
        Message("assistant", f"{step.thought} Next: executor.", speaker="reasoner"),
        Message("assistant", "", step.calls, speaker="executor"),
    )


async def play(environment: Environment, team_name: str) -> Trajectory:
    """Play the task's script with its real tools, by the agent's own rules, and return the judged record."""
    return await play_messages(environment, team_name, replies(environment.task, team_name))


async def play_messages(environment: Environment, team_name: str, messages: Sequence[Message]) -> Trajectory:
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


def play_now(environment: Environment, team_name: str, messages: Sequence[Message] | None = None) -> Trajectory:
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
