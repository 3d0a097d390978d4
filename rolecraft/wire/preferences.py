"""Pairs of replies as rows of a data file: OpenAI's preference format, one conversation and two ways to go on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from rolecraft.errors import DataError
from rolecraft.types import Json, Message, Task, Trajectory
from rolecraft.wire.conversation import settled
from rolecraft.wire.fields import read_field, read_object
from rolecraft.wire.messages import message_from_json, message_to_json
from rolecraft.wire.tools import tool_to_json, tools_from_json

PREFERRED, REFUSED = "preferred_output", "non_preferred_output"
_KEYS = ("input", PREFERRED, REFUSED, "id")
_INPUT_KEYS = ("messages", "tools", "parallel_tool_calls")

Pair = tuple[Trajectory, Trajectory]
"""Two conversations that differ in their last message alone; the first one's is preferred."""


def pair_to_json(pair: Pair) -> dict[str, Json]:
    """Return a pair as one row; what its messages weigh is not written, for only the last one is trained."""
    preferred, refused = pair
    told = {"messages": [_plain(message) for message in preferred.messages[:-1]]}
    tools = [tool_to_json(spec) for spec in preferred.task.tools]
    return {
        "id": preferred.task.id,
        "input": told | ({"tools": tools} if tools else {}),
        PREFERRED: [_plain(preferred.messages[-1])],
        REFUSED: [_plain(refused.messages[-1])],
    }


def pair_from_json(data: Json, where: str = "row") -> Pair:
    """Return the pair in one row; raises DataError that names the place and the remedy.

    A refused reply may call a tool that is not there, which may be what is wrong with it.
    """
    fields = read_object(data, _KEYS, where)
    told = read_object(read_field(fields, "input", Mapping, where), _INPUT_KEYS, f"{where}.input")
    context = tuple(
        message_from_json(item, f"input.messages[{i}]")
        for i, item in enumerate(read_field(told, "messages", list, f"{where}.input"))
    )
    if not context:
        raise DataError(f"{where}: input.messages is empty; write what the replies answer")
    name = read_field(fields, "id", str, where, "")
    opening = next((i for i, message in enumerate(context) if message.role == "assistant"), len(context))
    task = Task(name, context[:opening], tools_from_json(told.get("tools", [])))
    before = tuple(replace(one, weight=0.0) if one.role == "assistant" else one for one in context)
    preferred, refused = (_reply(fields, key, where) for key in (PREFERRED, REFUSED))
    if preferred == refused:
        raise DataError(f"{where}: both replies are the same; delete the row")
    better = settled(Trajectory(f"{name}/preferred", task, (*before, preferred)))
    worse = settled(Trajectory(f"{name}/refused", task, (*before, replace(refused, weight=0.0))))
    return better, replace(worse, messages=(*worse.messages[:-1], replace(worse.messages[-1], weight=None)))


def _reply(fields: Mapping[str, Json], key: str, where: str) -> Message:
    listed = read_field(fields, key, list, where)
    if len(listed) != 1:
        raise DataError(f"{where}: {key} holds {len(listed)} messages; write one, of role 'assistant'")
    reply = message_from_json(listed[0], f"{key}[0]")
    if reply.role != "assistant":
        raise DataError(f"{where}: {key} is of role {reply.role!r}; write one of role 'assistant'")
    return replace(reply, weight=None)


def _plain(message: Message) -> dict[str, Json]:
    return message_to_json(message.edited(weight=None, strict=None), "string")
