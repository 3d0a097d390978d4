"""The tools of a task as data, and the real tools opened from it: look-ups, Python, a SQL table, search, calculator."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, get_args

from rolecraft.errors import DataError
from rolecraft.tools import Toolbox, ToolFailure, ToolLike, find
from rolecraft.types import Json, ToolSpec


@dataclass(frozen=True, slots=True)
class Lookup:
    """A function of one string: its values by key, or the error that it always answers."""

    name: str
    description: str
    parameter: str
    values: Mapping[str, str]
    error: str = ""

    @property
    def spec(self) -> ToolSpec:
        """The function as the model is told of it."""
        return _spec(self.name, self.description, self.parameter)

    def call(self, arguments: Mapping[str, Json]) -> str:
        """Return the value of the key; raises ToolFailure where the service fails or has no such key."""
        if self.error:
            raise ToolFailure(self.error)
        key = arguments[self.parameter]
        if key not in self.values:
            raise ToolFailure(f"nothing is known of {str(key)[:60]!r}; give one exact name")
        return self.values[key]

    def fork(self) -> Lookup:
        """Return itself: there is no state to copy."""
        return self

    def state(self) -> Json:
        """Return None: there is no state."""
        return None

    def close(self) -> None:
        """Do nothing: there is nothing to free."""


@dataclass(frozen=True, slots=True)
class Code:
    """The Python tool under a description short enough for a small context."""

    description: str

    @property
    def spec(self) -> ToolSpec:
        """The tool as the model is told of it."""
        return _spec("python", self.description, "code")


@dataclass(frozen=True, slots=True)
class Table:
    """One SQL table: its column `name` holds entities, the others whole numbers."""

    description: str
    name: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str | int]]

    @property
    def spec(self) -> ToolSpec:
        """The tool as the model is told of it, the table's columns included."""
        schema = f"{self.name}({', '.join(self.columns)})"
        return _spec("sql", f"{self.description} {schema}", "query")

    @property
    def script(self) -> str:
        """The SQL that builds the table."""
        columns = ", ".join(f"{_quoted(c)} {'TEXT' if c == 'name' else 'INTEGER'}" for c in self.columns)
        lines = [f"CREATE TABLE {_quoted(self.name)} ({columns});"]
        for row in self.rows:
            cells = ", ".join(str(cell) if isinstance(cell, int) else _text(cell) for cell in row)
            lines.append(f"INSERT INTO {_quoted(self.name)} VALUES ({cells});")
        return "\n".join(lines)


@dataclass(frozen=True, slots=True)
class Database:
    """A SQL tool that may write, over several tables."""

    description: str
    tables: Sequence[Table]

    @property
    def spec(self) -> ToolSpec:
        """The tool as the model is told of it, every table's columns included."""
        schemas = (f"{table.name}({', '.join(table.columns)})" for table in self.tables)
        return _spec("sql", f"{self.description} {' '.join(schemas)}", "query")

    @property
    def script(self) -> str:
        """The SQL that builds the tables."""
        return "\n".join(table.script for table in self.tables)

    @property
    def state_query(self) -> str:
        """The SQL for all rows of all tables, each behind its table's name, and what tables there are behind ''."""
        width = max(len(table.columns) for table in self.tables)
        parts = [
            f"SELECT {_text(table.name)}, "
            + ", ".join([*map(_quoted, table.columns), *["NULL"] * (width - len(table.columns))])
            + f" FROM {_quoted(table.name)}"
            for table in self.tables
        ]
        made = ", ".join(["name", "type", *["NULL"] * (width - 2)])
        return " UNION ALL ".join([*parts, f"SELECT '', {made} FROM sqlite_master"]) + " ORDER BY 1, 2, 3"

    def state(self) -> list[Json]:
        """Return what `state_query` answers of these tables."""
        width = max(len(table.columns) for table in self.tables)
        rows: list[list[Json]] = [["", table.name, "table", *[None] * (width - 2)] for table in self.tables]
        for table in self.tables:
            rows += [[table.name, *row, *[None] * (width - len(row))] for row in table.rows]
        return sorted(rows, key=lambda row: (row[0], row[1], str(row[2])))


