"""The database world: its references leave the state that is asked for, and nothing else passes."""

from __future__ import annotations

import json
import re
from collections import Counter

import pytest

from rolecraft.benchmarks import toolworld
from rolecraft.benchmarks.toolworld import Settings, names, script, topics
from rolecraft.benchmarks.toolworld.families import db
from rolecraft.types import Message, Task, ToolCall


def drawn(split: str, size: int = 40) -> tuple[Task, ...]:
    return toolworld.tasks(Settings(size=size, families=("db",)), split, 20_240)


def queries(task: Task) -> list[str]:
    return [call["arguments"]["query"] for call in task.reference["calls"]]


def kind_of(task: Task) -> str:
    verbs = [query.partition(" ")[0] for query in queries(task)]
    return " ".join(verbs)


def played(task: Task, said: list[str], answer: str | None = None):
    """Play other statements than the reference's, with its answer."""
    acts = [Message("assistant", "", (ToolCall("sql", {"query": sql}),), speaker="assistant") for sql in said]
    _, _, right = script.script_of(task)
    acts.append(Message("assistant", right if answer is None else answer, speaker="assistant"))
    return script.play_now(toolworld.open(task), "single", acts)


def one(kind: str, split: str = "test") -> Task:
    return next(task for task in drawn(split) if kind_of(task) == kind)


@pytest.mark.parametrize("split", toolworld.SPLITS)
def test_every_reference_is_accepted(split):
    for task in drawn(split):
        for team in ("single", "mor"):
            found = toolworld.reference(task, team)
            assert found.verdict.score == 1, (task.id, found.verdict.reason)
            assert found.final_state["sql"] == task.reference["state"]["sql"]


def test_all_kinds_of_request_are_drawn_in_their_shares():
    kinds = Counter(kind_of(task) for task in drawn("train", 300))
    assert set(kinds) == {"SELECT", "UPDATE", "INSERT", "UPDATE UPDATE", "SELECT UPDATE"}
    assert min(kinds.values()) > 30
    assert sum(db._SHARES.values()) == pytest.approx(1)


def test_a_right_answer_without_the_change_is_none():
    for task in drawn("test"):
        if "UPDATE" in kind_of(task) or "INSERT" in kind_of(task):
            verdict = played(task, [sql for sql in queries(task) if sql.startswith("SELECT")]).verdict
            assert verdict.score == 0, task.id
            assert verdict.parts["state"] == 0


def test_half_of_two_changes_is_none():
    task = one("UPDATE UPDATE")
    assert played(task, queries(task)[:1]).verdict.parts["state"] == 0
    assert played(task, queries(task)[::-1]).verdict.score == 1


def test_another_way_to_write_it_counts():
    task = one("SELECT UPDATE")
    read, write = queries(task)
    table, topic, source = re.fullmatch(r"SELECT (\w+) FROM (\w+) WHERE name='(\w+)'", read).group(2, 1, 3)
    target = re.search(r"name='(\w+)'", write).group(1)
    sub = f"(SELECT {topic} FROM {table} WHERE name='{source}')"
    said = [f"UPDATE {table} SET {topic}={sub} WHERE name='{target}'", read]
    assert played(task, said).verdict.score == 1


@pytest.mark.parametrize(
    "more",
    [
        "DELETE FROM {table} WHERE name='{entity}'",
        "UPDATE {table} SET {topic}=1",
        "CREATE TABLE extra (x)",
        "DROP TABLE {table}",
    ],
)
def test_anything_changed_beside_it_is_wrong(more):
    task = one("UPDATE")
    (sql,) = queries(task)
    table, topic, entity = re.match(r"UPDATE (\w+) SET (\w+)=\d+ WHERE name='(\w+)'", sql).groups()
    assert played(task, [sql, more.format(table=table, topic=topic, entity=entity)]).verdict.score == 0


def test_a_copy_without_having_read_the_number_is_none():
    task = one("SELECT UPDATE")
    assert played(task, queries(task)[1:]).verdict.score == 0


def test_the_database_is_told_and_its_rows_are_not():
    for task in drawn("test"):
        (tool,) = task.tools
        (world,) = task.reference["world"]
        assert 2 <= len(world["tables"]) <= 3
        told = tool.description + task.messages[-1].content
        for table in world["tables"]:
            assert f"{table['name']}({', '.join(table['columns'])})" in tool.description
            assert sum(str(cell) in told for row in table["rows"] for cell in row) <= 2


def test_the_splits_stay_apart():
    for task in drawn("train", 100):
        text = f"{task.messages[-1].content} {task.tools[0].description}"
        assert not set(re.findall(r"[a-z]+", text.casefold())) & topics.HELD_OUT
        assert not [row[0] for t in task.reference["world"][0]["tables"] for row in t["rows"] if names.held_out(row[0])]
    for task in drawn("tools"):
        tables = task.reference["world"][0]["tables"]
        assert {column for table in tables for column in table["columns"][1:]} <= set(topics.HELD_OUT_TOPICS)
        assert {table["name"] for table in tables} <= set(topics.HELD_OUT_KINDS)


def test_a_task_fits_the_small_context(nano_tokenizer):
    for task in drawn("train"):
        assert len(script.example(toolworld.reference(task, "single"))) < 1200


def test_a_task_survives_json():
    for task in drawn("test", 5):
        copy = Task(task.id, task.messages, task.tools, json.loads(json.dumps(task.reference)))
        assert script.play_now(toolworld.open(copy), "single").verdict.score == 1
