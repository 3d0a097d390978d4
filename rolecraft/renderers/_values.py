"""Reads one value that a model wrote, as JSON or as Python's literals, as calls of offered tools, or says why not.

Python is parsed and never run: of its syntax only literal values are taken, and calls with named arguments.
"""

from __future__ import annotations

import ast
import json
import keyword
import re
from collections.abc import Sequence

from rolecraft import toolschema
from rolecraft.renderers._json import MAX_DEPTH, Malformed, brief, kind, load
from rolecraft.types import Json, ToolCall, ToolSpec

Found = tuple[ToolCall, ...] | str | None
"""The calls of a text; or why it, though it looks like a call, is none; or None for any other text."""

ARGUMENTS = ("arguments", "parameters", "args")
_BESIDE = frozenset(("type", "id", "index"))
_MAX_PYTHON = 20_000
_WORDS = {"true": True, "false": False, "null": None}

_COMMENT = re.compile(r'"(?:[^"\\]|\\.)*+"?|//[^\n]*+', re.DOTALL)
_TRAILING_COMMA = re.compile(r'"(?:[^"\\]|\\.)*+"?|,(?=\s*[}\]])', re.DOTALL)
_KEYS = re.compile(r"""["'](?:name|function|tool_calls|arguments|parameters|args)["']\s*:""")
_NAMED = re.compile(r"""["'](?:name|function)["']\s*:\s*["']([^"'\n]{1,256}+)["']""")
_PAIRS = re.compile(r"""\"(?:[^\"\\]|\\.)*+\"?|'(?:[^'\\\n]|\\.)*+'?|[\[\](){}]""", re.DOTALL)
_OPENING, _CLOSING = frozenset("[({"), frozenset("])}")
_EXTRA = re.compile(r"[ \t]*[\])}]+")
VALUE = re.compile(r"[\[{]|[A-Za-z_][\w.]*+\(")
"""How a value, or a call in Python's syntax, begins."""
BETWEEN = re.compile(r"[\s;,]*+")
"""What may stand between one call and the next."""
_HEAD = 4_000  # characters in which a call's name is looked for
_PYTHON = re.compile(
    r"\s++"
    r"|(?P<name>[A-Za-z_]\w*+(?:[.-][A-Za-z_]\w*+)*+)(?!\s*[\w\"'])(?P<key>(?=\s*=))?"
    r"|-?(?:\d[\d_]*+(?:\.\d*+)?|\.\d++)(?:[eE][+-]?\d++)?(?![\w.])"
    r"|(?P<text>\"\"\"(?:[^\\]|\\.)*?\"\"\"|'''(?:[^\\]|\\.)*?'''|\"(?:[^\"\\\n]|\\.)*+\"|'(?:[^'\\\n]|\\.)*+')"
    r"|(?P<bracket>[\[\](){}])"
    r"|[,:=]",
    re.DOTALL,
)
_HYPHEN, _OWN_WORD = "\u01c3", "\u01c2"  # letters to Python that no name has
_ESCAPE = re.compile(r"\\(.)", re.DOTALL)
_ESCAPED = frozenset("\\'\"abfnrtvxuU\n")


class _NoLiteral(ValueError):
    """Python that is no literal value and no call with named arguments; told in words."""


def value_end(text: str, start: int) -> tuple[int, bool]:
    """Return where the value or call that begins at `start` ends, and whether its brackets are closed. Linear."""
    depth = 0
    for match in _PAIRS.finditer(text, start):
        depth += (match[0] in _OPENING) - (match[0] in _CLOSING)
        if match[0] in _CLOSING and depth <= 0:
            # Brackets too many belong to the value, and make it malformed.
            extra = _EXTRA.match(text, match.end())
            return extra.end() if extra else match.end(), True
    return len(text), False


def read_values(text: str, tools: Sequence[ToolSpec], *, sure: bool = False) -> Found:
    """Return what calls of `tools` the values in `text` make, one after the other and nothing beside them.

    Where the text is `sure` to be meant as a call the answer is never None.
    """
    calls, place = list[ToolCall](), _next(text, 0)
    while place < len(text):
        if not VALUE.match(text, place):
            told = sure or (calls and text.lstrip()[0] in "[{")
            return f"text beside the call: {brief(text[place:].strip())}" if told else None
        end, _ = value_end(text, place)
        found = _read_value(text[place:end].strip(), tools, sure=sure or bool(calls))
        if not isinstance(found, tuple):
            return found
        calls += found
        place = _next(text, end)
    return tuple(calls) or ("nothing in it" if sure else None)


def _next(text: str, place: int) -> int:
    gap = BETWEEN.match(text, place)
    return gap.end() if gap else place


