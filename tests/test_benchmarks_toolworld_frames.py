"""toolworld's sentences: enough of them, held-out ones apart, and no word that gives a topic away."""

from __future__ import annotations

import re
from string import Formatter

import pytest

from rolecraft.benchmarks import toolworld
from rolecraft.benchmarks.toolworld import Settings, asking, english, facts, frames, requests, sums, topics
from rolecraft.benchmarks.toolworld.asking import Frames

CALC = [sums.SYMBOLIC, *(shape.frames for shape in sums.SHAPES)]
BY_FAMILY = {
    "calc": CALC,
    "records": [frames.LOOKUP, frames.TABLE_LOOKUP, frames.COUNT, frames.BEST, frames.DIFFERENCE],
    "hub": [frames.LOOKUP],
    "hop": [frames.HOP],
    "parallel": [frames.SEVERAL_ENTITIES, frames.SEVERAL_TOPICS],
    "recover": [frames.LOOKUP],
    "irrelevant": [frames.LOOKUP, frames.OFF_TOPIC],
    "search": [facts.PLUS, facts.MINUS, facts.TIMES, facts.BOTH],
    "db": [requests.FIND, requests.SET, requests.ADD, requests.BOTH, requests.COPY],
}
EVERY = [*{id(f): f for found in BY_FAMILY.values() for f in found}.values(), asking.OPENERS, asking.CLOSERS]
TRAINING = [text for found in EVERY for text in found.training]
HELD_OUT = [text for found in EVERY for text in found.held_out]


def words_of(text: str) -> set[str]:
    return set(re.findall(r"[a-z]+", re.sub(r"\{.*?\}", "", text).casefold()))


@pytest.mark.parametrize("family", BY_FAMILY)
def test_a_family_has_twenty_frames_and_six_held_out(family):
    assert len({text for found in BY_FAMILY[family] for text in found.training}) >= 20
    assert len({text for found in BY_FAMILY[family] for text in found.held_out}) >= 6


def test_no_frame_is_on_both_sides():
    def bare(text: str) -> str:
        return re.sub(r"[\W_]+", " ", text).casefold().strip()

    assert not {bare(text) for text in TRAINING} & {bare(text) for text in HELD_OUT}


def test_no_frame_is_written_twice():
    assert all(len(set(side)) == len(side) for found in EVERY for side in (found.training, found.held_out))


@pytest.mark.parametrize("found", EVERY)
def test_held_out_frames_ask_for_the_same_things(found: Frames):
    def fields(side: tuple[str, ...]) -> set[str]:
        return {name for text in side for _, name, _, _ in Formatter().parse(text) if name}

    assert fields(found.held_out) <= fields(found.training)


def test_training_frames_hold_no_held_out_word():
    assert not [text for text in TRAINING if words_of(text) & topics.HELD_OUT]


def test_no_frame_holds_a_topic_by_chance():
    named = {*topics.TOPICS, *topics.HELD_OUT_TOPICS, *topics.RELATIONS, *topics.HELD_OUT_RELATIONS}
    posed = {text for found in CALC for text in (*found.training, *found.held_out)}
    assert not [text for text in {*TRAINING, *HELD_OUT} - posed if words_of(text) & named]


@pytest.mark.parametrize("split", ["train", "test", "tools", "phrasing"])
def test_only_the_phrasing_split_asks_in_held_out_frames(split):
    side = HELD_OUT if split == "phrasing" else TRAINING
    patterns = [re.compile(re.sub(r"\\\{.*?\\\}", ".+", re.escape(text))) for text in side]
    for task in toolworld.tasks(Settings(size=210), split, 5):
        question = task.messages[0].content
        assert any(pattern.search(question) for pattern in patterns), question


def test_lists_and_plurals_are_english():
    assert english.listed(["A", "B", "C"]) == "A, B and C"
    assert [english.plural(kind) for kind in ("city", "ship", "volcano")] == ["cities", "ships", "volcanoes"]
