"""α-UMi's planner, caller and summarizer (arXiv 2401.07324, section 3.1), three models with a view each.

The instructions are our own. Not covered: a planner that writes nothing is not asked again (the released code does so
up to five times), and what it writes after its first designation stays in the conversation (there it is cut).
"""

from __future__ import annotations

import re

from rolecraft.importers import GIVE_UP
from rolecraft.team import Role, Team, parts
from rolecraft.types import Message

_DESIGNATION = re.compile(r"next\s*:\s*(caller|conclusion|give[\s_]+up)", re.IGNORECASE)

_PLANNER = (
    "You are the planner of a team that meets the user's request with tools. You call no tool and answer nothing "
    "yourself: you say in a sentence or two what is known and what comes next, and end with who does it. While a "
    "tool can still find something out, for example: 'The weight of the parcel is not known, so I look it up. Next: "
    "caller.' Once all is known, or if no tool is needed, for example: 'The parcel weighs 2 kg, as was asked. "
    "Next: conclusion.' If the tools cannot help: 'No tool tells what parcels cost. Next: give up.'"
)
_CALLER = (
    "You are the caller of a team that meets the user's request with tools. You write one tool call for the planner, "
    "and nothing else: the name as it stands in the list of tools, and the arguments as that tool describes them."
)
_SUMMARIZER = (
    "You answer the user from what the tools returned in this conversation, completely and briefly. Say nothing of "
    "plans or tools; where something could not be found, say what."
)
_PLAN_NOW = (
    "Planner, what is known, and what does the team do next? End with 'Next: caller.', 'Next: conclusion.' or 'Next: "
    "give up.'"
)
_CALL_NOW = "Caller, the planner's thought of this step is: {said}\nWrite the tool call for it."
_ANSWER_NOW = "Answer the question now, from the results above."


def _designated(text: str) -> str:
    """Return the first word by which a planner's text designates who is next; `caller` where it designates nobody."""
    found = _DESIGNATION.search(text)
    return re.sub(r"[\s_]+", " ", found.group(1).lower()) if found else "caller"


def _next(message: Message) -> str | None:
    """Questions, observations and remarks go to the planner, then whoever it designates."""
    if message.role != "assistant" or message.speaker == "caller":
        return "planner"
    if message.speaker == "planner":
        return {"caller": "caller", "conclusion": "summarizer"}.get(_designated(message.content))
    return None


def _gives_up(message: Message) -> bool:
    return message.speaker == "planner" and _designated(message.content) == "give up"


def _divide(message: Message) -> tuple[Message, ...]:
    """`<think>` text and words before a call are the planner's, calls the caller's, an answer the summarizer's.

    Where a lone assistant gives up, the planner does so, and there is no answer (the released code's own rule, for
    ToolBench's `give_up_and_restart`).
    """
    calls = bool(message.tool_calls) or message.unparsed is not None
    thought, answer = parts(message)
    word = "caller" if calls else "give up" if answer.strip() == GIVE_UP else "conclusion"
    planner = Message("assistant", f"{thought} Next: {word}.".strip(), speaker="planner", weight=message.weight)
    if word == "give up":
        return (planner,)
    return planner, message.edited(content=answer, speaker="caller" if calls else "summarizer")


TEAM = Team(
    "alpha_umi",
    (
        Role("planner", _PLANNER, "none", ("caller", "conclusion", "give up"), reminder=_PLAN_NOW),
        Role("caller", _CALLER, "required", reminder=_CALL_NOW),
        Role("summarizer", _SUMMARIZER, "none", told_tools=False, reminder=_ANSWER_NOW),
    ),
    "planner",
    _next,
    _divide,
    _gives_up,
)