def _read_value(text: str, tools: Sequence[ToolSpec], *, sure: bool) -> Found:
    if not sure and not _KEYS.search(text) and not calls_by_name(text, tools):
        return None
    try:
        value = load_value(text)
    except ValueError as error:
        reason = str(error)
    else:
        return _calls_in(value, tools, sure=sure)
    named = _NAMED.search(text[:_HEAD])
    meant = calls_by_name(text, tools) or (named is not None and any(tool.name == named[1] for tool in tools))
    return reason if sure or meant else None


def calls_by_name(text: str, tools: Sequence[ToolSpec]) -> bool:
    """Tell whether `text` begins like a call in Python's syntax of one of `tools`, or like a list of such."""
    match = re.match(r"[\[\s]*+([A-Za-z_][\w.]*+)\(", text)
    return match is not None and any(tool.name == match[1] for tool in tools)


def begins_call(text: str, tools: Sequence[ToolSpec]) -> bool:
    """Tell whether `text`, which was cut off, may be the beginning of a call."""
    if calls_by_name(text, tools):
        return True
    head = re.match(r"""[\[\s]*+\{?\s*+["']?(\w*+)""", text)
    key = head[1] if head else ""
    known = ("name", "function", "tool_calls", "type", *ARGUMENTS)
    if not (key in known if head and head.end() < len(text) else any(one.startswith(key) for one in known)):
        return False
    if re.search(r"""["']type["']\s*:\s*["'](?!f)""", text[:_HEAD]):
        return False
    named = re.search(r"""["'](?:name|function)["']\s*:\s*["']([^"'\n]*+)(["']?)""", text[:_HEAD])
    names = [tool.name for tool in tools]
    return named is None or (named[1] in names if named[2] else any(name.startswith(named[1]) for name in names))


# ---- from text to a value


def load_value(text: str) -> Json:
    """Return the value in `text`: JSON, with trailing commas, `//` comments and broken lines, or Python's literals.

    A call in Python's syntax, or one in a list, is a ToolCall. Raises ValueError, told in words.
    """
    try:
        return _load_value(text)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def _load_value(text: str) -> Json:
    try:
        return load(text)
    except Malformed as error:
        reason = error
    try:
        return load(_without(_TRAILING_COMMA, _without(_COMMENT, text)), line_breaks=True)
    except Malformed:
        pass
    try:
        return _python(text)
    except (SyntaxError, MemoryError):
        raise reason from None
    except _NoLiteral as error:
        if text.startswith("{"):
            raise reason from None
        raise error from None


def _without(pattern: re.Pattern[str], text: str) -> str:
    """Return `text` without what `pattern` finds, but for texts in quotes, which it finds so that they are left."""
    return pattern.sub(lambda match: match[0] if match[0].startswith('"') else "", text)


def _python(text: str) -> Json:
    """Return a value written in Python; a call in it is a ToolCall."""
    body = ast.parse(_checked(text), mode="eval").body
    several = isinstance(body, ast.List | ast.Tuple)
    listed = [_item(one) for one in (body.elts if isinstance(body, ast.List | ast.Tuple) else [body])]
    # JSON's own bounds hold for what Python wrote too.
    load(json.dumps([dict(one.arguments) if isinstance(one, ToolCall) else one for one in listed], ensure_ascii=False))
    return listed if several else listed[0]


def _checked(text: str) -> str:
    """Return `text` if all of it are tokens of literals and calls; what could make Python's parser suffer is not."""
    if len(text) > _MAX_PYTHON:
        raise _NoLiteral(f"longer than {_MAX_PYTHON} characters")
    pieces, place, depth = list[str](), 0, 0
    while place < len(text):
        token = _PYTHON.match(text, place)
        reserved = token is not None and token["name"] is not None and keyword.iskeyword(token["name"])
        if token is None or (reserved and token["key"] is None and token[0] not in ("True", "False", "None")):
            raise _NoLiteral(f"not a call with literal values: {brief(text[place:])}")
        if token["bracket"]:
            depth += 1 if token[0] in "[({" else -1
        if depth > MAX_DEPTH:
            raise _NoLiteral(f"nested more than {MAX_DEPTH} deep")
        pieces.append(_renamed(token, reserved) if token["name"] else _ESCAPE.sub(_escape, token[0]))
        place = token.end()
    return "".join(pieces).strip()


def _renamed(token: re.Match[str], reserved: bool) -> str:
    """Return a name that Python can read: a tool's may have a hyphen, an argument's be one of Python's words."""
    own = _OWN_WORD if reserved and token["key"] is not None else ""
    return token[0].replace("-", _HYPHEN) + own


def _escape(match: re.Match[str]) -> str:
    # Python warns of a backslash that escapes nothing; doubled it says the same.
    return match[0] if match[1] in _ESCAPED else f"\\{match[0]}"


