"""CMAT's assistant and checker (arXiv 2404.01663, section 3): one acts, the other looks at each action.

The checker speaks only when it is asked (`vetting`), before an action runs and after it: its words are not part of the
conversation, what the assistant is told of an objection is. Both see the same, so that they share what was computed.
"""

from __future__ import annotations

from rolecraft.team import CHECKER, Role, Team
from rolecraft.types import Message

_TEXT = (
    "Think briefly, call tools where they help, and answer the user once you know the answer. A checker looks at each "
    "step; where it objects, you are told why, and take another one. Where you are asked about a step, you are that "
    "checker: say whether the step does what the request needs, with the right tool and the right values."
)


def _next(message: Message) -> str | None:
    acted = message.role == "tool" or message.tool_calls or message.unparsed is not None
    return "assistant" if acted or message.role == "user" or message.speaker == CHECKER else None


TEAM = Team("cmat", (Role("assistant", _TEXT), Role(CHECKER, _TEXT, "none")), "assistant", _next)
