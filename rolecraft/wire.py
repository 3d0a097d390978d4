"""OpenAI chat JSON <-> our types, both ways without loss: data files, the run folder, the server and remote engines.

A row is OpenAI's fine-tuning line: `messages` and `tools`, with `weight` on assistant messages. Optional keys of ours:
`speaker` and `unparsed` on a message, `failed` on a tool message that tells an error; on a row `id`, `reference`,
`lineage` and what a run adds (`stop`, `seed`, `final_state`, `verdict`). An unknown key is an error that says what to
do; a known key that is null is absent.

What reading changes, on purpose: `content` parts are joined and null content is ""; role `developer` is `system`;
`reasoning_content` (or `reasoning`) moves into the content as `<think>` text; `strict` of a tool and
`parallel_tool_calls` are wishes to OpenAI's decoder, not part of the record, and are dropped, as are a record's `turns`
(`store` reads those). A call whose arguments are not a JSON object is kept in `Message.unparsed`, its arguments
verbatim, and is written back to the place where it was.

Not covered: images, audio, refusals, the deprecated `function_call`; each is an error with its remedy.
"""

from __future__ import annotations

import difflib
import json
import math
import re
import reprlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, get_args

from rolecraft.errors import DataError
from rolecraft.types import EpisodeStop, Json, Message, Task, ToolCall, ToolSpec, Trajectory, Verdict, WireRole

ArgumentsForm = Literal["string", "object"]
"""How `arguments` are written: a JSON string as OpenAI does, or an object as chat templates like it. Both are read."""

_MESSAGE_KEYS = ("role", "content", "tool_calls", "tool_call_id", "name", "speaker", "unparsed", "weight", "failed")
_REASONING_KEYS = ("reasoning_content", "reasoning")
_EMPTY_KEYS = ("refusal", "audio", "function_call", "annotations")
_RUN_KEYS = ("task_id", "opening", "stop", "seed", "final_state", "verdict", "turns")
_ROW_KEYS = ("messages", "tools", "id", "reference", "lineage", "parallel_tool_calls", *_RUN_KEYS)
_VERDICT_KEYS = ("score", "reason", "parts")
_REMEDIES = {
    "function_call": "write it as an entry of 'tool_calls'",
    "functions": "write them as 'tools'",
    "refusal": "move the text into 'content'",
    "audio": "write what was said into 'content'",
    "annotations": "delete them",
    "conversations": "this row is not OpenAI JSON: name the importer of its format",
}
_MAX_DEPTH = 64  # of a call's arguments; whatever walks them later then stays far from Python's own limit


def dumps(value: Json) -> str:
    """Return compact JSON text that always encodes to UTF-8: Unicode as it is, lone surrogates as escapes.

    Raises DataError for what JSON cannot hold. Infinities are written as Python's json does.
    """
    try:
        text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), default=_plain)
    except (TypeError, ValueError, RecursionError) as error:
        raise DataError(f"cannot write as JSON: {error}; use only objects, lists, text, numbers and null") from error
    return re.sub("[\ud800-\udfff]", lambda match: f"\\u{ord(match[0]):04x}", text)


def loads(text: str) -> Json:
    """Return the value of strict JSON text: no NaN, no infinity, no key twice; raises DataError with the reason."""
    try:
        return json.loads(text, parse_constant=_finite, parse_float=_finite, object_pairs_hook=_no_duplicates)
    except json.JSONDecodeError as error:
        raise DataError(f"not JSON: {error}") from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"not usable JSON: {error}") from error


def read_arguments(text: str) -> dict[str, Json] | None:
    """Return the arguments in a JSON string, or None if it is not a JSON object; empty text is a call without any."""
    if not text.strip():
        return {}
    try:
        value = loads(text)
    except DataError:
        return None
    return value if isinstance(value, dict) and _depth_within(value, _MAX_DEPTH) else None


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"{_kind(value)} is not JSON")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text[:40]} is not a JSON number")
    return value


def _no_duplicates(pairs: list[tuple[str, Json]]) -> dict[str, Json]:
    value: dict[str, Json] = {}
    for key, item in pairs:
        if key in value:
            raise ValueError(f"key {key!r} is given twice")
        value[key] = item
    return value


def _depth_within(value: Json, limit: int) -> bool:
    if not isinstance(value, dict | list):
        return True
    items = value.values() if isinstance(value, dict) else value
    return limit > 0 and all(_depth_within(item, limit - 1) for item in items)


