"""Trivial policies, for what a score means: never calling is right wherever no function fits, and nowhere else."""

from __future__ import annotations

from rolecraft.types import Message, Prompt, ToolCall


def never(prompt: Prompt) -> Message:
    """Say that no function fits."""
    return Message("assistant", "No function fits.")


def always(prompt: Prompt) -> Message:
    """Call the first function, without arguments."""
    return Message("assistant", tool_calls=tuple(ToolCall(tool.name, {}) for tool in prompt.tools[:1]))


POLICIES = {"never calls": never, "always calls": always}
"""The policies by the name of their row in a table."""
