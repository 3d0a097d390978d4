"""Each family's format beside the family's own template: equal ids on 200 conversations, and what is not equal."""

from __future__ import annotations

import copy
import re
from collections.abc import Sequence
from dataclasses import replace

import any_schema
import families
import pytest
from families import FAMILIES, TOOLS, Family, as_json, conversations, official

from rolecraft import catalog, contract, wire
from rolecraft.engine.matcher import Grammars, Settings
from rolecraft.errors import ContractError, DataError
from rolecraft.grammar import Wanted
from rolecraft.renderers import Renderer, describe, find, recognize, why_unparsed
from rolecraft.types import Message, ToolCall

ASKED = Message("user", "q")
each_family = pytest.mark.parametrize("family", FAMILIES, ids=str)


def family(name: str) -> Family:
    return next(one for one in FAMILIES if str(one) == name)


@each_family
def test_a_family_s_ids_are_its_own_template_s(family: Family) -> None:
    tokenizer = families.tokenizer(family)
    renderer = find(tokenizer, family.format)
    for messages, tools in conversations(family):
        told = as_json(tools)
        if messages[-1].role == "assistant" and not family.whole:
            messages = messages[:-1]
        if messages[-1].role == "assistant":
            assert renderer.render(messages, tools).ids == official(tokenizer, family, messages, told, prompt=False)
        else:
            prompt = renderer.prompt(messages, tools, "assistant")
            assert prompt == official(tokenizer, family, messages, told, prompt=True)


@pytest.mark.parametrize("family", [one for one in FAMILIES if not one.always_system], ids=str)
def test_a_family_is_told_by_its_own_template(family: Family) -> None:
    found = recognize(families.tokenizer(family))
    expected = family.format.removesuffix("_nothink")
    assert describe(found.renderer.format) == describe(catalog.find("renderers", expected).FORMAT)
    assert "own template" in found.why
    assert ("tells no tools" in found.why) == (not family.tools)


@pytest.mark.parametrize(
    ("name", "digest"),
    [
        ("nano", "0a27767e4de8f97d"),
        ("hermes", "e9d87d4757f14a15"),
        ("llama3", "1d097fc5fa60c567"),
        ("phi3", "931eca2892184882"),
    ],
)
def test_contracts_of_adapters_hold_whatever_formats_were_added(name: str, digest: str) -> None:
    assert contract.digest(describe(catalog.find("renderers", name).FORMAT)) == digest


def test_no_two_formats_are_the_same() -> None:
    formats = [catalog.find("renderers", name).FORMAT for name in catalog.names("renderers")]
    assert len(set(formats)) == len(formats)


def test_a_template_of_no_known_family_is_told_with_its_first_difference(hermes_tokenizer) -> None:
    tokenizer = copy.deepcopy(hermes_tokenizer)
    tokenizer.init_kwargs.pop("rolecraft_renderer")
    tokenizer.chat_template = "{% for m in messages %}<|im_start|>{{ m.role }}: {{ m.content }}<|im_end|>{% endfor %}"
    found = recognize(tokenizer)
    assert found.name == "chatml"
    assert "own template differs: after '<|im_start|>user' it has ': What is 2" in found.why


def test_a_template_that_fails_is_no_reason_to_fail(hermes_tokenizer) -> None:
    tokenizer = copy.deepcopy(hermes_tokenizer)
    tokenizer.init_kwargs.pop("rolecraft_renderer")
    tokenizer.chat_template = "{{ messages.nothing.here }}"
    assert "it fails on a plain conversation" in recognize(tokenizer).why


# ---- what is not equal


def texts(name: str, messages: Sequence[Message], tools: Sequence = (), *, prompt: bool = False) -> tuple[str, str]:
    one = family(name)
    tokenizer = families.tokenizer(one)
    renderer = find(tokenizer, one.format)
    ids = renderer.prompt(messages, tools, "assistant") if prompt else renderer.render(messages, tools).ids
    return renderer.text(ids), renderer.text(official(tokenizer, one, messages, as_json(tools), prompt=prompt))


