"""Judges the calls of an episode as its model family's own syntax reads them, and makes the strict record to judge.

Not covered: what the tools' state was when the strict reading ended the episode; it is left out.
"""

from __future__ import annotations

from dataclasses import replace

from rolecraft.judges import replies
from rolecraft.types import Trajectory, Verdict

PART = "strict"
"""The part of a verdict that is the score of the strict reading."""


def judge(trajectory: Trajectory) -> Verdict:
    """Return the share of the messages with calls that a strict reading reads alike; 1 where no call was made."""
    acting = [m for _, m in replies(trajectory) if m.tool_calls or m.unparsed is not None]
    lenient = sum(message.strict is not None for message in acting)
    if not lenient:
        return Verdict(1.0)
    return Verdict(1 - lenient / len(acting), f"{lenient} of {len(acting)} messages with calls were read leniently")


def is_lenient(trajectory: Trajectory) -> bool:
    """Tell whether any reply of the episode was read leniently."""
    return any(message.strict is not None for _, message in replies(trajectory))


def strictly(trajectory: Trajectory) -> Trajectory:
    """Return the episode as a strict reading had left it: ended by the first reply that only a lenient one acts on."""
    found = next(((place, m.strict) for place, m in replies(trajectory) if m.strict is not None), None)
    if found is None:
        return trajectory
    place, message = found
    turn = sum(at < place for at, _ in replies(trajectory))
    messages = (*trajectory.messages[:place], replace(message, speaker=trajectory.messages[place].speaker))
    return replace(
        trajectory,
        messages=messages,
        turns=trajectory.turns[: turn + 1],
        stop="answered",
        final_state=None,
        verdict=None,
    )