def message_to_json(message: Message, arguments: ArgumentsForm = "string") -> dict[str, Json]:
    """Return the message as OpenAI chat JSON with our optional keys and `weight`; `ids` are not written."""
    calls = [call_to_json(call, arguments) for call in message.tool_calls]
    with_raw = _insert_raw_calls(message.unparsed, calls)
    weight = message.weight if message.weight not in (0, 1) else int(message.weight)  # OpenAI wants integers
    optional = (
        ("tool_calls", with_raw or calls or None),
        ("tool_call_id", message.tool_call_id),
        ("name", message.name),
        ("speaker", message.speaker),
        ("unparsed", None if with_raw else message.unparsed),
        ("weight", weight),
        ("failed", message.failed or None),
    )
    content = None if message.content == "" and (with_raw or calls) else message.content
    return {"role": message.role, "content": content} | {key: value for key, value in optional if value is not None}


def message_from_json(data: Json, where: str = "message") -> Message:
    """Return the message in OpenAI chat JSON; raises DataError that names the place and the remedy."""
    fields = _fields(data, (*_MESSAGE_KEYS, *_REASONING_KEYS, *_EMPTY_KEYS), where)
    for key in _EMPTY_KEYS:
        if fields.get(key):
            raise DataError(f"{where}: {key!r} is not supported; {_REMEDIES[key]}")
    if fields.get("role") == "developer":
        fields["role"] = "system"
    calls, unparsed = _read_calls(fields, where)
    if "content" not in data and not calls and unparsed is None:
        raise DataError(f"{where}: needs 'content'; write text, or null beside 'tool_calls'")
    weight = _get(fields, "weight", float, where, None)
    if weight is not None and not 0 <= weight < math.inf:
        raise DataError(f"{where}: 'weight' is {weight}; it must be 0 or more")
    return Message(
        role=_choose(fields, "role", get_args(WireRole), where),
        content=_read_content(fields, where),
        tool_calls=calls,
        tool_call_id=_get(fields, "tool_call_id", str, where, None),
        name=_get(fields, "name", str, where, None),
        speaker=_get(fields, "speaker", str, where, None),
        unparsed=unparsed,
        weight=weight,
        failed=_get(fields, "failed", bool, where, False),
    )


def call_to_json(call: ToolCall, arguments: ArgumentsForm = "string") -> dict[str, Json]:
    """Return the call as an entry of `tool_calls`; a call without an id is written without one."""
    value = dumps(dict(call.arguments)) if arguments == "string" else dict(call.arguments)
    return _call_json(call.id, call.name, value)


def _call_json(identity: str, name: str, arguments: Json) -> dict[str, Json]:
    call = {"type": "function", "function": {"name": name, "arguments": arguments}}
    return {"id": identity, **call} if identity else call


def _read_calls(fields: Mapping[str, Json], where: str) -> tuple[tuple[ToolCall, ...], str | None]:
    """Return the calls, and the text of those whose arguments are not an object (None if there are none)."""
    calls, raw = [], [_get(fields, "unparsed", str, where)] if "unparsed" in fields else []
    for position, entry in enumerate(_get(fields, "tool_calls", list, where, [])):
        identity, name, arguments = _read_call(entry, f"{where}.tool_calls[{position}]")
        read = read_arguments(arguments) if isinstance(arguments, str) else arguments
        if read is None:
            raw.append(_raw_call(position, identity, name, arguments))
        else:
            calls.append(ToolCall(name, read, identity))
    return tuple(calls), "\n".join(raw) if raw else None


def _read_call(entry: Json, where: str) -> tuple[str, str, Json]:
    """Return id, name and arguments (an object or text) of one entry of `tool_calls`."""
    fields = _fields(entry, ("id", "type", "function", "index"), where)
    _choose(fields, "type", ("function",), where, "function")
    function = _fields(fields.get("function"), ("name", "arguments"), f"{where}.function")
    arguments = function.get("arguments")
    if not isinstance(arguments, str | Mapping):
        raise DataError(f"{where}: 'arguments' is {_kind(arguments)}; write a JSON string or an object, {{}} for none")
    return _get(fields, "id", str, where, ""), _get(function, "name", str, where), arguments


_STRING = r'"(?:[^"\\\n]|\\.)*"'
_RAW_CALL = re.compile(
    rf'^\{{"index": (\d{{1,4}}), "id": ({_STRING}), "name": ({_STRING}), "arguments": ', re.MULTILINE
)


def _raw_call(position: int, identity: str, name: str, arguments: str) -> str:
    """Return a call as text: its place, id and name, and its arguments exactly as they were."""
    return f'{{"index": {position}, "id": {dumps(identity)}, "name": {dumps(name)}, "arguments": {arguments}}}'