def test_qwen3_keeps_the_thoughts_that_the_template_drops() -> None:
    thought = Message("assistant", "<think>\nhm\n</think>\n\nyes")
    ours, theirs = texts("qwen3-qwen3", (ASKED, thought, ASKED), prompt=True)
    assert ours.replace("<think>\nhm\n</think>\n\n", "") == theirs


def test_qwen3_adds_no_empty_thought_to_a_last_reply_without_one() -> None:
    ours, theirs = texts("qwen3-qwen3", (ASKED, Message("assistant", "yes")))
    assert theirs.replace("<think>\n\n</think>\n\n", "") == ours


def test_qwen3_leaves_an_empty_system_message_out() -> None:
    ours, theirs = texts("qwen3-qwen3", (Message("system", ""), ASKED))
    assert theirs == "<|im_start|>system\n<|im_end|>\n" + ours


def test_qwen3_not_thinking_keeps_the_empty_thought_of_earlier_replies() -> None:
    said = (ASKED, Message("assistant", "yes"), ASKED)
    ours, theirs = texts("qwen3_nothink-qwen3", said, prompt=True)
    assert ours.replace("<think>\n\n</think>\n\nyes", "yes") == theirs


def test_smollm3_does_not_obey_a_word_in_a_system_text() -> None:
    ours, theirs = texts("smollm3-HuggingFaceTB-SmolLM3-3B", (Message("system", "Be brief. /no_think"), ASKED))
    assert "Reasoning Mode: /think" in ours
    assert "Reasoning Mode: /no_think" in theirs


@pytest.mark.parametrize("name", ["smollm2-smollm2", "smollm3-HuggingFaceTB-SmolLM3-3B", "gemma3-gemma3"])
def test_a_family_that_tells_no_tools_is_told_them_as_hermes_does(name: str) -> None:
    ours, theirs = texts(name, (Message("system", "Be brief."), ASKED), TOOLS, prompt=True)
    assert "weather" not in theirs
    assert all(part in ours for part in ('"weather"', "<tool_call>\n{", "</tool_call>"))


def test_granite_takes_an_empty_system_message_as_it_is() -> None:
    ours, theirs = texts("granite-ibm-granite-granite-4.0", (Message("system", ""), ASKED))
    assert "You are a helpful assistant" in theirs
    assert "You are a helpful assistant" not in ours


def test_a_reply_after_an_empty_thought_is_learned_without_it() -> None:
    one = family("qwen3_nothink-qwen3")
    renderer = find(families.tokenizer(one), one.format)
    rendered = renderer.render((ASKED, Message("assistant", "yes")))
    learned = [i for i, weight in zip(rendered.ids, rendered.weights, strict=True) if weight]
    assert renderer.text(learned) == "yes<|im_end|>"


SCHEMA = {"type": "object", "properties": {"x": {"type": "string"}}}
FULL = {"name": "f", "description": "d", "parameters": SCHEMA}


@pytest.mark.parametrize(
    ("function", "told"),
    [
        (FULL, FULL),
        ({"name": "f", "parameters": SCHEMA}, {**FULL, "description": ""}),
        ({"name": "f", "description": "d"}, {**FULL, "parameters": {"type": "object", "properties": {}}}),
        ({"description": "d", "parameters": SCHEMA, "name": "f"}, FULL),
        ({**FULL, "strict": True}, FULL),
    ],
    ids=["whole", "no description", "no parameters", "another order", "strict"],
)
@pytest.mark.parametrize("family", [one for one in FAMILIES if one.tools and not one.in_system], ids=str)
def test_a_tool_is_told_whole_and_in_one_order(family: Family, function: dict, told: dict) -> None:
    tokenizer = families.tokenizer(family)
    renderer: Renderer = find(tokenizer, family.format)
    tool = {"type": "function", "function": function}
    asked = (Message("system", "s"), ASKED) if family.always_system else (ASKED,)
    ours = renderer.prompt(asked, wire.tools_from_json([tool]), "assistant")
    assert ours == official(tokenizer, family, asked, [{"type": "function", "function": told}], prompt=True)


# ---- reading


