"""A user's own tasks are read strictly, played with the user's own tools, and judged by all that their rows tell."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest
from verbs import call

from rolecraft import agent, evaluate, team
from rolecraft.benchmarks import tasks
from rolecraft.errors import DataError, NotFound, SettingsError
from rolecraft.store import Run
from rolecraft.types import Completion, Message, ToolCall, Turn

SHOP = Path(__file__).parents[1] / "examples" / "shop"
DATABASE = "CREATE TABLE t (name TEXT, n INTEGER); INSERT INTO t VALUES ('a', 1), ('b', 2);"
TOOLS = '''
from rolecraft.tools import tool

seen = []


@tool
def count(word: str, step: int = 1) -> int:
    """Count.

    Args:
        word: what
        step: by how much
    """
    seen.append(word)
    return len(seen) * step
'''


class Scripted:
    """Says the replies in their order, each episode from the first on."""

    def __init__(self, *replies: Message) -> None:
        self.replies = replies

    async def complete(self, prompt):
        said = sum(message.role == "assistant" for message in prompt.messages)
        message = self.replies[min(said, len(self.replies) - 1)]
        return (Completion(message, Turn(message, prompt.speaker)),)


def say(text: str, *calls: tuple[str, dict]) -> Message:
    return Message("assistant", text, tuple(ToolCall(name, arguments) for name, arguments in calls))


@pytest.fixture
def own(tmp_path):
    """Write rows and a tools file; returns what makes the settings of them."""

    def write(*rows: dict, tools: str = TOOLS, **settings) -> tasks.Settings:
        (tmp_path / "tasks.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        (tmp_path / "my_tools.py").write_text(tools, encoding="utf-8")
        return tasks.Settings(tmp_path / "tasks.jsonl", (tmp_path / "my_tools.py",), **settings)

    return write


def played(settings: tasks.Settings, *replies: Message):
    """Play the first task with what is said, and return its record."""

    async def play():
        opener = tasks.opener(settings)
        (task, *_) = tasks.tasks(settings, "test", 0)
        (record,) = [each async for each in agent.play([lambda: opener(task)], team.find("single"), Scripted(*replies))]
        return record

    return asyncio.run(play())


COUNT = {"name": "count", "arguments": {"word": "x"}}


@pytest.mark.parametrize(
    ("row", "replies", "reason"),
    [
        ({"answer": "blue"}, [say("It is Blue.")], ""),
        ({"answer": "blue"}, [say("It is red.")], "answer: the answer lacks 'blue'"),
        ({"answer": {"exact": "Paris"}}, [say("**Paris**.")], ""),
        ({"answer": {"exact": "Paris"}}, [say("It is Paris.")], "answer: the answer lacks 'Paris' alone"),
        ({"answer": {"contains": ["a b", "7"]}}, [say("7 and a b")], ""),
        ({"answer": {"contains_any": ["nil", "0"]}}, [say("there are 0")], ""),
        ({"answer": {"contains_any": ["nil", "0"]}}, [say("some")], "answer: the answer lacks 'nil' or '0'"),
        ({"answer": {"forbidden": "no"}}, [say("no")], "answer: the answer holds 'no', which is wrong"),
        ({"answer": {"number": 3.5, "tolerance": 0.1}}, [say("about $3.58 each")], ""),
        ({"answer": -2}, [say("2")], "answer: the answer lacks the number -2"),
        ({"calls": [COUNT]}, [say("", ("count", {"word": "x", "step": 1})), say("1")], ""),
        ({"calls": [COUNT]}, [say("", ("count", {"word": "y"})), say("1")], "calls: wrong arguments"),
        ({"calls": [COUNT]}, [say("1")], "calls: gave up early"),
        ({"calls": []}, [say("", ("count", {"word": "x"})), say("1")], "calls: needless call"),
        ({"calls": []}, [say("Good morning.")], ""),
        ({"calls": [COUNT]}, [say("", *[("count", {"word": "x"})] * 2), say("1")], "calls: extra call"),
    ],
)
def test_an_episode_is_right_in_all_that_its_row_tells(own, row, replies, reason):
    record = played(own({"question": "?", **row}), *replies)
    assert record.verdict.score == (not reason)
    assert record.verdict.reason.startswith(reason)


@pytest.mark.parametrize(("ordered", "score"), [(True, 0), (False, 1)])
def test_the_order_of_calls_matters_where_the_row_says_so(own, ordered, score):
    other = {"name": "count", "arguments": {"word": "y"}}
    settings = own({"question": "?", "calls": [COUNT, other], "ordered": ordered})
    record = played(settings, say("", ("count", {"word": "y"})), say("", ("count", {"word": "x"})), say("done"))
    assert record.verdict.score == score


@pytest.mark.parametrize(("name", "score"), [("a", 1), ("b", 0)])
def test_the_state_is_what_the_query_answers_after_the_episode(own, name, score):
    state = {"query": "SELECT name, n FROM t ORDER BY name", "rows": [["a", 9], ["b", 2]]}
    settings = own({"question": "?", "database": DATABASE, "state": state})
    query = f"UPDATE t SET n = 9 WHERE name = '{name}'"
    record = played(settings, say("", ("sql", {"query": query})), say("done"))
    assert record.verdict.parts == {"state": float(score)}
    assert record.final_state["sql"] == [["a", 9 if score else 1], ["b", 2 if score else 9]]


def test_the_database_may_be_a_file_beside_the_tasks(own, tmp_path):
    (tmp_path / "t.sql").write_text(DATABASE, encoding="utf-8")
    (task,) = tasks.tasks(own({"question": "?", "database": "t.sql", "answer": "2"}), "test", 0)
    assert task.reference["database"] == DATABASE
    assert [spec.name for spec in task.tools] == ["count", "sql"]


def test_each_episode_has_fresh_tools(own):
    settings = own({"question": "?", "answer": 1}, {"question": "!", "answer": 1})
    for _ in range(2):
        record = played(settings, say("", ("count", {"word": "x"})), say("1"))
        assert [message.content for message in record.messages if message.role == "tool"] == ["1"]


def test_a_task_offers_the_tools_that_its_row_names(own):
    settings = own({"question": "?", "database": DATABASE, "answer": 1, "tools": ["sql"]})
    (task,) = tasks.tasks(settings, "test", 0)
    world = tasks.opener(settings)(task)
    assert world.toolbox.specs == task.tools
    assert [spec.name for spec in task.tools] == ["sql"]
    world.toolbox.close()


def test_the_system_message_opens_conversations_without_one_of_their_own(own):
    theirs = [{"role": "system", "content": "Mine."}, {"role": "user", "content": "?"}]
    rows = {"question": "?", "answer": 1}, {"messages": theirs, "answer": 1}
    first, second = tasks.tasks(own(*rows, system="Be brief."), "test", 0)
    assert [message.content for message in first.messages] == ["Be brief.", "?"]
    assert [message.content for message in second.messages] == ["Mine.", "?"]


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"question": "?"}, "nothing tells what is right"),
        ({"answer": 1}, "give what is asked as 'question'"),
        ({"question": " ", "answer": 1}, "'question' is empty"),
        ({"question": "?", "anwser": 1}, "unknown key 'anwser'; did you mean 'answer'?"),
        ({"question": "?", "answer": True}, "answer: is bool True"),
        ({"question": "?", "answer": {"tolerance": 1}}, "answer: says nothing"),
        ({"question": "?", "answer": {"contains": []}}, "'contains' is empty"),
        ({"question": "?", "answer": {"contains": [3]}}, "'contains' has int 3"),
        ({"question": "?", "answer": {"number": 1, "tolerance": -1}}, "'tolerance' -1"),
        ({"question": "?", "answer": {"exact": "a", "tolerance": 1}}, "'tolerance' belongs to a 'number'"),
        ({"question": "?", "answer": 1, "ordered": True}, "'ordered' belongs to 'calls'"),
        ({"question": "?", "calls": [{"name": "cuont"}]}, r"calls\[0\]: no tool 'cuont'; did you mean 'count'"),
        ({"question": "?", "calls": [{"name": "count", "arguments": {}}]}, r"calls\[0\]: count needs 'word'"),
        ({"question": "?", "answer": 1, "tools": ["nothing"]}, "tools: no tool 'nothing'"),
        ({"question": "?", "state": {"query": "SELECT 1", "rows": []}}, "'state' is of a database"),
        ({"question": "?", "answer": 1, "database": "CREATE TABEL t"}, "'database' cannot be opened"),
        ({"question": "?", "answer": 1, "database": "absent.sql"}, "absent.sql cannot be read"),
        (
            {"question": "?", "database": DATABASE, "state": {"query": "SELECT x FROM t", "rows": []}},
            "'query' does not run: .*no such column",
        ),
        (
            {"question": "?", "database": DATABASE, "state": {"query": "SELECT n FROM t", "rows": [1]}},
            r"'rows'\[0\] is int 1; write a list",
        ),
        ({"question": "?", "answer": 1, "id": "first"}, "'id' is 'first', as in row 1"),
    ],
)
def test_a_bad_row_is_told_with_file_line_and_reason(own, row, reason):
    settings = own({"question": "?", "answer": 1, "id": "first"}, row)
    with pytest.raises(DataError, match=rf"tasks\.jsonl:2: .*{reason}"):
        tasks.tasks(settings, "test", 0)


def test_a_tools_file_that_another_file_names_is_not_run(own):
    settings = own({"question": "?", "answer": 1})
    with pytest.raises(NotFound, match="no file is run because another one names it"):
        tasks.tasks(tasks.Settings(settings.path, (str(settings.tools[0]),)), "test", 0)


def test_forty_tasks_of_a_shop_are_right_when_their_own_calls_and_answers_are_given():
    settings = tasks.Settings(SHOP / "tasks.jsonl", (SHOP / "tools.py",))
    asked = tasks.tasks(settings, "test", 0)
    assert len(asked) == 40

    async def all_right():
        opener, found = tasks.opener(settings), []
        for task in asked:
            calls = [(made["name"], made["arguments"]) for made in task.reference["calls"]]
            replies = ([say("", *calls)] if calls else []) + [say(tasks.rows.right_answer(task.reference))]
            async for record in agent.play([lambda one=task: opener(one)], team.find("single"), Scripted(*replies)):
                told = [message.content for message in record.messages if message.role == "tool"]
                found.append((task.id, record.verdict.reason, [text for text in told if "error" in text]))
        return found

    assert asyncio.run(all_right()) == [(task.id, "", []) for task in asked]


def settings_of(own_settings: tasks.Settings, **changes) -> evaluate.Settings:
    options = {"path": own_settings.path, "tools": own_settings.tools, "digest": tasks.digest(own_settings.tools)}
    return evaluate.Settings(benchmark="tasks", options=options, **changes)


def test_tasks_that_were_added_are_played_and_changed_ones_ask_for_another_run_folder(own, tmp_path):
    first, second = ({"id": name, "question": f"{name}?", "answer": 1} for name in "ab")
    run, player, engine = Run(tmp_path / "run"), team.find("single"), Scripted(say("1"))
    assert asyncio.run(evaluate.evaluate(settings_of(own(first)), player, engine, run)).n == 1
    assert asyncio.run(evaluate.evaluate(settings_of(own(first, second)), player, engine, run)).score == 1
    assert len(list(run.trajectories())) == 2
    changed = settings_of(own({**first, "answer": 2}, second))
    with pytest.raises(DataError, match="episode of task 'a' as it was before it was changed"):
        asyncio.run(evaluate.evaluate(changed, player, engine, run))
    other_tools = settings_of(own(first, second, tools=TOOLS + "\n"))
    with pytest.raises(
        DataError, match=r"options was {'digest': 'my_tools.py:\w+'}, now {'digest': 'my_tools.py:\w+'}"
    ):
        asyncio.run(evaluate.evaluate(other_tools, player, engine, run))


def test_episodes_that_begin_at_once_run_a_slow_tools_file_one_after_the_other(own, tmp_path):
    slow = own(*({"question": f"{i}?", "answer": 1} for i in range(6)), tools=f"import time\ntime.sleep(0.05)\n{TOOLS}")
    engine = Scripted(say("", ("count", {"word": "x"})), say("1"))
    asyncio.run(evaluate.evaluate(settings_of(slow), team.find("single"), engine, Run(tmp_path / "run")))
    told = [message.content for each in Run(tmp_path / "run").trajectories() for message in each.messages]
    assert told.count("1") == 12


def test_eval_plays_a_file_of_tasks_in_several_processes_and_compares_it(capsys, tmp_path, own):
    settings = own(*({"question": f"{i}?", "calls": [], "family": "f"} for i in range(3)))
    words = ["eval", str(settings.path), "--tools", str(settings.tools[0]), "--max-tokens", "4", "--max-turns", "2"]
    first, second = str(tmp_path / "first"), str(tmp_path / "second")
    assert call(capsys, *words, "--output", first)[0] == 0
    _, out, _ = call(capsys, *words, "--output", second, "--workers", "2", "--against", first, "--json")
    assert json.loads(out.splitlines()[-1])["n"] == 3
    assert [each.messages for each in Run(tmp_path / "first").trajectories()]
    assert Run(tmp_path / "second").settings()["evaluation"]["options"]["tools"] == [str(settings.tools[0])]


def test_eval_refuses_tools_for_a_benchmark_that_has_its_own(capsys):
    code, _, err = call(capsys, "eval", "toolworld", "--tools", "python")
    assert code == 2
    assert "'toolworld' has its own tools" in err


def test_eval_tells_a_bad_row_before_a_model_is_loaded(capsys, own):
    settings = own({"question": "?"})
    code, _, err = call(capsys, "eval", str(settings.path), "--tools", str(settings.tools[0]))
    assert code == 2
    assert "tasks.jsonl:1: nothing tells what is right" in err


def test_an_unknown_split_is_refused(own):
    with pytest.raises(SettingsError, match="no split 'train'"):
        tasks.tasks(own({"question": "?", "answer": 1}), "train", 0)
