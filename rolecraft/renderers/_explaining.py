"""Says why a model's text is not a tool call, so that the model can mend it."""

from __future__ import annotations

import re
from collections.abc import Sequence

from rolecraft import toolschema
from rolecraft.renderers._calls import call_of, read_calls
from rolecraft.renderers._format import CallSyntax
from rolecraft.renderers._json import Malformed, balanced_end, brief, load
from rolecraft.types import Json, ToolCall, ToolSpec

_TAG = re.compile(r"<(\w+)>")
_ARGUMENTS = ("args", "arguments", "parameters")
_TAGGED = CallSyntax(ignored=("type",))


def why_unparsed(text: str, tools: Sequence[ToolSpec] = (), syntax: CallSyntax | None = None) -> str:
    """Return in a few words why `text` is not a tool call, for a model to mend it; any family's text is fine.

    With the family's `syntax`, and for calls in tags, which all families write alike, the reason is more exact.
    """
    text = text.strip()
    if syntax is not None and (syntax.listed or syntax.style != "json") and text.startswith(syntax.tags[0]):
        return _why_tagged(text, syntax, tools)
    tag = _TAG.match(text)
    if tag is None:
        if syntax is None:
            return _why_plain(text, tools)
        first = text[: balanced_end(text, 0, len(text))]  # what follows is the next malformed call
        return _why(first, "on a line of its own", syntax, tools)
    closing = text.find(f"</{tag[1]}>")
    if closing < 0:
        return f"not closed: </{tag[1]}> is missing"
    return _why(text[tag.end() : closing].strip(), f"in a <{tag[1]}> of its own", syntax or _TAGGED, tools)


def _why_tagged(text: str, syntax: CallSyntax, tools: Sequence[ToolSpec]) -> str:
    """Return what is wrong with the calls between the tags of a syntax that is more than an object for each."""
    inner, closing = text.removeprefix(syntax.tags[0]), syntax.close.strip()
    if closing and closing not in inner:
        return f"not closed: {closing} is missing"
    answer = read_calls((inner.partition(closing)[0] if closing else inner).strip(), syntax)
    return answer if isinstance(answer, str) else _misfit(answer[0], tools) if answer else "an empty list, not a call"


def _why(text: str, apart: str, syntax: CallSyntax, tools: Sequence[ToolSpec]) -> str:
    """Return what is wrong with the text of one call, which belongs `apart` from others."""
    start = text.find("{")
    if text.startswith("["):
        return f"a list, not a call; write each call as an object, {apart}"
    if start < 0:
        return "not JSON: a call is an object in { }"
    if start > 0:
        return f"text before the object: {brief(text[:start].strip())}"
    end = balanced_end(text, start, len(text))
    try:
        data = load(text[:end])
    except Malformed as error:
        return f"{error} (character {error.place + 1})"
    except ValueError as error:
        return str(error)
    except RecursionError:
        return "not JSON: nested too deeply"
    rest = text[end:].strip()
    if rest:
        several = rest.lstrip(",; ").startswith("{")
        return f"two objects; write each call {apart}" if several else f"text after the object: {brief(rest)}"
    return _why_object(data, syntax, tools)


def _why_object(data: Json, syntax: CallSyntax, tools: Sequence[ToolSpec]) -> str:
    key = syntax.arguments_key
    other = next((one for one in _ARGUMENTS if isinstance(data, dict) and key not in data and one in data), None)
    if other is not None:
        return f'the arguments stand under "{other}"; write "{key}"'
    answer = call_of(data, (key,), syntax)
    return answer if isinstance(answer, str) else _misfit(answer, tools)


def _why_plain(text: str, tools: Sequence[ToolSpec]) -> str:
    """Return what is wrong with a call without tags, whatever key its family has for arguments."""
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
    keys = tuple(key for key in _ARGUMENTS if key in data) if isinstance(data, dict) else ()
    answer = call_of(data, keys or ("args",), _TAGGED)
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
