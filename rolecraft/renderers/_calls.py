"""Tool calls as text: writes them, and reads hostile ones within bounds, saying what is wrong with each.

Not covered: whether a tool of that name exists and its schema is met; the toolbox checks that.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rolecraft.errors import DataError
from rolecraft.types import Json, ToolCall, ToolSpec

MAX_CHARACTERS = 100_000
MAX_DEPTH = 80
MAX_DIGITS = 308

_STRUCTURE = re.compile(r'"(?:[^"\\]|\\.)*"?|[\[\]{}]', re.DOTALL)
_BETWEEN = re.compile(r"[\s;,]*")
_EXTRA = re.compile(r"[ \t]*[\]}]+")
_SURROGATE = re.compile(r"[\ud800-\udfff]")
_TAG = re.compile(r"<(\w+)>")
_JSON_REASONS = {
    "Expecting value": "expected a value",
    "Expecting property name enclosed in double quotes": "expected a key in double quotes",
    "Expecting ':' delimiter": "expected ':'",
    "Expecting ',' delimiter": "expected ','",
    "Illegal trailing comma before end of object": "a comma too many",
    "Illegal trailing comma before end of array": "a comma too many",
    "Invalid control character at": "a line break inside a text",
    "Invalid \\escape": "a backslash that escapes nothing",
    "Extra data": "something follows the object",
}


@dataclass(frozen=True, slots=True)
class CallSyntax:
    r"""How a family writes tool calls: `open`, the JSON object, `close`, with `between` from one to the next.

    Without an `open`, a call is whatever starts a line and matches the regular expression `begins`. Keys in `ignored`
    may stand in the object and say nothing. `compact` JSON has no space after its separators.
    """

    open: str = ""
    close: str = ""
    between: str = "\n"
    name_key: str = "name"
    arguments_key: str = "arguments"
    compact: bool = False
    begins: str = r"\{"
    ignored: tuple[str, ...] = ()

    @property
    def tags(self) -> tuple[str, ...]:
        """The opening and closing tag, or nothing."""
        return (self.open.strip(), self.close.strip()) if self.open else ()


@dataclass(frozen=True, slots=True)
class Reply:
    """A reply taken apart: its text, the calls that parse, and the others verbatim."""

    content: str
    calls: tuple[ToolCall, ...]
    unparsed: str | None


def write_call(call: ToolCall, syntax: CallSyntax) -> str:
    """Return the JSON of one call; raises DataError for arguments that JSON cannot hold."""
    colon = ":" if syntax.compact else ": "
    comma = "," if syntax.compact else ", "
    data = {syntax.name_key: call.name, syntax.arguments_key: dict(call.arguments)}
    try:
        return json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(comma, colon))
    except (TypeError, ValueError, RecursionError) as error:
        raise DataError(f"call of {call.name!r}: arguments that JSON cannot hold ({error}); mend or drop it") from error


def read_call(text: str, syntax: CallSyntax) -> ToolCall | str:
    """Return the call that the JSON `text` makes, or a short reason why it makes none; never raises."""
    try:
        data = _load(text)
    except ValueError as error:
        return str(error)
    except RecursionError:
        return "not JSON: nested too deeply"
    return _call_of(data, (syntax.arguments_key,), syntax)


def parse(segments: Iterable[tuple[str, bool]], syntax: CallSyntax, *, tags_are_tokens: bool) -> Reply:
    """Take a reply apart; `segments` are runs of (text, whether it is one control token). Never raises.

    Where the tokenizer has the tags as tokens only those open a call, so quoted tags stay text.
    """
    if not syntax.open:
        return _parse_lines("".join(text for text, _ in segments), syntax)
    if tags_are_tokens:
        return _parse_tagged(segments, syntax)
    text = "".join(text for text, _ in segments)
    parts = re.split("(" + "|".join(map(re.escape, syntax.tags)) + ")", text)
    return _parse_tagged([(part, part in syntax.tags) for part in parts if part], syntax)


def why_unparsed(text: str, tools: Sequence[ToolSpec] = ()) -> str:
    """Return in a few words why `text` is not a tool call, for a small model to mend it; any family's text is fine."""
    tag = _TAG.match(text.strip())
    if tag and f"</{tag.group(1)}>" not in text:
        return f"not closed: </{tag.group(1)}> is missing"
    start = text.find("{")
    if start < 0:
        return "not JSON: a call is an object in { }"
    end = _balanced_end(text, start, len(text))
    try:
        data = _load(text[start:end].strip())
    except ValueError as error:
        return str(error)
    except RecursionError:
        return "not JSON: nested too deeply"
    keys = tuple(key for key in ("args", "arguments", "parameters") if key in data) if isinstance(data, dict) else ()
    answer = _call_of(data, keys or ("args",), CallSyntax(ignored=("type",)))
    return answer if isinstance(answer, str) else _misfit(answer, tools)


