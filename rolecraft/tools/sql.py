"""A SQLite database that a model may query: bounded in time, memory and text, read-only unless told otherwise.

Every statement runs in a process that the kernel kills a quarter of a second after `seconds`, and that may have
`memory_mb` beyond the database. A killed statement has changed nothing, and the database answers the next one. Nothing
that a model wrote is compiled or run in the application, which only waits.

Not covered: what opens a database (its script or its file) is the task's, not the model's: it is bounded in what it may
do and to a minute, not in memory. A file that sorting spills to the temporary folder may have 512 MB. The process is
not confined otherwise: a fault of SQLite that lets a query run code gives it the application's rights. On systems other
than Linux the memory limit does not hold, and a query outlives the application until its time is over.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rolecraft.errors import DataError, NotForkable, NotFound, SettingsError
from rolecraft.tools._contract import ToolFailure
from rolecraft.tools._sql_pool import Gone, Link
from rolecraft.tools._sql_query import Register, late
from rolecraft.tools._sql_worker import NO_MEMORY, OPEN_SECONDS
from rolecraft.types import Json, ToolSpec

_STATE_SECONDS = 10.0
_SMALLEST_MB = 8
_CLOSED = "Cannot operate on a closed database"
_LOST = "the database's process has ended, and what it held is lost"


@dataclass(frozen=True, slots=True)
class Settings:
    """Which database, and how much of it a model may have.

    The database is built by the SQL in `script`, or is a copy of the file at `path`. Only with `read_only` false does
    a model write, and then into the file itself. `{tables}` in `description` becomes the tables and their columns.
    A query may take `seconds`, and `memory_mb` beyond the database. `state_query` is what judges see of the state.
    """

    script: str = ""
    path: str | None = None
    read_only: bool = True
    max_rows: int = 20
    max_chars: int = 1000
    seconds: float = 2.0
    memory_mb: int = 128
    state_query: str = ""
    description: str = "run one SQLite query on the tables {tables}"

    def __post_init__(self) -> None:
        """Refuse limits that bound nothing."""
        if not 0 < self.seconds <= 86_400:
            raise SettingsError(f"sql.seconds is {self.seconds!r}; it must lie between 0 and 86400")
        if self.memory_mb < _SMALLEST_MB:
            raise SettingsError(f"sql.memory_mb is {self.memory_mb!r}; it must be at least {_SMALLEST_MB}")


EXAMPLE = Settings(
    script="CREATE TABLE company (name TEXT, debt INTEGER); INSERT INTO company VALUES ('Quil', 12), ('Norve', 40);"
)


def open(settings: Settings, register: Register | None = None) -> Database:
    """Return the tool `sql` on the database that `settings` names; the caller closes it.

    `register` adds functions and collations to a `sqlite3.Connection`. It is a function of a module, whose file is run
    in the database's process on its own, without its package and without other packages than the standard library.

    Raises SettingsError for a script that SQLite refuses, NotFound and DataError for a file that is absent or no
    database, SandboxError where the process does not start.
    """
    if settings.path is not None and settings.script:
        raise SettingsError("the sql tool takes a script or a path, not both; remove one")
    source = _Source(settings, _named(register))
    link, tables = source.open()
    lasting = settings.read_only or settings.path is not None
    return Database(link, tables, settings, source if lasting else None)


@dataclass(frozen=True, slots=True)
class _Source:
    """Where a database comes from: it can be opened again when its processes have gone."""

    settings: Settings
    register: str

    def open(self) -> tuple[Link, str]:
        """Return a link to the database's processes, and its tables; raises what `open` does."""
        order = self._order()
        link = Link()
        try:
            kind, text = link.open(order, self.register)
        except Gone:
            kind, text = "refused", f"its process ended, or it took over {OPEN_SECONDS:g} seconds"
        if kind == "opened":
            return link, text
        link.release()
        if self.settings.path is not None:
            raise DataError(f"{self.settings.path}: SQLite cannot read it: {text}")
        raise SettingsError(f"the sql tool's script does not run: {text}")

    def _order(self) -> dict[str, Any]:
        settings = self.settings
        rules = {name: getattr(settings, name) for name in ("read_only", "max_rows", "max_chars", "seconds")}
        order = {"script": settings.script, "address": None, "file_bytes": 0, "memory_mb": settings.memory_mb}
        if settings.path is not None:
            path = Path(settings.path)
            if not path.is_file():
                raise NotFound(f"no file {settings.path!r}; give the sql tool a path to a SQLite database that exists")
            order["address"] = f"{path.resolve().as_uri()}?mode={'ro' if settings.read_only else 'rw'}"
            order["file_bytes"] = path.stat().st_size
        return {**order, "rules": rules}


