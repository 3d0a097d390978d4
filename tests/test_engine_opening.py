"""How a held reply of an untaught model begins: with calls as it writes them anyway, or as text where no tool fits."""

from __future__ import annotations

import asyncio
import random
from dataclasses import replace

import pytest
import tiny
import torch
from any_schema import draw, parameters
from conftest import QWEN_SPLIT, train

from rolecraft import renderers
from rolecraft.engine import LocalEngine
from rolecraft.engine import Settings as EngineSettings
from rolecraft.engine.matcher import Grammars, Settings
from rolecraft.engine.opening import Doubt, otherwise
from rolecraft.engine.reply import parse
from rolecraft.engine.sampling import Draw, sample
from rolecraft.errors import DataError, EngineError
from rolecraft.grammar import Wanted
from rolecraft.grammar.fenced import LIST, OBJECT
from rolecraft.judges import calls
from rolecraft.types import Message, Prompt, Sampling, Task, ToolSpec, Trajectory

KEY = {"type": "object", "properties": {"key": {"type": "string"}}, "required": ["key"]}
DEBT = ToolSpec("read_debt", "debt", KEY)
LEAD = '```json\n[\n  {\n    "name": "'
ONE = LEAD + 'read_debt",\n    "arguments": {\n      "key": "a"\n    }\n  }'
WANTED = Wanted((DEBT,), lenient=True)


@pytest.fixture(scope="module")
def renderer(hermes_tokenizer):
    return renderers.find(hermes_tokenizer)


@pytest.fixture(scope="module")
def grammars(renderer, hermes_tokenizer):
    return Grammars(renderer, hermes_tokenizer, len(hermes_tokenizer), Settings())


def write(matcher, tokenizer, text):
    """Let the matcher take a text; forced tokens come as they are."""
    for token in tokenizer(text, add_special_tokens=False).input_ids:
        matcher.accept(token)
    return matcher


def fits(grammars, tokenizer, text, wanted=WANTED):
    try:
        write(grammars.start(wanted), tokenizer, text)
    except EngineError:
        return False
    return True


def read(renderer, ids, tools=(DEBT,)):
    return parse(renderer, Prompt((Message("user", "?"),), tools, lenient=True), ids)


@pytest.mark.parametrize("choice", ["auto", "required", "read_debt"])
def test_calls_may_be_a_list_in_a_fenced_block(grammars, hermes_tokenizer, renderer, choice):
    matcher = grammars.start(replace(WANTED, choice=choice))
    write(matcher, hermes_tokenizer, ONE + ONE.replace("```json\n[\n", ",\n").replace('"a"', '"b"') + "\n]\n```")
    matcher.accept(renderer.end_id)
    assert matcher.finished
    message = read(renderer, matcher._written)
    assert [dict(call.arguments) for call in message.tool_calls] == [{"key": "a"}, {"key": "b"}]
    assert message.content == ""


def test_with_one_call_allowed_the_list_has_one(grammars, hermes_tokenizer):
    wanted = replace(WANTED, parallel=False)
    assert fits(grammars, hermes_tokenizer, ONE + "\n]", wanted)
    assert not fits(grammars, hermes_tokenizer, ONE + ",", wanted)


@pytest.mark.parametrize(
    "text",
    [
        '{"name": "x"}',
        '[{"name"',
        '```json\n{"a": 1}',
        "```\n{",
        "``json\n[",
        '```xml\n{"a"',
        ' {"a"',
        '```json\n[\n  {\n    "name": "other',
    ],
)
def test_no_text_begins_as_a_call_would(grammars, hermes_tokenizer, text):
    assert not fits(grammars, hermes_tokenizer, text)
    assert not fits(grammars, hermes_tokenizer, text, replace(WANTED, choice="none"))


@pytest.mark.parametrize(
    "text",
    ["The answer is 3.\n", "```python\nprint(1)\n```", 'So:\n```json\n{"a": 1}\n```\nThat is it.', "`x`", "1. [a]"],
)
def test_other_text_may_be_anything(grammars, hermes_tokenizer, text):
    assert fits(grammars, hermes_tokenizer, text)
    assert fits(grammars, hermes_tokenizer, text, replace(WANTED, choice="none")) == (text[:3] != "```")


@pytest.mark.parametrize("text", [ONE, "```json\n["])
def test_read_strictly_only_the_formats_own_syntax_is_held(grammars, hermes_tokenizer, text):
    assert fits(grammars, hermes_tokenizer, text, replace(WANTED, lenient=False))  # it is text
    assert not fits(grammars, hermes_tokenizer, text, replace(WANTED, lenient=False, choice="required"))


def test_a_model_that_begins_an_object_is_led_to_the_list(grammars, hermes_tokenizer):
    matcher = grammars.start(WANTED)
    mask = matcher.allowed()
    merged = matcher.merged(mask)
    logits = torch.zeros(1, len(hermes_tokenizer))
    logits[0, hermes_tokenizer("{", add_special_tokens=False).input_ids[0]] = 9.0
    (token,), _ = sample(logits, [Draw()], mask[None], {0: (merged.written, merged.meant)})
    matcher.accept(token)
    assert "`" in hermes_tokenizer.decode([token])