def _misfit(call: ToolCall, tools: Sequence[ToolSpec]) -> str:
    """Return what keeps a well-formed call from being one of `tools`."""
    spec = next((tool for tool in tools if tool.name == call.name), None)
    if tools and spec is None:
        return f"no tool {_brief(call.name)}; tools: {', '.join(tool.name for tool in tools)}"
    known = tuple(spec.parameters.get("properties", ())) if spec else ()
    strange = next((key for key in call.arguments if spec and key not in known), None)
    if strange is not None:
        return f"{call.name} has no key {_brief(strange)}; keys: {', '.join(known) or 'none'}"
    return "not in the form of a call"


def _call_of(data: Json, argument_keys: Sequence[str], syntax: CallSyntax) -> ToolCall | str:
    if not isinstance(data, dict):
        return f"a call must be an object, got {_kind(data)}"
    name = data.get(syntax.name_key)
    if not isinstance(name, str) or not name.strip():
        return f'no "{syntax.name_key}"' if name is None else f'"{syntax.name_key}" must be the name of a tool'
    strange = next((key for key in data if key not in (syntax.name_key, *argument_keys, *syntax.ignored)), None)
    if strange is not None:
        return f'no such key {_brief(strange)}; a call has "{syntax.name_key}" and "{argument_keys[0]}"'
    # A call of a tool without parameters may leave them out.
    arguments = data.get(argument_keys[0], {})
    if not isinstance(arguments, dict):
        return f'"{argument_keys[0]}" must be an object, got {_kind(arguments)}'
    return ToolCall(name, arguments)


def _parse_tagged(segments: Iterable[tuple[str, bool]], syntax: CallSyntax) -> Reply:
    opening, closing = syntax.tags
    texts, calls, bad = [""], list[ToolCall](), list[str]()
    inner: str | None = None

    def finish(raw_end: str) -> None:
        assert inner is not None
        answer = read_call(inner.strip(), syntax) if raw_end else ""
        if isinstance(answer, ToolCall):
            calls.append(answer)
        else:
            bad.append((opening + inner + raw_end).rstrip("\n"))
        texts.append("")

    for text, control in segments:
        if control and text == opening:
            if inner is not None:
                finish("")
            inner = ""
        elif control and text == closing and inner is not None:
            finish(closing)
            inner = None
        elif inner is not None:
            inner += text
        else:
            texts[-1] += text
    if inner is not None:
        finish("")
    return _reply(texts, calls, bad)


def _parse_lines(text: str, syntax: CallSyntax) -> Reply:
    here = re.compile(rf"[ \t]*(?={syntax.begins})")
    # The lines that begin a call, each with where the next one does; found once, to stay linear.
    places = [match.start() for match in re.finditer(rf"^[ \t]*(?={syntax.begins})", text, re.MULTILINE)]
    if not places:
        return Reply(text, (), None)
    texts, calls, bad = [text[: places[0]]], list[ToolCall](), list[str]()
    for place, limit in zip(places, [*places[1:], len(text)], strict=True):
        at = here.match(text, place, limit)
        while at is not None:
            end = _balanced_end(text, at.end(), limit)
            answer = read_call(text[at.end() : end].strip(), syntax)
            if isinstance(answer, ToolCall):
                calls.append(answer)
            else:
                bad.append(text[at.start() : end].rstrip("\n"))
            gap = _BETWEEN.match(text, end, limit)
            place = gap.end() if gap else end
            at = here.match(text, place, limit)
        texts.append(text[place:limit])
    return _reply(texts, calls, bad)


