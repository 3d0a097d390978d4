"""The sql tool answers briefly, forks, and lets a model do nothing but what its settings allow."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import importlib
import multiprocessing
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from rolecraft.errors import DataError, NotForkable, NotFound, SandboxError, SettingsError
from rolecraft.tools import Toolbox, ToolFailure, sql
from rolecraft.types import ToolCall

SCRIPT = """
CREATE TABLE company (name TEXT, rank INTEGER, debt REAL);
INSERT INTO company VALUES ('Quil', 1, 3809.0), ('Norve', 2, 0.1 + 0.2), (NULL, 3, NULL);
CREATE TABLE city (name TEXT);
"""
ENDLESS = "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c) SELECT count(*) FROM c"
# One SQLite function that works for minutes, and a statement whose compiling takes gigabytes.
TRIM = "trim(hex(zeroblob(150000)), replace(hex(zeroblob(40000)), '00', 'ab') || '0')"
JOINS = ", ".join(f"c{i} AS (SELECT a.x FROM c{i - 1} a, c{i - 1} b)" for i in range(1, 21))
JOINS = f"WITH c0 AS (SELECT 1 AS x), {JOINS} SELECT count(*) FROM c20"

linux = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc; elsewhere not all of it holds")


def opened(register=None, **settings):
    return sql.open(sql.Settings(**{"script": SCRIPT, **settings}), register)


def ask(database, query):
    return database.call({"query": query})


def refusal(database, query):
    with pytest.raises(ToolFailure) as caught:
        ask(database, query)
    return str(caught.value)


# Answers


@pytest.mark.parametrize(
    ("query", "answer"),
    [
        ("SELECT rank FROM company WHERE name = 'Quil'", "1"),
        ("SELECT debt FROM company WHERE name = 'Quil'", "3809"),
        ("SELECT debt FROM company WHERE name = 'Norve'", "0.3"),
        ("SELECT debt FROM company WHERE rank = 3", "NULL"),
        ("SELECT name FROM company", "Quil\nNorve\nNULL"),
        ("SELECT name, rank FROM company", "name|rank\nQuil|1\nNorve|2\nNULL|3"),
        ("SELECT name FROM city", "no rows"),
        ("SELECT name, 1 FROM city", "no rows"),
        ("SELECT 'two' || char(10) || 'lines'", "two lines"),
        ("SELECT x'0a0b'", "2 bytes"),
        ("SELECT CAST(x'ff41' AS TEXT)", "\ufffdA"),
        ("WITH c AS (SELECT 7 AS x) SELECT x FROM c;", "7"),
        ("PRAGMA table_info(city)", "cid|name|type|notnull|dflt_value|pk\n0|name|TEXT|0|NULL|0"),
    ],
)
def test_answers_are_short_and_plain(query, answer):
    assert ask(opened(), query) == answer


def test_the_description_lists_tables_and_columns():
    assert opened().spec.description == "run one SQLite query on the tables company(name,rank,debt), city(name)"


def test_a_description_may_be_given():
    assert opened(description="ask {tables}!").spec.description == "ask company(name,rank,debt), city(name)!"


def test_many_tables_do_not_make_a_huge_description():
    script = "".join(f"CREATE TABLE t{i} (a, b, c);" for i in range(1000))
    assert len(opened(script=script).spec.description) < 1600


def test_rows_are_bounded():
    query = "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c) SELECT x FROM c"
    assert ask(opened(max_rows=3), query) == "1\n2\n3\n... more rows"


def test_characters_are_bounded_at_a_whole_line():
    assert ask(opened(max_chars=12), "SELECT name FROM company") == "Quil\nNorve\n... more rows"


def test_a_long_value_is_bounded():
    answer = ask(opened(max_chars=50), "SELECT printf('%.*c', 5000, 'x')")
    assert answer == "x" * 47 + "..."


def test_an_empty_database_answers():
    database = opened(script="")
    assert ask(database, "SELECT 1 + 1") == "2"
    assert ask(database.fork(), "SELECT 1 + 1") == "2"


# Mistakes


@pytest.mark.parametrize(
    ("query", "reason"),
    [
        ("SELECT x FROM company", "no such column: x; tables: company(name,rank,debt), city(name)"),
        ("SELECT * FROM firm", "no such table: firm; tables: company(name,rank,debt), city(name)"),
        ("SELEC 1", 'near "SELEC": syntax error; tables: company(name,rank,debt), city(name)'),
        (
            "SELECT 1; SELECT 2",
            "You can only execute one statement at a time; tables: company(name,rank,debt), city(name)",
        ),
        ("", "the query is empty; write one SQLite statement"),
    ],
)
def test_a_mistake_is_told_in_one_line_with_the_tables(query, reason):
    assert refusal(opened(), query) == reason


@pytest.mark.parametrize(
    "query",
    [
        "SELECT '\0'",
        "SELECT '\ud800'",
        "SELECT " + "(" * 5000 + "1" + ")" * 5000,
        "SELECT " + "1+" * 5000 + "1",
        "SELECT zeroblob(1000000000)",
        "SELECT '" + "x" * 200_000 + "'",
        "SELECT abs(-9223372036854775808)",
    ],
    ids=["null", "surrogate", "brackets", "sum", "blob", "long", "overflow"],
)
def test_hostile_queries_are_failures_not_crashes(query):
    database = opened()
    refusal(database, query)
    assert ask(database, "SELECT 1") == "1"


# What is not allowed


@pytest.mark.parametrize(
    ("query", "what"),
    [
        ("INSERT INTO city VALUES ('x')", "writing"),
        ("WITH c AS (SELECT 1) INSERT INTO city SELECT * FROM c", "writing"),
        ("UPDATE company SET rank = 0", "writing"),
        ("DELETE FROM company", "writing"),
        ("DROP TABLE company", "writing"),
        ("CREATE TABLE x (y)", "writing"),
        ("CREATE TEMP TABLE x (y)", "writing"),
        ("ALTER TABLE city ADD COLUMN x", "writing"),
        ("PRAGMA user_version = 3", "PRAGMA"),
        ("PRAGMA journal_mode", "PRAGMA"),
        ("BEGIN", "BEGIN"),
        ("SELECT load_extension('x')", "load_extension"),
        ("SELECT LOAD_EXTENSION('x')", "load_extension"),
    ],
)
def test_a_reader_only_reads(query, what):
    database = opened()
    before = database.state()
    assert refusal(database, query) == f"{what} is not allowed; only SELECT is"
    assert database.fork().state() == before


@pytest.mark.parametrize("read_only", [True, False])
@pytest.mark.parametrize("query", ["ATTACH '{}' AS other", "VACUUM INTO '{}'", "attach database '{}' as other"])
def test_no_file_is_made(tmp_path, query, read_only):
    target = tmp_path / "made.db"
    assert "is not allowed" in refusal(opened(read_only=read_only), query.format(target))
    assert not target.exists()


def test_a_writer_writes():
    database = opened(read_only=False)
    assert ask(database, "INSERT INTO city VALUES ('a'), ('b')") == "done: 2 rows changed"
    assert ask(database, "CREATE TABLE ship (name)") == "done"
    assert ask(database, "SELECT count(*) FROM city") == "2"


@pytest.mark.parametrize("query", ["BEGIN", "PRAGMA writable_schema = ON", "SELECT load_extension('x')"])
def test_a_writer_only_changes_tables(query):
    assert refusal(opened(read_only=False), query).endswith("is not allowed; change tables only")


def test_a_database_does_not_grow_without_bound():
    endless = "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c) SELECT zeroblob(900000) FROM c"
    database = opened(read_only=False, seconds=20)
    assert "full" in refusal(database, f"INSERT INTO city {endless}")
    assert ask(database, "SELECT count(*) FROM city") == "0"


def test_a_view_of_a_lost_table_does_not_stop_the_listing():
    script = "CREATE TABLE a (x); CREATE VIEW v AS SELECT x FROM a; DROP TABLE a; CREATE TABLE b (y)"
    assert opened(script=script).spec.description.endswith("v(), b(y)")


# Time


def test_an_endless_query_ends():
    started = time.monotonic()
    reason = refusal(opened(seconds=0.1), ENDLESS)
    assert reason == "the query took over 0.1 seconds; ask for less, for example with LIMIT"
    assert time.monotonic() - started < 5


def test_the_next_query_has_its_own_time():
    database = opened(seconds=0.1)
    refusal(database, ENDLESS)
    assert ask(database, "SELECT 1") == "1"


def test_threads_take_turns():
    database, answers = opened(), []
    threads = [threading.Thread(target=lambda: answers.append(ask(database, "SELECT 7"))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == ["7"] * 8


def test_closing_interrupts_a_query():
    database, reasons = opened(seconds=60), []
    thread = threading.Thread(target=lambda: reasons.append(refusal(database, ENDLESS)))
    thread.start()
    time.sleep(0.1)
    database.close()
    thread.join(10)
    assert len(reasons) == 1


def test_closing_twice_is_safe_and_a_closed_database_says_so():
    database = opened()
    database.close()
    database.close()
    assert refusal(database, "SELECT 1") == "Cannot operate on a closed database"


# Fork and state


def test_a_fork_goes_its_own_way():
    database = opened(read_only=False)
    fork = database.fork()
    ask(fork, "DELETE FROM company")
    assert ask(database, "SELECT count(*) FROM company") == "3"
    assert ask(fork, "SELECT count(*) FROM company") == "0"


def test_a_fork_has_the_same_rules():
    assert "is not allowed" in refusal(opened().fork(), "DELETE FROM company")


def test_the_state_is_the_content_whatever_the_way_to_it():
    one, other = opened(read_only=False), opened(read_only=False)
    ask(one, "INSERT INTO city VALUES ('a'), ('b')")
    for name in ("b", "x", "a"):
        ask(other, f"INSERT INTO city VALUES ('{name}')")
    ask(other, "DELETE FROM city WHERE name = 'x'")
    assert one.state() == other.state()


@pytest.mark.parametrize(
    "query",
    [
        "INSERT INTO city VALUES ('a')",
        "UPDATE company SET rank = 9 WHERE rank = 3",
        "ALTER TABLE city RENAME COLUMN name TO title",
        "DROP TABLE city",
        "INSERT INTO company SELECT * FROM company WHERE rank = 3",
    ],
)
def test_the_state_tells_any_change(query):
    database = opened(read_only=False)
    before = database.state()
    ask(database, query)
    assert database.state() != before


# Files


def make_file(path: Path, journal: str = "delete") -> Path:
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute(f"PRAGMA journal_mode = {journal}")
    connection.execute("CREATE TABLE ship (name)")
    connection.execute("INSERT INTO ship VALUES ('Orla')")
    connection.close()
    return path


@pytest.mark.parametrize("journal", ["delete", "wal"])
@pytest.mark.parametrize("read_only", [True, False])
def test_a_file_is_read_and_forked(tmp_path, journal, read_only):
    database = sql.open(sql.Settings(path=str(make_file(tmp_path / "a b.db", journal)), read_only=read_only))
    assert ask(database, "SELECT name FROM ship") == "Orla"
    if read_only:
        assert ask(database.fork().fork(), "SELECT name FROM ship") == "Orla"
    database.close()


def test_a_file_is_untouched_by_default(tmp_path):
    path = make_file(tmp_path / "a.db")
    before = path.read_bytes()
    database = sql.open(sql.Settings(path=str(path)))
    refusal(database, "DELETE FROM ship")
    database.close()
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["a.db"]


def test_a_file_is_changed_when_asked_to(tmp_path):
    path = make_file(tmp_path / "a.db")
    database = sql.open(sql.Settings(path=str(path), read_only=False))
    ask(database, "DELETE FROM ship")
    database.close()
    assert ask(sql.open(sql.Settings(path=str(path))), "SELECT name FROM ship") == "no rows"


def test_a_file_that_is_written_cannot_be_forked(tmp_path):
    database = sql.open(sql.Settings(path=str(make_file(tmp_path / "a.db")), read_only=False))
    with pytest.raises(NotForkable, match=r"writes into '.*a.db'.*open it with read_only"):
        database.fork()
    database.close()


def test_an_absent_file_is_not_found(tmp_path):
    with pytest.raises(NotFound, match="no file"):
        sql.open(sql.Settings(path=str(tmp_path / "none.db")))


def test_a_file_that_is_no_database_is_told(tmp_path):
    path = tmp_path / "a.db"
    path.write_text("name,debt\n" * 200)
    with pytest.raises(DataError, match=r"a\.db: SQLite cannot read it: file is not a database"):
        sql.open(sql.Settings(path=str(path)))


def test_script_and_path_together_are_refused(tmp_path):
    with pytest.raises(SettingsError, match="a script or a path, not both"):
        opened(path="a.db")


def test_a_script_that_does_not_run_is_told():
    with pytest.raises(SettingsError, match="the sql tool's script does not run: near"):
        opened(script="CREAT TABLE x (y)")


def test_a_script_makes_no_files(tmp_path):
    target = tmp_path / "made.db"
    with pytest.raises(SettingsError, match="may only build tables"):
        opened(script=f"ATTACH '{target}' AS other; CREATE TABLE other.x (y);")
    assert not target.exists()


def test_a_dump_is_a_script():
    connection = sqlite3.connect(":memory:")
    connection.executescript(SCRIPT)
    script = "PRAGMA foreign_keys=OFF;\n" + "\n".join(connection.iterdump())
    connection.close()
    assert opened(script=script).state() == opened().state()


@pytest.mark.parametrize("wrong", [{"seconds": 0}, {"seconds": float("nan")}, {"memory_mb": 1}])
def test_limits_that_bound_nothing_are_refused(wrong):
    with pytest.raises(SettingsError, match=next(iter(wrong))):
        opened(**wrong)


# What SQLite does not interrupt


@linux
@pytest.mark.parametrize(
    "query", [JOINS, "SELECT " + ", ".join(["zeroblob(999000)"] * 100)], ids=["compiling", "one row of blobs"]
)
def test_a_query_that_needs_too_much_memory_ends(query):
    database = opened(memory_mb=16, seconds=20)
    assert refusal(database, query) == "the query needed over 16 MB; ask for less, for example with LIMIT"
    assert ask(database, "SELECT count(*) FROM company") == "3"


@pytest.mark.parametrize("read_only", [True, False])
def test_a_function_that_goes_on_for_minutes_ends(read_only):
    database, started = opened(seconds=0.1, read_only=read_only), time.monotonic()
    reason = refusal(database, f"SELECT {TRIM}")
    assert reason == "the query took over 0.1 seconds; ask for less, for example with LIMIT"
    assert time.monotonic() - started < 5
    assert ask(database, "SELECT count(*) FROM company") == "3"


def test_a_state_that_cannot_be_read_in_time_is_told_and_the_event_loop_goes_on_meanwhile():
    database = opened(seconds=0.5)
    toolbox = Toolbox([database])

    async def beside() -> tuple[list[float], dict]:
        call = asyncio.ensure_future(toolbox.call(ToolCall("sql", {"query": f"SELECT {TRIM}"})))
        await asyncio.sleep(0.05)
        state, pauses = asyncio.ensure_future(asyncio.to_thread(toolbox.state)), []
        while not state.done():
            before = time.monotonic()
            await asyncio.sleep(0.01)
            pauses.append(time.monotonic() - before)
        await call
        return pauses, state.result()

    pauses, state = asyncio.run(beside())
    assert state == {"sql": database.state()}
    assert max(pauses) < 0.4


def test_a_state_that_a_table_makes_endless_is_missed_and_the_next_query_answered(monkeypatch):
    monkeypatch.setattr(sql, "_STATE_SECONDS", 0.2)
    database = opened(read_only=False)
    ask(database, "INSERT INTO city VALUES ('a')")
    ask(database, f"ALTER TABLE city ADD COLUMN slow AS ({TRIM})")
    missed = "ToolFailure: the tables cannot be read within 0.2 s and 128 MB"
    assert Toolbox([database]).state() == {"sql": {"missed": missed}}
    assert ask(database, "SELECT count(*) FROM city") == "1"


def test_a_killed_statement_has_changed_nothing_and_those_before_it_stay():
    database = opened(read_only=False, seconds=0.5)
    ask(database, "INSERT INTO city VALUES ('a'), ('b')")
    fork = database.fork()
    for each in (database, fork):
        refusal(each, f"INSERT INTO city SELECT iif(rank = 3, {TRIM}, name) FROM company")
        assert ask(each, "SELECT name FROM city") == "a\nb"
        assert ask(each, "DELETE FROM city WHERE name = 'a'") == "done: 1 rows changed"
    assert ask(database.fork(), "SELECT name FROM city") == "b"


def test_what_a_failed_statement_did_change_stays_though_the_next_one_is_killed():
    database = opened(script="CREATE TABLE t (x UNIQUE)", read_only=False, seconds=0.3)
    refusal(database, "INSERT OR FAIL INTO t VALUES (1), (2), (1)")
    refusal(database, f"INSERT INTO t VALUES ({TRIM})")
    assert ask(database, "SELECT x FROM t") == "1\n2"


def test_a_killed_statement_leaves_a_file_as_it_was(tmp_path):
    path = make_file(tmp_path / "a.db")
    database = sql.open(sql.Settings(path=str(path), read_only=False, seconds=0.3))
    ask(database, "INSERT INTO ship VALUES ('Tarn')")
    refusal(database, f"UPDATE ship SET name = iif(rowid = 2, {TRIM}, 'x')")
    assert ask(database, "SELECT name FROM ship") == "Orla\nTarn"
    assert ask(database, "DELETE FROM ship WHERE name = 'Orla'") == "done: 1 rows changed"
    database.close()
    assert ask(sql.open(sql.Settings(path=str(path))), "SELECT name FROM ship") == "Tarn"


# A benchmark's own functions

FUNCTIONS = """
import hashlib

