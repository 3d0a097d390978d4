"""What SQLite does for the sql tool: opens a database, runs one statement under the rules, and says it in little text.

Runs inside the fork server's children: standard library only. Nothing here bounds memory, nor the time of a single
SQLite function or of compiling a statement; `_sql_worker` does, around it.
"""

from __future__ import annotations

import contextlib
import hashlib
import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

_READS = frozenset((sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_FUNCTION, sqlite3.SQLITE_RECURSIVE))
_WRITES = _READS | frozenset(
    getattr(sqlite3, f"SQLITE_{name}")
    for name in (
        "INSERT UPDATE DELETE ALTER_TABLE REINDEX ANALYZE CREATE_TABLE CREATE_INDEX CREATE_VIEW CREATE_TRIGGER "
        "DROP_TABLE DROP_INDEX DROP_VIEW DROP_TRIGGER"
    ).split()
)
_BUILDS = _WRITES | frozenset(
    getattr(sqlite3, f"SQLITE_{name}")
    for name in (
        "TRANSACTION SAVEPOINT CREATE_VTABLE DROP_VTABLE CREATE_TEMP_TABLE CREATE_TEMP_INDEX CREATE_TEMP_VIEW "
        "CREATE_TEMP_TRIGGER DROP_TEMP_TABLE DROP_TEMP_INDEX DROP_TEMP_VIEW DROP_TEMP_TRIGGER"
    ).split()
)
_PRAGMAS = frozenset("table_info table_xinfo table_list index_list index_info foreign_key_list".split())
_BUILD_PRAGMAS = _PRAGMAS | frozenset("foreign_keys user_version application_id encoding".split())
_FUNCTIONS_DENIED = frozenset(("load_extension", "fts3_tokenizer"))

_TEXT_BYTES = 1_000_000
_QUERY_BYTES = 100_000
_PAGES_ADDED = 16_384
_STEPS_BETWEEN_CHECKS = 1_000
_CELL_CHARS = 200
_LISTING_CHARS = 1_500
_MAX_ROWS = 1_000

Register = Callable[[sqlite3.Connection], None]
"""Adds functions and collations to a connection."""


class QueryError(Exception):
    """Why a query was not answered, for the model to read."""


@dataclass(frozen=True, slots=True)
class Rules:
    """What a query may do, how long it may take, and how much of its answer is shown."""

    read_only: bool
    max_rows: int
    max_chars: int
    seconds: float


def build(script: str, register: Register) -> sqlite3.Connection:
    """Return a database in memory made by `script`; raises QueryError with the reason when it does not run."""
    connection, refused = open_memory(register), list[str]()
    _guard(connection, _BUILDS, _BUILD_PRAGMAS, refused.append)
    try:
        connection.executescript(script)
    except (sqlite3.Error, sqlite3.Warning, ValueError) as error:
        connection.close()
        reason = "it may only build tables: no ATTACH, no PRAGMA, no extension" if refused else error
        raise QueryError(str(reason)) from error
    return connection


def open_memory(register: Register) -> sqlite3.Connection:
    """Return an empty database in memory."""
    return _opened(":memory:", register)


def open_file(address: str, register: Register) -> sqlite3.Connection:
    """Return a connection to the file at a `file:` address; raises QueryError where it is no database."""
    connection = _opened(address, register)
    try:
        connection.execute("SELECT count(*) FROM sqlite_master")
    except sqlite3.Error as error:
        connection.close()
        raise QueryError(str(error)) from error
    return connection


def copy_file(address: str, register: Register) -> sqlite3.Connection:
    """Return a copy in memory of the file at a `file:` address; raises QueryError where it cannot be read."""
    copy = open_memory(register)
    with contextlib.closing(open_file(address, register)) as original:
        try:
            original.backup(copy)  # an image of a write-ahead-logged file would not open in memory
        except sqlite3.Error as error:
            copy.close()
            raise QueryError(str(error)) from error
    return copy


