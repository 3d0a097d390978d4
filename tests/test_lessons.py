"""Lessons are appended or merged, bounded, scoped, found by words, and never hold an answer."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from rolecraft import lessons
from rolecraft.errors import DataError, SettingsError
from rolecraft.lessons import Lesson, Lessons, Settings
from rolecraft.types import Message, Task

COLUMN = Lesson("sql", "reflection", "update of a price", "Look at the columns before you update a table.", ("t1",))
ORDER = Lesson("sql", "strategy", "the largest value", "Sort by the value as a number and take one row.", ("t2",))


@pytest.fixture
def memory(tmp_path: Path):
    with Lessons(tmp_path / "memory.db") as found:
        yield found


def test_what_is_added_is_there_when_it_is_opened_again(tmp_path):
    with Lessons(tmp_path / "m.db") as memory:
        assert [memory.add(COLUMN), memory.add(ORDER)] == ["added", "added"]
    with Lessons(tmp_path / "m.db", frozen=True) as again:
        assert [replace(one, id=0) for one in again.all()] == [COLUMN, ORDER]


def test_a_lesson_that_says_the_same_is_counted_and_the_first_ones_words_stay(memory):
    memory.add(COLUMN)
    assert (
        memory.add(replace(COLUMN, text="look at the Columns before you update a  table!", tasks=("t9",))) == "merged"
    )
    (one,) = memory.all()
    assert (one.text, one.seen, one.tasks) == (COLUMN.text, 2, ("t1", "t9"))
    assert memory.add(replace(COLUMN, kind="strategy")) == "added"
    assert memory.add(replace(COLUMN, family="other")) == "added"


def test_a_lesson_that_holds_an_answer_of_its_task_is_refused(memory):
    leaking = replace(COLUMN, text="The answer is New York, 12.")
    assert memory.add(leaking, answers=["new york"]) == "refused"
    assert memory.add(leaking, answers=["12"]) == "refused"
    assert memory.add(replace(COLUMN, situation="the price of 12"), answers=["12"]) == "refused"
    assert memory.add(leaking, answers=["1", "York City", ""]) == "added"
    assert memory.add(replace(COLUMN, text=" ... ")) == "refused"


def test_a_family_is_bounded_and_the_least_useful_goes(tmp_path):
    with Lessons(tmp_path / "m.db", Settings(most=3)) as memory:
        texts = ["alpha one", "beta two", "gamma three"]
        for text in texts:
            memory.add(replace(COLUMN, text=text))
        for text in ("alpha one", "beta two"):
            memory.add(replace(COLUMN, text=text))
        memory.add(replace(COLUMN, text="delta four"))
        memory.add(replace(COLUMN, family="other", text="epsilon five"))
        assert [one.text for one in memory.all("sql")] == ["alpha one", "beta two", "delta four"]
        assert len(list(memory.all())) == 4


def test_a_giant_is_cut_at_a_word(memory):
    memory.add(replace(COLUMN, text="word " * 5000))
    (one,) = memory.all()
    assert len(one.text) < 620
    assert one.text.endswith("word ...")


def test_those_that_share_words_come_first_and_then_those_that_were_seen_most(memory):
    for one in (COLUMN, ORDER, replace(ORDER, text="Count with COUNT.", situation="how many")):
        memory.add(one)
    assert memory.find("sql", "which is the largest value?")[0].text == ORDER.text
    memory.add(replace(ORDER, text="Count with COUNT."))
    assert memory.find("sql", "zzz")[0].text == "Count with COUNT."
    assert memory.find("other", "value") == ()


def test_a_task_is_not_told_what_it_taught_itself(memory):
    memory.add(COLUMN)
    assert memory.find("sql", "update a price", without="t1") == ()
    assert len(memory.find("sql", "update a price", without="t2")) == 1


def test_every_task_that_taught_a_lesson_is_known_however_many(memory):
    for number in range(60):
        memory.add(replace(COLUMN, tasks=(f"t{number}",)))
    (one,) = memory.all()
    assert one.tasks == tuple(f"t{number}" for number in range(60))
    assert memory.find("sql", "update a price", without="t0") == ()


def test_a_task_is_known_for_as_long_as_its_family_is_remembered(tmp_path):
    with Lessons(tmp_path / "m.db", Settings(most=1)) as memory:
        memory.add(COLUMN)
        memory.add(ORDER)
        assert [one.text for one in memory.all()] == [ORDER.text]
        assert memory.tasks() == {"t1", "t2"}
        memory.clear("sql")
        assert memory.tasks() == frozenset()


_OLD = """
CREATE TABLE lesson (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    family TEXT NOT NULL, kind TEXT NOT NULL, situation TEXT NOT NULL, text TEXT NOT NULL,
    tasks TEXT NOT NULL, seen INTEGER NOT NULL, made REAL NOT NULL
);
INSERT INTO lesson VALUES (1, 'sql', 'reflection', 's', 'Look at the columns.', 't1' || char(10) || 't2', 2, 0.0);
"""


@pytest.mark.parametrize("frozen", [False, True])
def test_a_file_without_a_table_of_tasks_is_read_and_gone_on_with(tmp_path, frozen):
    with closing(sqlite3.connect(tmp_path / "m.db")) as old:
        old.executescript(_OLD)
    for _ in range(2):
        with Lessons(tmp_path / "m.db", frozen=frozen) as memory:
            (one,) = memory.all()
            assert (one.tasks, memory.tasks()) == (("t1", "t2"), {"t1", "t2"})
    if not frozen:
        with Lessons(tmp_path / "m.db") as memory:
            memory.add(Lesson("sql", "reflection", "s", "Look at the columns.", ("t3",)))
            assert next(memory.all()).tasks == ("t1", "t2", "t3")


@pytest.mark.parametrize("opening", [(), (Message("system", "Be brief."),)])
def test_lessons_are_told_in_the_system_message_and_the_task_stays_the_same(opening):
    task = Task("t", (*opening, Message("user", "Which is the largest?")), (), {"answers": ["Q"]})
    found = lessons.told(task, [COLUMN, ORDER])
    assert (found.id, found.reference, found.messages[-1]) == (task.id, task.reference, task.messages[-1])
    assert found.messages[0].content.endswith(f"taught:\n- {COLUMN.text}\n- {ORDER.text}")
    assert found.messages[0].content.startswith("Be brief." if opening else "What earlier")
    assert lessons.told(task, []) is task


def test_a_frozen_memory_takes_nothing_and_must_be_there(tmp_path):
    with pytest.raises(DataError, match="memory learn"):
        Lessons(tmp_path / "absent.db", frozen=True)
    Lessons(tmp_path / "m.db").close()
    with Lessons(tmp_path / "m.db", frozen=True) as memory, pytest.raises(SettingsError, match="frozen"):
        memory.add(COLUMN)


def test_a_file_that_is_no_memory_is_told(tmp_path):
    (tmp_path / "x.db").write_text("hello, I am no database at all" * 99)
    with pytest.raises(DataError, match=r"x\.db.*no memory"):
        Lessons(tmp_path / "x.db")


def test_a_row_of_a_file_is_a_lesson_again_and_a_bad_one_is_told():
    row = json.loads(json.dumps(lessons.to_json(COLUMN)))
    assert lessons.from_json(row, "here") == COLUMN
    for wrong in ({}, {**row, "kind": "joke"}, {**row, "seen": -1}, {**row, "tasks": [3]}, [1]):
        with pytest.raises(DataError, match="rows, line 3"):
            lessons.from_json(wrong, "rows, line 3")


def test_clearing_forgets_a_family_or_all(memory):
    memory.add(COLUMN)
    memory.add(replace(COLUMN, family="other"))
    assert (memory.clear("sql"), memory.clear()) == (1, 1)


_ADDER = """
import sys
from pathlib import Path
from rolecraft.lessons import Lesson, Lessons
with Lessons(Path(sys.argv[1])) as memory:
    for number in range(20):
        memory.add(Lesson("f", "reflection", "s", f"{sys.argv[2]} says number{number} of things"))
        memory.add(Lesson("f", "reflection", "s", "what both of them say"))