@each_family
def test_what_a_family_writes_is_read_back(family: Family) -> None:
    renderer = find(families.tokenizer(family), family.format)
    for messages, _ in conversations(family, 40):
        for message in messages:
            if message.role == "assistant":
                read = renderer.parse(renderer.reply(message), "assistant")
                told = bool(renderer.call_syntax.id_key) or "{id}" in renderer.call_syntax.mark
                calls = tuple(ToolCall(one.name, one.arguments, one.id if told else "") for one in message.tool_calls)
                assert (read.content, read.tool_calls, read.unparsed) == (message.content, calls, None)


def test_phi4_mini_writes_and_reads_several_calls_as_one_list() -> None:
    renderer = find(families.tokenizer(family("phi4_mini-phi-4-mini")), "phi4_mini")
    calls = (ToolCall("now", {}), ToolCall("weather", {"city": "<|/tool_call|>]"}))
    message = Message("assistant", "so\n", tool_calls=calls, speaker="assistant")
    expected = (
        'so\n<|tool_call|>[{"name": "now", "arguments": {}}, '
        '{"name": "weather", "arguments": {"city": "<|/tool_call|>]"}}]<|/tool_call|>'
    )
    assert renderer.reply_text(message) == expected
    assert renderer.parse(renderer.reply(message), "assistant") == message


def test_a_list_with_one_malformed_call_is_unparsed_whole() -> None:
    renderer = find(families.tokenizer(family("phi4_mini-phi-4-mini")), "phi4_mini")
    text = '<|tool_call|>[{"name": "now", "arguments": {}}, {"name": 3}]<|/tool_call|>'
    read = renderer.parse(renderer.reply(Message("assistant", unparsed=text)), "assistant")
    assert (read.tool_calls, read.unparsed) == ((), text)


@pytest.mark.parametrize(
    "name", ["granite_3-ibm-granite-granite-3.3-2B-Instruct", "lfm2-lfm2", "lfm2_5-LFM2.5-Instruct"]
)
def test_results_are_the_template_s_where_it_writes_no_calls(name: str) -> None:
    said = (ASKED, Message("assistant", "calling"), Message("tool", '{"a": "é"}'), Message("tool", "2"))
    ours, theirs = texts(name, said, TOOLS, prompt=True)
    assert ours == theirs


def test_mistral_nemo_keeps_tools_and_system_text_at_the_first_question() -> None:
    said = (Message("system", "Be brief."), ASKED, Message("assistant", "yes"), Message("user", "more"))
    ours, theirs = texts("mistral_nemo-mistralai-Mistral-Nemo-Instruct-2407", said, TOOLS, prompt=True)
    told, _, rest = ours.partition("[INST]Be brief.\n\nq[/INST]")
    assert told.startswith("<s>[AVAILABLE_TOOLS][{")
    assert rest == "yes</s>[INST]more[/INST]"
    assert theirs == f"<s>[INST]q[/INST]yes</s>{told.removeprefix('<s>')}[INST]Be brief.\n\nmore[/INST]"


def test_a_call_in_python_s_syntax_may_have_a_hyphen_in_its_name_and_reserved_words_as_arguments() -> None:
    renderer = find(families.tokenizer(family("lfm2-lfm2_v2")), "lfm2")
    call = ToolCall("book-flight", {"from": "Ulm's\n\\n", "class": 2, "x": [True, None, "}"]})
    written = renderer.reply(Message("assistant", tool_calls=(call,)))
    assert renderer.text(written).startswith("<|tool_call_start|>[book-flight(from='Ulm\\'s\\n\\\\n', class=2, x=[true")
    assert renderer.parse(written, "assistant").tool_calls == (call,)


def test_what_holds_lfm2_writes_its_calls_as_json_which_is_read_too() -> None:
    renderer = find(families.tokenizer(family("lfm2-lfm2_v2")), "lfm2")
    text = '<|tool_call_start|>[{"name": "now", "arguments": {"zone": "UTC"}}]<|tool_call_end|>'
    read = renderer.parse(renderer.reply(Message("assistant", unparsed=text)), "assistant")
    assert (read.tool_calls, read.unparsed) == ((ToolCall("now", {"zone": "UTC"}),), None)


