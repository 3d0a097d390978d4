"""The other wordings of training questions: they fit their frames, come near no held-out one, and stay in training."""

from __future__ import annotations

import re
from string import Formatter

import pytest
from test_benchmarks_toolworld_frames import CALC, EVERY, HELD_OUT, words_of

from rolecraft.benchmarks import toolworld
from rolecraft.benchmarks.toolworld import Settings, topics, wordings
from rolecraft.benchmarks.toolworld.asking import Frames

COMMON = frozenset(
    "a an the of is to for in on it its and what how i you me that this with by do does if at so my we our us are be "
    "have has as from up out there which one can could please then or would not let need want".split()
)


def fields(text: str) -> set[str]:
    return {name for _, name, _, _ in Formatter().parse(text) if name}


def telling(text: str) -> set[str]:
    return words_of(text) - COMMON


def near(text: str, held_out: str) -> bool:
    """Tell whether most words that say something, and at least two, are the same."""
    ours, theirs = telling(text), telling(held_out)
    return len(ours & theirs) >= max(2, 0.6 * min(len(ours), len(theirs)))


def test_every_frame_has_wordings_and_every_wording_a_frame():
    assert set(wordings.read()) == {found.wording for found in EVERY}


@pytest.mark.parametrize("found", EVERY, ids=lambda found: found.wording)
def test_wordings_ask_for_the_same_things(found: Frames):
    named = set.union(*map(fields, found.training))
    needed = set.intersection(*map(fields, found.training))
    for text in wordings.read()[found.wording]:
        assert needed - {"kind", "kinds"} <= fields(text) <= named | {"kind", "kinds"}, text


def test_no_wording_comes_near_a_held_out_frame():
    telling_words = [(text, telling(text)) for text in HELD_OUT]
    assert not [
        (text, held_out)
        for found in wordings.read().values()
        for text in found
        for held_out, words in telling_words
        if telling(text) & words and near(text, held_out)
    ]


def test_no_wording_holds_a_held_out_word_or_a_topic_by_chance():
    named = {*topics.TOPICS, *topics.RELATIONS}
    sums = {found.wording for found in CALC}
    for name, found in wordings.read().items():
        banned = topics.HELD_OUT if name in sums else topics.HELD_OUT | named
        assert not [text for text in found if words_of(text) & banned]


def test_wordings_are_for_training_alone():
    for split in ("test", "tools", "phrasing"):
        assert toolworld.tasks(Settings(40), split, 3) == toolworld.tasks(Settings(40, varied=1.0), split, 3)


def test_varied_training_tasks_ask_in_other_wordings():
    patterns = [
        re.compile(re.sub(r"\\\{.*?\\\}", ".+", re.escape(text)))
        for texts in wordings.read().values()
        for text in texts
    ]
    for task in toolworld.tasks(Settings(210, varied=1.0), "train", 5):
        question = task.messages[0].content
        assert any(pattern.search(question) for pattern in patterns), question


def test_every_reference_of_varied_training_tasks_is_accepted():
    for task in toolworld.tasks(Settings(140, varied=1.0), "train", 6):
        assert toolworld.reference(task, "mor").verdict.score == 1, task.id
