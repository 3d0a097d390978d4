"""A failed episode becomes a lesson without its answer; a task is told those of its family, and not its own."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from rolecraft import reflection, store
from rolecraft.benchmarks import Scripted
from rolecraft.cli import main
from rolecraft.errors import ContextFull
from rolecraft.lessons import Lesson, Lessons
from rolecraft.types import Message, Task, ToolCall, Trajectory, Verdict

ADVICE = "Look at the table's columns before you ask for one."


def episode(name: str, score: float = 0.0, **reference: Any) -> Trajectory:
    known = {"family": "sql", "answers": ["Quil"], "calls": [{"name": "sql", "arguments": {}}], **reference}
    task = Task(name, (Message("user", f"Who has the largest debt, {name}?"),), (), known)
    call = Message("assistant", tool_calls=(ToolCall("sql", {"query": "SELECT x"}, id="c"),), speaker="assistant")
    told = Message("tool", "error: no such column: x", tool_call_id="c", failed=True)
    said = Message("assistant", "Norve.", speaker="assistant")
    verdict = Verdict(score, "the answer lacks 'Quil'" if score < 1 else "")
    return Trajectory(name, task, (*task.messages, call, told, said), stop="answered", verdict=verdict)


def learned(path: Path, says: Any, *episodes: Trajectory) -> list[tuple[str, str]]:
    async def all_of_them() -> list[tuple[str, str]]:
        engine = Scripted(lambda prompt: Message("assistant", says(prompt) if callable(says) else says))
        with Lessons(path) as memory:
            return [found async for found in reflection.learn(episodes, engine, memory, concurrency=2)]

    return asyncio.run(all_of_them())


def test_only_failed_episodes_are_asked_about_and_each_once(tmp_path):
    path = tmp_path / "m.db"
    first = learned(path, ADVICE, episode("a"), episode("b", 1.0), episode("c"))
    assert first == [("added", ADVICE), ("merged", ADVICE)]
    assert learned(path, ADVICE, episode("a"), episode("c")) == []


def test_an_episode_that_is_too_long_is_told_by_its_last_steps_and_costs_no_other_its_lesson(tmp_path):
    def says(prompt):
        if "Norve" not in prompt.messages[-1].content or "never" in prompt.messages[-1].content:
            raise ContextFull("the prompt is too long")
        if "SELECT x" in prompt.messages[-1].content and "long" in prompt.messages[-1].content:
            raise ContextFull("the prompt is too long")
        return ADVICE

    found = learned(tmp_path / "m.db", says, episode("long"), episode("never"), episode("short"))
    assert [outcome for outcome, _ in found] == ["added", "too long", "merged"]
    assert found[1][1] == "Who has the largest debt, never?"
    told = reflection.summary(Counter(outcome for outcome, _ in found))
    assert (
        told
        == "2 failed episodes asked about: 1 added, 1 merged, 0 refused; 1 left out, too long for the model's context"
    )


def test_all_that_taught_one_lesson_are_not_asked_about_again(tmp_path):
    episodes = [episode(f"t{number}") for number in range(60)]
    assert len(learned(tmp_path / "m.db", ADVICE, *episodes)) == 60
    assert learned(tmp_path / "m.db", ADVICE, *episodes) == []


def test_a_model_is_told_what_happened_and_never_the_reason_that_holds_the_answer():
    asked = "\n".join(message.content for message in reflection.ask(episode("a")).messages)
    assert "no such column" in asked
    assert 'sql({"query": "SELECT x"})' in asked
    assert "Quil" not in asked
    assert reflection.ask(episode("a")).choice == "none"


@pytest.mark.parametrize(
    "reference",
    [
        {"answers": ["Quil"]},
        {"answers": [], "label": ["Quil"]},
        {"answers": [], "contains": [["x", "quil"]]},
        {"answers": [], "maths": "Quil"},
    ],
)
def test_a_lesson_that_gives_the_answer_away_is_refused(tmp_path, reference):
    said = "Say that it is Quil, whatever the table says."
    assert learned(tmp_path / "m.db", said, episode("a", **reference)) == [("refused", said)]


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("Here is the lesson:\n\n- **Look first at the columns.**\nMore.", "Look first at the columns."),
        ("Check the names of columns.", "Check the names of columns."),
        ("Ok.", ""),
        ("", ""),
    ],
)
def test_the_first_sentences_are_what_is_kept(text, kept):
    assert reflection.first_sentences(text) == kept


def test_tasks_are_reminded_of_their_family_and_not_of_themselves(tmp_path):
    learned(tmp_path / "m.db", ADVICE, episode("a"))
    tasks = [episode("a").task, episode("b").task, episode("c", family="other").task]
    found = reflection.reminded(tasks, tmp_path / "m.db")
    assert [ADVICE in task.messages[0].content for task in found] == [False, True, False]
    assert ADVICE in reflection.reminded(tasks[2:], tmp_path / "m.db", any_family=True)[0].messages[0].content


def test_the_verb_shows_exports_adds_and_clears(tmp_path, capsys):
    path, rows = tmp_path / "m.db", tmp_path / "rows.jsonl"
    with Lessons(path) as memory:
        memory.add(Lesson("sql", "reflection", "s", ADVICE, ("a",)))
    main(["memory", "export", str(path), str(rows)])
    assert json.loads(rows.read_text())["text"] == ADVICE
    main(["memory", "show", str(path)])
    main(["memory", "clear", str(path)])
    main(["memory", "add", str(path), str(rows)])
    told = capsys.readouterr().out
    assert "1 lessons forgotten" in told
    assert "{'added': 1}" in told
    rows.write_text("{")
    assert main(["memory", "add", str(path), str(rows)]) == 2
    assert "rows.jsonl, line 1" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("bad", "told"),
    [
        (
            b'{"family": "f", "kind": "strategy", "situation": "s", "text": "t", "seen": 1000000000000000000000}',
            "line 2: seen",
        ),
        (b'{"family": "f", "kind": "strategy", "situation": "s", "text": "\\ud800 x"}', "line 2: a text holds half"),
        (b'{"family": "f", "kind": "strategy", "situation": "s", "text": "t\xff"}', "is not UTF-8"),
        (b"{", "line 2: not valid JSON"),
    ],
    ids=range(4),
)
def test_a_row_that_no_memory_can_hold_is_told_by_file_and_place_and_nothing_is_added(tmp_path, capsys, bad, told):
    path, rows = tmp_path / "m.db", tmp_path / "rows.jsonl"
    good = b'{"family": "f", "kind": "strategy", "situation": "s", "text": "look first"}'
    rows.write_bytes(good + b"\n" + bad + b"\n")
    assert main(["memory", "add", str(path), str(rows)]) == 2
    err = capsys.readouterr().err
    assert str(rows) in err
    assert told in err
    with Lessons(path) as lessons:
        assert list(lessons.all()) == []


def test_what_is_exported_is_added_again_whatever_ends_a_line_elsewhere(tmp_path):
    rows = tmp_path / "rows.jsonl"
    family = "a\u2028b\u2029c\x85d"
    with Lessons(tmp_path / "one.db") as lessons:
        lessons.add(Lesson(family, "strategy", "situation", "look first"))
    main(["memory", "export", str(tmp_path / "one.db"), str(rows)])
    main(["memory", "add", str(tmp_path / "two.db"), str(rows)])
    with Lessons(tmp_path / "two.db") as lessons:
        assert [one.family for one in lessons.all()] == [family]


def test_the_verb_learns_from_a_run_of_training_tasks_and_from_no_other(tmp_path, capsys):
    for split, code in (("test", 2), ("tools", 2), ("train", 0)):
        run = store.Run(tmp_path / split)
        run.append(episode("a"))
        run.write_settings({"evaluation": {"benchmark": "toolworld", "split": split}})
        command = ["memory", "learn", str(tmp_path / "m.db"), str(run.path), "--max-tokens", "8"]
        assert (main(command) or 0) == code
    told = capsys.readouterr()
    assert "split 'test', which measures; learn from 'train'" in told.err
    assert "split 'tools', which measures" in told.err
    assert "1 failed episodes asked about" in told.out


def test_an_evaluation_tells_its_tasks_what_a_memory_has(tmp_path, capsys):
    with Lessons(tmp_path / "m.db") as memory:
        memory.add(Lesson("hop", "strategy", "", ADVICE))
    common = ["eval", "toolworld", "families=[hop]", "--limit", "2", "--max-tokens", "2", "--max-turns", "1"]
    main([*common, "--memory", str(tmp_path / "m.db"), "--output", str(tmp_path / "run")])
    found = list(store.Run(tmp_path / "run").trajectories())
    assert [ADVICE in record.messages[0].content for record in found] == [True, True]
    assert main([*common, "--output", str(tmp_path / "run")]) == 2
    assert "memory" in capsys.readouterr().err