def mysql(connection):
    connection.create_function("md5", 1, lambda text: hashlib.md5(text.encode()).hexdigest(), deterministic=True)
    connection.create_collation("backwards", lambda a, b: (a < b) - (a > b))
"""


@pytest.fixture
def mysql(tmp_path, monkeypatch):
    """A function of a module that is a file."""
    (tmp_path / "functions_for_sql.py").write_text(FUNCTIONS)
    monkeypatch.syspath_prepend(tmp_path)
    yield importlib.import_module("functions_for_sql").mysql
    del sys.modules["functions_for_sql"]


def test_functions_and_collations_of_a_benchmark_work_in_calls_forks_and_states(mysql):
    script = "CREATE TABLE t (name TEXT COLLATE backwards UNIQUE); INSERT INTO t VALUES ('a'), ('b')"
    database = opened(mysql, script=script, read_only=False, seconds=0.3)
    before = database.state()
    refusal(database, f"SELECT {TRIM}")
    for each in (database, database.fork()):
        assert ask(each, "SELECT md5(name) FROM t WHERE name = 'a'") == "0cc175b9c0f1b6a831c399e269772661"
        assert ask(each, "SELECT name FROM t ORDER BY name") == "b\na"
        assert each.state() == before


@pytest.mark.parametrize("read_only", [True, False])
def test_functions_of_a_benchmark_work_on_files(mysql, tmp_path, read_only):
    path = str(make_file(tmp_path / "a.db"))
    database = opened(mysql, script="", path=path, read_only=read_only)
    for each in (database, *([database.fork()] if read_only else [])):
        assert ask(each, "SELECT md5(name) = md5('Orla') FROM ship") == "1"


def test_a_function_without_a_place_in_a_module_is_refused():
    with pytest.raises(SettingsError, match="must be a function at the top of a module"):
        opened(lambda connection: None)


def test_a_module_that_cannot_be_loaded_on_its_own_is_told(mysql, tmp_path):
    (tmp_path / "functions_for_sql.py").write_text("import no_such_module")
    with pytest.raises(SandboxError, match="No module named 'no_such_module'"):
        opened(mysql)


# Processes


def processes_of(parent: int) -> set[int]:
    """The processes in the sessions of the fork servers that `parent` started, zombies left out."""
    seen = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, above, _, session = path.read_text().rpartition(")")[2].split()[:4]
        except OSError:
            continue
        if state != "Z":
            seen[int(path.parent.name)] = (int(above), int(session))
    servers = {pid for pid, (above, session) in seen.items() if above == parent and session == pid}
    return {pid for pid, (_, session) in seen.items() if session in servers}


def eventually(condition, seconds=5.0):
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.02)
    return condition()


def ended(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


@pytest.fixture
def processes():
    """What runs for databases that are opened in the test."""
    opened().close()  # the fork server is there to stay
    gc.collect()  # what other tests dropped
    before = processes_of(os.getpid())
    return lambda: processes_of(os.getpid()) - before


@linux
def test_nothing_is_left_of_a_closed_database_its_forks_and_its_queries(processes):
    database = opened(read_only=False, seconds=60)
    forks = [database.fork(), database.fork()]
    ask(forks[0], "DELETE FROM city")
    assert eventually(lambda: len(processes()) == 6), f"a keeper and a child for each, not {processes()}"
    thread = threading.Thread(target=lambda: refusal(database, f"SELECT {TRIM}"))
    thread.start()
    time.sleep(0.1)
    for each in (database, *forks):
        each.close()
    thread.join(5)
    assert not thread.is_alive()
    assert eventually(lambda: not processes())


@linux
def test_nothing_is_left_of_a_database_that_is_dropped(processes):
    ask(opened(), "SELECT 1")
    assert eventually(lambda: not processes())


@linux
def test_nothing_outlives_an_application_that_is_killed():
    script = f"""