class Database:
    """One episode's database, as a tool; calls are taken one at a time."""

    def __init__(self, link: Link, tables: str, settings: Settings, source: _Source | None) -> None:
        """Take over `link`; `source` opens the same database again, None where what is lost is lost."""
        self._link = link
        self._settings = settings
        self._source = source
        self._lock = threading.Lock()
        self._closed = False
        self._digest: str | None = None
        self._spec = _spec(settings.description.replace("{tables}", tables), settings.read_only)

    @property
    def spec(self) -> ToolSpec:
        """The tool `sql`; its description lists the tables and columns as they were when it was opened."""
        return self._spec

    def call(self, arguments: Mapping[str, Json]) -> str:
        """Return what the query answers: one value as it is, rows as `a|b` lines, or `no rows`."""
        kind, answer = self._ask("query", str(arguments["query"]), self._settings.seconds)
        if kind != "answer":
            raise ToolFailure(self._ended(answer) if kind == "ended" else answer)
        return str(answer)

    def fork(self) -> Database:
        """Return an independent copy in memory; raises NotForkable when it fails, and for a file that is written.

        What is changed in a copy would never reach the file.
        """
        if self._settings.path is not None and not self._settings.read_only:
            raise NotForkable(
                f"the sql tool writes into {self._settings.path!r}, and what is changed in a copy would not: open it "
                "with read_only, build the database by a script, or play by the strategy 'greedy'"
            )
        with self._lock:
            link = self._living()
            try:
                copy, (kind, text) = link.fork(_STATE_SECONDS)
            except Gone as gone:
                raise NotForkable("a database ended, or took too long, while it was copied") from gone
        if kind != "opened":
            copy.release()
            raise NotForkable(f"a database could not be copied: {text}")
        return Database(copy, text, self._settings, self._source if self._settings.read_only else None)

    def state(self) -> Json:
        """Return the rows of the settings' `state_query`, or, without one, a digest of tables, columns and rows.

        The same content in another order has the same digest. Raises ToolFailure for what cannot be had within ten
        seconds and the memory that a query has, and for a query that SQLite refuses.
        """
        if self._settings.state_query:
            kind, rows = self._ask("rows", self._settings.state_query, _STATE_SECONDS)
            if kind != "rows":
                raise ToolFailure(f"state_query failed: {self._ended(rows) if kind == 'ended' else rows}")
            return rows
        if self._digest is None or not self._settings.read_only:
            kind, digest = self._ask("digest", "", _STATE_SECONDS)
            if kind != "digest":
                raise ToolFailure(
                    f"the tables cannot be read within {_STATE_SECONDS:g} s and {self._settings.memory_mb} MB"
                )
            self._digest = digest
        return self._digest

    def close(self) -> None:
        """End the processes, and with them a query that still runs."""
        self._closed = True
        self._link.close()
        if self._lock.acquire(timeout=1):  # a query in another thread is told so, and lets go at once
            self._link.release()
            self._lock.release()

    def _ask(self, do: str, text: str, seconds: float) -> tuple[str, Any]:
        with self._lock:
            try:
                kind, answer = self._living().ask(do, text, seconds)
            except Gone as gone:
                raise ToolFailure(_CLOSED if self._closed else _LOST) from gone
            return kind, answer

    def _living(self) -> Link:
        """Return the link, to a database opened again where the processes have gone or are another application's."""
        if self._closed:
            raise ToolFailure(_CLOSED)
        if self._link.gone or self._link.owner != os.getpid():
            if self._source is None:
                raise ToolFailure(_LOST)
            self._link.release()
            self._link, _ = self._source.open()
        return self._link

    def _ended(self, code: int) -> str:
        """Return what a model is told of a query whose process ended with `code`."""
        if code == -signal.SIGALRM:
            return late(self._settings.seconds)
        if code == NO_MEMORY:
            return f"the query needed over {self._settings.memory_mb} MB; ask for less, for example with LIMIT"
        cause = signal.Signals(-code).name if code < 0 else f"exit status {code}"
        return f"the query ended its process ({cause}); write it in another way"


def _named(register: Register | None) -> str:
    """Return a module's function as `file.py:name`; raises SettingsError for one that cannot be loaded by its name."""
    if register is None:
        return ""
    module, name = sys.modules.get(register.__module__), register.__qualname__
    if getattr(module, name, None) is not register or not (file := getattr(module, "__file__", None)):
        raise SettingsError(f"register={name!r} must be a function at the top of a module that is a file")
    return f"{Path(file).resolve()}:{name}"


def _spec(description: str, pure: bool) -> ToolSpec:
    query = {"type": "string", "description": "one SQLite statement"}
    parameters = {"type": "object", "properties": {"query": query}, "required": ["query"]}
    return ToolSpec("sql", description, parameters, pure=pure)
