"""Judges an episode of toolworld: the answer must be right and only that, and the calls behind it really made.

Not covered: whether the calls were few or made at once; see judges/efficiency.py for that.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence

from rolecraft import catalog
from rolecraft.types import Json, Message, ToolCall, Trajectory, Verdict

_THOUSANDS = re.compile(r"(?<=\d),(?=\d{3}(?!\d))")
_NUMBER = re.compile(r"(?<![\w.])-?\d+(?:\.\d+)?(?!\w)")
_WORD = re.compile(r"\w+")
_MAX_CHARS = 4000

_REFUSALS = (
    "no tool",
    "none of the tools",
    "none of the available tools",
    "none of my tools",
    "no available tool",
    "no suitable tool",
    "no function",
    "none of the functions",
    "none of the available functions",
    "tools cannot",
    "tools do not",
    "tools don't",
)


def judge(trajectory: Trajectory) -> Verdict:
    """Return 1 for a right answer that rests on the calls it needs, else 0 with the reason."""
    episode = trajectory.messages[len(trajectory.task.messages) :]
    answered = trajectory.stop in ("answered", "imported")
    answer = _answer(episode) if answered else None
    problems = {
        "answer": _wrong_answer(answer, trajectory),
        "calls": _wrong_calls(episode, trajectory.task.reference),
    }
    if "state" in trajectory.task.reference:
        problems["state"] = catalog.find("judges", "state").judge(trajectory).reason
    reasons = [reason for reason in problems.values() if reason]
    parts = {name: 0.0 if reason else 1.0 for name, reason in problems.items()}
    return Verdict(0.0 if reasons else 1.0, "; ".join(reasons), parts)


def numbers(text: str) -> list[str]:
    """Return the numbers in `text`, without thousands separators and `.0`."""
    found = _NUMBER.findall(_THOUSANDS.sub("", text))
    return [re.sub(r"\.0+$", "", number) for number in found]


def holds(text: str, value: str) -> bool:
    """Tell whether `value` stands in `text` as a whole number or a whole word, whatever its case."""
    return _place(text, value) is not None


def _answer(episode: Sequence[Message]) -> str | None:
    """Return the text of the last message if it can be an answer; what a model thinks aloud before it is none."""
    if not episode or episode[-1].role != "assistant" or episode[-1].tool_calls or episode[-1].unparsed is not None:
        return None
    return episode[-1].content.rpartition("</think>")[2][:_MAX_CHARS]


def _wrong_answer(answer: str | None, trajectory: Trajectory) -> str:
    reference = trajectory.task.reference
    if answer is None:
        return "there is no answer"
    if reference["refusal"] and not any(phrase in answer.casefold() for phrase in _REFUSALS):
        return "the answer does not say that no tool fits"
    for value in reference["answers"]:
        if not holds(answer, value):
            return f"the answer lacks {value!r}"
    for value in reference["forbidden"]:
        if holds(answer, value):
            return f"the answer also gives {value!r}"
    if reference["last_number"] and _last_number(answer, trajectory) != reference["answers"][0]:
        return f"the answer does not end in {reference['answers'][0]!r}"
    return _wrong_order(answer, reference["labels"], reference["answers"])


def _last_number(answer: str, trajectory: Trajectory) -> str | None:
    """Return the last number of the answer that is not quoted from the question."""
    right = trajectory.task.reference["answers"][0]
    quoted = set(numbers(trajectory.task.messages[-1].content)) - {right}
    own = [number for number in numbers(answer) if number not in quoted]
    return own[-1] if own else None


def _wrong_order(answer: str, labels: Sequence[str], answers: Sequence[str]) -> str:
    """Refuse an answer that names every label but gives the values in another order: they would be swapped."""
    named = [_place(answer, label) for label in labels]
    given = [_place(answer, value) for value in answers]
    if not labels or any(place is None for place in named):
        return ""
    places = range(len(labels))
    if sorted(places, key=lambda i: named[i] or 0) != sorted(places, key=lambda i: given[i] or 0):
        return f"the answer gives the values of {', '.join(labels)} in another order"
    return ""


def _place(text: str, value: str) -> int | None:
    """Return where `value` first stands in `text` as a whole number or word."""
    text = _THOUSANDS.sub("", text)
    if _NUMBER.fullmatch(value):
        found = (m.start() for m in _NUMBER.finditer(text) if re.sub(r"\.0+$", "", m.group()) == value)
    else:
        found = (m.start() for m in _WORD.finditer(text) if m.group().casefold() == value.casefold())
    return next(found, None)


def _wrong_calls(episode: Sequence[Message], reference: Mapping[str, Json]) -> str:
    if reference["refusal"]:
        tried = any(message.tool_calls or message.unparsed is not None for message in episode)
        return "a call was made though no tool fits" if tried else ""
    ran = list(executed(episode))
    for group in reference["needed"]:
        if not any(_was_made(needed, ran) for needed in group):
            wanted = " or ".join(_told(needed) for needed in group)
            return f"{wanted} was not called with success"
    return ""


def executed(episode: Sequence[Message]) -> Iterator[tuple[ToolCall, str]]:
    """Yield every call with its observation: by id where there is one, else by its place after the message."""
    for place, message in enumerate(episode):
        if message.role != "assistant" or not message.tool_calls:
            continue
        answers = []
        for following in episode[place + 1 :]:
            if following.role != "tool":
                break
            answers.append(following)
        for nth, call in enumerate(message.tool_calls):
            by_id = [a for a in answers if call.id and a.tool_call_id == call.id]
            by_place = [a for a in answers[nth : nth + 1] if not a.tool_call_id]
            for answer in (by_id or by_place)[:1]:
                yield call, answer.content


def _was_made(needed: Mapping[str, Json], ran: Sequence[tuple[ToolCall, str]]) -> bool:
    arguments = needed["arguments"]
    seen = "\n".join(
        observation
        for call, observation in ran
        if call.name == needed["name"] and (arguments is None or dict(call.arguments) == arguments)
    )
    return any(all(holds(seen, text) for text in texts) for texts in needed["shows"])


def _told(needed: Mapping[str, Json]) -> str:
    arguments = needed["arguments"]
    return f"{needed['name']}({'...' if arguments is None else ', '.join(map(repr, arguments.values()))})"
