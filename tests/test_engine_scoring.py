"""Given tokens are scored as a plain forward pass of the model scores them, whatever else the engine is doing."""

from __future__ import annotations

import asyncio
import math
import random

import pytest
import tiny
import torch
from test_mor_play import players

from rolecraft import model
from rolecraft.engine import LocalEngine, Settings
from rolecraft.errors import ContextFull, EngineError

pytestmark = pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning")


@pytest.fixture(scope="module")
def loaded(nano_tokenizer):
    return tiny.loaded(nano_tokenizer)


def drawn(words: int, count: int, seed: int = 0) -> list[list[int]]:
    """Sequences of random tokens, of 2 to 60 of them."""
    dice = random.Random(seed)
    return [[dice.randrange(words) for _ in range(dice.randint(2, 60))] for _ in range(count)]


def expected(scored, ids, start=1, **inputs) -> torch.Tensor:
    """What a forward pass of transformers says of `ids[start:]`."""
    with torch.inference_mode():
        logits = scored(torch.tensor([ids]), **inputs).logits[0, start - 1 : -1].float()
    return logits.log_softmax(-1)


def score(engine: LocalEngine, *asked) -> list:
    async def ask():
        return await asyncio.gather(*(engine.score(*one) for one in asked))

    return asyncio.run(ask())


def check(scored, engine: LocalEngine, rows, start: int = 1) -> None:
    for ids, one in zip(rows, score(engine, *((ids, start) for ids in rows)), strict=True):
        chosen = expected(scored, ids, start).gather(-1, torch.tensor(ids[start:])[:, None])[:, 0]
        torch.testing.assert_close(torch.tensor(one.logprobs), chosen, atol=1e-4, rtol=0)


@pytest.mark.parametrize("architecture", sorted(tiny.ARCHITECTURES))
def test_scores_equal_a_forward_pass(nano_tokenizer, architecture):
    loaded = tiny.loaded(nano_tokenizer, architecture)
    with LocalEngine(loaded, Settings(max_requests=4)) as engine:
        check(loaded.model, engine, drawn(len(nano_tokenizer), 12))


def test_scores_of_the_nano_base_equal_a_forward_pass():
    loaded = model.load("nano")
    with LocalEngine(loaded) as engine:
        check(loaded.model, engine, drawn(1024, 6))


@pytest.mark.parametrize("changes", [{"prefill_tokens": 5}, {"fused": False}, {"max_requests": 1}])
def test_how_the_engine_is_set_changes_no_score(loaded, changes):
    with LocalEngine(loaded, Settings(**{"max_requests": 3, **changes})) as engine:
        check(loaded.model, engine, drawn(400, 8))


def test_what_is_cached_of_the_beginning_is_not_computed_again(loaded):
    first, second = [5] * 40 + [7, 8, 9], [5] * 40 + [8, 8, 8]
    with LocalEngine(loaded, Settings(max_requests=2)) as engine:
        check(loaded.model, engine, [first], start=40)
        widths = []
        forward = engine._runner._forward
        engine._runner._forward = lambda rows, tokens, *rest: (
            widths.append(len(tokens[0])),
            forward(rows, tokens, *rest),
        )[1]
        check(loaded.model, engine, [second], start=40)
    assert sum(widths) <= 4


def test_replies_that_are_written_meanwhile_are_the_same(loaded):
    prompts = [tiny.prompt(f"debt of {name}", max_tokens=20, temperature=1.0, seed=3) for name in ("Ro", "Plalples")]

    async def talk(engine, rows):
        replies = (engine.complete(prompt) for prompt in prompts)
        found = await asyncio.gather(*replies, *(engine.score(ids) for ids in rows))
        return [completions[0].turn.token_ids for completions in found[: len(prompts)]]

    with LocalEngine(loaded, Settings(max_requests=4)) as engine:
        alone = asyncio.run(talk(engine, []))
        assert asyncio.run(talk(engine, drawn(400, 6))) == alone


def test_all_tokens_are_a_distribution(loaded):
    ids = drawn(400, 1)[0]
    with LocalEngine(loaded) as engine:
        (one,) = score(engine, (ids, 2, (), 1024))
    said = expected(loaded.model, ids, 2)
    assert len(one.likeliest) == len(one.logprobs) == len(ids) - 2
    for place, likely in enumerate(one.likeliest):
        assert math.isclose(sum(math.exp(logprob) for _, logprob in likely), 1.0, abs_tol=1e-4)
        assert dict(likely)[ids[2 + place]] == pytest.approx(one.logprobs[place], abs=1e-5)
        assert likely[0][0] == int(said[place].argmax())


@pytest.mark.parametrize("assignment", ["stream", "reencode", "activated"])
def test_each_token_is_computed_by_its_own_role(nano_tokenizer, assignment):
    loaded = players(nano_tokenizer, assignment)
    ids = drawn(400, 1, seed=2)[0]
    dice = random.Random(1)
    roles = [dice.choice([-1, 0, 1, 2]) for _ in ids]
    with LocalEngine(loaded) as engine:
        (one,) = score(engine, (ids, 3, roles))
    said = expected(loaded.model, ids, 3, role_ids=torch.tensor([roles]))
    chosen = said.gather(-1, torch.tensor(ids[3:])[:, None])[:, 0]
    torch.testing.assert_close(torch.tensor(one.logprobs), chosen, atol=1e-4, rtol=0)
    with torch.inference_mode():
        other = expected(loaded.model, ids, 3, role_ids=torch.zeros(1, len(ids), dtype=torch.long))
    assert not torch.allclose(other, said, atol=1e-2)  # else roles would not matter, and nothing were shown


@pytest.mark.parametrize(
    ("asked", "error", "told"),
    [
        (([1, 2, 3], 0), EngineError, "start must be 1 to 2"),
        (([1, 2, 3], 3), EngineError, "start must be 1 to 2"),
        (([1], 1), EngineError, "of 1 tokens"),
        (([1, 5000], 1), EngineError, "token 5000 is none of the model's 426"),
        (([1, -1], 1), EngineError, "token -1"),
        (([1, 2], 1, (0, 0)), EngineError, "2 role ids were given, and this model needs none"),
        (([1] * 300, 1), ContextFull, "300 tokens were to be scored and the context holds 256"),
    ],
)
def test_what_cannot_be_scored_is_told(loaded, asked, error, told):
    with LocalEngine(loaded, Settings(max_context=256)) as engine, pytest.raises(error, match=told):
        score(engine, asked)


def test_a_model_with_roles_asks_for_them(nano_tokenizer):
    with LocalEngine(players(nano_tokenizer, "stream")) as engine, pytest.raises(EngineError, match="needs 3, one a"):
        score(engine, ([1, 2, 3], 1))


def test_a_closed_engine_scores_nothing(loaded):
    engine = LocalEngine(loaded)
    engine.close()
    with pytest.raises(EngineError, match="closed"):
        score(engine, ([1, 2], 1))
