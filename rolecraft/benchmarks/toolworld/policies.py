"""Trivial policies as engines, for the team `single`: what a score means is seen beside what they get.

What the design allows them: `refuse` gets the share of irrelevant and no more; `echo` gets nothing, `shotgun` only the
few sums whose question is Python as it stands; `first_tool` gets those too, and the tasks of hub and recover whose
working function happens to be offered first.
"""

from __future__ import annotations

import re
from contextlib import AbstractContextManager, nullcontext

from rolecraft.benchmarks._scripted import Scripted
from rolecraft.types import Message, Prompt, ToolCall, ToolSpec

_NAME = re.compile(r"\b[A-Z][a-z]{3,}\b")
_AT_ONCE = 8


def refuse(prompt: Prompt) -> Message:
    """Say at once that no tool fits."""
    return Message("assistant", "No tool fits.")


def echo(prompt: Prompt) -> Message:
    """Answer with the question."""
    return Message("assistant", _question(prompt))


def first_tool(prompt: Prompt) -> Message:
    """Call the first tool on the last name in the question, and answer with what it says."""
    observations = _observations(prompt)
    if observations or not prompt.tools:
        return Message("assistant", observations[-1] if observations else "I do not know.")
    return Message("assistant", tool_calls=(_call(prompt.tools[0], _subjects(prompt)[0]),))


def shotgun(prompt: Prompt) -> Message:
    """Call every tool on every name in the question, and answer with all that they say."""
    observations = _observations(prompt)
    calls = [_call(tool, subject) for subject in _subjects(prompt) for tool in prompt.tools]
    if open_calls := calls[len(observations) :]:
        return Message("assistant", tool_calls=tuple(open_calls[:_AT_ONCE]))
    return Message("assistant", "\n".join(observations) or "I do not know.")


POLICIES = {"refuse": refuse, "echo": echo, "first_tool": first_tool, "shotgun": shotgun}
"""The policies by the name of their row in a table."""


def engine(name: str) -> Scripted:
    """Return the engine that plays a policy of POLICIES."""
    return Scripted(POLICIES[name])


def open_engine(name: str) -> AbstractContextManager[Scripted]:
    """Return what opens and closes the engine of a policy, as evaluation wants it."""
    return nullcontext(engine(name))


def _question(prompt: Prompt) -> str:
    return next((message.content for message in prompt.messages if message.role == "user"), "")


def _observations(prompt: Prompt) -> list[str]:
    return [message.content for message in prompt.messages if message.role == "tool"]


def _subjects(prompt: Prompt) -> list[str]:
    """Return the capitalised words of the question, the last first: common words mostly stand at its beginning."""
    question = _question(prompt)
    return list(dict.fromkeys(reversed(_NAME.findall(question)))) or [question]


def _call(tool: ToolSpec, subject: str) -> ToolCall:
    return ToolCall(tool.name, dict.fromkeys(tool.parameters["properties"], subject))
