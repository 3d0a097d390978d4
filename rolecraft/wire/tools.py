"""Tool specs on the wire."""

from __future__ import annotations

from collections.abc import Mapping

from rolecraft import toolschema
from rolecraft.errors import DataError
from rolecraft.types import Json, ToolSpec
from rolecraft.wire.fields import read_choice, read_field, read_object, shown
from rolecraft.wire.text import MAX_DEPTH, depth_within, loads


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
    name = read_field(fields, "name", str, where)
    return ToolSpec(name, read_field(fields, "description", str, where, ""), _read_parameters(fields, where))


def tools_from_json(data: Json, where: str = "tools") -> tuple[ToolSpec, ...]:
    """Return the specs in a list of tools, or in one as JSON text, as tables hold them; raises DataError."""
    try:
        listed = (loads(data) if data.strip() else []) if isinstance(data, str) else data
    except DataError as error:
        raise DataError(f"{where}: the text is {error}") from error
    if not isinstance(listed, list):
        raise DataError(f"{where}: is {shown(listed)}; write a list")
    return tuple(tool_from_json(tool, f"{where}[{i}]") for i, tool in enumerate(listed))


def _read_parameters(fields: Mapping[str, Json], where: str) -> Json:
    """Return the schema of a tool's arguments without padding; raises DataError where it says nothing usable."""
    parameters = fields.get("parameters", {"type": "object", "properties": {}})
    if isinstance(parameters, Mapping):
        for key in ("properties", "required"):
            if parameters.get(key, ()) is None:  # deeper down it is padding; here it would hide what the tool takes
                raise DataError(f"{where}: parameters.{key} is null; write what the tool takes, or leave the key out")
        if not depth_within(parameters, MAX_DEPTH):
            raise DataError(f"{where}: 'parameters' is nested more than {MAX_DEPTH} deep; write a flatter schema")
        parameters = toolschema.without_padding(parameters)
    fault = toolschema.fault(parameters)
    if fault is not None:
        raise DataError(f"{where}: 'parameters' {fault}")
    return parameters