def _insert_raw_calls(unparsed: str | None, calls: Sequence[Json]) -> list[Json] | None:
    """Return `calls` with the raw calls of `unparsed` where they were; None if `unparsed` is any other text."""
    text = unparsed or ""
    heads = list(_RAW_CALL.finditer(text))
    ends = [head.start() - 1 for head in heads[1:]] + [len(text)]
    placed = list(calls)
    try:
        for head, end in zip(heads, ends, strict=False):
            call = _call_json(loads(head[2]), loads(head[3]), text[head.end() : end - 1])
            placed.insert(int(head[1]), call)
    except DataError:
        return None
    # a model may write text that only looks like ours: what reading would not give back exactly stays text
    return placed if heads and _read_calls({"tool_calls": placed}, "message")[1] == unparsed else None


def tool_to_json(spec: ToolSpec) -> dict[str, Json]:
    """Return the spec as an entry of `tools`."""
    function = {"name": spec.name, "description": spec.description, "parameters": dict(spec.parameters)}
    return {"type": "function", "function": function}


def tool_from_json(data: Json, where: str = "tool") -> ToolSpec:
    """Return the spec of a tool given bare or as `{"type": "function", "function": ...}`; raises DataError."""
    if isinstance(data, Mapping) and "function" in data:
        wrapper = _fields(data, ("type", "function"), where)
        _choose(wrapper, "type", ("function",), where, "function")
        data = wrapper.get("function")
    fields = _fields(data, ("name", "description", "parameters", "strict"), where)
    parameters = _get(fields, "parameters", Mapping, where, {"type": "object", "properties": {}})
    properties = parameters.get("properties")
    for name, schema in properties.items() if isinstance(properties, Mapping) else ():
        if schema is None:  # what tables with one column per key make of tools that differ
            raise DataError(f"{where}: parameter {name!r} is null, as Arrow and Parquet pad rows; delete those")
    return ToolSpec(_get(fields, "name", str, where), _get(fields, "description", str, where, ""), parameters)


def tools_from_json(data: Json, where: str = "tools") -> tuple[ToolSpec, ...]:
    """Return the specs in a list of tools, or in one as JSON text, as tables hold them; raises DataError."""
    try:
        listed = (loads(data) if data.strip() else []) if isinstance(data, str) else data
    except DataError as error:
        raise DataError(f"{where}: the text is {error}") from error
    if not isinstance(listed, list):
        raise DataError(f"{where}: is {_kind(listed)}; write a list")
    return tuple(tool_from_json(tool, f"{where}[{i}]") for i, tool in enumerate(listed))


def trajectory_to_json(trajectory: Trajectory, arguments: ArgumentsForm = "string") -> dict[str, Json]:
    """Return the trajectory as one row, without its `turns`; what has its default is left out.

    An imported conversation is so written as `messages` and `tools` alone.
    """
    task, verdict = trajectory.task, trajectory.verdict
    opening = _opening_to_json(trajectory, arguments)
    optional = (
        ("tools", task.tools != (), [tool_to_json(spec) for spec in task.tools]),
        ("id", trajectory.id != "", trajectory.id),
        ("task_id", task.id != trajectory.id, task.id),
        ("opening", opening is not None, opening),
        ("reference", task.reference != {}, task.reference),
        ("lineage", trajectory.lineage != (), list(trajectory.lineage)),
        ("stop", trajectory.stop != "imported", trajectory.stop),
        ("seed", trajectory.seed != 0, trajectory.seed),
        ("final_state", trajectory.final_state is not None, trajectory.final_state),
        ("verdict", verdict is not None, verdict and {key: getattr(verdict, key) for key in _VERDICT_KEYS}),
    )
    messages = [message_to_json(message, arguments) for message in trajectory.messages]
    return {"messages": messages} | {key: value for key, keep, value in optional if keep}


def trajectory_from_json(data: Json, where: str = "row") -> Trajectory:
    """Return the trajectory in one row, without turns; raises DataError that names the place and the remedy.

    Without an `opening`, the task is what comes before the first assistant message.
    """
    fields = _fields(data, _ROW_KEYS, where)
    messages = _read_messages(fields, "messages", where)
    if not messages:
        raise DataError(f"{where}: needs 'messages', a list of at least one; it has {', '.join(fields) or 'nothing'}")
    _check_owners(messages)
    identity = _get(fields, "id", str, where, "")
    task = Task(
        id=_get(fields, "task_id", str, where, identity),
        messages=_read_opening(fields, messages, where),
        tools=tools_from_json(fields.get("tools", [])),
        reference=_get(fields, "reference", Mapping, where, {}),
    )
    return Trajectory(
        id=identity,
        task=task,
        messages=messages,
        stop=_choose(fields, "stop", get_args(EpisodeStop), where, "imported"),
        seed=_get(fields, "seed", int, where, 0),
        final_state=_get(fields, "final_state", Mapping, where, None),
        verdict=_read_verdict(fields["verdict"], f"{where}.verdict") if "verdict" in fields else None,
        lineage=tuple(map(str, _get(fields, "lineage", list, where, []))),
    )