@dataclass(frozen=True, slots=True)
class Passages:
    """The search tool over sentences: the best `top_k` of them for a query."""

    description: str
    texts: Sequence[str]
    top_k: int

    @property
    def spec(self) -> ToolSpec:
        """The tool as the model is told of it."""
        return _spec("search", self.description, "query")


@dataclass(frozen=True, slots=True)
class Calculator:
    """The calculator under a description short enough for a small context."""

    description: str

    @property
    def spec(self) -> ToolSpec:
        """The tool as the model is told of it."""
        return _spec("calculator", self.description, "expression")


ToolData = Lookup | Code | Table | Passages | Calculator | Database


@dataclass(frozen=True, slots=True)
class _Told:
    """A tool under another spec: the same call, told in the task's words."""

    spec: ToolSpec
    tool: ToolLike
    keeps: bool = False

    def call(self, arguments: Mapping[str, Json]) -> str:
        return self.tool.call(arguments)

    def fork(self) -> _Told:
        return _Told(self.spec, self.tool.fork(), self.keeps)

    def state(self) -> Json:
        # A lone table is only read, and what code leaves behind is no matter of the judge.
        return self.tool.state() if self.keeps else None

    def close(self) -> None:
        self.tool.close()


def open_tools(world: Sequence[ToolData]) -> Toolbox:
    """Open the tools for one episode; code runs in the sandbox, queries in a fresh database."""
    return Toolbox([open_tool(data) for data in world])


def to_json(data: ToolData) -> dict[str, Json]:
    """Return a tool as JSON data."""
    return {"tool": type(data).__name__.lower(), **asdict(data)}


def from_json(raw: Json, where: str) -> ToolData:
    """Read a tool from JSON data; raises DataError naming `where` it was found."""
    kinds: dict[str, type[Any]] = {kind.__name__.lower(): kind for kind in get_args(ToolData)}
    if not isinstance(raw, Mapping) or raw.get("tool") not in kinds:
        raise DataError(f"{where}: expected a tool of toolworld ({', '.join(kinds)}), got {str(raw)[:80]!r}")
    fields = {key: value for key, value in raw.items() if key != "tool"}
    try:
        return _checked(kinds[raw["tool"]](**fields))
    except (TypeError, ValueError) as error:
        raise DataError(f"{where}: {error}") from error


def _checked(data: ToolData) -> ToolData:
    if isinstance(data, Table):
        rows = tuple(tuple(row) for row in data.rows)
        cells = [cell for row in rows for cell in row]
        if not all(isinstance(cell, str | int) for cell in cells):
            raise ValueError("a table's cells are names and whole numbers")
        return Table(data.description, data.name, tuple(data.columns), rows)
    if isinstance(data, Database):
        raw: Sequence[Any] = data.tables  # as JSON has them
        found = [_checked(Table(**table)) for table in raw]
        if not found:
            raise ValueError("a database has a table at least")
        return Database(data.description, tuple(table for table in found if isinstance(table, Table)))
    if isinstance(data, Passages):
        if not data.texts or not all(isinstance(text, str) and text.strip() for text in data.texts):
            raise ValueError("passages are texts, at least one")
        return Passages(data.description, tuple(data.texts), int(data.top_k))
    return data


def open_tool(data: ToolData) -> ToolLike:
    """Open one tool."""
    match data:
        case Lookup():
            return data
        case Code():
            (tool,) = find("python")
        case Table():
            (tool,) = find("sql", {"script": data.script})
        case Database():
            told = {"script": data.script, "read_only": False, "state_query": data.state_query}
            (tool,) = find("sql", told)
        case Passages():
            (tool,) = find("search", {"passages": [{"text": text} for text in data.texts], "top_k": data.top_k})
        case Calculator():
            (tool,) = find("calculator")
    return _Told(data.spec, tool, isinstance(data, Database))


def _spec(name: str, description: str, parameter: str) -> ToolSpec:
    schema = {
        "type": "object",
        "properties": {parameter: {"type": "string"}},
        "required": [parameter],
        "additionalProperties": False,
    }
    return ToolSpec(name, description, schema)


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _text(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"
