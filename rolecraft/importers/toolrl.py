"""ToolRL's rows for fine-tuning (rlla_sft.json): tools told inside a prompt, a dialogue so far, and a thoughtful reply.

A row has `instruction`, whose numbered list under `**Available Tools**` is read as tools, `input`, whose tags are the
dialogue so far, and `output`. A thought becomes `<think>` text before a call or an answer. Types have JSON Schema's
words, and values their parameter's type again; a parameter is optional if its type says so, or it has a default, or its
tool does not tell (a third of them). Names that an API would refuse have underscores for the characters at fault. Only
the reply in `output` is trained: earlier ones, whose thoughts are all the same sentence, have weight 0.

Not covered: the rest of `instruction`, which explains the source's own format of replies.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any

from rolecraft import wire
from rolecraft.errors import DataError
from rolecraft.importers import _typed
from rolecraft.types import Json, Message, Task, ToolCall, ToolSpec, Trajectory

LEFT_OUT = ("instruction", "input", "output")
"""Texts that are taken apart; what becomes of them is tested by itself."""

EXAMPLE: Mapping[str, Json] = {
    "instruction": "You help.\n\n**Available Tools**\nIn your response, you can use the following tools:\n"
    "1. Name: Count Gulls\nDescription: Counts gulls on a pier\nParameters: "
    '{"pier": {"description": "Number of the pier", "type": "int", "default": ""}, '
    '"kind": {"description": "Kind of gull", "type": "str, optional", "default": "herring"}}\n\n'
    "**Steps for Each Turn**\n1. **Think:** Recall.",
    "input": "**Dialogue Records History**\n<user> How many gulls sit on pier 4? </user>\n\n"
    '<think> I look. </think>\n<tool_call>\n{"name": "Count Gulls", "parameters": {"pier": "4"}}\n</tool_call>\n'
    '<obs> [{"name": "Count Gulls", "results": 12}] </obs>\n',
    "output": "<think> That is all. </think>\n<response> There are 12 gulls on pier 4. </response>",
}

_PREFIX = "**Dialogue Records History**"
_TOOL = re.compile(r"\d+\. Name: ([^\n]{1,200})\nDescription: (.*?)\nParameters: ([^\n]*)", re.DOTALL)
_PIECES = re.compile(r"\s*<(user|think|tool_call|response|obs)>(.*?)</\1>", re.DOTALL)
_KINDS = {"str": "string", "int": "integer", "float": "number", "bool": "boolean", "dict": "object", "list": "array"}
_SILENT = ("string", "boolean", "array", "object")  # tools in these words do not say what is required
_WRAPPED = re.compile(r"(list|tuple|dict|set)(?:\[.*)?", re.IGNORECASE)
_LONGEST = 200_000


def convert(row: Mapping[str, Json]) -> Trajectory:
    """Return the dialogue with its reply; raises DataError."""
    if row.keys() != EXAMPLE.keys():
        raise DataError(f"a row has {', '.join(EXAMPLE)}, and nothing else")
    texts = [row[key] for key in EXAMPLE]
    if not all(isinstance(text, str) and len(text) <= _LONGEST for text in texts):
        raise DataError(f"{', '.join(EXAMPLE)} must be texts of at most {_LONGEST:,} characters")
    instruction, history, output = texts
    specs = _tools(instruction)
    writer = _Writer(specs)
    for kind, text in _pieces(history.removeprefix(_PREFIX)):
        writer.add(kind, text)
    before = len(writer.messages)
    for kind, text in _pieces(output):
        writer.add(kind, text)
    messages = [
        message.edited(weight=0.0) if message.role == "assistant" and place < before else message
        for place, message in enumerate(writer.messages)
    ]
    if len(messages) == before or messages[-1].role != "assistant":
        raise DataError("'output' has no reply; it calls a tool or answers")
    opening = next(place for place, message in enumerate(messages) if message.role == "assistant")
    calls = [{"name": call.name, "arguments": call.arguments} for call in messages[before].tool_calls]
    steps = [{"at": before, "calls": calls, "services": []}]
    task = Task("", tuple(messages[:opening]), tuple(specs.values()), {"services": [], "steps": steps})
    return Trajectory("", task, tuple(messages))


def _tools(instruction: str) -> dict[str, ToolSpec]:
    """Return the tools by the names that the source gives them."""
    _, found, rest = instruction.partition("**Available Tools**\n")
    listed = _TOOL.findall(rest.partition("\n**Steps for Each Turn**")[0])
    if not found or not listed:
        raise DataError("no list of tools under '**Available Tools**' in 'instruction'")
    return {name: _spec(name, description, wire.loads(parameters)) for name, description, parameters in listed}


def _spec(name: str, description: str, told: Json) -> ToolSpec:
    if not isinstance(told, dict):
        raise DataError(f"the parameters of {name[:40]!r} are no object")
    properties, required = {}, []
    for key, described in told.items():
        kinds = described["type"] if isinstance(described["type"], list) else str(described["type"]).split(", optional")
        kind, default = _kind(str(kinds[0])), described.get("default", "")
        schema = _typed.schema(kind, described.get("description", ""))
        if default not in ("", None):
            with suppress(DataError):  # a default of another type is none
                schema["default"] = _value(kind, default, key)
        elif len(kinds) == 1 and kinds[0] not in _SILENT:
            required.append(key)
        properties[key] = schema
    safe = re.sub(r"[^A-Za-z0-9_-]", "_", name)[:64]
    parameters = {"type": "object", "properties": properties, "required": required}
    function = {"name": safe, "description": description.strip(), "parameters": parameters}
    return wire.tool_from_json(function, f"tool {name[:40]!r}")


def _kind(told: str) -> str:
    wrapped = _WRAPPED.fullmatch(told)
    plain = wrapped[1].lower() if wrapped else told
    kind = {"tuple": "array", "set": "array"}.get(plain) or _KINDS.get(plain, plain)
    if kind not in _KINDS.values():
        raise DataError(f"unknown type {told[:40]!r} of a parameter; known are {', '.join(_KINDS)}")
    return kind


def _value(kind: str, value: Json, key: str) -> Json:
    """Return the value with its type: texts are read as what the parameter wants."""
    if kind in ("array", "object") and isinstance(value, str):
        value = wire.loads(value)
    wanted: Any = {"array": list, "object": dict, "string": str, "boolean": bool}.get(kind, int | float)
    if isinstance(value, wanted) and isinstance(value, bool) == (kind == "boolean"):
        return int(value) if kind == "integer" and float(value).is_integer() else value
    if isinstance(value, str):
        return _typed.typed(kind, value, f"parameter {key[:40]!r}")
    raise DataError(f"parameter {key[:40]!r}: the value is {type(value).__name__}; it must be {kind}")


def _pieces(text: str) -> Iterator[tuple[str, str]]:
    """Yield the tags and their texts; raises DataError for what stands between them."""
    end = 0
    while found := _PIECES.match(text, end):
        yield found[1], found[2].strip()
        end = found.end()
    if rest := text[end:].strip():
        raise DataError(f"{rest[:40]!r} is in no tag; there are user, think, tool_call, response and obs")


class _Writer:
    """Writes messages piece by piece."""

    def __init__(self, specs: Mapping[str, ToolSpec]) -> None:
        self._specs = specs
        self.messages: list[Message] = []
        self._thought = ""
        self._made = 0
        self._waiting: Sequence[ToolCall] = ()

    def add(self, kind: str, text: str) -> None:
        if kind == "think":
            self._thought = f"<think>\n{text}\n</think>\n\n"
        elif kind == "user":
            self.messages.append(Message("user", text))
        elif kind == "obs":
            self._observe(text)
        else:
            calls = self._calls(text) if kind == "tool_call" else ()
            self.messages.append(Message("assistant", self._thought + ("" if calls else text), calls))
            self._thought, self._waiting = "", calls

    def _calls(self, text: str) -> tuple[ToolCall, ...]:
        found = []
        for line in filter(None, map(str.strip, text.split("\n"))):
            called = wire.loads(line)
            if called["name"] not in self._specs:
                raise DataError(f"a call of {str(called['name'])[:40]!r}, which is no tool of the row")
            spec = self._specs[called["name"]]
            found.append(ToolCall(spec.name, _arguments(spec, called["parameters"]), f"call_{self._made}"))
            self._made += 1
        if not found:
            raise DataError("a tool_call without a call")
        return tuple(found)

    def _observe(self, text: str) -> None:
        if not self._waiting:
            raise DataError("an observation answers no call")
        results = wire.loads(text)
        if not isinstance(results, list) or len(results) != len(self._waiting):
            raise DataError(f"{len(self._waiting)} calls were made, and the observation has other results")
        for call, result in zip(self._waiting, results, strict=True):
            told = result["results"]
            content = told if isinstance(told, str) else wire.dumps(told)
            self.messages.append(Message("tool", content, tool_call_id=call.id))
        self._waiting = ()


def _arguments(spec: ToolSpec, given: Mapping[str, Json]) -> dict[str, Json]:
    known = spec.parameters["properties"]
    if stray := [key for key in given if key not in known]:
        raise DataError(f"a call has the argument {stray[0][:40]!r}, which its tool has not")
    return {key: _value(known[key]["type"], value, key) for key, value in given.items() if value is not None}
