"""One table of DBBench: the script that builds it in SQLite, the tool that takes MySQL, and the table's checksum."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import rolecraft.benchmarks.dbbench._dialect as _dialect
from rolecraft import catalog
from rolecraft.tools import ToolLike
from rolecraft.types import Json, ToolSpec

_SECONDS = 2.0
_ROWS, _CHARACTERS = 50, 800  # AgentBench cuts what is shown of an answer to 800 characters

SPEC = ToolSpec(
    "sql",
    "run one MySQL statement on the database and see what it returns",
    {
        "type": "object",
        "properties": {"query": {"type": "string", "description": "one MySQL statement"}},
        "required": ["query"],
    },
)


class MySql:
    """The tool `sql` in MySQL's dialect, on a database of its own."""

    def __init__(self, database: ToolLike) -> None:
        """Take over an open database."""
        self._database = database

    @property
    def spec(self) -> ToolSpec:
        """The tool as the model is told of it."""
        return SPEC

    def call(self, arguments: Mapping[str, Json]) -> str:
        """Return what the statement answers; raises ToolFailure with the database's words."""
        return self._database.call({"query": _dialect.rewritten(str(arguments["query"]))})

    def fork(self) -> MySql:
        """Return an independent copy; raises NotForkable where it fails."""
        return MySql(self._database.fork())

    def state(self) -> Json:
        """Return the table's rows."""
        return self._database.state()

    def close(self) -> None:
        """End the database's processes."""
        self._database.close()


def open_table(table: Mapping[str, Any]) -> MySql:
    """Build the table, all of its columns TEXT as AgentBench has them, and open the tool on it."""
    state = f"SELECT * FROM {_name(table['name'])}"
    sql = catalog.find("tools", "sql")
    settings = sql.Settings(
        script=_script(table),
        read_only=False,
        max_rows=_ROWS,
        max_chars=_CHARACTERS,
        seconds=_SECONDS,
        state_query=state,
    )
    return MySql(sql.open(settings, _dialect.register))


def checksum(rows: Sequence[Sequence[Any]]) -> str:
    """Return AgentBench's hash of a table's rows, whatever their order: what MySQL's `md5` and `group_concat` make.

    A row is its values that are not NULL, joined by commas; of its md5 the first five digits count.
    """
    short = sorted(_md5(",".join(str(value) for value in row if value is not None))[:5] for row in rows)
    return _md5(",".join(short))


def _md5(text: str) -> str:
    return hashlib.md5(text.encode("utf-8", "replace"), usedforsecurity=False).hexdigest()


def _script(table: Mapping[str, Any]) -> str:
    columns = ", ".join(f"{_name(column)} TEXT COLLATE mysql" for column in table["columns"])
    lines = [f"CREATE TABLE {_name(table['name'])} ({columns});"]
    for row in table["rows"]:
        lines.append(f"INSERT INTO {_name(table['name'])} VALUES ({', '.join(map(_value, row))});")
    return "\n".join(lines)


def _name(text: str) -> str:
    return "`" + str(text).replace("`", "``") + "`"


def _value(value: Any) -> str:
    return "'" + str(value).replace("'", "''").replace("\0", "") + "'"
