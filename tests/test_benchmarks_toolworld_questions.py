"""Training questions that are no sentence, and words of open classes: all stays answerable, and nothing leaks."""

import re
from dataclasses import replace
from random import Random

import pytest

from rolecraft.benchmarks import toolworld
from rolecraft.benchmarks.toolworld import Settings, frames, names, questions, topics, vocabulary

VALUES = {
    "topic": "debt",
    "second": "rank",
    "relation": "owner",
    "entity": "Ro",
    "entities": "Ro, Mi and Tor",
    "first": "Rotal",
    "than": "above",
    "number": "750",
    "most": "lowest",
}


def scattered(posed, seed: int) -> str:
    words = vocabulary.find("train")
    always = replace(words, scattered=1.0)
    return questions.ask(Random(seed), always, posed, {**VALUES, "kind": "city", "other": "Vesmi"})


@pytest.mark.parametrize(
    ("posed", "kept"),
    [
        (frames.LOOKUP, ("debt", "Ro")),
        (frames.SEVERAL_ENTITIES, ("debt", "Ro, Mi and Tor")),
        (frames.SEVERAL_TOPICS, ("debt", "rank", "Ro")),
        (frames.HOP, ("debt", "owner", "Ro")),
        (frames.TABLE_LOOKUP, ("debt", "Ro")),
        (frames.COUNT, ("debt", "above 750")),
        (frames.BEST, ("debt", "lowest")),
        (frames.DIFFERENCE, ("debt", "Rotal", "rank")),
    ],
)
def test_a_scattered_question_holds_all_that_is_asked(posed, kept):
    for seed in range(50):
        asked = scattered(posed, seed)
        assert all(part.lower() in asked.lower() for part in kept), asked


def test_two_topics_keep_their_order():
    for seed in range(50):
        asked = scattered(frames.SEVERAL_TOPICS, seed).lower()
        assert asked.index("debt") < asked.index("rank")


def test_a_difference_names_its_two_sides_in_order():
    for seed in range(50):
        asked = scattered(frames.DIFFERENCE, seed).lower()
        assert asked.index("rotal") < asked.index("rank")


def test_open_words_and_scattered_questions_are_for_training_alone():
    for split in ("test", "tools", "phrasing"):
        plain, open_ = (
            toolworld.tasks(s, split, 3) for s in (Settings(40), Settings(40, open_words=1.0, scattered=1.0))
        )
        assert plain == open_


def test_open_training_tasks_use_unlisted_words_but_no_held_out_ones():
    tasks = toolworld.tasks(Settings(210, open_words=0.5, scattered=0.3), "train", 5)
    said = {word for task in tasks for spec in task.tools for word in re.findall(r"[a-z]+", spec.description)}
    assert len(said - {*topics.TOPICS, *topics.KINDS, *topics.RELATIONS, *topics.BACKUPS}) > 100
    assert not said & topics.HELD_OUT
    nonsense = said - set(topics.NOUNS) - set(topics.WORDS)
    listed = {w for n in ("TOPICS", "KINDS", "RELATIONS", "BACKUPS") for w in getattr(topics, n)}
    made = [word for word in nonsense - listed if len(word) > 5]
    assert sum(names.held_out(word) for word in made) < 0.15 * len(made)  # what is left are words of the descriptions


def test_coined_words_are_often_long_and_never_held_out():
    words = [names.coined(Random(seed)) for seed in range(2000)]
    assert not topics.HELD_OUT & set(words)
    longer = [word for word in words if word not in topics.NOUNS]
    assert 0.5 < len(longer) / len(words) < 0.8
    assert not any(names.held_out(word) for word in longer)


def test_every_reference_of_open_training_tasks_is_accepted():
    for task in toolworld.tasks(Settings(140, open_words=0.6, scattered=0.4), "train", 6):
        assert toolworld.reference(task, "mor").verdict.score == 1, task.id
