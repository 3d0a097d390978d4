from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest
import tiny

from rolecraft.engine import LocalEngine, Settings
from rolecraft.engine.matcher import Settings as GrammarSettings
from rolecraft.engine.settings import check_memory
from rolecraft.errors import SettingsError
from rolecraft.grammar.shapes import Limits


@pytest.mark.parametrize("name", ["max_requests", "max_context", "prefill_tokens", "memory_mb"])
def test_a_number_below_one_is_refused(nano_tokenizer, name):
    with pytest.raises(SettingsError, match=f"engine.{name} is 0"):
        LocalEngine(tiny.loaded(nano_tokenizer), replace(Settings(), **{name: 0}))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"constrain": "allways"}, r"engine\.constrain is 'allways'; it must be one of off, asked, always"),
        ({"prefill_dtype": "bf16"}, r"engine\.prefill_dtype is 'bf16'; .* auto, float32, bfloat16"),
        ({"grammar": GrammarSettings(on_unsupported="drop")}, r"on_unsupported is 'drop'; .* refuse, ignore"),
        ({"grammar": GrammarSettings(limits=Limits(calls=0))}, r"engine\.grammar\.limits\.calls is 0"),
        ({"max_context": 5}, r"engine\.max_context is 5, .* tried out on 6 tokens .* higher"),
    ],
)
def test_settings_that_mean_nothing_are_refused(nano_tokenizer, changes, words):
    with pytest.raises(SettingsError, match=words):
        LocalEngine(tiny.loaded(nano_tokenizer), replace(Settings(), **changes))


def test_what_could_outgrow_the_memory_is_refused_with_the_numbers_and_the_remedy(nano_tokenizer):
    loaded = tiny.loaded(nano_tokenizer)  # 2 layers of 2 x 2 heads of 8 floats: 256 bytes a token, 320 while it grows
    settings = Settings(max_requests=100, max_context=200, memory_mb=2)
    words = r"memory_mb is 2.*100 x 200 tokens come to 7 MiB \(321 bytes a token\).*at most 32.*max_context"
    with pytest.raises(SettingsError, match=words):
        LocalEngine(loaded, settings)
    with LocalEngine(loaded, replace(settings, max_requests=32)) as engine:
        assert engine.context == 200


def test_a_bound_below_one_slot_asks_for_less_context():
    with pytest.raises(SettingsError, match=r"token\); lower engine.max_context \(--max-context\), or raise"):
        check_memory(Settings(max_requests=1, memory_mb=1), 3 * 2**20, 1024)


def test_keys_and_values_never_outgrow_what_was_told_at_the_start(nano_tokenizer):
    with LocalEngine(tiny.loaded(nano_tokenizer), Settings(max_requests=3, max_context=150, memory_mb=1)) as engine:

        async def ask():
            prompts = [tiny.prompt("debt of Ro " * (1 + number), max_tokens=400) for number in range(9)]
            await asyncio.gather(*(engine.complete(prompt) for prompt in prompts))

        cache = engine._runner.cache
        told = cache.max_bytes
        asyncio.run(ask())
        assert cache.max_bytes == told
        assert cache.nbytes <= told <= 2**20
