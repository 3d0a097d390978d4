"""hotpotqa asks with search over a question's paragraphs, over all or closed, and scores exact match beside F1."""

from __future__ import annotations

import asyncio

import pytest
from public import FOLDER, needs

from rolecraft.benchmarks import hotpotqa
from rolecraft.errors import DataError, NotFound, SettingsError
from rolecraft.types import Message, Task, ToolCall, Trajectory


@pytest.fixture
def public(monkeypatch):
    monkeypatch.setenv("ROLECRAFT_DATA", str(FOLDER))


def verdict(gold: str, text: str):
    task = Task("t", (Message("user", "?"),), reference={"answer": gold})
    return hotpotqa.judge(Trajectory("t", task, (*task.messages, Message("assistant", text)), stop="answered"))


def test_without_the_data_it_is_told_what_is_missing(monkeypatch, tmp_path):
    monkeypatch.setenv("ROLECRAFT_DATA", str(tmp_path))
    with pytest.raises(NotFound, match=r"distractor_easy_100.*ROLECRAFT_DATA"):
        hotpotqa.tasks(hotpotqa.Settings(), "test", 0)


def test_what_is_not_meant_is_refused():
    with pytest.raises(SettingsError, match="at least 1"):
        hotpotqa.Settings(size=0)
    with pytest.raises(SettingsError, match="questoin"):
        hotpotqa.Settings(search="questoin")
    with pytest.raises(DataError, match="only tasks of hotpotqa"):
        hotpotqa.open(Task("other", (Message("user", "?"),)))


@pytest.mark.parametrize(
    ("gold", "told", "em", "f1"),
    [
        ("Arthur's Magazine", "the Arthur's magazine.", 1, 1),
        ("Arthur's Magazine", "I searched.\nAnswer: Arthur's Magazine", 1, 1),
        ("Arthur's Magazine", "Arthur's Magazine was first", 0, 2 / 3),
        ("yes", "Yes, it was", 0, 0),
        ("no", "No.", 1, 1),
        ("2006", "in 2007", 0, 0),
        ("New York City", "New York", 0, 0.8),
    ],
)
def test_an_answer_has_exact_match_and_f1_as_parts(gold, told, em, f1):
    found = verdict(gold, told)
    assert found.score == found.parts["em"] == em
    assert found.parts["f1"] == pytest.approx(f1)


@needs("hotpotqa")
@pytest.mark.usefixtures("public")
def test_search_is_over_the_questions_paragraphs_or_over_all():
    found = {}
    for over in ("question", "file", "none"):
        task = hotpotqa.tasks(hotpotqa.Settings(size=1, search=over), "test", 0)[0]
        environment = hotpotqa.open(task)
        call = ToolCall("search", {"query": "football goals season championship"})
        found[over] = asyncio.run(environment.toolbox.call(call)).text
        assert [spec.name for spec in task.tools] == ([] if over == "none" else ["search"])
    assert found["question"] != found["file"]
    assert "no tool 'search'" in found["none"]


@needs("hotpotqa")
@pytest.mark.usefixtures("public")
def test_the_easy_file_is_to_collect_on_and_the_medium_one_to_test_on():
    train, test = (hotpotqa.tasks(hotpotqa.Settings(), split, 0) for split in hotpotqa.SPLITS)
    assert (len(train), len(test)) == (100, 100)
    assert not {task.messages for task in train} & {task.messages for task in test}
    assert hotpotqa.REPORTED == ("test",)


@needs("hotpotqa")
@pytest.mark.usefixtures("public")
def test_a_search_for_the_supporting_pages_finds_them():
    for task in hotpotqa.tasks(hotpotqa.Settings(size=20, top_k=5), "test", 0):
        record = hotpotqa.reference(task, "single")
        observation = next(message.content for message in record.messages if message.role == "tool")
        assert any(title in observation for title in task.reference["supporting"])


@needs("hotpotqa")
@pytest.mark.usefixtures("public")
def test_paragraphs_can_be_given_in_place_of_the_tool():
    (plain,), (given,) = (hotpotqa.tasks(hotpotqa.Settings(size=1, given=n), "test", 0) for n in (0, 2))
    assert given.tools == ()
    assert given.messages[0].content.endswith(plain.messages[0].content)
    assert given.messages[0].content.count("\n") > plain.messages[0].content.count("\n")
    with pytest.raises(SettingsError, match="name what it finds"):
        hotpotqa.Settings(search="none", given=2)
