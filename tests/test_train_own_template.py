"""A base whose family is not known is tuned, saved and played in its own template."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
import torch
import yaml
from conftest import QWEN_SPLIT, train
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

from rolecraft import cli, contract, engine, model, team, wire
from rolecraft import train as training
from rolecraft.recipe import load_recipe
from rolecraft.types import Message, Prompt, Sampling, Task, ToolCall, ToolSpec, Trajectory

ZEPHYR = (
    "{% for m in messages %}<|{{ m.role }}|>\n{{ m.content }}{{ eos_token }}\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)
NOW = ToolSpec("now", "the time")
ASKED = Message("user", "What time is it?")
SAID = (
    ASKED,
    Message("assistant", tool_calls=(ToolCall("now", {}, "a"),)),
    Message("tool", "noon", tool_call_id="a", name="now"),
    Message("assistant", "It is noon."),
)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("own") / "base"
    tokenizer = train(QWEN_SPLIT, ["<unk>", "</s>"], (), eos_token="</s>", pad_token="<unk>")
    tokenizer.chat_template = ZEPHYR
    tokenizer.save_pretrained(folder)
    torch.manual_seed(0)
    shape = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = LlamaConfig(vocab_size=len(tokenizer), max_position_embeddings=2048, tie_word_embeddings=True, **shape)
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module", params=["lora", "full"])
def adapter(base: Path, request: pytest.FixtureRequest) -> Path:
    rows = [Trajectory(f"t{place}", Task(f"t{place}", (ASKED,), (NOW,)), SAID) for place in range(4)]
    data = base.parent / "data.jsonl"
    data.write_text("".join(wire.dumps(wire.trajectory_to_json(one)) + "\n" for one in rows), encoding="utf-8")
    told = {
        "model": {"base": str(base)},
        "data": {"path": str(data), "max_length": 2048},
        "adapter": {"name": request.param, **({"r": 2} if request.param == "lora" else {})},
        "training": {"max_steps": 2, "per_device_train_batch_size": 2, "logging_steps": 1},
    }
    recipe = base.parent / "recipe.yaml"
    recipe.write_text(yaml.safe_dump(told))
    return training.train(load_recipe(recipe), base.parent / request.param)


def test_its_adapter_plays_and_is_prompted_alike_by_transformers(base: Path, adapter: Path) -> None:
    made = contract.read(adapter)
    assert made is not None
    assert made.renderer == "template"
    loaded = model.load(str(base), adapter=adapter)
    seen = team.find("single").role("assistant").view(SAID[:3])
    prompt = loaded.renderer.prompt(seen, (NOW,), "assistant")
    saved = AutoTokenizer.from_pretrained(str(adapter))
    rows = [wire.message_to_json(message) for message in SAID[:3]]
    theirs = saved.apply_chat_template(rows, tools=[wire.tool_to_json(NOW)], tokenize=False, add_generation_prompt=True)
    assert loaded.renderer.text(prompt) == theirs
    assert '"name": "now"' in theirs
    assert "noon" in theirs
    with engine.LocalEngine(loaded, engine.Settings(max_context=2048)) as local:
        asked = Prompt(seen, (NOW,), sampling=Sampling(max_tokens=4))
        (reply,) = asyncio.run(local.complete(asked))
    assert reply.turn.prompt_ids == prompt


def test_a_team_of_roles_is_refused_by_name(base: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["run", "--base", str(base), "--team", "mor", "hello"]) != 0
    assert "knows no speaker but the assistant" in capsys.readouterr().err


def test_a_switch_that_a_family_does_not_have_is_refused_by_name(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["run", "--base", "nano", "--no-think", "hello"]) != 0
    assert "'nano' has no switch for thinking" in capsys.readouterr().err


def test_the_chat_format_can_be_named(base: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["run", "--base", str(base), "--format", "hermes", "hello"]) != 0
    assert "has no token '<|im_start|>'" in capsys.readouterr().err
