"""gsm8k's problems are asked with python or without, and an answer is right if it comes to the published number."""

from __future__ import annotations

import json

import pytest
from public import FOLDER, needs

from rolecraft.benchmarks import gsm8k
from rolecraft.errors import DataError, NotFound, SettingsError
from rolecraft.types import Message, Task, Trajectory

pytest.importorskip("math_verify")


@pytest.fixture
def own(monkeypatch, tmp_path):
    """Put two problems where the data are looked for."""
    rows = (
        {"question": "Two of 3?", "answer": "Two times 3 is <<2*3=6>>6.\nThen <<6+1=7>>7.\n#### 1,007"},
        {"question": "How many?", "answer": "There are 5.\n#### 5"},
    )
    (tmp_path / "gsm8k").mkdir()
    for split in gsm8k.SPLITS:
        (tmp_path / "gsm8k" / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    monkeypatch.setenv("ROLECRAFT_DATA", str(tmp_path))
    return tmp_path


def answered(task: Task, text: str) -> Trajectory:
    return Trajectory("t", task, (*task.messages, Message("assistant", text)), stop="answered")


def test_without_the_data_it_is_told_where_they_come_from(monkeypatch, tmp_path):
    monkeypatch.setenv("ROLECRAFT_DATA", str(tmp_path))
    with pytest.raises(NotFound, match=r"openai/grade-school-math.*ROLECRAFT_DATA"):
        gsm8k.tasks(gsm8k.Settings(), "test", 0)


def test_what_is_not_meant_is_refused():
    with pytest.raises(SettingsError, match="at least 1"):
        gsm8k.Settings(size=0)
    with pytest.raises(DataError, match="only tasks of gsm8k"):
        gsm8k.open(Task("other", (Message("user", "?"),)))


def test_a_row_that_is_no_problem_is_told_with_its_line(own):
    (own / "gsm8k" / "test.jsonl").write_text('{"question": "?", "answer": "no number"}\n')
    with pytest.raises(DataError, match=r"test\.jsonl:1: .*####"):
        gsm8k.tasks(gsm8k.Settings(), "test", 0)


@pytest.mark.usefixtures("own")
def test_the_tool_is_a_setting_and_the_question_says_how_to_answer():
    (with_tool, *_), (without, *_) = (gsm8k.tasks(gsm8k.Settings(python=told), "test", 0) for told in (True, False))
    assert [spec.name for spec in with_tool.tools] == ["python"]
    assert without.tools == ()
    assert with_tool.messages == without.messages
    assert with_tool.messages[0].content.endswith("Give the final number in \\boxed{}.")
    assert gsm8k.tasks(gsm8k.Settings(form=None), "test", 0)[0].messages[0].content in ("Two of 3?", "How many?")


@pytest.mark.usefixtures("own")
def test_the_family_is_the_number_of_steps_and_the_number_has_no_comma():
    told = {task.messages[0].content[:3]: task.reference for task in gsm8k.tasks(gsm8k.Settings(), "test", 0)}
    assert (told["Two"]["family"], told["Two"]["maths"]) == ("steps: 2", "1007")
    assert told["How"]["family"] == "steps: 1"


@pytest.mark.usefixtures("own")
@pytest.mark.parametrize(
    ("answer", "right"),
    [
        ("So it is \\boxed{1007}.", True),
        ("They have 2 and 3, which makes $1,007 in all.", True),
        ("\\boxed{1007.00}", True),
        ("<think>It is 5.</think> 1007", True),
        ("1007 is too much; it is 1006.", False),
        ("\\boxed{1006} and not 1007", False),
        ("none", False),
        ("9^9^9^9^9^9", False),
        ("__import__('os').system('true')", False),
    ],
)
def test_an_answer_is_compared_as_a_number(answer: str, right: bool):
    (task,) = (t for t in gsm8k.tasks(gsm8k.Settings(), "test", 0) if t.reference["maths"] == "1007")
    assert gsm8k.judge(answered(task, answer)).score == float(right)


@pytest.mark.usefixtures("own")
def test_examples_are_solved_problems_of_the_training_file():
    asked = gsm8k.tasks(gsm8k.Settings(size=1, python=False), "test", 0)
    (shown,) = gsm8k.few_shot(asked, "single", 1)
    assert [message.role for message in shown.messages] == ["user", "assistant", "user"]
    assert "\\boxed" in shown.messages[1].content
    assert "<<" not in shown.messages[1].content


@pytest.mark.usefixtures("own")
@pytest.mark.parametrize("form", [None, "Say it in words."])
def test_examples_are_asked_in_the_form_that_the_tasks_are(form: str | None):
    asked = gsm8k.tasks(gsm8k.Settings(size=1, python=False, form=form), "test", 0)
    (shown,) = gsm8k.few_shot(asked, "single", 1)
    questions = [message.content for message in shown.messages if message.role == "user"]
    assert [question.partition("?")[2] for question in questions] == [f"\n\n{form}" if form else ""] * 2


@needs("gsm8k")
def test_the_published_solutions_are_accepted(monkeypatch):
    monkeypatch.setenv("ROLECRAFT_DATA", str(FOLDER))
    tasks = gsm8k.tasks(gsm8k.Settings(size=150, python=False), "test", 0)
    assert [task.id for task in tasks if gsm8k.reference(task, "single").verdict.score < 1] == []