"""


def test_two_processes_that_add_at_once_lose_nothing(tmp_path):
    path = tmp_path / "m.db"
    running = [subprocess.Popen([sys.executable, "-c", _ADDER, str(path), name]) for name in ("one", "two")]
    assert [process.wait(120) for process in running] == [0, 0]
    with Lessons(path) as memory:
        found = list(memory.all())
    assert len(found) == 41
    assert next(one.seen for one in found if one.text == "what both of them say") == 40


def test_another_programs_database_is_told_and_stays_as_it_is(tmp_path):
    path = tmp_path / "customers.db"
    with closing(sqlite3.connect(path)) as database:
        database.execute("CREATE TABLE customers (name TEXT)")
        database.commit()
    before = path.read_bytes()
    with pytest.raises(DataError, match="it is no memory of lessons"):
        Lessons(path)
    assert path.read_bytes() == before


def test_what_is_to_be_cleared_must_be_there(tmp_path):
    with pytest.raises(DataError, match="no memory at"):
        Lessons(tmp_path / "misspelt.db", exists=True)
    assert not (tmp_path / "misspelt.db").exists()


def test_a_new_lesson_of_a_full_family_takes_the_place_of_the_least_seen(tmp_path):
    with Lessons(tmp_path / "m.db", Settings(most=2)) as memory:
        for text, seen in (("alpha one", 5), ("beta two", 4), ("gamma three", 1)):
            assert memory.add(replace(ORDER, text=text, seen=seen)) == "added"
        assert [one.text for one in memory.all()] == ["alpha one", "gamma three"]


@pytest.mark.parametrize("answer", ["1234", "1,234", "1234.0", "1,234.00"])
def test_a_number_in_another_notation_is_an_answer_too(memory, answer):
    for text in ("The debt is 1,234 coins.", "The debt is 1234.0 coins."):
        assert memory.add(replace(COLUMN, text=text), answers=[answer]) == "refused"
    assert memory.add(replace(COLUMN, text="The debt is 12,345 or 21234 coins."), answers=[answer]) == "added"


def test_of_all_families_those_alone_are_told_that_share_words(memory):
    memory.add(COLUMN)
    assert memory.find("sql", "zebra")
    assert memory.find(None, "zebra") == ()
    assert [one.text for one in memory.find(None, "which columns are there?")] == [COLUMN.text]
