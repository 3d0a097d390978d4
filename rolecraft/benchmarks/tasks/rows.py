"""What a row of your own tasks may hold, read into a task.

Not covered: whether what the row calls right is right.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Mapping, MutableMapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rolecraft.errors import DataError
from rolecraft.tools import misfit
from rolecraft.types import Json, Message, Task, ToolSpec
from rolecraft.wire import message_from_json
from rolecraft.wire.fields import read_field, read_object, shown

KEYS = ("id", "question", "messages", "tools", "answer", "calls", "ordered", "database", "state", "family")
_ANSWER_KEYS = ("exact", "number", "tolerance", "contains", "contains_any", "forbidden")
_SQL_SUFFIX = ".sql"


@dataclass(frozen=True, slots=True)
class Database:
    """The SQL that builds a task's database, "" for none, and the query that judges ask after the episode."""

    script: str = ""
    query: str = ""


def database_of(reference: Mapping[str, Json]) -> Database:
    """Return the database that a task's reference tells."""
    return Database(reference.get("database", ""), reference.get("state_query", ""))


def read(
    row: dict[str, Json], path: Path, number: int, system: str, specs: Callable[[Database], tuple[ToolSpec, ...]]
) -> Task:
    """Return the task in row `number` of the file; raises DataError with the reason.

    `specs` returns the tools that there are, given the task's database.
    """
    fields = read_object(row, KEYS, "row")
    script = _read_script(fields, path.parent)
    state = _read_state(fields, script)
    tools = _chosen(fields, specs(Database(script, state.get("state_query", ""))))
    reference = {
        **_read_answer(fields),
        **_read_calls(fields, tools),
        **state,
        **({"database": script} if script else {}),
        **({"family": read_field(fields, "family", str, "row")} if "family" in fields else {}),
    }
    if not {"answer", "calls", "state"} & fields.keys():
        raise DataError("nothing tells what is right; give 'answer', 'calls' or 'state'")
    identity = read_field(fields, "id", str, "row", f"{path.stem}-{number}")
    return Task(identity, _read_messages(fields, system), tools, reference)


def require_new(identity: str, number: int, seen: MutableMapping[str, int]) -> None:
    """Raise DataError if an earlier row has the same id, and remember this one."""
    if identity in seen:
        raise DataError(f"row: 'id' is {identity!r}, as in row {seen[identity]}; give each row its own")
    seen[identity] = number


def right_answer(reference: Mapping[str, Json]) -> str:
    """Return an answer that is right by the reference, unless the reference contradicts itself."""
    if "exact" in reference:
        return str(reference["exact"])
    texts = [str(texts[0]) for texts in reference.get("contains", ())]
    if "number" in reference:
        texts.append(f"{reference['number']['value']:.15g}")
    return ", ".join(texts) or "Done."


def _read_messages(fields: Mapping[str, Json], system: str) -> tuple[Message, ...]:
    if ("question" in fields) == ("messages" in fields):
        raise DataError("row: give what is asked as 'question', or a whole conversation as 'messages'")
    if "question" in fields:
        messages: tuple[Message, ...] = (Message("user", _read_text(fields, "question", "row")),)
    else:
        raw = read_field(fields, "messages", list, "row")
        messages = tuple(message_from_json(item, f"messages[{i}]") for i, item in enumerate(raw))
        if not messages or messages[-1].role != "user":
            raise DataError("row: 'messages' must end in what the user asks")
    own = bool(messages) and messages[0].role == "system"
    return messages if own or not system else (Message("system", system), *messages)


def _chosen(fields: Mapping[str, Json], offered: Sequence[ToolSpec]) -> tuple[ToolSpec, ...]:
    """Return the tools that the row names, all without such a list."""
    if "tools" not in fields:
        return tuple(offered)
    names = read_field(fields, "tools", list, "row")
    for name in names:
        _require_tool(name, offered, "tools")
    return tuple(spec for spec in offered if spec.name in names)


def _require_tool(name: Json, offered: Sequence[ToolSpec], where: str) -> ToolSpec:
    for spec in offered:
        if spec.name == name:
            return spec
    names = [spec.name for spec in offered]
    near = difflib.get_close_matches(str(name)[:64], names, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(names) or 'none; name a file with --tools'}"
    raise DataError(f"{where}: no tool {str(name)[:64]!r}; {hint}")