def _reply(texts: list[str], calls: list[ToolCall], bad: list[str]) -> Reply:
    """Join what is left; the first text is exact, later ones are kept where they say something."""
    lead = texts[0].removesuffix("\n") if calls or bad else texts[0]
    later = [text.strip() for text in texts[1:] if text.strip()]
    content = "\n".join([lead, *later]) if lead else "\n".join(later)
    return Reply(content, tuple(calls), "\n".join(bad) if bad else None)


def _balanced_end(text: str, start: int, limit: int) -> int:
    """Return where the bracket opened at `start` is closed, or `limit` if it never is. Linear in the length."""
    depth = 0
    for match in _STRUCTURE.finditer(text, start, limit):
        token = match.group()
        if token in "[{":
            depth += 1
        elif token in "]}":
            depth -= 1
            if depth <= 0:
                # Brackets too many belong to the call, and make it malformed.
                extra = _EXTRA.match(text, match.end(), limit)
                return extra.end() if extra else match.end()
    return limit


def _load(text: str) -> Json:
    """Read JSON within bounds; raises ValueError with a short reason."""
    if len(text) > MAX_CHARACTERS:
        raise ValueError(f"longer than {MAX_CHARACTERS} characters")
    depth = deepest = 0
    for match in _STRUCTURE.finditer(text):
        token = match.group()
        if len(token) == 1:
            depth += (token in "[{") - (token in "]}")
            deepest = max(deepest, depth)
    if deepest > MAX_DEPTH:
        raise ValueError(f"not JSON: nested more than {MAX_DEPTH} deep")
    try:
        data = json.loads(
            text,
            object_pairs_hook=_object,
            parse_int=_integer,
            parse_float=_number,
            parse_constant=_constant,
        )
    except json.JSONDecodeError as error:
        raise ValueError(_explain(error, depth)) from None
    if _SURROGATE.search(json.dumps(data, ensure_ascii=False)):
        raise ValueError("not text: half of a surrogate pair")
    return data


def _explain(error: json.JSONDecodeError, open_brackets: int) -> str:
    if "Unterminated string" in error.msg:
        return 'not JSON: a closing " is missing'
    if open_brackets > 0 and error.pos >= len(error.doc.rstrip()):
        return "not JSON: a closing } is missing"
    reason = _JSON_REASONS.get(error.msg, error.msg)
    return f"not JSON: {reason} at {_brief(error.doc[error.pos : error.pos + 12])}"


def _object(pairs: list[tuple[str, Any]]) -> Mapping[str, Any]:
    data = dict(pairs)
    if len(data) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise ValueError(f"key {_brief(twice)} is there twice")
    return data


def _integer(digits: str) -> int:
    if len(digits) > MAX_DIGITS:
        raise ValueError(f"a number of more than {MAX_DIGITS} digits")
    return int(digits)


def _number(digits: str) -> float:
    value = float(digits)
    if not math.isfinite(value):
        raise ValueError(f"the number {_brief(digits)} is too large")
    return value


def _constant(name: str) -> float:
    raise ValueError(f"not JSON: {name} is not a number")


def _brief(text: str) -> str:
    return repr(text if len(text) <= 24 else text[:24] + "...")


def _kind(value: Json) -> str:
    if value is None:
        return "null"
    names = {bool: "true or false", int: "a number", float: "a number", str: "text", list: "a list", dict: "an object"}
    return names[type(value)]
