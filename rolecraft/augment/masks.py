"""Masked names: tools and their parameters by invented names, so that what a tool does is read in its description.

After Hammer (arXiv 2410.04587, section 3.2). Not covered: names in what users and tools say.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from random import Random
from typing import Any

from rolecraft.augment.pool import Pool
from rolecraft.errors import SettingsError
from rolecraft.types import Json, Message, ToolCall, ToolSpec, Trajectory

_CONSONANTS, _VOWELS = "bdfgklmnprstvz", "aeiou"
_PLAIN = {"type", "properties", "required", "description", "title", "additionalProperties"}
"""What a schema may hold beside the names of its properties, for these to be masked."""


@dataclass(frozen=True, slots=True)
class MaskNames:
    """How many trajectories are masked, and whether parameters are too; without a description a name stays."""

    share: float = 0.5
    parameters: bool = True

    def __post_init__(self) -> None:
        """Refuse a share that is none."""
        require_share(self.share, "mask_names.share")


def require_share(share: float, where: str) -> None:
    """Raise SettingsError unless `share` is in 0..1."""
    if not 0 <= share <= 1:
        raise SettingsError(f"{where} is {share!r}; give a share from 0 to 1")


def mask_names(
    trajectory: Trajectory, settings: MaskNames, draw: Random, pool: Pool, group: Sequence[Trajectory] = ()
) -> tuple[Trajectory, ...]:
    """Return the trajectory with invented names in tools, calls and reference, each the same wherever it stands.

    They follow from the tools and what is drawn, so rows of a `group`, which tell the same tools, get the same names.
    """
    if draw.random() >= settings.share:
        return (trajectory,)
    taken = {spec.name for spec in trajectory.task.tools}
    names: dict[str, str] = {}
    keys: dict[str, dict[str, str]] = {}
    for spec in trajectory.task.tools:
        names[spec.name] = _invented(draw, taken) if spec.description.strip() else spec.name
        keys[spec.name] = _masked_keys(spec, draw) if settings.parameters else {}
    messages = tuple(_masked_message(message, names, keys) for message in trajectory.messages)
    opening = tuple(_masked_message(message, names, keys) for message in trajectory.task.messages)
    tools = tuple(_masked_tool(spec, names, keys) for spec in trajectory.task.tools)
    reference = _masked_reference(trajectory.task.reference, names, keys)
    task = replace(trajectory.task, messages=opening, tools=tools, reference=reference)
    return (replace(trajectory, task=task, messages=messages),)


def _invented(draw: Random, taken: set[str]) -> str:
    while True:
        syllables = [draw.choice(_CONSONANTS) + draw.choice(_VOWELS) for _ in range(draw.randint(2, 4))]
        name = "".join(syllables) + draw.choice(("", "", draw.choice(_CONSONANTS), f"_{draw.randint(1, 9)}"))
        if name not in taken:
            taken.add(name)
            return name


def _masked_keys(spec: ToolSpec, draw: Random) -> dict[str, str]:
    """Return the invented names of the parameters that have a description."""
    properties = spec.parameters.get("properties")
    if not isinstance(properties, Mapping) or not spec.parameters.keys() <= _PLAIN:
        return {}
    taken = set(properties)
    described = [key for key, schema in properties.items() if isinstance(schema, Mapping) and schema.get("description")]
    return {key: _invented(draw, taken) for key in described}


def _masked_tool(spec: ToolSpec, names: Mapping[str, str], keys: Mapping[str, Mapping[str, str]]) -> ToolSpec:
    inner = keys[spec.name]
    parameters = dict(spec.parameters)
    if inner:
        parameters["properties"] = _renamed(parameters["properties"], inner)
        if "required" in parameters:
            parameters["required"] = [inner.get(key, key) for key in parameters["required"]]
    return replace(spec, name=names[spec.name], parameters=parameters)


def _masked_message(message: Message, names: Mapping[str, str], keys: Mapping[str, Mapping[str, str]]) -> Message:
    calls = tuple(
        ToolCall(names.get(call.name, call.name), _renamed(call.arguments, keys.get(call.name, {})), call.id)
        for call in message.tool_calls
    )
    name = names.get(message.name, message.name) if message.name is not None else None
    return message.edited(tool_calls=calls, name=name) if calls or name else message


def _masked_reference(
    reference: Mapping[str, Json], names: Mapping[str, str], keys: Mapping[str, Mapping[str, str]]
) -> dict[str, Json]:
    steps = reference.get("steps")
    masked = [_masked_step(step, names, keys) for step in steps] if isinstance(steps, Sequence) else steps
    return {**reference, **({} if steps is None else {"steps": masked})}


def _masked_step(
    step: Mapping[str, Any], names: Mapping[str, str], keys: Mapping[str, Mapping[str, str]]
) -> dict[str, Json]:
    told = [(str(one["name"]), one["arguments"]) for one in step["calls"]]
    calls = [{"name": names.get(name, name), "arguments": _renamed(given, keys.get(name, {}))} for name, given in told]
    found: dict[str, Json] = {**step, "calls": calls}
    if "asks_for" in step:
        found["asks_for"] = [names.get(name, name) for name in step["asks_for"]]
    if "accepted" in step and len(step["calls"]) == 1:
        found["accepted"] = _renamed(step["accepted"], keys.get(told[0][0], {}))
    return found


def _renamed(values: Mapping[str, Json], names: Mapping[str, str]) -> dict[str, Json]:
    return {names.get(key, key): value for key, value in values.items()}
