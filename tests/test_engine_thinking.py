"""A prompt may have a family that can think do so or not; the engine tells it as the family's template does."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import families
import pytest
import tiny

from rolecraft import model
from rolecraft.engine import LocalEngine, Settings
from rolecraft.errors import EngineError
from rolecraft.types import Message, Prompt, Sampling

ASKED = Prompt((Message("user", "q"),), sampling=Sampling(max_tokens=3))


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("qwen3")
    tokenizer = families.tokenizer(next(one for one in families.FAMILIES if str(one) == "qwen3-qwen3"))
    tokenizer.save_pretrained(path)
    tiny.model(len(tokenizer), "qwen2").save_pretrained(path)
    return path


def prompts(loaded: model.Loaded) -> list[str]:
    with LocalEngine(loaded, Settings(max_context=128)) as engine:
        turns = [asyncio.run(engine.complete(replace(ASKED, think=think)))[0].turn for think in (None, True, False)]
    return [loaded.renderer.text(turn.prompt_ids) for turn in turns]


def test_the_engine_tells_a_model_to_think_or_not(base: Path) -> None:
    thinks = "<|im_start|>user\nq<|im_end|>\n<|im_start|>assistant\n"
    without = f"{thinks}<think>\n\n</think>\n\n"
    loaded = model.load(str(base))
    assert "--no-think" in loaded.chat
    assert prompts(loaded) == [thinks, thinks, without]
    assert prompts(model.load(str(base), think=False)) == [without, thinks, without]


def test_a_model_without_the_switch_refuses(nano_tokenizer) -> None:
    with (
        LocalEngine(tiny.loaded(nano_tokenizer), Settings(max_context=128)) as engine,
        pytest.raises(EngineError, match="no switch for thinking"),
    ):
        asyncio.run(engine.complete(replace(ASKED, think=False)))
