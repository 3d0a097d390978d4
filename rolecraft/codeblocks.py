"""Reads the Python that a reply acts by, and writes how functions are told of and calls look in Python.

A block is fenced as Markdown fences code; the last one that says it is Python counts, else the last one without a
label: such a one behind the program is what its author believes to be printed. Read leniently are other labels (`py`,
`tool_code`), `<code>` tags, a fence that is not closed at a reply's end, and a reply that is nothing but a call of a
known function. Nothing is executed here, nor parsed as Python: what the code is worth is told by running it.
"""

from __future__ import annotations

import json
import keyword
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from rolecraft.types import Json, Message, ToolCall, ToolSpec

CODE = ToolSpec(
    "python",
    "run Python code; variables stay between calls",
    {"type": "object", "properties": {"code": {"type": "string", "description": "Python code"}}, "required": ["code"]},
    repeatable=True,
)
"""What a reply that holds a block calls: code is never the same twice, since it changes what its variables hold."""

ENDING = "final_answer"
"""The function that ends a task with the answer it is given."""

STOPS = ("\n```\n\n", "\n```output", "\nObservation:")
"""What stands after a block: small models go on with what it might have printed, which nobody needs."""

_LABELS = frozenset(("", "python", "python3", "py", "tool_code", "code"))
_FENCE = re.compile(r"^[ \t]*(`{3,}|~{3,})[ \t]*([\w+-]*)[^\n]*$", re.MULTILINE)
_CALL = re.compile(r"\s*(?:\w+\s*=\s*)?(?:print\()?([A-Za-z_]\w*)\(")
_MOST_CHARS = 100_000
_TYPES = {
    "string": "str",
    "integer": "int",
    "number": "float",
    "boolean": "bool",
    "array": "list",
    "object": "dict",
    "null": "None",
}


def read(message: Message, tools: Sequence[ToolSpec], *, cut: bool = False) -> Message:
    """Return a reply with its block as a call of `python`; one without a block is `unparsed`, whatever else it says.

    `cut`: it was ended by its length, so that an open block is not whole.
    """
    if message.tool_calls or message.unparsed is not None:  # the base's own syntax
        calls = [json.dumps({"name": call.name, "arguments": dict(call.arguments)}) for call in message.tool_calls]
        return replace(message, tool_calls=(), unparsed="\n".join((*calls, *filter(None, (message.unparsed,)))))
    code = find(message.content, [tool.name for tool in tools], cut=cut)
    if code is None:
        return replace(message, content="", unparsed=message.content)
    read = replace(message, tool_calls=(ToolCall(CODE.name, {"code": code}),))
    ended = _ended(message.content, cut=cut)
    if ended == message.content or (message.ids is not None and not cut):
        return read
    return read.edited(content=ended)


def find(text: str, functions: Sequence[str] = (), *, cut: bool = False) -> str | None:
    """Return the code of a reply's last block of Python, None if it has none; see the head of this file."""
    text = text[-_MOST_CHARS:]
    fenced = list(_fenced(text, cut=cut))
    if fenced:
        return next((code for label, code in reversed(fenced) if label), fenced[-1][1])
    _, tag, inner = text.rpartition("</code>")[0].rpartition("<code>")
    if tag and inner.strip():
        return inner.strip("\n")
    whole = text.strip()
    call = _CALL.match(whole)
    bare = call is not None and call[1] in (*functions, ENDING, "print") and whole.endswith(")") and not cut
    return whole if bare else None


def _ended(text: str, *, cut: bool) -> str:
    """Return a reply without what was cut after its last block, or with the fence that ended it as a stop string."""
    opened, end = "", 0
    for fence in _FENCE.finditer(text):
        closes = bool(opened) and fence[1].startswith(opened) and not fence[2]
        opened, end = ("", fence.end()) if closes else (opened or fence[1], end)
    if cut:
        return text[:end] if end else text
    return f"{text}\n{opened}" if opened else text


def _fenced(text: str, *, cut: bool) -> Iterator[tuple[str, str]]:
    """Yield label and code of each block that may be Python; the last need not be closed unless the text was cut."""
    opened: tuple[str, str, int] | None = None
    for fence in _FENCE.finditer(text):
        mark, label = fence[1], fence[2].lower()
        if opened is None:
            opened = (mark, label, fence.end() + 1)
        elif mark.startswith(opened[0]) and not label:
            if opened[1] in _LABELS:
                yield opened[1], text[opened[2] : fence.start()].removesuffix("\n")
            opened = None
    if opened is not None and opened[1] in _LABELS - {""} and not cut and text[opened[2] :].strip():
        yield opened[1], text[opened[2] :].strip("\n")


