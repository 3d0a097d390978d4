"""Seal-Tools: a request, the calls that it needs, and 4,076 tools.

A path is `dev.jsonl` or `test_in_domain.jsonl`, with `tool.jsonl` beside, or their folder, of which `dev.jsonl` is
read: tests are not for training. A row is a request with its `calling` and the `tools` that these calls name; to offer
others beside them is a recipe's rule, for which `tools` has all. Values have their parameter's type again ("40.7" of a
float). Dots and spaces in names are underscores.

Dropped are rows in which a value is another call's result, since nobody knows it when the calls are made. What a tool
returns (`responses`) and its `field` are told to nobody.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from rolecraft import store, wire
from rolecraft.errors import DataError
from rolecraft.importers import _typed
from rolecraft.types import Json, Message, Task, ToolCall, ToolSpec, Trajectory

LEFT_OUT = ("responses", "field", "type", "id")

EXAMPLE: Mapping[str, Json] = {
    "id": "made-easy-0",
    "query": "How heavy is a boat of 3.5 metres, and what does berth 12 cost?",
    "calling": [
        {"api": "weighBoat", "parameters": {"length": "3.5"}, "responses": ["API_call_0"]},
        {"api": "getBerthPrice", "parameters": {"berth": 12}, "responses": ["API_call_1"]},
    ],
    "tools": [
        {
            "api_name": "weighBoat",
            "api_description": "Estimate what a boat weighs",
            "field": "Sports/Sailing",
            "parameters": {"length": {"type": "float", "description": "Length in metres"}},
            "required": ["length"],
            "responses": {"kilograms": {"type": "float", "description": "Its weight"}},
        },
        {
            "api_name": "getBerthPrice",
            "api_description": "Price of a berth for a night",
            "field": "Sports/Sailing",
            "parameters": {"berth": {"type": "int", "description": "Number of the berth"}},
            "required": [],
            "responses": {"price": {"type": "float", "description": "Its price"}},
        },
    ],
}

_TOOLS = "tool.jsonl"
_KINDS = {"str": "string", "int": "integer", "float": "number", "bool": "boolean"}
_PYTHON = {"string": str, "integer": int, "number": int | float, "boolean": bool}
_RESULT = re.compile(r"API_call_\d+")
_KEYS = ("id", "query", "calling", "tools")


def rows(path: Path) -> Iterator[tuple[str, Json]]:
    """Yield each request with the tools that it calls, after where it stands."""
    file = path / "dev.jsonl" if path.is_dir() else path
    beside = file.with_name(_TOOLS)
    known = {row["api_name"]: row for row in _listed(beside)} if beside.is_file() else {}
    for place, row in store.objects(file):
        if isinstance(row, dict) and "tools" not in row and isinstance(row.get("calling"), list):
            names = dict.fromkeys(str(call.get("api")) for call in row["calling"] if isinstance(call, dict))
            row = {**row, "tools": [known[name] for name in names if name in known]}
        yield place, row


def tools(path: Path) -> Iterator[ToolSpec]:
    """Yield all tools of the source, none if `tool.jsonl` is not there; `path` is as for `rows`."""
    listed = (path if path.is_dir() else path.parent) / _TOOLS
    yield from map(_spec, _listed(listed)) if listed.is_file() else ()


def convert(row: Mapping[str, Json]) -> Trajectory:
    """Return the request and its calls, all at once; raises DataError."""
    if unknown := [key for key in row if key not in _KEYS]:
        raise DataError(f"unknown key {unknown[0]!r}; a row has {', '.join(_KEYS)}")
    query, calling = row["query"], row["calling"]
    if not isinstance(query, str) or not query.strip() or not calling:
        raise DataError("a row has a 'query' and at least one call in 'calling'")
    specs = {tool["api_name"]: _spec(tool) for tool in row["tools"]}
    calls = tuple(_call(one, specs, f"call_{place}") for place, one in enumerate(calling))
    written = [{"name": call.name, "arguments": call.arguments} for call in calls]
    services = [tool["field"] for tool in row["tools"]]
    steps = [{"at": 1, "calls": written, "services": services}]
    identity = str(row["id"])
    question = Message("user", query)
    task = Task(identity, (question,), tuple(specs.values()), {"services": services, "steps": steps})
    return Trajectory(identity, task, (question, Message("assistant", tool_calls=calls)))


def _listed(path: Path) -> Iterator[Mapping[str, Any]]:
    for place, row in store.objects(path):
        if not isinstance(row, dict) or not isinstance(row.get("api_name"), str):
            raise DataError(f"{place}: no tool of Seal-Tools; it has an 'api_name'")
        yield row


def _name(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9_-]", "_", text)


def _spec(told: Mapping[str, Any]) -> ToolSpec:
    properties = {}
    for key, described in told["parameters"].items():
        if described["type"] not in _KINDS:
            raise DataError(f"unknown type {str(described['type'])[:40]!r}; known are {', '.join(_KINDS)}")
        properties[key] = _typed.schema(_KINDS[described["type"]], described["description"])
    required = [key for key in told["required"] if key in properties]
    parameters = {"type": "object", "properties": properties, "required": required}
    function = {"name": _name(told["api_name"]), "description": told["api_description"], "parameters": parameters}
    return wire.tool_from_json(function, f"tool {told['api_name'][:40]!r}")


def _call(called: Mapping[str, Any], specs: Mapping[str, ToolSpec], identity: str) -> ToolCall:
    if called["api"] not in specs:
        raise DataError(f"no tool {str(called['api'])[:40]!r} in {_TOOLS}; it must lie beside the requests")
    spec = specs[called["api"]]
    known = spec.parameters["properties"]
    arguments = {}
    for key, value in called["parameters"].items():
        if key not in known:
            raise DataError(f"{spec.name} has no parameter {str(key)[:40]!r}")
        if _RESULT.search(str(value)[:200]):
            raise DataError("a value is the result of another call, which nobody knows yet")
        arguments[key] = _value(value, known[key]["type"], key)
    if missing := [key for key in spec.parameters["required"] if key not in arguments]:
        raise DataError(f"{missing[0]!r} is required and not given")
    return ToolCall(spec.name, arguments, identity)


def _value(value: Json, kind: str, key: str) -> Json:
    if isinstance(value, _PYTHON[kind]) and (kind == "boolean" or not isinstance(value, bool)):
        return value
    return _typed.typed(kind, value if isinstance(value, str) else str(value)[:40], f"parameter {key!r}")
