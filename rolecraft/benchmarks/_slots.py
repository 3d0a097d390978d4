"""Judges the one call of a reply against what a dialogue's annotation says, whole and slot by slot."""

from __future__ import annotations

import re
import reprlib
from collections.abc import Mapping

from rolecraft import toolschema
from rolecraft.judges import replies
from rolecraft.types import Json, ToolCall, Trajectory, Verdict

_UNHEARD = re.compile(r"(?:(?![./\-]\d)|(?<=[^\W\d]))[\s,./\-_*^'\"]")
"""Spaces and punctuation; a number's sign, point and stroke are no such, unless they join it to a word."""
_GROUPS = re.compile(r"(?<![\w./-])\d+(?:[/-]\d+){2,}(?![\w/-])")
"""A date or a telephone number, of which the marks between its digits say nothing."""
_LONGEST = 2_000


def judge(trajectory: Trajectory) -> Verdict:
    """Return 1 for the reference's call with its arguments and no other, or, where it has none, for a reply in words.

    The parts of a call: `parsed`, `function` (the right one alone is called), `slots`, the share of the reference's
    arguments that it gives rightly, and `asked for`, 1 unless it gives others. Of a question: `parsed`, and `question`,
    whether it has a question mark.
    """
    said = [message for _, message in replies(trajectory)]
    if not said:
        return Verdict(0.0, "there is no reply")
    calls = [call for message in said for call in message.tool_calls]
    parsed = float(all(message.unparsed is None for message in said))
    wanted = [ToolCall(one["name"], one["arguments"]) for one in trajectory.task.reference["calls"]]
    if not wanted:
        right = bool(parsed) and not calls and bool(said[-1].content.strip())
        reason = "" if right else "a function was called, though the user must be asked first" if calls else "no words"
        return Verdict(float(right), reason, {"parsed": parsed, "question": float("?" in said[-1].content)})
    parts = {"parsed": parsed, **_compared(calls, wanted[0], trajectory)}
    reason = _why(parts, calls, wanted[0])
    return Verdict(float(not reason), reason, parts)


def _compared(calls: list[ToolCall], wanted: ToolCall, trajectory: Trajectory) -> dict[str, float]:
    function = len(calls) == 1 and calls[0].name == wanted.name
    given = dict(calls[0].arguments) if function else {}
    defaults = _defaults(trajectory, wanted.name)
    accepted: Mapping[str, Json] = trajectory.task.reference.get("accepted", {})
    full = {**defaults, **given} if function else {}
    right = [
        key in full and any(_same(full[key], value) for value in (wanted.arguments[key], *accepted.get(key, ())))
        for key in wanted.arguments
    ]
    others = [
        key
        for key, value in given.items()
        if key not in wanted.arguments and not (key in defaults and _same(value, defaults[key]))
    ]
    slots = sum(right) / len(right) if right else float(function)
    return {"function": float(function), "slots": slots, "asked for": float(function and not others)}


def _why(parts: Mapping[str, float], calls: list[ToolCall], wanted: ToolCall) -> str:
    if not parts["parsed"]:
        return "a call could not be read"
    if not calls:
        return f"{wanted.name} was not called"
    if not parts["function"]:
        return f"{len(calls)} calls, the first of {calls[0].name[:64]}; right is one of {wanted.name}"
    if min(parts.values()) == 1:
        return ""
    told = f"given {reprlib.repr(dict(calls[0].arguments))}, right is {reprlib.repr(dict(wanted.arguments))}"
    return told if parts["slots"] < 1 else f"arguments that nobody asked for: {told}"


def _defaults(trajectory: Trajectory, name: str) -> dict[str, Json]:
    schemas = [toolschema.properties(spec.parameters) for spec in trajectory.task.tools if spec.name == name]
    found = schemas[0] if schemas else {}
    return {key: schema["default"] for key, schema in found.items() if "default" in schema}


def _same(given: Json, value: Json) -> bool:
    """Tell whether two values are one: texts but for case, spaces and punctuation, numbers by value, never as text.

    In a text `3.5` is not `35`, `-5` not `5` and `1/2` not `12`; dates and telephone numbers may have other marks.
    """
    if isinstance(given, str) and isinstance(value, str):
        return _heard(given) == _heard(value)
    if isinstance(given, bool) or isinstance(value, bool):
        return given is value
    return isinstance(given, int | float) and isinstance(value, int | float) and given == value


def _heard(text: str) -> str:
    joined = _GROUPS.sub(lambda found: re.sub(r"\D", "", found[0]), text[:_LONGEST])
    return _UNHEARD.sub("", joined).casefold()
