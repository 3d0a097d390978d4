"""When a held reply ends: as early as the model would have it, and with a call that it has already."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from rolecraft import renderers
from rolecraft.engine.matcher import Grammars, Settings
from rolecraft.engine.sampling import Draw, sample
from rolecraft.grammar import Wanted
from rolecraft.types import Message, ToolCall, ToolSpec

KEY = {"type": "object", "properties": {"key": {"type": "string"}}, "required": ["key"]}
DEBT = ToolSpec("read_debt", "debt", KEY)
ASK, OTHER = (Message("assistant", tool_calls=(ToolCall("read_debt", {"key": key}),)) for key in "ab")


@pytest.fixture(scope="module")
def renderer(hermes_tokenizer):
    return renderers.find(hermes_tokenizer)


def start(renderer, tokenizer, *written, tool=DEBT, choice="required"):
    """Return a matcher after some calls."""
    matcher = Grammars(renderer, tokenizer, len(tokenizer), Settings()).start(Wanted((tool,), choice))
    whole = Message("assistant", tool_calls=tuple(call for message in written for call in message.tool_calls))
    for token in renderer.reply(whole)[:-1]:
        matcher.accept(token)
    return matcher


def follows(matcher, renderer, tokenizer, text):
    """Return the text of the token that follows if the model would say `text`."""
    logits = torch.zeros(1, len(tokenizer))
    first = tokenizer(text, add_special_tokens=False).input_ids[0]
    logits[0, first] = 9.0
    mask = matcher.allowed()
    ending = matcher.merged(mask)
    (token,), _ = sample(logits, [Draw()], mask[None], {0: (ending.written, ending.meant)})
    matcher.accept(token)
    return renderer.text([token])


@pytest.mark.parametrize("said", ["<|endoftext|>", "<|im_end|>"])
@pytest.mark.parametrize("choice", ["required", "auto"])
def test_whatever_stops_a_free_reply_ends_one_after_a_call(renderer, hermes_tokenizer, said, choice):
    matcher = start(renderer, hermes_tokenizer, ASK, choice=choice)
    assert follows(matcher, renderer, hermes_tokenizer, said) == "<|im_end|>"
    assert matcher.finished


@pytest.mark.parametrize("said", ["<|endoftext|>", "<|im_end|>"])
def test_a_line_break_after_a_call_does_not_make_another(renderer, hermes_tokenizer, said):
    matcher = start(renderer, hermes_tokenizer, ASK)
    assert follows(matcher, renderer, hermes_tokenizer, "\n") == "\n"
    assert follows(matcher, renderer, hermes_tokenizer, said) == "<|im_end|>"
    ids = (*renderer.reply(ASK)[:-1], *hermes_tokenizer("\n").input_ids, renderer.end_id)
    assert renderer.parse(ids, "assistant").tool_calls == ASK.tool_calls
    assert renderer.parse(ids, "assistant").content == ""


def test_a_model_that_wants_another_call_makes_it(renderer, hermes_tokenizer):
    matcher = start(renderer, hermes_tokenizer, ASK)
    follows(matcher, renderer, hermes_tokenizer, "\n")
    assert follows(matcher, renderer, hermes_tokenizer, "<tool_call>").startswith("<")
    assert not matcher.finished


def test_a_call_that_stands_there_already_is_the_last(renderer, hermes_tokenizer):
    assert follows(start(renderer, hermes_tokenizer, ASK, OTHER), renderer, hermes_tokenizer, "\n") == "\n"
    assert follows(start(renderer, hermes_tokenizer, ASK, OTHER, ASK), renderer, hermes_tokenizer, "\n") == "<|im_end|>"
    repeatable = start(renderer, hermes_tokenizer, ASK, ASK, tool=replace(DEBT, repeatable=True))
    assert follows(repeatable, renderer, hermes_tokenizer, "\n") == "\n"


def test_within_a_call_nothing_means_the_end(renderer, hermes_tokenizer):
    matcher = start(renderer, hermes_tokenizer)
    assert matcher.merged(matcher.allowed()) is None


def test_in_text_only_what_stops_a_reply_means_the_end(renderer, hermes_tokenizer):
    matcher = start(renderer, hermes_tokenizer, choice="auto")
    meant = matcher.merged(matcher.allowed()).meant
    assert meant.nonzero()[:, 0].tolist() == sorted(renderer.stop_ids)


def test_calls_without_tags_end_as_they_did(nano_tokenizer):
    renderer = renderers.find(nano_tokenizer)
    matcher = start(renderer, nano_tokenizer, ASK)
    assert matcher.merged(matcher.allowed()).meant.nonzero()[:, 0].tolist() == sorted(renderer.stop_ids)