from rolecraft.tools import sql
database = sql.open(sql.Settings(seconds=60))
fork = database.fork()
print("ready", flush=True)
database.call({{"query": {f"SELECT {TRIM}"!r}}})
"""
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE) as application:
        assert application.stdout.readline() == b"ready\n"
        assert eventually(lambda: len(processes_of(application.pid)) == 5), "a server, two keepers, two children"
        left = processes_of(application.pid)
        application.kill()
    assert eventually(lambda: all(map(ended, left)), seconds=1)


@linux
def test_a_database_whose_processes_were_killed_is_opened_again_or_said_to_be_lost():
    gc.collect()  # what other tests dropped
    reader, writer = opened(), opened(read_only=False)
    ask(writer, "INSERT INTO city VALUES ('a')")
    killed = processes_of(os.getpid())
    for pid in killed:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(os.getpgid(pid), signal.SIGKILL)  # at once: a keeper would put another in its child's place
    assert eventually(lambda: all(map(ended, killed)))
    with pytest.raises(ToolFailure):
        ask(reader, "SELECT 1")
    assert ask(reader, "SELECT count(*) FROM company") == "3"
    for _ in range(2):
        assert refusal(writer, "SELECT 1") == "the database's process has ended, and what it held is lost"


def test_a_forked_application_reads_on_by_processes_of_its_own():
    database, fork = opened(), multiprocessing.get_context("fork")
    reader, writer = fork.Pipe(duplex=False)
    child = fork.Process(target=lambda: writer.send([ask(database, f"SELECT {i}") for i in range(100)]))
    child.start()
    assert [ask(database, f"SELECT {i} + 1000") for i in range(100)] == [str(i + 1000) for i in range(100)]
    assert reader.recv() == [str(i) for i in range(100)]
    child.join()
    assert ask(database, "SELECT 7") == "7"


def test_the_state_may_be_what_a_query_answers():
    database = opened(read_only=False, state_query="SELECT name, debt, NULL, x'00ff' FROM company WHERE name = 'Norve'")
    ask(database, "UPDATE company SET debt = -1 WHERE name = 'Norve'")
    assert database.state() == [["Norve", -1, None, "00ff"]]
    ask(database, "UPDATE company SET debt = -2 WHERE name = 'Norve'")
    assert database.state()[0][1] == -2


@pytest.mark.parametrize(
    ("query", "reason"),
    [
        ("SELECT absent FROM company", "state_query failed: no such column: absent"),
        ("WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT i FROM n", "over 1000 rows"),
    ],
)
def test_a_state_that_no_query_can_tell_is_said_to_be_missed(query, reason):
    with pytest.raises(ToolFailure, match=reason):
        opened(state_query=query).state()