class Queries:
    """A connection on which a model's statements run, one at a time."""

    def __init__(self, connection: sqlite3.Connection, rules: Rules) -> None:
        """Put `connection` under `rules`."""
        self.connection = connection
        self.wrote = False
        self._rules = rules
        self._refused: str | None = None
        _limit_growth(connection)
        _guard(connection, _READS if rules.read_only else _WRITES, _PRAGMAS, self._note_refusal, self._note_write)

    def answer(self, query: str) -> str:
        """Return what the query answers; raises QueryError. `wrote` then tells whether it set out to change anything.

        One value is told as it is, rows as `a|b` lines, none as `no rows`.
        """
        self._refused, self.wrote = None, False
        try:
            with _bounded(self.connection, self._rules.seconds):
                return _run(self.connection, query, self._rules)
        except (sqlite3.Error, sqlite3.Warning, ValueError) as error:
            raise QueryError(self._reason(error, query)) from error

    def rows(self, query: str) -> list[list[Any]]:
        """Return the rows of a query by the application, as JSON can hold them; raises QueryError beyond a thousand."""
        try:
            with _bounded(self.connection, self._rules.seconds):
                found = self.connection.execute(query).fetchmany(_MAX_ROWS + 1)
        except (sqlite3.Error, sqlite3.Warning, ValueError) as error:
            raise QueryError(self._reason(error, query)) from error
        if len(found) > _MAX_ROWS:
            raise QueryError(f"the query has over {_MAX_ROWS} rows; ask for fewer")
        return [[value.hex() if isinstance(value, bytes) else value for value in row] for row in found]

    def tables(self) -> str:
        """Return `company(name,debt), city(name)`, cut to a length that a small model can read."""
        names = _names(self.connection, "'table', 'view'")
        text = ", ".join(f"{name}({','.join(_columns(self.connection, name))})" for name in names) or "none"
        return text if len(text) <= _LISTING_CHARS else f"{text[:_LISTING_CHARS]}..."

    def digest(self) -> str:
        """Return a digest of tables, columns and rows: the same content in another order has the same digest."""
        digest = hashlib.sha256()
        for table in sorted(_names(self.connection, "'table'")):
            # The sum of the rows' digests does not depend on their order, and does not hold them in memory to sort.
            total = 0
            for row in self.connection.execute(f"SELECT * FROM {_quoted(table)}"):
                total += int.from_bytes(hashlib.sha256(repr(row).encode("utf-8", "replace")).digest())
            content = (table, _columns(self.connection, table), total % (1 << 256))
            digest.update(repr(content).encode("utf-8", "replace"))
        return digest.hexdigest()

    def _note_refusal(self, what: str) -> None:
        self._refused = what

    def _note_write(self) -> None:
        self.wrote = True

    def _reason(self, error: Exception, query: str) -> str:
        if str(error) == "interrupted":
            return late(self._rules.seconds)
        if self._refused is not None:
            what = self._refused or query.split()[0].upper()[:20]
            return f"{what} is not allowed; {'only SELECT is' if self._rules.read_only else 'change tables only'}"
        reason = str(error).rstrip(".")
        with contextlib.suppress(sqlite3.Error):  # a schema that cannot be read has no tables to tell
            reason = f"{reason}; tables: {self.tables()}"
        return reason


def late(seconds: float) -> str:
    """Return what a model is told of a query that took too long."""
    return f"the query took over {seconds:g} seconds; ask for less, for example with LIMIT"


def _opened(address: str, register: Register) -> sqlite3.Connection:
    # No statement is kept compiled: the authorizer, which notes writing, is asked while one is compiled.
    connection = sqlite3.connect(address, uri=True, isolation_level=None, cached_statements=0)
    connection.text_factory = lambda raw: raw.decode("utf-8", "replace")
    register(connection)
    return connection


def _limit_growth(connection: sqlite3.Connection) -> None:
    connection.set_authorizer(None)
    pages = connection.execute("PRAGMA page_count").fetchone()[0]
    connection.execute(f"PRAGMA max_page_count = {pages + _PAGES_ADDED}")
    connection.execute("PRAGMA trusted_schema = OFF")
    connection.setlimit(sqlite3.SQLITE_LIMIT_ATTACHED, 0)
    connection.setlimit(sqlite3.SQLITE_LIMIT_EXPR_DEPTH, 100)
    connection.setlimit(sqlite3.SQLITE_LIMIT_LIKE_PATTERN_LENGTH, 200)
    connection.setlimit(sqlite3.SQLITE_LIMIT_SQL_LENGTH, _QUERY_BYTES)


