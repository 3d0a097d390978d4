"""A reply's thought and its action can count differently; a reply that is no call is all action."""

from __future__ import annotations

import pytest

from rolecraft import codeblocks, examples, renderers, team
from rolecraft.apart import Shares
from rolecraft.errors import SettingsError
from rolecraft.recipe import TeamSettings
from rolecraft.types import Message, Task, ToolCall, ToolSpec, Trajectory

SPEC = ToolSpec("stock", "pieces in stock", {"type": "object", "properties": {"item": {"type": "string"}}})
CODE = "I look it up.\n```python\nprint(stock('lamp'))\n```"


def trained(tokenizer, name: str, *messages: Message, shares: Shares) -> tuple[examples.Example, renderers.Renderer]:
    renderer = renderers.find(tokenizer)
    task = Task("t", (Message("user", "How many?"),), (SPEC,))
    record = Trajectory("t", task, (*task.messages, *messages))
    built = examples.build_all((record,), team.find(name), renderer, shares=shares)
    (example,) = built.examples
    examples.audit(built.examples, renderer, team.find(name))
    return example, renderer


def spans(example, renderer) -> dict[float, str]:
    """Return the text of the tokens that count so much."""
    kinds = sorted(set(example.weights) - {0.0})
    return {
        kind: renderer.text([i for i, weight in zip(example.ids, example.weights, strict=True) if weight == kind])
        for kind in kinds
    }


def test_of_code_the_block_is_the_action(hermes_tokenizer):
    reply = Message("assistant", CODE, speaker="assistant")
    example, renderer = trained(hermes_tokenizer, "code", reply, shares=Shares(0.5, 2.0))
    found = spans(example, renderer)
    assert found[0.5].strip() == "I look it up."
    assert found[2.0].strip().startswith("```python")
    assert found[2.0].endswith("<|im_end|>")


def test_of_a_call_the_words_before_it_are_the_thought(hermes_tokenizer):
    call = Message("assistant", "I look it up.", (ToolCall("stock", {"item": "lamp"}, "c"),), speaker="assistant")
    told = (call, Message("tool", "12", tool_call_id="c"), Message("assistant", "Twelve.", speaker="assistant"))
    example, renderer = trained(hermes_tokenizer, "single", *told, shares=Shares(0.25, 1.0))
    found = spans(example, renderer)
    assert found[0.25].strip() == "I look it up."
    assert "<tool_call>" in found[1.0]
    assert "Twelve." in found[1.0]


def test_alike_they_count_as_they_always_did(hermes_tokenizer):
    reply = Message("assistant", CODE, speaker="assistant", weight=0.5)
    example, _ = trained(hermes_tokenizer, "code", reply, shares=Shares())
    assert set(example.weights) == {0.0, 0.5}


def test_a_messages_own_weight_counts_beside_them(hermes_tokenizer):
    reply = Message("assistant", CODE, speaker="assistant", weight=0.5)
    example, _ = trained(hermes_tokenizer, "code", reply, shares=Shares(1.0, 3.0))
    assert set(example.weights) == {0.0, 0.5, 1.5}


@pytest.mark.parametrize(
    "changes", [{"thought_weight": 0.0}, {"action_weight": -1.0}, {"thought_weight": float("nan")}]
)
def test_a_weight_that_trains_half_a_reply_is_refused(changes):
    with pytest.raises(SettingsError, match="whole replies"):
        TeamSettings(**changes)


@pytest.mark.parametrize(
    ("text", "action"),
    [
        (CODE, "```python\nprint(stock('lamp'))\n```"),
        ("a\n```python\nx\n```\nb\n```python\ny\n```", "```python\ny\n```"),
        ("no code", "no code"),
        ("```python\nx\n```", "```python\nx\n```"),
        ("final_answer(3)", "final_answer(3)"),
    ],
)
def test_the_action_of_a_reply_begins_with_its_fence(text, action):
    assert text[codeblocks.begins(text) :] == action
