"""Says why a model's text is not a tool call, so that the model can mend it."""

from __future__ import annotations

import re
from collections.abc import Sequence

from rolecraft import toolschema
from rolecraft.renderers._calls import call_of
from rolecraft.renderers._format import CallSyntax
from rolecraft.renderers._json import balanced_end, brief, load
from rolecraft.types import ToolCall, ToolSpec

_TAG = re.compile(r"<(\w+)>")


def why_unparsed(text: str, tools: Sequence[ToolSpec] = ()) -> str:
    """Return in a few words why `text` is not a tool call, for a small model to mend it; any family's text is fine."""
    tag = _TAG.match(text.strip())
    if tag and f"</{tag.group(1)}>" not in text:
        return f"not closed: </{tag.group(1)}> is missing"
    start = text.find("{")
    if start < 0:
        return "not JSON: a call is an object in { }"
    end = balanced_end(text, start, len(text))
    try:
        data = load(text[start:end].strip())
    except ValueError as error:
        return str(error)
    except RecursionError:
        return "not JSON: nested too deeply"
    keys = tuple(key for key in ("args", "arguments", "parameters") if key in data) if isinstance(data, dict) else ()
    answer = call_of(data, keys or ("args",), CallSyntax(ignored=("type",)))
    return answer if isinstance(answer, str) else _misfit(answer, tools)


def _misfit(call: ToolCall, tools: Sequence[ToolSpec]) -> str:
    """Return what keeps a well-formed call from being one of `tools`."""
    spec = next((tool for tool in tools if tool.name == call.name), None)
    if tools and spec is None:
        return f"no tool {brief(call.name)}; tools: {', '.join(tool.name for tool in tools)}"
    known = tuple(toolschema.properties(spec.parameters)) if spec else ()
    strange = next((key for key in call.arguments if key not in known), None)
    if spec and strange is not None and not toolschema.is_open(spec.parameters):
        return f"{call.name} has no key {brief(strange)}; keys: {', '.join(known) or 'none'}"
    return "not in the form of a call"
