"""What a conversation must be before it is trained on: its calls listed, each answered once, in order, without padding.

A record of what a model did is not held to this: an episode may be full of mistakes, and is read as it is.
"""

from __future__ import annotations

import difflib
import reprlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

from rolecraft import toolschema
from rolecraft.errors import DataError
from rolecraft.types import Message, ToolCall, ToolSpec, Trajectory
from rolecraft.wire.calls import call_to_json, insert_raw_calls


def settled(trajectory: Trajectory) -> Trajectory:
    """Return the trajectory of a data file as it may be trained; raises DataError that names the message at fault.

    Nulls that tables pad arguments with are dropped, and the results of several calls are put into the calls' order.
    Refused are a call of a tool that the row does not list, unless its message has weight 0, a result of no call, a
    second one, and a missing one; but a conversation may end in a call.
    """
    tools = {tool.name: tool for tool in trajectory.task.tools}
    _require_listed(trajectory.messages, tools)
    opening = trajectory.task.messages
    messages = _settled(trajectory.messages, tools)
    if opening == trajectory.messages[: len(opening)]:
        opening = messages[: len(opening)]
    return replace(trajectory, messages=messages, task=replace(trajectory.task, messages=opening))


def _settled(messages: Sequence[Message], tools: Mapping[str, ToolSpec]) -> tuple[Message, ...]:
    return tuple(answered([_without_padding(message, tools) for message in messages]))


def answered(messages: Sequence[Message]) -> Iterator[Message]:
    """Yield the messages with the results of each one's calls in the calls' order; raises DataError.

    A result names its call by `tool_call_id`; where no result of a message does, they are in the calls' order. A tool
    message without an id, after a team's reply or a call that does not parse, may also be a remark to the model; it
    stands after the results.
    """
    place = 0
    while place < len(messages):
        asking = messages[place] if messages[place].role == "assistant" else None
        start = place + 1 if messages[place].role != "tool" else place
        end = next((i for i in range(start, len(messages)) if messages[i].role != "tool"), len(messages))
        yield from messages[place:start]
        yield from _answers(asking, messages[start:end], start, at_end=end == len(messages))
        place = end


def _require_listed(messages: Iterable[Message], tools: Mapping[str, ToolSpec]) -> None:
    for number, message in enumerate(messages):
        unlisted = next((call.name for call in message.tool_calls if call.name not in tools), None)
        if unlisted is not None and message.weight != 0:
            near = difflib.get_close_matches(unlisted[:64], tools, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"it lists {', '.join(list(tools)[:8]) or 'none'}"
            raise DataError(
                f"messages[{number}]: calls {reprlib.repr(unlisted)}, which is not among the row's tools; {hint} "
                "(list the tool, or give the message weight 0)"
            )


def _without_padding(message: Message, tools: Mapping[str, ToolSpec]) -> Message:
    calls = tuple(
        replace(call, arguments=toolschema.without_nulls(tools[call.name].parameters, call.arguments))
        if call.name in tools
        else call
        for call in message.tool_calls
    )
    return message if calls == message.tool_calls else message.edited(tool_calls=calls)


def _answers(asking: Message | None, results: Sequence[Message], start: int, *, at_end: bool) -> Iterator[Message]:
    """Yield the tool messages after one message, number `start` the first, those that answer its calls first."""
    calls = all_calls(asking) if asking else []
    named = any(result.tool_call_id is not None for result in results)
    if calls and not results and at_end:
        return
    if calls and not named:
        yield from _by_place(calls, results, start)
        results = results[len(calls) :]
        start += len(calls)
    else:
        yield from _by_id(calls, results, start)
        results = [result for result in results if result.tool_call_id is None]
    if results and not (asking and (asking.unparsed is not None or asking.speaker is not None)):
        raise DataError(f"messages[{start}]: the result of no call; delete it, or write the call before it")
    yield from results


def _by_place(calls: Sequence[ToolCall], results: Sequence[Message], start: int) -> Iterator[Message]:
    if len(results) < len(calls):
        raise _missing(calls[len(results)], start)
    for call, result in zip(calls, results, strict=False):
        yield replace(result, tool_call_id=call.id) if call.id else result


def _by_id(calls: Sequence[ToolCall], results: Sequence[Message], start: int) -> Iterator[Message]:
    found: dict[str, Message] = {}
    known = [call.id for call in calls]
    for number, result in enumerate(results, start):
        identity = result.tool_call_id
        if identity is None:
            continue
        if identity not in known or identity in found:
            what = "is answered twice" if identity in found else "is no call of the assistant message before it"
            raise DataError(
                f"messages[{number}]: tool_call_id {reprlib.repr(identity)} {what}; mend the id, or delete it"
            )
        found[identity] = result
    if len(set(known)) < len(known):
        raise DataError(f"messages[{start - 1}]: two calls have one id; give each an id of its own")
    for call in calls:
        if call.id not in found:
            raise _missing(call, start)
        yield found[call.id]


def _missing(call: ToolCall, start: int) -> DataError:
    which = f"{reprlib.repr(call.id)} ({call.name})" if call.id else reprlib.repr(call.name)
    return DataError(
        f"messages[{start - 1}]: the call {which} has no result; add a message of role 'tool', or end the row there"
    )


def all_calls(message: Message) -> list[ToolCall]:
    """Return the calls in the order of the wire, those whose arguments do not parse among them."""
    listed = [call_to_json(call, "object") for call in message.tool_calls]
    placed = insert_raw_calls(message.unparsed, listed)
    if placed is None:
        return list(message.tool_calls)
    return [ToolCall(call["function"]["name"], {}, call.get("id", "")) for call in placed]
