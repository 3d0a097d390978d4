"""A SQLite database that a model may query: in memory, bounded in time and text, read-only unless told otherwise.

Not covered: one SQLite function on long texts is not interrupted midway, so texts are limited to a megabyte, and what
sorting spills to the temporary folder is bounded by the seconds alone.
"""

from __future__ import annotations

import contextlib
import hashlib
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rolecraft.errors import DataError, NotFound, SettingsError
from rolecraft.tools._contract import ToolFailure
from rolecraft.types import Json, ToolSpec

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


@dataclass(frozen=True, slots=True)
class Settings:
    """Which database, and how much of it a model may have.

    The database is built by the SQL in `script`, or is a copy of the file at `path`. Only with `read_only` false does
    a model write, and then into the file itself. `{tables}` in `description` becomes the tables and their columns.
    """

    script: str = ""
    path: str | None = None
    read_only: bool = True
    max_rows: int = 20
    max_chars: int = 1000
    seconds: float = 2.0
    description: str = "run one SQLite query on the tables {tables}"


EXAMPLE = Settings(
    script="CREATE TABLE company (name TEXT, debt INTEGER); INSERT INTO company VALUES ('Quil', 12), ('Norve', 40);"
)


def open(settings: Settings) -> Database:
    """Return the tool `sql` on the database that `settings` names; the caller closes it.

    Raises SettingsError for a script that SQLite refuses, NotFound and DataError for a file that is absent or no
    database.
    """
    if settings.path is not None and settings.script:
        raise SettingsError("the sql tool takes a script or a path, not both; remove one")
    if settings.path is not None:
        return Database(_open_file(Path(settings.path), settings.read_only), settings)
    connection, refused = _memory(), list[str]()
    _guard(connection, _BUILDS, _BUILD_PRAGMAS, refused.append)
    try:
        connection.executescript(settings.script)
    except (sqlite3.Error, sqlite3.Warning, ValueError) as error:
        connection.close()
        reason = "it may only build tables: no ATTACH, no PRAGMA, no extension" if refused else error
        raise SettingsError(f"the sql tool's script does not run: {reason}") from error
    return Database(connection, settings)


class Database:
    """A connection to one episode's database, as a tool; calls are taken one at a time."""

    def __init__(self, connection: sqlite3.Connection, settings: Settings) -> None:
        """Take over `connection`, whose database is ready to be queried."""
        self._connection = connection
        self._settings = settings
        self._lock = threading.Lock()
        self._refused: str | None = None
        self._digest: str | None = None
        _limit_growth(connection)
        _guard(connection, _READS if settings.read_only else _WRITES, _PRAGMAS, self._note_refusal)
        self._spec = _spec(settings.description.replace("{tables}", _tables(connection)))

    @property
    def spec(self) -> ToolSpec:
        """The tool `sql`; its description lists the tables and columns as they were when it was opened."""
        return self._spec

    def call(self, arguments: Mapping[str, Json]) -> str:
        """Return what the query answers: one value as it is, rows as `a|b` lines, or `no rows`."""
        query = str(arguments["query"])
        with self._lock:
            self._refused = None
            try:
                with _bounded(self._connection, self._settings.seconds):
                    return _run(self._connection, query, self._settings)
            except (sqlite3.Error, sqlite3.Warning, ValueError) as error:
                raise ToolFailure(self._reason(error, query)) from error

    def fork(self) -> Database:
        """Return an independent copy in memory, also of a database that is a file."""
        connection = _memory()
        with self._lock:
            self._connection.backup(connection)  # an image of a write-ahead-logged file would not open in memory
        return Database(connection, self._settings)

    def state(self) -> Json:
        """Return a digest of tables, columns and rows: the same content in another order has the same digest."""
        with self._lock:
            if self._digest is None or not self._settings.read_only:
                self._digest = _content_digest(self._connection)
            return self._digest

    def close(self) -> None:
        """Free the database; a query that still runs is interrupted."""
        with contextlib.suppress(sqlite3.ProgrammingError):  # closed before
            self._connection.interrupt()
        if self._lock.acquire(timeout=self._settings.seconds):
            self._connection.close()
            self._lock.release()

    def _note_refusal(self, what: str) -> None:
        self._refused = what

    def _reason(self, error: Exception, query: str) -> str:
        if str(error) == "interrupted":
            return f"the query took over {self._settings.seconds:g} seconds; ask for less, for example with LIMIT"
        if self._refused is not None:
            what = self._refused or query.split()[0].upper()[:20]
            return f"{what} is not allowed; {'only SELECT is' if self._settings.read_only else 'change tables only'}"
        reason = str(error).rstrip(".")
        with contextlib.suppress(sqlite3.Error):  # a closed database has no tables to tell
            reason = f"{reason}; tables: {_tables(self._connection)}"
        return reason