def _item(node: ast.expr) -> Json:
    if not isinstance(node, ast.Call):
        return _value(node)
    name = _dotted(node.func).replace(_HYPHEN, "-")
    if node.args:
        raise _NoLiteral(f"write each argument of {brief(name)} with its name, as in key=value")
    keys = [ast.Constant(one.arg and one.arg.removesuffix(_OWN_WORD)) for one in node.keywords]
    return ToolCall(name, _object(keys, [one.value for one in node.keywords]))


def _dotted(node: ast.expr) -> str:
    parts = list[str]()
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    if not isinstance(node, ast.Name):
        raise _NoLiteral("not a call of a tool by its name")
    return ".".join([node.id, *reversed(parts)])


def _value(node: ast.expr) -> Json:
    match node:
        case ast.Constant(value=bool() | str() | None | int() | float() as value):
            return value
        case ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value=int() | float() as value)):
            return -value
        case ast.List(elts=items) | ast.Tuple(elts=items):
            return [_value(item) for item in items]
        case ast.Dict(keys=keys, values=values):
            return _object(keys, values)
        case ast.Name(id=name) if name in _WORDS:
            return _WORDS[name]
    raise _NoLiteral(f"not a literal value: {brief(ast.unparse(node))}")


def _object(keys: Sequence[ast.expr | None], values: Sequence[ast.expr]) -> dict[str, Json]:
    found: dict[str, Json] = {}
    for key, value in zip(keys, values, strict=True):
        if not isinstance(key, ast.Constant) or not isinstance(key.value, str):
            raise _NoLiteral("a key must be text")
        if key.value in found:
            raise _NoLiteral(f"key {brief(key.value)} is there twice")
        found[key.value] = _value(value)
    return found


# ---- from a value to calls


def _calls_in(value: Json, tools: Sequence[ToolSpec], *, sure: bool) -> Found:
    if isinstance(value, dict) and value.keys() == {"tool_calls"}:
        value, sure = value["tool_calls"], True
    if not isinstance(value, list):
        call = _call_in(value, tools, sure=sure)
        return (call,) if isinstance(call, ToolCall) else call
    calls = [_call_in(item, tools, sure=sure) for item in value]
    reason = next((call for call in calls if isinstance(call, str)), None)
    if reason is not None or all(call is None for call in calls):
        return reason or ("an empty list, not a call" if sure else None)
    made = tuple(call for call in calls if isinstance(call, ToolCall))
    return made if len(made) == len(calls) else "a list of calls with something else in it"


def _call_in(value: Json, tools: Sequence[ToolSpec], *, sure: bool) -> ToolCall | str | None:
    if isinstance(value, ToolCall):
        known = any(tool.name == value.name for tool in tools)
        return value if known else _unknown(value.name, tools) if sure else None
    if not isinstance(value, dict):
        return f"a call must be an object, got {kind(value)}" if sure else None
    wrapped = value.get("function")
    if isinstance(wrapped, dict) and value.keys() <= {"function"} | _BESIDE:
        value = wrapped
    naming = "function" if "name" not in value and isinstance(wrapped, str) else "name"
    name = value.get(naming)
    if not isinstance(name, str):
        return 'no "name"' if sure else None
    keys = [key for key in ARGUMENTS if key in value]
    strange = next((key for key in value if key not in (naming, *keys, *_BESIDE)), None)
    spec = next((tool for tool in tools if tool.name == name), None)
    if spec is None:
        return _unknown(name, tools) if sure or (keys and strange is None) else None
    if strange is not None or len(keys) > 1:
        return (
            f'no such key {brief(strange or keys[1])}; a call has "name" and "arguments", and all values stand in those'
        )
    return _made(spec, value.get(keys[0]) if keys else None)


def _made(spec: ToolSpec, arguments: Json) -> ToolCall | str:
    if isinstance(arguments, str) and arguments.strip():
        try:
            arguments = load_value(arguments.strip())
        except ValueError as error:
            return f'"arguments" are text that holds no object: {error}'
    if arguments is None or arguments == "":
        if toolschema.required(spec.parameters):
            return f'no "arguments"; {spec.name} needs {", ".join(map(str, toolschema.required(spec.parameters)))}'
        arguments = {}
    if not isinstance(arguments, dict):
        return f'"arguments" must be an object, got {"a call" if isinstance(arguments, ToolCall) else kind(arguments)}'
    if isinstance(arguments.get("properties"), dict) and "properties" not in toolschema.properties(spec.parameters):
        return "a tool's description, not a call; write the arguments' values"
    return ToolCall(spec.name, arguments)


def _unknown(name: str, tools: Sequence[ToolSpec]) -> str:
    return f"no tool {brief(name)}; tools: {', '.join(tool.name for tool in tools)}"
