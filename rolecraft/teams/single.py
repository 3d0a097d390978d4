"""A plain ReAct agent: one speaker that thinks, calls and answers."""

from __future__ import annotations

from rolecraft.team import Role, Team
from rolecraft.types import Message

_TEXT = "Think briefly, call tools where they help, and answer the user once you know the answer."


def _next(message: Message) -> str | None:
    acted = message.role == "tool" or message.tool_calls or message.unparsed is not None
    return "assistant" if acted else None


TEAM = Team("single", (Role("assistant", _TEXT),), "assistant", _next)
