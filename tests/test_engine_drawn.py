"""A reply tells how each of its tokens was drawn, so that its chance can be had again."""

from __future__ import annotations

import asyncio
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rolecraft import model
from rolecraft.engine import LocalEngine, Settings, drawn
from rolecraft.types import Drawn, Message, Prompt, Sampling, ToolSpec

TOOL = ToolSpec(
    "look",
    "Look something up.",
    {"type": "object", "properties": {"kind": {"enum": ["cat", "car"]}, "word": {"type": "string"}}},
)


@given(st.lists(st.booleans(), max_size=70), st.integers(0, 80))
def test_a_mask_is_had_again_and_is_false_beyond_what_was_packed(mask, size):
    found = drawn.unpack(drawn.pack(torch.tensor(mask, dtype=torch.bool)), size).tolist()
    assert found == (mask + [False] * size)[:size]


def test_a_mask_that_bursts_is_cut():
    assert drawn.unpack(drawn.zlib.compress(b"\xff" * 2**24), 8).all()


def test_a_mask_takes_no_more_than_its_bits_and_a_few_bytes():
    random = torch.rand(49152, generator=torch.Generator().manual_seed(0)) < 0.5
    assert len(drawn.pack(random)) < 49152 / 8 + 32
    few = torch.zeros(49152, dtype=torch.bool)
    few[[3, 700, 48000]] = True
    assert len(drawn.pack(few)) < 100


def test_tokens_that_mean_one_have_its_chance_together():
    logits = torch.tensor([[0.3, 1.2, -0.5, 2.0]], requires_grad=True)
    mask, meant = torch.tensor([True, True, False, False]), torch.tensor([True, False, False, True])
    told = Drawn(0.0, 1.0, drawn.pack(mask), drawn.pack(meant), 0)
    found = drawn.let_through(logits, [told]).log_softmax(-1)[0, 0]
    together = math.exp(0.3) + math.exp(2.0)
    assert found.item() == pytest.approx(math.log(together / (together + math.exp(1.2))), abs=1e-6)
    found.backward()
    assert logits.grad[0, 2] == 0
    assert logits.grad[0, 3] > 0  # what means the same becomes likelier with it


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_the_engine_tells_the_chance_by_which_it_drew(temperature):
    loaded = model.load("nano")
    vocabulary = loaded.model.get_output_embeddings().weight.shape[0]
    sampling = Sampling(2, temperature, top_logprobs=vocabulary, tell_drawn=True, max_tokens=30)
    prompt = Prompt((Message("user", "look up cat"),), (TOOL,), choice="required", sampling=sampling)
    with LocalEngine(loaded, Settings(max_requests=2)) as engine:
        replies = asyncio.run(engine.complete(prompt))
    for turn in (reply.turn for reply in replies):
        assert [one is None for one in turn.drawn] == list(turn.forced)
        assert any(turn.forced)
        for token, known, one in zip(turn.token_ids, turn.likeliest, turn.drawn, strict=True):
            if one is None:
                continue
            open_ = drawn.unpack(one.among, vocabulary).tolist()
            assert open_[token]
            meant = drawn.unpack(one.meant, vocabulary).tolist() if one.meant else [False] * vocabulary
            mass = {place: math.exp(p / temperature) for place, p in known if open_[place] and not meant[place]}
            if one.meant:
                mass[one.written] = sum(math.exp(p) for place, p in known if meant[place]) ** (1 / temperature)
            assert one.logprob == pytest.approx(math.log(mass[token] / sum(mass.values())), abs=1e-4)


def test_nothing_is_told_to_who_does_not_ask():
    loaded = model.load("nano")
    prompt = Prompt((Message("user", "hello"),), sampling=Sampling(max_tokens=3))
    with LocalEngine(loaded, Settings(max_requests=1)) as engine:
        (reply,) = asyncio.run(engine.complete(prompt))
    assert reply.turn.drawn == ()