def _guard(
    connection: sqlite3.Connection,
    actions: frozenset[int],
    pragmas: frozenset[str],
    refused: Callable[[str], None],
    writes: Callable[[], None] = lambda: None,
) -> None:
    """Let the connection do `actions` and nothing else.

    `refused` is told what was tried, "" for a whole statement; `writes` is called for what may change the database.
    """

    def decide(action: int, first: str | None, second: str | None, _database: str | None, _source: str | None) -> int:
        what = ""
        if action == sqlite3.SQLITE_PRAGMA:
            allowed = (first or "").lower() in pragmas
        elif action == sqlite3.SQLITE_FUNCTION:
            what = second or ""
            allowed = what.lower() not in _FUNCTIONS_DENIED
        else:
            what = "writing" if action in _WRITES else ""
            allowed = action in actions
            if action not in _READS:
                writes()
        if allowed:
            return sqlite3.SQLITE_OK
        refused(what)
        return sqlite3.SQLITE_DENY

    connection.set_authorizer(decide)


@contextlib.contextmanager
def _bounded(connection: sqlite3.Connection, seconds: float) -> Iterator[None]:
    """Bound what runs inside in time, between two steps of SQLite, and in the length of a text."""
    deadline = time.monotonic() + seconds
    usual = connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, _TEXT_BYTES)
    connection.set_progress_handler(lambda: time.monotonic() > deadline, _STEPS_BETWEEN_CHECKS)
    try:
        yield
    finally:
        connection.set_progress_handler(None, 0)
        connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, usual)


def _run(connection: sqlite3.Connection, query: str, rules: Rules) -> str:
    with contextlib.closing(connection.execute(query)) as cursor:
        if cursor.description is None:
            if not query.strip():
                raise QueryError("the query is empty; write one SQLite statement")
            return "done" if cursor.rowcount < 0 else f"done: {cursor.rowcount} rows changed"
        return _as_text(cursor, rules)


def _as_text(cursor: sqlite3.Cursor, rules: Rules) -> str:
    """Read one row after the other, so that only one is held as SQLite gives it."""
    header = [column[0] for column in cursor.description]
    lines, alone, count = list[str](), "", 0
    while count <= rules.max_rows and (row := cursor.fetchone()) is not None:
        count += 1
        lines.append("|".join(_cell(value, _CELL_CHARS) for value in row))
        if count == 1 and len(header) == 1:
            alone = _cell(row[0], rules.max_chars)
    if not lines:
        return "no rows"
    if len(header) == 1 and count == 1:
        return alone
    return _shown(header, lines, rules)


def _shown(header: Sequence[str], lines: Sequence[str], rules: Rules) -> str:
    head = ["|".join(header)] if len(header) > 1 else []
    text = "\n".join([*head, *lines[: rules.max_rows]])
    kept = text if len(text) <= rules.max_chars else _whole_lines(text, rules.max_chars)
    return kept if kept == text and len(lines) <= rules.max_rows else f"{kept}\n... more rows"


def _whole_lines(text: str, length: int) -> str:
    return text[:length].rpartition("\n")[0] or text[:length]


def _cell(value: Any, length: int) -> str:
    if value is None:
        return "NULL"
    if isinstance(value, float):
        return f"{value:.15g}"  # 0.1 + 0.2 reads 0.3, an average of integers reads 3809
    if isinstance(value, bytes):
        return f"{len(value)} bytes"
    text = " ".join(str(value).split()) if isinstance(value, str) else str(value)
    return text if len(text) <= length else f"{text[: length - 3]}..."


def _names(connection: sqlite3.Connection, kinds: str) -> list[str]:
    query = f"SELECT name FROM sqlite_master WHERE type IN ({kinds}) AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\'"
    return [row[0] for row in connection.execute(query)]


def _columns(connection: sqlite3.Connection, table: str) -> list[str]:
    try:
        return [row[1] for row in connection.execute(f"PRAGMA table_info({_quoted(table)})")]
    except sqlite3.OperationalError:  # a view of a table that is gone
        return []


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
