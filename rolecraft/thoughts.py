"""Thoughts by rule, for data without any: a reasoner that learns from them says what it calls, or why nothing.

They are read off the reply that follows and what stands before it, as toolworld's are, so that they cost no teacher
(MoRAgent, arXiv 2512.21708, section 4.1, has one fill them in). Not covered: whether a thought helps.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from rolecraft.importers import GIVE_UP, NO_TOOL_FITS
from rolecraft.types import Message, Trajectory

_OPEN, _CLOSE = "<think>", "</think>"
_NOTHING = "Nothing is to be called."


def written(trajectory: Trajectory) -> Trajectory:
    """Return the trajectory with a `<think>` text before each reply that has none, nor words before its calls."""
    asked = {step["at"]: step.get("asks_for", ()) for step in trajectory.task.reference.get("steps", ())}
    messages = tuple(
        _thinking(message, _thought(trajectory.messages, place, asked.get(place)))
        if message.role == "assistant" and not _thinks(message)
        else message
        for place, message in enumerate(trajectory.messages)
    )
    return replace(trajectory, messages=messages)


def _thinks(message: Message) -> bool:
    return message.content.startswith(_OPEN) or bool(message.tool_calls and message.content.strip())


def _thinking(message: Message, thought: str) -> Message:
    return message.edited(content=f"{_OPEN}\n{thought}\n{_CLOSE}\n\n{message.content}")


def _thought(messages: Sequence[Message], place: int, asks_for: Sequence[str] | None) -> str:
    """Say in a line what the reply at `place` does; `asks_for` names the tools it asks a value for, None: no step."""
    reply, results = messages[place], _results(messages, place)
    failed = "The call failed. " if any(message.failed for message in results) else ""
    if reply.tool_calls:
        uses = [f"{call.name} with {', '.join(call.arguments)}".removesuffix(" with ") for call in reply.tool_calls]
        return f"{failed}I use {' and '.join(uses)}."
    if reply.content == NO_TOOL_FITS:
        return "No tool fits."
    if reply.content == GIVE_UP:
        return f"{failed}This leads nowhere."
    if asks_for is not None:
        return f"{' or '.join(asks_for) or 'A tool'} fits, but a required value is missing."
    if results:
        return failed.strip() or ("I have the result." if len(results) == 1 else "I have the results.")
    return _NOTHING


def _results(messages: Sequence[Message], place: int) -> Sequence[Message]:
    """Return the tools' messages right before `place`."""
    start = place
    while start and messages[start - 1].role == "tool":
        start -= 1
    return messages[start:place]
