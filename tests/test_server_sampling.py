"""How a reply is drawn, as the openai SDK asks for it, by a tiny random model."""

from __future__ import annotations

import pytest
import tiny
from serving import connected

from rolecraft import team
from rolecraft.engine import LocalEngine, Settings
from rolecraft.server import models


@pytest.fixture(scope="module")
def client(nano_tokenizer):
    with LocalEngine(tiny.loaded(nano_tokenizer), Settings(max_requests=4, max_context=512)) as engine:
        player = models.LoadedEngine(engine, engine.loaded.renderer)
        served = models.served_models("tiny", team.find("mor", instructions=False), player, player)
        with connected(served) as one:
            yield one


def asked(client, **options):
    told = {"model": "tiny", "messages": [{"role": "user", "content": "Who?"}], "max_tokens": 40, "logprobs": True}
    return client.chat.completions.create(**told | options).choices[0]


@pytest.mark.parametrize("format", [{"type": "text"}, {"type": "json_object"}])
def test_the_likeliest_tokens_stand_beside_each_token(client, format):
    """Forced tokens too, whose logits are computed together."""
    tokens = asked(client, top_logprobs=3, response_format=format).logprobs.content
    assert len(tokens) > 5
    for token in tokens:
        likely = [other.logprob for other in token.top_logprobs]
        assert len(likely) == 3
        assert likely == sorted(likely, reverse=True)
        assert token.logprob <= likely[0] + 1e-4
        assert format["type"] == "json_object" or token.logprob == pytest.approx(likely[0], abs=1e-4)


def test_without_the_wish_none_are_told(client):
    assert all(token.top_logprobs == [] for token in asked(client).logprobs.content)


@pytest.mark.parametrize("penalty", ["frequency_penalty", "presence_penalty"])
def test_penalties_change_what_a_greedy_model_writes(client, penalty):
    assert asked(client, **{penalty: 2.0}).message.content != asked(client).message.content


def test_one_likeliest_token_is_the_greedy_one(client):
    greedy = asked(client).message.content
    for cut in ({"top_k": 1}, {"min_p": 1.0}):
        assert asked(client, temperature=2.0, seed=1, extra_body=cut).message.content == greedy
    assert asked(client, temperature=2.0, seed=1).message.content != greedy
