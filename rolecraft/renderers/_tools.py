"""A tool as a prompt tells of it: one signature line, or its JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping

from rolecraft import toolschema
from rolecraft.renderers._format import ToolStyle
from rolecraft.types import Json, ToolSpec

_TYPES = {"integer": "int", "number": "float", "boolean": "bool", "array": "list", "object": "dict", "null": "null"}
_MOST_CHOICES = 8


def describe_tool(tool: ToolSpec, style: ToolStyle) -> str:
    """Return `tool` as `description:name(parameters)`, or as the JSON that OpenAI's wire uses."""
    if style == "signature":
        return f"{' '.join(tool.description.split())}:{signature(tool)}"
    function = {"name": tool.name, "description": tool.description, "parameters": tool.parameters}
    data = function if style == "function" else {"type": "function", "function": function}
    if style == "nested":
        return json.dumps([data], ensure_ascii=False, indent=4)[len("[\n    ") : -len("\n]")]
    return json.dumps(data, ensure_ascii=False, indent=4 if style == "indented" else None)


def signature(tool: ToolSpec) -> str:
    """Return `name(key,count:int,unit?:c|f)`: text needs no type, `?` marks what may be left out."""
    required, properties = toolschema.required(tool.parameters), toolschema.properties(tool.parameters)
    return f"{tool.name}({','.join(_parameter(key, schema, required) for key, schema in properties.items())})"


def _parameter(key: str, schema: Json, required: Json) -> str:
    kind = _kind(schema) if isinstance(schema, Mapping) else ""
    return key + ("" if key in required else "?") + (f":{kind}" if kind else "")


def _kind(schema: Mapping[str, Json]) -> str:
    choices = schema.get("enum")
    if isinstance(choices, list | tuple) and 0 < len(choices) <= _MOST_CHOICES:
        return "|".join(map(str, choices))
    kind = schema.get("type")
    return _TYPES.get(kind, "") if isinstance(kind, str) else ""
