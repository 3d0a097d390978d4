"""Tool specs on the wire."""

from __future__ import annotations

from collections.abc import Mapping

from rolecraft.errors import DataError
from rolecraft.types import Json, ToolSpec
from rolecraft.wire.fields import read_choice, read_field, read_object, shown
from rolecraft.wire.text import loads


def tool_to_json(spec: ToolSpec) -> dict[str, Json]:
    """Return the spec as an entry of `tools`."""
    function = {"name": spec.name, "description": spec.description, "parameters": dict(spec.parameters)}
    return {"type": "function", "function": function}


def tool_from_json(data: Json, where: str = "tool") -> ToolSpec:
    """Return the spec of a tool given bare or as `{"type": "function", "function": ...}`; raises DataError."""
    if isinstance(data, Mapping) and "function" in data:
        wrapper = read_object(data, ("type", "function"), where)
        read_choice(wrapper, "type", ("function",), where, "function")
        data = wrapper.get("function")
    fields = read_object(data, ("name", "description", "parameters", "strict"), where)
    parameters = read_field(fields, "parameters", Mapping, where, {"type": "object", "properties": {}})
    properties = parameters.get("properties")
    for name, schema in properties.items() if isinstance(properties, Mapping) else ():
        if schema is None:  # what tables with one column per key make of tools that differ
            raise DataError(f"{where}: parameter {name!r} is null, as Arrow and Parquet pad rows; delete those")
    return ToolSpec(
        read_field(fields, "name", str, where), read_field(fields, "description", str, where, ""), parameters
    )


def tools_from_json(data: Json, where: str = "tools") -> tuple[ToolSpec, ...]:
    """Return the specs in a list of tools, or in one as JSON text, as tables hold them; raises DataError."""
    try:
        listed = (loads(data) if data.strip() else []) if isinstance(data, str) else data
    except DataError as error:
        raise DataError(f"{where}: the text is {error}") from error
    if not isinstance(listed, list):
        raise DataError(f"{where}: is {shown(listed)}; write a list")
    return tuple(tool_from_json(tool, f"{where}[{i}]") for i, tool in enumerate(listed))
