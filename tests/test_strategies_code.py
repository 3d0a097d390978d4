"""Strategies where a team acts by code: the paper's own setting, and the two defects of its published rule."""

from __future__ import annotations

import asyncio

import pytest
from several import Several, says, world

from rolecraft import agent, strategies, team
from rolecraft.sandbox import layers

pytestmark = pytest.mark.skipif(not layers()["seccomp"], reason="no system-call filter on this machine")


def code(text: str):
    return says(f"I do it.\n```python\n{text}\n```")


def play(script, **settings):
    player = strategies.choose("self_consistent", settings).player()
    return asyncio.run(agent.episode(world(), team.find("code"), Several(list(script)), player=player))


FINALS = [code(f"final_answer('{answer}')") for answer in ("WRONG-1", "RIGHT", "RIGHT")] + [
    code("x = 'RIGHT'\nfinal_answer(x)")
]
COUNTS = [[code("n = 0")], [code("n = n + 1\nprint(n)")], [code("final_answer(n)")]]


@pytest.mark.parametrize(("mode", "answer"), [("canonical", "RIGHT"), ("paper", "WRONG-1")])
def test_final_answers_are_voted_on_and_by_the_published_rule_pooled(mode, answer):
    record = play([FINALS], n=4, mode=mode)
    assert (record.stop, record.messages[-1].content) == ("answered", answer)


@pytest.mark.parametrize(("mode", "answer"), [("canonical", "1"), ("paper", "9")])
def test_variables_are_each_replys_own_and_by_the_published_rule_shared(mode, answer):
    record = play(COUNTS, mode=mode)
    assert record.messages[-1].content == answer