def test_whether_a_tool_is_meant_is_asked_before_its_name_and_only_where_text_would_do(grammars, hermes_tokenizer):
    begun = LEAD.partition("[")[0]
    matcher = write(grammars.start(WANTED), hermes_tokenizer, begun)
    assert matcher.is_open
    assert matcher.doubted(matcher.allowed()) is None
    for token in matcher.forced():
        matcher.accept(token)
    assert hermes_tokenizer.decode(matcher._written) == LEAD
    mask = matcher.allowed()
    assert torch.equal(matcher.doubted(mask), mask)
    write(matcher, hermes_tokenizer, "read_debt")
    assert matcher.is_open
    write(matcher, hermes_tokenizer, '",\n')
    assert not matcher.is_open
    held = write(grammars.start(replace(WANTED, choice="required", block=OBJECT)), hermes_tokenizer, begun)
    assert not held.is_open
    assert "read_debt" in hermes_tokenizer.decode(held.forced())


def test_a_call_is_doubted_once_something_else_is_likelier():
    doubt, allowed = Doubt(), torch.tensor([True, False])
    doubt.add(torch.tensor([0.6, 0.4]).log(), allowed)
    assert not doubt.prevails
    doubt.add(torch.tensor([0.9, 0.1]).log(), allowed)
    assert not doubt.prevails
    doubt.add(torch.tensor([0.9, 0.1]).log(), allowed)
    assert doubt.prevails


def test_a_doubted_list_is_tried_as_one_object_and_that_as_text():
    assert otherwise(WANTED).block is OBJECT
    assert otherwise(otherwise(WANTED)).choice == "none"
    required = replace(WANTED, choice="required")
    assert otherwise(required) == replace(required, block=OBJECT)


def test_a_doubted_call_becomes_text_and_nothing_of_it_is_streamed(hermes_tokenizer):
    loaded = tiny.loaded(hermes_tokenizer)
    fence = hermes_tokenizer("`", add_special_tokens=False).input_ids[0]
    with torch.no_grad():
        loaded.model.get_output_embeddings().weight[fence] *= 50
    asked = Prompt((Message("user", "?"),), (DEBT,), sampling=Sampling(max_tokens=40), lenient=True)

    async def both(engine):
        told = [delta async for delta in engine.stream(asked)]
        (completion,) = await engine.complete(asked)
        return "".join(delta.text for delta in told), completion.message, told[-1].completion.message

    with LocalEngine(loaded, EngineSettings(max_requests=2, max_context=512, constrain="always")) as engine:
        streamed, message, last = asyncio.run(both(engine))
    assert message == last
    assert message.tool_calls == ()
    assert streamed.strip() == message.content.strip()
    assert not streamed.startswith("```json")


@pytest.mark.parametrize(("doubts", "text"), [(0, False), (1, False), (2, True)])
def test_a_turn_tells_that_its_text_stands_for_a_doubted_call(hermes_tokenizer, monkeypatch, doubts, text):
    finished, outputs = LocalEngine._finished, []

    async def doubting(self, request):
        outputs.append(await finished(self, request))
        return replace(outputs[-1], doubted=len(outputs) <= doubts)

    monkeypatch.setattr(LocalEngine, "_finished", doubting)
    asked = Prompt((Message("user", "?"),), (DEBT,), sampling=Sampling(max_tokens=8), lenient=True)
    settings = EngineSettings(max_requests=2, max_context=512, constrain="always")
    with LocalEngine(tiny.loaded(hermes_tokenizer), settings) as engine:
        (completion,) = asyncio.run(engine.complete(asked))
    assert (len(outputs), completion.turn.doubted) == (doubts + 1, text)
    assert completion.turn.usage.cached == 0  # the first of them computed the prompt


@pytest.mark.parametrize("seed", range(40))
def test_what_is_drawn_from_the_grammar_is_read_and_fits(grammars, renderer, hermes_tokenizer, seed):
    dice = random.Random(seed)
    tools = tuple(ToolSpec(f"t{n}", "", parameters(dice)) for n in range(2))
    try:
        matcher = grammars.start(Wanted(tools, "required", lenient=True, block=dice.choice((LIST, OBJECT))))
    except DataError:
        pytest.skip("a schema that admits nothing")
    ids = draw(matcher, dice)
    message = read(renderer, ids, tools)
    assert message.tool_calls, renderer.text(ids)
    asked = (Message("user", "?"),)
    verdict = calls.judge(Trajectory("t", Task("t", asked, tools), (*asked, message)))
    assert verdict.score == 1.0, (verdict.reason, renderer.text(ids))


def test_a_family_that_reasons_may_do_so_before_a_call_it_is_held_to():
    tokenizer = train(
        QWEN_SPLIT,
        ["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
        ("<tool_call>", "</tool_call>", "<think>", "</think>"),
        pad_token="<|endoftext|>",
        eos_token="<|im_end|>",
        rolecraft_renderer="qwen3",
    )
    grammars = Grammars(renderers.find(tokenizer), tokenizer, len(tokenizer), Settings())
    call = '<tool_call>\n{"name": "read_debt", "arguments": {"key": "a"}}\n</tool_call>'
    for wanted in (replace(WANTED, choice="required"), WANTED):
        assert fits(grammars, tokenizer, f"<think>\nWhich {{tool}}?\nThis.\n</think>\n\n{call}", wanted)
        assert fits(grammars, tokenizer, call, wanted)
    assert not fits(grammars, tokenizer, "<think>\nWhich?\n</think>\n\nNone.", replace(WANTED, choice="required"))
    assert fits(grammars, tokenizer, "<think>\nWhich?\n</think>\n\nNone.", WANTED)