def _read_answer(fields: Mapping[str, Json]) -> dict[str, Json]:
    """Return what `judges.answers` reads; a bare text is what the answer contains, a bare number one that it holds."""
    if "answer" not in fields:
        return {}
    raw = fields["answer"]
    if isinstance(raw, str):
        raw = {"contains": raw}
    elif isinstance(raw, int | float) and not isinstance(raw, bool):
        raw = {"number": raw}
    told = read_object(raw, _ANSWER_KEYS, "answer")
    if not set(told) - {"tolerance"}:
        raise DataError(f"answer: says nothing; give one of {', '.join(_ANSWER_KEYS)}")
    contains = [[text] for text in _texts(told, "contains")]
    if "contains_any" in told:
        contains.append(_texts(told, "contains_any"))
    found: dict[str, Json] = {"contains": contains} if contains else {}
    if "exact" in told:
        found["exact"] = _read_text(told, "exact", "answer")
    if "forbidden" in told:
        found["forbidden"] = _texts(told, "forbidden")
    return {**found, **_read_number(told)}


def _read_number(told: Mapping[str, Json]) -> dict[str, Json]:
    if "number" not in told:
        if "tolerance" in told:
            raise DataError("answer: 'tolerance' belongs to a 'number'; give one")
        return {}
    value, tolerance = read_field(told, "number", float, "answer"), read_field(told, "tolerance", float, "answer", 0.0)
    if not math.isfinite(value) or not 0 <= tolerance < math.inf:
        raise DataError(f"answer: 'number' is {value} and 'tolerance' {tolerance}; both must be finite, and this >= 0")
    return {"number": {"value": value, "tolerance": tolerance}}


def _texts(told: Mapping[str, Json], key: str) -> list[str]:
    """Return one text or several, none of them empty."""
    raw = told.get(key, [])
    texts = raw if isinstance(raw, list) else [raw]
    if key in told and not texts:
        raise DataError(f"answer: {key!r} is empty; give a text or a list of texts")
    for text in texts:
        if not isinstance(text, str) or not text.strip():
            raise DataError(f"answer: {key!r} has {shown(text)}; give a text or a list of texts")
    return texts


def _read_text(fields: Mapping[str, Json], key: str, where: str) -> str:
    text = read_field(fields, key, str, where)
    if not text.strip():
        raise DataError(f"{where}: {key!r} is empty; write what it says")
    return str(text)


def _read_calls(fields: Mapping[str, Json], tools: Sequence[ToolSpec]) -> dict[str, Json]:
    ordered = read_field(fields, "ordered", bool, "row", False)
    if "calls" not in fields:
        if "ordered" in fields:
            raise DataError("row: 'ordered' belongs to 'calls'; give them")
        return {}
    calls = []
    for i, raw in enumerate(read_field(fields, "calls", list, "row")):
        where = f"calls[{i}]"
        call = read_object(raw, ("name", "arguments"), where)
        spec = _require_tool(read_field(call, "name", str, where), tools, where)
        arguments = read_field(call, "arguments", Mapping, where, {})
        if (problem := misfit(spec, arguments)) is not None:
            raise DataError(f"{where}: {problem}")
        calls.append({"name": spec.name, "arguments": dict(arguments)})
    return {"calls": calls, "ordered": ordered}


def _read_script(fields: Mapping[str, Json], folder: Path) -> str:
    """Return the SQL that builds the database; a value that ends in .sql is a file beside the tasks."""
    text: str = read_field(fields, "database", str, "row", "")
    if not text.strip().endswith(_SQL_SUFFIX):
        return text
    path = folder / text.strip()
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"row: 'database' is {text!r}, and {path} cannot be read: {error}") from error


def _read_state(fields: Mapping[str, Json], script: str) -> dict[str, Json]:
    if "state" not in fields:
        return {}
    if not script:
        raise DataError("row: 'state' is of a database; give 'database', the SQL that builds it or a .sql file")
    told = read_object(fields["state"], ("query", "rows"), "state")
    rows = read_field(told, "rows", list, "state")
    for i, row in enumerate(rows):
        if not isinstance(row, list):
            raise DataError(f"state: 'rows'[{i}] is {shown(row)}; write a list of values")
    return {"state_query": _read_text(told, "query", "state"), "state": {"sql": rows}}