def begins(text: str) -> int:
    """Return where the last block of a reply begins, its fence included; 0 where there is none."""
    code = find(text)
    inside = -1 if code is None else text.rfind(code)
    fences = [fence.start() for fence in _FENCE.finditer(text, 0, max(0, inside))]
    return fences[-1] if fences else 0


def why_unread(text: str) -> str:
    """Return why a reply has no code, as its model is told."""
    if re.search(r'"(name|arguments)"\s*:', text):
        return "calls are written in Python, not as JSON: write f(x=1) in a block that begins with ```python"
    if _FENCE.search(text):
        return (
            "the code block is not closed, or not marked as Python; write one short thought, ```python, the code, and "
            "``` alone in a line"
        )
    return f"the reply has no code. Write a ```python block that works it out, and call {ENDING}(...) in it to answer"


def shown(messages: Sequence[Message]) -> tuple[Message, ...]:
    """Return a conversation as a role that writes code sees it: its calls and their results are in its code's words.

    A reply of another kind of agent is shown as the code that makes its calls, and its results stay.
    """
    found = list[Message]()
    hidden = frozenset[str]()
    for message in messages:
        if message.role == "assistant":
            found.append(written(message))
            coded = find(message.content) is not None
            hidden = frozenset(call.id for call in message.tool_calls) if coded else frozenset()
        elif message.role != "tool" or message.tool_call_id is None or message.tool_call_id not in hidden:
            found.append(message)
    return tuple(found)


def written(message: Message) -> Message:
    """Return a reply as its text alone, which is what its role wrote; calls that no code makes become a block of it."""
    if message.role != "assistant" or not (message.tool_calls or message.unparsed is not None):
        return message
    if message.tool_calls and message.ids is None and find(message.content) is None:
        block = "\n".join(f"print({as_python(call)})" for call in message.tool_calls)
        return replace(message, content=f"{message.content}\n```python\n{block}\n```".strip(), tool_calls=())
    text = "\n".join(part for part in (message.content, message.unparsed) if part)
    return replace(message, content=text, tool_calls=(), unparsed=None)


def as_python(call: ToolCall) -> str:
    """Return a call as Python writes it."""
    named = (f"{key}={value!r}" if _is_name(key) else f"**{ ({key: value})!r}" for key, value in call.arguments.items())
    return f"{call.name}({', '.join(named)})"


def callable_names(tools: Sequence[ToolSpec]) -> tuple[ToolSpec, ...]:
    """Return the tools that code can call as functions: `python` is what it is already, a keyword is no name."""
    taken = (CODE.name, ENDING, "print")
    named = (tool for tool in tools if _is_name(tool.name))
    return tuple(tool for tool in named if tool.name not in taken)


def _is_name(text: str) -> bool:
    return text.isidentifier() and not keyword.iskeyword(text)


def signatures(tools: Sequence[ToolSpec]) -> str:
    """Return the functions with their signatures and docstrings; the one that ends a task is the last.

    They are not written as definitions: small models define once more what is.
    """
    told = {"type": "object", "properties": {"answer": {}}, "required": ["answer"]}
    ending = ToolSpec(ENDING, "end the task with this answer", told)
    return "\n\n".join(_declared(tool) for tool in (*callable_names(tools), ending)).replace("answer: object", "answer")


def _declared(tool: ToolSpec) -> str:
    properties: Mapping[str, Json] = tool.parameters.get("properties", {})
    required = tool.parameters.get("required", ())
    order = sorted(properties, key=lambda name: name not in required)
    told = ", ".join(_parameter(name, properties[name], name in required) for name in order)
    lines = [
        f"{name}: {schema['description']}"
        for name, schema in properties.items()
        if isinstance(schema, Mapping) and schema.get("description")
    ]
    text = "\n    ".join(" ".join(line.split()) for line in (tool.description, *lines) if line)
    return f"{tool.name}({told})\n    {text}"


def _parameter(name: str, schema: Json, required: bool) -> str:
    kind = _annotation(schema)
    if required:
        return f"{name}: {kind}"
    if isinstance(schema, Mapping) and "default" in schema:
        return f"{name}: {kind} = {schema['default']!r}"
    return f"{name}: {kind} = None" if "None" in kind else f"{name}: {kind} | None = None"


def _annotation(schema: Json) -> str:
    if not isinstance(schema, Mapping):
        return "object"
    if isinstance(schema.get("enum"), list):
        return f"Literal[{', '.join(map(repr, schema['enum'][:20]))}]"
    kinds = schema.get("type")
    if isinstance(schema.get("anyOf"), list):
        return " | ".join(dict.fromkeys(_annotation(one) for one in schema["anyOf"][:8])) or "object"
    if kinds == "array" and isinstance(schema.get("items"), Mapping):
        return f"list[{_annotation(schema['items'])}]"
    listed = kinds if isinstance(kinds, list) else [kinds]
    return " | ".join(_TYPES.get(str(kind), "object") for kind in listed)
