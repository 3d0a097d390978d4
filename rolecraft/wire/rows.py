"""Trajectories as rows of a data file."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import get_args

from rolecraft.errors import DataError
from rolecraft.types import Check, EpisodeStop, Json, Message, Task, ToolCall, Trajectory, Trials, Usage, Verdict
from rolecraft.wire.calls import ArgumentsForm
from rolecraft.wire.fields import read_choice, read_field, read_object
from rolecraft.wire.legacy import modern
from rolecraft.wire.messages import message_from_json, message_to_json
from rolecraft.wire.tools import tool_to_json, tools_from_json

_RUN_KEYS = ("task_id", "opening", "stop", "seed", "final_state", "verdict", "trials", "turns")
ROW_KEYS = ("messages", "tools", "id", "reference", "lineage", "parallel_tool_calls", *_RUN_KEYS)
_VERDICT_KEYS = ("score", "reason", "parts")
_TRIAL_COUNTS = ("tried", "failed", "model_calls", "tool_calls")
_TRIAL_KEYS = ("strategy", "agreement", "usage", "checks", *_TRIAL_COUNTS)
_CHECK_KEYS = ("at", "calls", "right", "why", "after", "answer", "kept")
_USAGE_COUNTS = ("prompt", "cached", "completion")


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
        ("trials", trajectory.trials is not None, trajectory.trials and _trials_to_json(trajectory.trials)),
    )
    messages = [message_to_json(message, arguments) for message in trajectory.messages]
    return {"messages": messages} | {key: value for key, keep, value in optional if keep}


def trajectory_from_json(data: Json, where: str = "row") -> Trajectory:
    """Return the trajectory in one row, without turns; raises DataError that names the place and the remedy.

    Without an `opening`, the task is what comes before the first assistant message.
    """
    fields = read_object(modern(data, where) if isinstance(data, Mapping) else data, ROW_KEYS, where)
    messages = _read_messages(fields, "messages", where)
    if not messages:
        raise DataError(f"{where}: needs 'messages', a list of at least one; it has {', '.join(fields) or 'nothing'}")
    require_owners(messages)
    identity = read_field(fields, "id", str, where, "")
    task = Task(
        id=read_field(fields, "task_id", str, where, identity),
        messages=_read_opening(fields, messages, where),
        tools=tools_from_json(fields.get("tools", [])),
        reference=read_field(fields, "reference", Mapping, where, {}),
    )
    return Trajectory(
        id=identity,
        task=task,
        messages=messages,
        stop=read_choice(fields, "stop", get_args(EpisodeStop), where, "imported"),
        seed=read_field(fields, "seed", int, where, 0),
        final_state=read_field(fields, "final_state", Mapping, where, None),
        verdict=_read_verdict(fields["verdict"], f"{where}.verdict") if "verdict" in fields else None,
        lineage=tuple(map(str, read_field(fields, "lineage", list, where, []))),
        trials=_read_trials(fields["trials"], f"{where}.trials") if "trials" in fields else None,
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
    count = read_field(fields, "opening", int, where, _usual_opening(messages))
    if not 0 <= count <= len(messages):
        raise DataError(f"{where}: 'opening' is {count}; it counts messages, of which there are {len(messages)}")
    return messages[:count]


def _read_messages(fields: Mapping[str, Json], key: str, where: str) -> tuple[Message, ...]:
    return tuple(
        message_from_json(item, f"{key}[{i}]") for i, item in enumerate(read_field(fields, key, list, where, []))
    )


def require_owners(messages: Iterable[Message]) -> None:
    """Raise DataError for a message with a key that belongs to another role."""
    for number, message in enumerate(messages):
        for key in ("weight", "tool_calls", "unparsed", "strict"):
            if message.role != "assistant" and getattr(message, key) not in (None, ()):
                raise DataError(f"messages[{number}]: {key!r} belongs to assistant messages; this is {message.role!r}")
        if message.failed and message.role != "tool":
            raise DataError(f"messages[{number}]: 'failed' belongs to tool messages; this is {message.role!r}")


def _read_verdict(verdict: Json, where: str) -> Verdict:
    fields = read_object(verdict, _VERDICT_KEYS, where)
    parts = read_field(fields, "parts", Mapping, where, {})
    scores = {name: read_field(parts, name, float, f"{where}.parts") for name in parts}
    return Verdict(read_field(fields, "score", float, where), read_field(fields, "reason", str, where, ""), scores)


def _trials_to_json(trials: Trials) -> dict[str, Json]:
    """Return the trials; those without a checker are written without checks."""
    told = asdict(trials)
    checks = list(told.pop("checks"))
    for check in checks:
        if not check["kept"]:
            del check["kept"]
        check["calls"] = [{"name": call["name"], "arguments": dict(call["arguments"])} for call in check["calls"]]
    return {**told, "checks": checks} if checks else told


def _read_check(check: Json, where: str) -> Check:
    fields = read_object(check, _CHECK_KEYS, where)
    calls = [
        read_object(one, ("name", "arguments"), f"{where}.calls") for one in read_field(fields, "calls", list, where)
    ]
    return Check(
        read_field(fields, "at", int, where),
        tuple(ToolCall(read_field(o, "name", str, where), read_field(o, "arguments", Mapping, where)) for o in calls),
        read_field(fields, "right", bool, where),
        read_field(fields, "why", str, where, ""),
        read_field(fields, "after", bool, where, False),
        read_field(fields, "answer", str, where, ""),
        read_field(fields, "kept", bool, where, False),
    )


def _read_trials(trials: Json, where: str) -> Trials:
    fields = read_object(trials, _TRIAL_KEYS, where)
    usage = read_object(fields.get("usage", {}), (*_USAGE_COUNTS, "seconds"), f"{where}.usage")
    used = {key: read_field(usage, key, int, f"{where}.usage", 0) for key in _USAGE_COUNTS}
    return Trials(
        read_field(fields, "strategy", str, where),
        agreement=read_field(fields, "agreement", float, where, None),
        usage=Usage(**used, seconds=read_field(usage, "seconds", float, f"{where}.usage", 0.0)),
        checks=tuple(
            _read_check(one, f"{where}.checks[{i}]")
            for i, one in enumerate(read_field(fields, "checks", list, where, []))
        ),
        **{key: read_field(fields, key, int, where, 0) for key in _TRIAL_COUNTS},
    )
