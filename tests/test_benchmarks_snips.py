"""snips asks for the calls of the seven functions that a model may have trained on, and says so by its split's name."""

from __future__ import annotations

import pytest
from public import FOLDER, needs

from rolecraft import evaluate
from rolecraft.benchmarks import snips
from rolecraft.errors import DataError, NotFound, SettingsError
from rolecraft.types import Message, Task


@pytest.fixture
def public(monkeypatch):
    monkeypatch.setenv("ROLECRAFT_DATA", str(FOLDER))


def test_without_the_data_it_is_told_where_they_come_from(monkeypatch, tmp_path):
    monkeypatch.setenv("ROLECRAFT_DATA", str(tmp_path))
    with pytest.raises(NotFound, match=r"sonos/nlu-benchmark.*ROLECRAFT_DATA"):
        snips.tasks(snips.Settings(), "in_domain", 0)


def test_what_is_not_meant_is_refused():
    with pytest.raises(SettingsError, match="at least 1"):
        snips.Settings(size=0)
    with pytest.raises(DataError, match="only tasks of snips"):
        snips.open(Task("other", (Message("user", "?"),)))


@needs("snips")
@pytest.mark.usefixtures("public")
@pytest.mark.parametrize("split", snips.SPLITS)
def test_the_public_splits_have_a_hundred_of_each_function_and_their_solutions_are_accepted(split):
    tasks = snips.tasks(snips.Settings(size=10_000), split, 0)
    families = [task.reference["family"] for task in tasks]
    assert {families.count(name) for name in families} == {100}
    assert len(tasks) == 700
    assert [t.id for t in tasks if snips.reference(t, "mor").verdict.score < 1] == []


@needs("snips")
@pytest.mark.usefixtures("public")
def test_what_is_held_out_is_the_same_for_every_seed_and_no_example():
    held_out = {task.id for task in snips.tasks(snips.Settings(size=10_000), "dev", 0)}
    assert held_out == {task.id for task in snips.tasks(snips.Settings(size=10_000), "dev", 5)}
    asked = snips.tasks(snips.Settings(size=3), "in_domain", 0)
    texts = {task.messages[0].content for task in snips.tasks(snips.Settings(size=10_000), "dev", 0)}
    for shown in snips.few_shot(asked, "single", 5):
        users = [message.content for message in shown.messages if message.role == "user"]
        assert len(users) == 6
        assert not texts & set(users)
        names = [call.name for message in shown.messages for call in message.tool_calls]
        assert len(set(names)) == 5


@needs("snips")
@pytest.mark.usefixtures("public")
def test_trivial_policies_get_nothing():
    settings = evaluate.Settings(benchmark="snips", split=evaluate.splits("snips"), options={"size": 40})
    found = evaluate.baselines(settings)
    assert {name: row["in_domain"].score for name, row in found.items()} == {"never calls": 0, "always calls": 0}