def _memory() -> sqlite3.Connection:
    connection = sqlite3.connect(":memory:", check_same_thread=False, isolation_level=None)
    connection.text_factory = lambda raw: raw.decode("utf-8", "replace")
    return connection


def _open_file(path: Path, read_only: bool) -> sqlite3.Connection:
    if not path.is_file():
        raise NotFound(f"no file {str(path)!r}; give the sql tool a path to a SQLite database that exists")
    address = f"{path.resolve().as_uri()}?mode={'ro' if read_only else 'rw'}"
    connection = sqlite3.connect(address, uri=True, check_same_thread=False, isolation_level=None)
    try:
        connection.execute("SELECT count(*) FROM sqlite_master")
        if not read_only:
            connection.text_factory = lambda raw: raw.decode("utf-8", "replace")
            return connection
        copy = _memory()
        connection.backup(copy)
    except sqlite3.Error as error:
        connection.close()
        raise DataError(f"{path}: SQLite cannot read it: {error}") from error
    connection.close()
    return copy


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
) -> None:
    """Let the connection do `actions` and nothing else; `refused` is told what was tried, "" for a whole statement."""

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
        if allowed:
            return sqlite3.SQLITE_OK
        refused(what)
        return sqlite3.SQLITE_DENY

    connection.set_authorizer(decide)


@contextlib.contextmanager
def _bounded(connection: sqlite3.Connection, seconds: float) -> Iterator[None]:
    """Bound what runs inside in time and in the length of a text; reading the state later is not bound by it."""
    deadline = time.monotonic() + seconds
    usual = connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, _TEXT_BYTES)
    connection.set_progress_handler(lambda: time.monotonic() > deadline, _STEPS_BETWEEN_CHECKS)
    try:
        yield
    finally:
        connection.set_progress_handler(None, 0)
        connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, usual)


def _run(connection: sqlite3.Connection, query: str, settings: Settings) -> str:
    with contextlib.closing(connection.execute(query)) as cursor:
        if cursor.description is None:
            if not query.strip():
                raise ToolFailure("the query is empty; write one SQLite statement")
            return "done" if cursor.rowcount < 0 else f"done: {cursor.rowcount} rows changed"
        header = [column[0] for column in cursor.description]
        rows = cursor.fetchmany(settings.max_rows + 1)
    return _as_text(header, rows, settings)


def _as_text(header: Sequence[str], rows: Sequence[Sequence[Any]], settings: Settings) -> str:
    if not rows:
        return "no rows"
    if len(header) == 1 and len(rows) == 1:
        return _cell(rows[0][0], settings.max_chars)
    lines = ["|".join(header)] if len(header) > 1 else []
    lines += ["|".join(_cell(value, _CELL_CHARS) for value in row) for row in rows[: settings.max_rows]]
    text = "\n".join(lines)
    kept = text if len(text) <= settings.max_chars else _whole_lines(text, settings.max_chars)
    return kept if kept == text and len(rows) <= settings.max_rows else f"{kept}\n... more rows"


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


def _spec(description: str) -> ToolSpec:
    query = {"type": "string", "description": "one SQLite statement"}
    return ToolSpec("sql", description, {"type": "object", "properties": {"query": query}, "required": ["query"]})


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


def _tables(connection: sqlite3.Connection) -> str:
    """Return `company(name,debt), city(name)`, cut to a length that a small model can read."""
    names = _names(connection, "'table', 'view'")
    text = ", ".join(f"{name}({','.join(_columns(connection, name))})" for name in names) or "none"
    return text if len(text) <= _LISTING_CHARS else f"{text[:_LISTING_CHARS]}..."


def _content_digest(connection: sqlite3.Connection) -> str:
    digest = hashlib.sha256()
    for table in sorted(_names(connection, "'table'")):
        rows = sorted(repr(row) for row in connection.execute(f"SELECT * FROM {_quoted(table)}"))
        digest.update(repr((table, _columns(connection, table), rows)).encode("utf-8", "replace"))
    return digest.hexdigest()