def _opening_to_json(trajectory: Trajectory, arguments: ArgumentsForm) -> Json:
    """Return None for the usual opening, else how many messages it has, else the messages themselves."""
    opening, messages = trajectory.task.messages, trajectory.messages
    if opening == messages[: _usual_opening(messages)]:
        return None
    if opening == messages[: len(opening)]:
        return len(opening)
    return [message_to_json(message, arguments) for message in opening]


def _usual_opening(messages: Sequence[Message]) -> int:
    return next((i for i, message in enumerate(messages) if message.role == "assistant"), len(messages))


def _read_opening(fields: Mapping[str, Json], messages: tuple[Message, ...], where: str) -> tuple[Message, ...]:
    if isinstance(fields.get("opening"), list):
        return _read_messages(fields, "opening", where)
    count = _get(fields, "opening", int, where, _usual_opening(messages))
    if not 0 <= count <= len(messages):
        raise DataError(f"{where}: 'opening' is {count}; it counts messages, of which there are {len(messages)}")
    return messages[:count]


def _read_messages(fields: Mapping[str, Json], key: str, where: str) -> tuple[Message, ...]:
    return tuple(message_from_json(item, f"{key}[{i}]") for i, item in enumerate(_get(fields, key, list, where, [])))


def _check_owners(messages: Iterable[Message]) -> None:
    for number, message in enumerate(messages):
        for key in ("weight", "tool_calls", "unparsed"):
            if message.role != "assistant" and getattr(message, key) not in (None, ()):
                raise DataError(f"messages[{number}]: {key!r} belongs to assistant messages; this is {message.role!r}")
        if message.failed and message.role != "tool":
            raise DataError(f"messages[{number}]: 'failed' belongs to tool messages; this is {message.role!r}")


def _read_verdict(verdict: Json, where: str) -> Verdict:
    fields = _fields(verdict, _VERDICT_KEYS, where)
    parts = _get(fields, "parts", Mapping, where, {})
    scores = {name: _get(parts, name, float, f"{where}.parts") for name in parts}
    return Verdict(_get(fields, "score", float, where), _get(fields, "reason", str, where, ""), scores)


def _read_content(fields: Mapping[str, Json], where: str) -> str:
    content = fields.get("content", "")
    if isinstance(content, list):
        content = "".join(_read_part(part, f"{where}.content[{i}]") for i, part in enumerate(content))
    if not isinstance(content, str):
        raise DataError(f"{where}: 'content' is {_kind(content)}; write text, a list of text parts, or null")
    reasoning = next((text for key in _REASONING_KEYS if (text := _get(fields, key, str, where, ""))), "")
    return f"<think>\n{reasoning}\n</think>\n\n{content}" if reasoning else content


def _read_part(part: Json, where: str) -> str:
    fields = _fields(part, ("type", "text"), where)
    _choose(fields, "type", ("text",), where)
    return str(_get(fields, "text", str, where))


def _fields(data: Json, known: Sequence[str], where: str) -> dict[str, Json]:
    """Return the keys of `data` that are not null; raises DataError for one that is not known, null or not."""
    if not isinstance(data, Mapping):
        raise DataError(f"{where}: is {_kind(data)}; it must be an object with {', '.join(known)}")
    for key in data:
        if key not in known:
            near = difflib.get_close_matches(str(key)[:40], known, n=1, cutoff=0.7)
            remedy = _REMEDIES.get(key) or (f"did you mean {near[0]!r}?" if near else "delete it")
            raise DataError(f"{where}: unknown key {reprlib.repr(key)}; {remedy} (known: {', '.join(known)})")
    return {key: value for key, value in data.items() if value is not None}


def _get(fields: Mapping[str, Json], key: str, kind: type[Any], where: str, *default: Json) -> Any:
    """Return the value of `key` if it is of `kind`, or the default if there is one and no value."""
    if default and key not in fields:
        return default[0]
    value = fields.get(key)
    if kind is float and type(value) is int and abs(value) < 2**53:
        return float(value)
    if isinstance(value, kind) and (kind is bool or not isinstance(value, bool)):
        return value
    wanted = {str: "text", list: "a list", int: "a whole number", float: "a number", bool: "true or false"}.get(
        kind, "an object"
    )
    raise DataError(f"{where}: {key!r} is {_kind(value)}; write {wanted}")


def _choose(fields: Mapping[str, Json], key: str, choices: Sequence[str], where: str, *default: str) -> Any:
    value = _get(fields, key, str, where, *default)
    if value not in choices:
        raise DataError(f"{where}: {key!r} is {reprlib.repr(value)}; it must be one of {', '.join(choices)}")
    return value


def _kind(value: Json) -> str:
    return "missing or null" if value is None else f"{type(value).__name__} {reprlib.repr(value)}"
