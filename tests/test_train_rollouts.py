"""Rows of played episodes: the engine's own tokens, once each, and nothing trained that the player did not choose."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from functools import partial

import pytest
import torch

from rolecraft import agent, memory, model, team
from rolecraft.benchmarks import toolworld
from rolecraft.engine import LocalEngine
from rolecraft.errors import DataError
from rolecraft.gate import Gate
from rolecraft.team import Team
from rolecraft.train import rollouts
from rolecraft.types import Message, Prompt, Sampling, Task, ToolCall, ToolSpec, Trajectory

MOR = team.find("mor", instructions=False)


@pytest.fixture(scope="module")
def loaded():
    return model.load("nano")


def play(loaded, *, constrained: bool = False, size: int = 6, players: Team = MOR) -> list[Trajectory]:
    """Episodes of the untuned base, sampled."""
    asked = toolworld.tasks(toolworld.Settings(size=size, families=("hub", "hop", "recover")), "train", 3)
    settings = agent.Settings(4, sampling=Sampling(temperature=1.0, max_tokens=24), constrained=constrained)

    async def gather() -> list[Trajectory]:
        with LocalEngine(loaded) as engine:
            openers = [partial(toolworld.open, task) for task in asked]
            return [one async for one in agent.play(openers, players, engine, settings)]

    return asyncio.run(gather())


@pytest.fixture(scope="module")
def episodes(loaded):
    return play(loaded)


def test_every_token_that_was_written_is_chosen_once_with_its_log_probability(loaded, episodes):
    for episode in episodes:
        rows = rollouts.rows(episode, MOR, loaded.renderer, packs=True)
        written = [
            (token, logprob, turn.speaker)
            for turn in episode.turns
            for token, logprob in zip(turn.token_ids, turn.logprobs, strict=True)
        ]
        chosen = [
            (token, logprob, who)
            for row in rows
            for token, logprob, who, mine in zip(row.ids, row.logprobs, row.speakers, row.chosen, strict=True)
            if mine
        ]
        assert chosen == written


def test_a_row_begins_as_the_engine_s_prompts_did(loaded, episodes):
    for episode in episodes:
        for rows in (rollouts.rows(episode, MOR, loaded.renderer, packs=packs) for packs in (True, False)):
            for row in rows:
                for number in set(row.steps) - {-1}:
                    turn, first = episode.turns[number], row.steps.index(number)
                    assert row.ids[:first] == turn.prompt_ids
                    assert row.ids[first : first + len(turn.token_ids)] == turn.token_ids


def test_a_prompt_whose_observations_were_folded_is_read_as_it_was_played(loaded):
    call = Message("assistant", tool_calls=(ToolCall("find", {"of": "Quil"}, "a"),), speaker="executor")
    again = replace(call, tool_calls=(ToolCall("find", {"of": "Plal"}, "b"),))
    long = Message("tool", "the debt of a company " * 12, tool_call_id="a", name="find")
    before = (Message("user", "Who?"), call, long, again, replace(long, tool_call_id="b"))
    task = Task("t", before, (ToolSpec("find", "finds"),))

    async def ask(budget):
        with LocalEngine(loaded) as engine:
            prompt = Prompt(MOR.role("reasoner").view(before), task.tools, "reasoner", sampling=Sampling(max_tokens=4))
            (made,) = await memory.Folding(engine, budget).complete(prompt)
            return made, await engine.length(prompt)

    (_, whole) = asyncio.run(ask(10_000))
    made, _ = asyncio.run(ask(whole - 1))
    turn = replace(made.turn, message=replace(made.message, speaker="reasoner"), speaker="reasoner")
    episode = Trajectory("t", task, (*before, turn.message), (turn,))
    assert turn.folded == 1
    (row,) = rollouts.rows(episode, MOR, loaded.renderer, packs=True)
    assert row.ids == turn.prompt_ids + turn.token_ids
    assert len(turn.prompt_ids) < whole
    with pytest.raises(DataError, match="rendered otherwise"):
        rollouts.rows(replace(episode, turns=(replace(turn, folded=0),)), MOR, loaded.renderer, packs=True)


def test_an_episode_of_one_stream_is_one_row_and_else_each_reply_has_its_own(loaded, episodes):
    for episode in episodes:
        alone = rollouts.rows(episode, MOR, loaded.renderer, packs=False)
        assert [set(row.steps) - {-1} for row in alone] == [{number} for number in range(len(episode.turns))]
        assert len(rollouts.rows(episode, MOR, loaded.renderer, packs=True)) <= len(alone)
    assert any(len(rollouts.rows(one, MOR, loaded.renderer, packs=True)) < len(one.turns) for one in episodes)


def test_the_trainer_finds_each_token_as_likely_as_the_engine_did(loaded, episodes):
    for episode in episodes:
        for row in rollouts.rows(episode, MOR, loaded.renderer, packs=True):
            with torch.inference_mode():
                said = loaded.model(torch.tensor([row.ids])).logits[0, :-1].log_softmax(-1)
            found = said.gather(-1, torch.tensor(row.ids[1:])[:, None])[:, 0]
            chosen = torch.tensor(row.chosen[1:])
            torch.testing.assert_close(found[chosen], torch.tensor(row.logprobs[1:])[chosen], atol=1e-4, rtol=0)


def test_a_role_that_acts_by_code_has_rows_of_the_prompts_that_told_it_of_the_tools(loaded):
    code = team.find("code", instructions=False)
    for episode in play(loaded, size=2, players=code):
        assert episode.turns
        assert rollouts.rows(episode, code, loaded.renderer, packs=True)


def test_what_a_grammar_forced_is_not_chosen(loaded):
    played = play(loaded, constrained=True, size=3)
    forced = sum(one for episode in played for turn in episode.turns for one in turn.forced)
    written = sum(len(turn.token_ids) for episode in played for turn in episode.turns)
    rows = [row for episode in played for row in rollouts.rows(episode, MOR, loaded.renderer, packs=True)]
    assert forced > 0
    assert sum(map(sum, (row.chosen for row in rows))) == written - forced


def test_role_ids_are_those_of_the_gate(loaded, episodes):
    gate = Gate(MOR.speakers, "stream", "reasoner")
    for row in rollouts.rows(episodes[0], MOR, loaded.renderer, packs=True):
        told = row.roles(gate)
        mine = [(role, who) for role, who, chosen in zip(told, row.speakers, row.chosen, strict=True) if chosen]
        assert all(gate.roles[role] == who for role, who in mine)
        assert row.roles(None) == ()


def test_a_batch_pads_and_keeps_the_targets_in_order(loaded, episodes):
    rows = [row for one in episodes for row in rollouts.rows(one, MOR, loaded.renderer, packs=True)][:4]
    values = {"place": [list(range(len(row.ids))) for row in rows]}
    batch = rollouts.batch(rows, 0, values)
    expected = [place for row in rows for place, chosen in enumerate(row.chosen) if chosen]
    assert batch.of_targets("place").tolist() == expected
    assert batch.of_targets("logprobs").tolist() == pytest.approx(
        [logprob for row in rows for logprob, chosen in zip(row.logprobs, row.chosen, strict=True) if chosen]
    )
    numbers = [
        set(
            batch.extra["steps"][place][
                torch.tensor(row.chosen + (False,) * (batch.ids.shape[1] - len(row.ids)))
            ].tolist()
        )
        for place, row in enumerate(rows)
    ]
    assert sum(map(len, numbers)) == len(set().union(*numbers))  # no two rows share a step


def test_a_prompt_that_is_rendered_otherwise_is_refused(loaded, episodes):
    told = replace(episodes[0], turns=(replace(episodes[0].turns[0], prompt_ids=(1, 2, 3)),))
    with pytest.raises(DataError, match="rendered otherwise than the engine read it"):
        rollouts.rows(told, MOR, loaded.renderer, packs=True)


def test_a_reply_that_the_record_lacks_is_told(loaded, episodes):
    told = replace(episodes[0], messages=episodes[0].task.messages)
    with pytest.raises(DataError, match="keep its record whole"):
        rollouts.rows(told, MOR, loaded.renderer, packs=True)
