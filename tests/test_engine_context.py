"""Where nobody says how long a conversation may be, it is as long as the model and the memory allow."""

from __future__ import annotations

import pytest
import tiny

from rolecraft.engine import LocalEngine, Settings
from rolecraft.engine.context import memory, own_context, token_bytes


@pytest.mark.parametrize(("limit", "context"), [(300, 300), (4000, 4000), (40_000, 8192)])
def test_the_context_is_the_models_own_up_to_a_bound(nano_tokenizer, limit, context):
    with LocalEngine(tiny.loaded(nano_tokenizer, max_position_embeddings=limit), Settings(max_context=None)) as engine:
        assert engine.context == context


def test_the_context_is_what_the_allowed_memory_holds(nano_tokenizer):
    loaded = tiny.loaded(nano_tokenizer, max_position_embeddings=40_000)
    each = token_bytes(loaded.model.config, 4)
    assert each == 2 * 2 * 2 * 8 * 4  # keys and values, layers, heads, width, bytes
    assert own_context(loaded, 4, memory_mb=1) == 2**20 // (4 * each)


def test_many_requests_have_a_short_context_each_but_not_under_a_thousand(nano_tokenizer):
    loaded = tiny.loaded(nano_tokenizer, max_position_embeddings=40_000)
    whole = memory(loaded.device) // 2 // token_bytes(loaded.model.config, 4)
    assert own_context(loaded, whole // 2000, None) == pytest.approx(2000, abs=2)
    assert own_context(loaded, whole, None) == 1024
