"""An agent that acts by code (CodeAct, and Agent Distillation's teacher and students, arXiv 2505.17612).

Its reply is a thought and a block of Python. The block runs in the sandbox, where the task's tools are functions; what
it prints and the value of its last line are told. `final_answer(...)` ends the episode with its value.
"""

from __future__ import annotations

from collections.abc import Sequence

from rolecraft import bridge, codeblocks
from rolecraft.team import Form, Role, Team
from rolecraft.types import Message, ToolSpec

_TEXT = (
    "Solve the task in steps. A step is a thought of a sentence or two and one block of Python, and nothing else:\n\n"
    "There are three boxes of twelve pens, less five that were sold.\n"
    "```python\npens = 3 * 12 - 5\nprint(pens)\n```\n\n"
    "The block is run, and you are told what it prints and the value of its last line; variables stay from step to "
    "step. Let Python do all arithmetic. Once you know the answer, call final_answer with it in a block, such as "
    "final_answer(pens), which ends the task."
)


def _tell(tools: Sequence[ToolSpec]) -> str:
    return f"Functions that your Python can call:\n\n{codeblocks.signatures(tools)}"


def _next(message: Message) -> str | None:
    acted = message.role == "tool" or message.tool_calls or message.unparsed is not None
    return "assistant" if acted else None


FORM = Form(
    tell=_tell,
    read=codeblocks.read,
    explain=codeblocks.why_unread,
    shown=codeblocks.shown,
    written=codeblocks.written,
    opened=bridge.opened,
    record=bridge.record,
    begins=codeblocks.begins,
    stops=codeblocks.STOPS,
)

TEAM = Team("code", (Role("assistant", _TEXT, form=FORM),), "assistant", _next)
