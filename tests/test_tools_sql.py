"""The sql tool answers briefly, forks, and lets a model do nothing but what its settings allow."""

from __future__ import annotations

import sqlite3
import threading
import time
from pathlib import Path

import pytest

from rolecraft.errors import DataError, NotFound, SettingsError
from rolecraft.tools import ToolFailure, sql

SCRIPT = """
CREATE TABLE company (name TEXT, rank INTEGER, debt REAL);
INSERT INTO company VALUES ('Quil', 1, 3809.0), ('Norve', 2, 0.1 + 0.2), (NULL, 3, NULL);
CREATE TABLE city (name TEXT);
"""
ENDLESS = "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c) SELECT count(*) FROM c"


def opened(**settings):
    return sql.open(sql.Settings(**{"script": SCRIPT, **settings}))


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
    fork = database.fork()
    assert ask(database, "SELECT name FROM ship") == ask(fork.fork(), "SELECT name FROM ship") == "Orla"
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


def test_a_fork_of_a_file_does_not_change_the_file(tmp_path):
    database = sql.open(sql.Settings(path=str(make_file(tmp_path / "a.db")), read_only=False))
    ask(database.fork(), "DELETE FROM ship")
    assert ask(database, "SELECT name FROM ship") == "Orla"
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
