"""Scores how near the number of calls came to the reference's, so that neither waste nor skipped steps pay.

Not covered: whether the episode succeeded. Weigh it low beside a judge of the answer or the state.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping

from rolecraft.judges import replies
from rolecraft.types import Json, ToolCall, Trajectory, Verdict


def judge(trajectory: Trajectory) -> Verdict:
    """Return the share of needed calls that were made, less one n-th for each call beyond the n of the reference.

    `reference["calls"]` is the calls, or their number. A call that repeats an earlier one, and one that does not
    parse, are waste: they cost and do not count as made. The parts are `made` and `lean`, the two shares.
    """
    wanted = trajectory.task.reference.get("calls")
    if isinstance(wanted, bool) or not isinstance(wanted, int | list | tuple):
        return Verdict(0.0, "the task's reference has no 'calls', a list or a number; add it, or use another judge")
    needed = max(0, wanted) if isinstance(wanted, int) else len(wanted)
    messages = [message for _, message in replies(trajectory)]
    calls = [call for message in messages for call in message.tool_calls]
    total = len(calls) + sum(message.unparsed is not None for message in messages)
    different = _different(calls)
    made = min(different, needed) / needed if needed > 0 else 1.0
    lean = max(0.0, 1 - max(0, total - needed) / max(1, needed))
    reason = f"{total} calls, {different} of them different; the reference makes {needed}"
    score = max(0.0, made + lean - 1)
    return Verdict(score, "" if score == 1 else reason, {"made": made, "lean": lean})


def _different(calls: Iterable[ToolCall]) -> int:
    return len({(call.name, _key(call.arguments)) for call in calls})


def _key(arguments: Mapping[str, Json]) -> str:
    try:
        return json.dumps(arguments, sort_keys=True, default=dict)
    except (RecursionError, TypeError, ValueError):
        return ""  # what cannot be compared counts as a repeat