def test_an_argument_that_python_cannot_name_is_refused() -> None:
    renderer = find(families.tokenizer(family("lfm2-lfm2_v2")), "lfm2")
    with pytest.raises(DataError, match="'a b' cannot be a name in Python"):
        renderer.reply(Message("assistant", tool_calls=(ToolCall("now", {"a b": 1}),)))


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("[TOOL_CALLS]now{}", r"a name, \[ARGS\], and an object"),
        ("[TOOL_CALLS]now[ARGS][1]", "must be an object"),
        ('[TOOL_CALLS]now[ARGS]{"a": 1', "not JSON"),
    ],
)
def test_a_malformed_call_of_mistral_is_unparsed_with_a_reason(text: str, why: str) -> None:
    renderer = find(families.tokenizer(family("ministral-mistralai-Ministral-3-14B-Reasoning-2512")), "ministral")
    read = renderer.parse(renderer.reply(Message("assistant", "so", unparsed=text)), "assistant")
    assert (read.content, read.tool_calls, read.unparsed) == ("so", (), text)
    assert re.search(why, why_unparsed(text, TOOLS, renderer.call_syntax))


def test_a_call_of_mistral_nemo_keeps_the_id_that_the_model_gave_it() -> None:
    renderer = find(families.tokenizer(family("mistral_nemo-mistralai-Mistral-Nemo-Instruct-2407")), "mistral_nemo")
    text = (
        '[TOOL_CALLS][{"name": "now", "arguments": {}, "id": "abc123xyz"}, {"name": "now", "arguments": {}, "id": {}}]'
    )
    read = renderer.parse(renderer.reply(Message("assistant", unparsed=text)), "assistant")
    assert read.tool_calls == (ToolCall("now", {}, "abc123xyz"), ToolCall("now", {}))


# ---- thinking


@pytest.mark.parametrize("name", ["qwen3-qwen3", "smollm3-HuggingFaceTB-SmolLM3-3B"])
def test_a_family_that_thinks_is_told_not_to_where_it_is_asked_for(name: str) -> None:
    one = family(name)
    tokenizer = families.tokenizer(one)
    usual, with_thoughts, without = (recognize(tokenizer, think=think) for think in (None, True, False))
    assert (usual.name, with_thoughts.name, without.name) == (one.format, one.format, f"{one.format}_nothink")
    assert "--no-think" in usual.why
    assert "told not to think" in without.why
    prompts = (found.renderer.prompt((ASKED,), (), "assistant") for found in (usual, with_thoughts, without))
    options = ({}, {"enable_thinking": True}, {"enable_thinking": False})
    for ours, given in zip(prompts, options, strict=True):
        with_option = replace(one, options=given)
        assert ours == official(tokenizer, with_option, (ASKED,), (), prompt=True)


def test_a_format_named_by_somebody_is_switched_too() -> None:
    tokenizer = families.tokenizer(family("qwen3-qwen3"))
    assert recognize(tokenizer, "qwen3_nothink", think=True).name == "qwen3"
    assert recognize(tokenizer, "qwen3", think=False).name == "qwen3_nothink"


@pytest.mark.parametrize(("think", "option"), [(True, "--think"), (False, "--no-think")])
def test_a_family_without_a_switch_for_thinking_is_named(think: bool, option: str, hermes_tokenizer) -> None:
    with pytest.raises(ContractError, match=f"'hermes' has no switch for thinking; qwen3 and smollm3 .* {option}"):
        recognize(hermes_tokenizer, think=think)


def test_a_held_call_of_mistral_small_has_an_id() -> None:
    tokenizer = families.tokenizer(family("mistral_small-Mistral-Small-3.2-24B-Instruct-2506"))
    renderer = find(tokenizer, "mistral_small")
    grammars = Grammars(renderer, tokenizer, len(tokenizer), Settings())
    for identity, fits in (("abc123xyz", True), ("call_0", False)):
        reply = renderer.reply(Message("assistant", tool_calls=(ToolCall("now", {}, identity),)))
        assert any_schema.follows(grammars.start(Wanted(TOOLS, "required")), reply) is fits


def test_mistral_s_tokens_alone_tell_a_format_without_a_system_text_of_its_own() -> None:
    tokenizer = families.tokenizer(family("mistral_small-Mistral-Small-3.2-24B-Instruct-2506"))
    assert recognize(tokenizer).name == "mistral_small"
    assert "own template differs" in recognize(tokenizer).why
