"""Strategies where a team acts by code: the paper's own setting, and the two defects of its published rule."""

from __future__ import annotations

import asyncio

import pytest
from several import Several, says, world

from rolecraft import agent, strategies, team
from rolecraft.sandbox import layers
from rolecraft.tools import Toolbox, ToolFailure, tool
from rolecraft.types import Environment, Message, Task, Verdict

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


@tool(pure=True)
def look(page: str) -> str:
    """Look a page up.

    Args:
        page: its name
    """
    if page == "none":
        raise ToolFailure("no such page")
    return f"page {page}"


CATCHES = "try:\n    look('none')\nexcept ToolError:\n    pass\n"


def act(script, strategy, **settings):
    task = Task("t", (Message("user", "What?"),), (look.spec,))
    environment = Environment(task, Toolbox((look,)), lambda record: Verdict(0.0))
    player = strategies.choose(strategy, settings).player()
    engine = Several(list(script))
    return asyncio.run(agent.episode(environment, team.find("code"), engine, player=player)), engine


def test_votes_are_on_what_the_code_printed_not_on_what_its_calls_answered():
    steps = [code(f"print(look('{page}')[:0], {value})") for page, value in (("a", 42), ("b", 42), ("c", 7))]
    caught = code(f"{CATCHES}print('', 42)")
    record, _ = act([[*steps, caught], [code("final_answer(1)")]], "self_consistent", n=4)
    assert [message.content for message in record.messages if message.tool_call_id is None][2].strip() == "42"
    assert record.trials.failed == 0


def test_a_dry_run_of_code_judges_how_it_ends():
    record, _ = act([[code("1/0")], [code("final_answer(1)")]], "checked", checker="dry_run", retries=1)
    assert [check.right for check in record.trials.checks] == [False]
    record, _ = act([[code(f"{CATCHES}final_answer(2)")]], "checked", checker="dry_run", retries=1)
    assert [check.right for check in record.trials.checks] == [True]
    assert record.messages[-1].content == "2"


def test_a_task_that_code_ended_did_not_fail_for_what_it_caught():
    record, engine = act([[code(f"{CATCHES}final_answer(2)")]], "reflect", tries=2)
    assert (record.messages[-1].content, len(engine.asked)) == ("2", 1)
