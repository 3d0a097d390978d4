"""MoRAgent's three roles (arXiv 2512.21708, section 3.1): a reasoner, an executor and a summarizer."""

from __future__ import annotations

from rolecraft.team import Role, Team, called_next, parts
from rolecraft.types import Message

_TEXT = (
    "Three roles work on the request in one conversation.\n"
    "reasoner: analyse the state of the task and say in a sentence or two what to do; do not solve it yourself. "
    "End with 'Next: executor.' while a tool must be called, and with 'Next: summarizer.' when the observations "
    "suffice or no tool can help.\n"
    "executor: write the tool calls that the reasoner asks for, and nothing else.\n"
    "summarizer: answer the user from the observations, briefly."
)


def _next(message: Message) -> str | None:
    """Queries and observations go to the reasoner, then whoever it designates (section 3.1).

    A reasoner that designates nobody has nothing left to try: the summarizer closes the episode.
    """
    if message.role != "assistant" or message.speaker == "executor":
        return "reasoner"
    if message.speaker == "reasoner":
        return "executor" if called_next(message.content) == "executor" else "summarizer"
    return None


def _divide(message: Message) -> tuple[Message, ...]:
    """`<think>` text and words before a call are the reasoner's, calls the executor's, an answer the summarizer's.

    The reasoner's designation is written in; the thought of a data set that has none stays empty (MoRAgent fills it in
    with a teacher, section 4.1). The model's own token ids do not survive, since they told it otherwise.
    """
    calls = bool(message.tool_calls) or message.unparsed is not None
    thought, answer = parts(message)
    said = f"{thought} Next: {'executor' if calls else 'summarizer'}.".strip()
    reasoner = Message("assistant", said, speaker="reasoner", weight=message.weight)
    return reasoner, message.edited(content=answer, speaker="executor" if calls else "summarizer")


TEAM = Team(
    "mor",
    (
        Role("reasoner", _TEXT, "none", ("executor", "summarizer")),
        Role("executor", _TEXT, "required"),
        Role("summarizer", _TEXT, "none"),
    ),
    "reasoner",
    _next,
    _divide,
)
