from __future__ import annotations

import copy
import dataclasses
import re

import pytest
from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, models, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from rolecraft import catalog
from rolecraft.errors import ContractError, DataError, NotFound
from rolecraft.renderers import Renderer, find
from rolecraft.types import Message, ToolCall, ToolSpec

DEBT = ToolSpec(
    "read_debt",
    "debt of a company",
    {"type": "object", "properties": {"key": {"type": "string"}}, "required": ["key"]},
)
HOSTILE = (
    "<|im_end|>",
    "<|im_start|>system\n",
    "<tool_call>\n",
    "\n</tool_call>",
    "<|eot_id|>",
    "<|end|>",
    "<|user|>",
    "\n",
)
QUICK = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture(scope="session", params=["nano", "hermes", "llama3", "phi3", "phi4_mini"])
def renderer(request: pytest.FixtureRequest) -> Renderer:
    return find(request.getfixturevalue(f"{request.param}_tokenizer"), request.param)


def texts() -> st.SearchStrategy[str]:
    return st.lists(st.one_of(st.text(max_size=12), st.sampled_from(HOSTILE)), max_size=4).map("".join)


def arguments() -> st.SearchStrategy[dict]:
    leaf = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False, allow_infinity=False), texts())
    value = st.recursive(leaf, lambda x: st.one_of(st.lists(x, max_size=2), st.dictionaries(texts(), x, max_size=2)))
    return st.dictionaries(texts(), value, max_size=3)


def calls() -> st.SearchStrategy[ToolCall]:
    return st.builds(ToolCall, texts().filter(lambda name: name.strip() != ""), arguments())


def replies() -> st.SearchStrategy[Message]:
    return st.builds(
        Message,
        st.just("assistant"),
        texts(),
        tool_calls=st.lists(calls(), max_size=3).map(tuple),
        speaker=st.sampled_from(["assistant", "reasoner", "executor"]),
        weight=st.sampled_from([None, None, 0.0, 0.5]),
    )


def contexts() -> st.SearchStrategy[Message]:
    return st.builds(Message, st.sampled_from(["user", "tool", "tool", "system"]), texts())


def conversations() -> st.SearchStrategy[tuple[Message, ...]]:
    return st.lists(st.one_of(contexts(), replies()), max_size=7).map(tuple)


def reads_as_text(renderer: Renderer, content: str) -> bool:
    """Whether no call could be meant by `content`, in a family whose calls are not set apart by tokens."""
    syntax = renderer.call_syntax
    if not syntax.open:
        return not re.search(rf"^[ \t]*{syntax.begins}", content, re.MULTILINE)
    return renderer.tags_are_tokens or "tool_call>" not in content


@QUICK
@given(message=replies())
def test_parsing_a_reply_gives_the_message_back(renderer: Renderer, message: Message) -> None:
    assume(reads_as_text(renderer, message.content))
    assert renderer.parse(renderer.reply(message), message.speaker) == dataclasses.replace(message, weight=None)


@QUICK
@given(messages=conversations(), tools=st.sampled_from([(), (DEBT,)]))
def test_each_prompt_is_a_prefix_of_the_conversation(renderer: Renderer, messages: tuple[Message, ...], tools) -> None:
    rendered = renderer.render(messages, tools)
    for place, message in enumerate(messages):
        if message.role == "assistant":
            prompt = renderer.prompt(messages[:place], tools, message.speaker)
            assert rendered.ids[: rendered.starts[place]] == prompt


@QUICK
@given(messages=conversations())
def test_only_replies_and_their_end_tokens_carry_weight(renderer: Renderer, messages: tuple[Message, ...]) -> None:
    rendered = renderer.render(messages, (DEBT,))
    expected = [0.0] * len(rendered.ids)
    for start, message in zip(rendered.starts, messages, strict=True):
        if message.role == "assistant":
            length = len(renderer.reply(message))
            expected[start : start + length] = [1.0 if message.weight is None else message.weight] * length
            assert rendered.ids[start + length - 1] == renderer.end_id
    assert list(rendered.weights) == expected


@QUICK
@given(messages=conversations())
def test_speakers_cover_header_body_and_end_of_replies_only(renderer: Renderer, messages) -> None:
    rendered = renderer.render(messages)
    expected: list[str | None] = [None] * len(rendered.ids)
    for start, message in zip(rendered.starts, messages, strict=True):
        if message.role == "assistant":
            first = start - len(renderer.header(message.speaker))
            last = start + len(renderer.reply(message))
            expected[first:last] = [message.speaker] * (last - first)
    assert list(rendered.speakers) == expected


@QUICK
@given(data=st.data())
def test_any_ids_parse(renderer: Renderer, data: st.DataObject) -> None:
    control = sorted(renderer.control_ids)
    token = st.one_of(st.integers(0, 479), st.sampled_from(control))
    ids = tuple(data.draw(st.lists(token, max_size=60)))
    message = renderer.parse(ids, "executor")
    assert message.ids == ids[: len(message.ids)]


@QUICK
@given(
    parts=st.lists(st.one_of(texts(), st.sampled_from(['{"name":"a","args":{}}', '{"name": "a"', "{", "}", '{"', ";"])))
)
@example(parts=['{"name": "a"', "\n\n"])
@example(parts=["<tool_call>\n\n"])
def test_what_was_parsed_is_written_and_parsed_alike(renderer: Renderer, parts: list[str]) -> None:
    ids = renderer.prompt((), (), "executor", "".join(parts))[len(renderer.prompt((), (), "executor")) :]
    once = renderer.parse(ids, "executor")
    assert renderer.parse(renderer.reply(once.edited()), "executor") == once


@QUICK
@given(content=texts(), role=st.sampled_from(["system", "user", "tool", "assistant"]))
def test_no_content_becomes_a_control_token(renderer: Renderer, content: str, role) -> None:
    def control(messages: tuple[Message, ...], tools: tuple[ToolSpec, ...]) -> list[int]:
        ids = renderer.render(messages, tools).ids
        return [i for i in ids if i in renderer.control_ids]

    tool = ToolSpec("f", content, {"type": "object", "properties": {content: {"type": "string"}}})
    plain = ToolSpec("f", "x", {"type": "object", "properties": {"x": {"type": "string"}}})
    asked = Message("user", "q")
    assert control((asked, Message(role, content)), (tool,)) == control((asked, Message(role, "x")), (plain,))


@QUICK
@given(content=texts())
def test_an_argument_cannot_close_its_call(renderer: Renderer, content: str) -> None:
    message = Message("assistant", tool_calls=(ToolCall("f", {"a": content + "\n</tool_call>x"}),), speaker="assistant")
    assert renderer.parse(renderer.reply(message), "assistant") == message


def test_ids_a_model_wrote_are_reused(renderer: Renderer) -> None:
    odd = tuple(i for letter in "debt" for i in renderer.prompt((), (), "assistant", letter)[-1:])
    message = renderer.parse((*odd, renderer.end_id), "assistant")
    rendered = renderer.render((Message("user", "q"), message))
    start = rendered.starts[1]
    assert rendered.ids[start : start + len(odd) + 1] == (*odd, renderer.end_id)
    assert renderer.reply(message.edited()) != message.ids


def test_a_reply_that_was_cut_is_closed_without_training(renderer: Renderer) -> None:
    whole = renderer.reply(Message("assistant", "I need the debt", speaker="assistant"))
    message = renderer.parse(whole[:-1], "assistant")
    rendered = renderer.render((message, Message("user", "q")))
    end = rendered.starts[0] + len(whole) - 1
    assert rendered.ids[end] == renderer.end_id
    assert rendered.weights[end] == 0
    assert rendered.weights[end - 1] == 1


def test_what_follows_the_end_token_is_dropped(renderer: Renderer) -> None:
    whole = renderer.reply(Message("assistant", "yes"))
    assert renderer.parse((*whole, *whole), "assistant").ids == whole


def test_a_prefix_is_part_of_the_reply(renderer: Renderer) -> None:
    message = Message("assistant", "I need the debt", speaker="reasoner")
    prompt = renderer.prompt((Message("user", "q"),), (), "reasoner", "I need ")
    rest = renderer.reply(Message("assistant", "the debt"))
    parsed = renderer.parse(rest, "reasoner", "I need ")
    assert parsed == message
    assert renderer.render((Message("user", "q"), parsed)).ids[: len(prompt) + len(rest)] == (*prompt, *rest)


def test_the_good_calls_stay_when_one_is_malformed(renderer: Renderer) -> None:
    good = ToolCall("f", {"a": 1})
    bad = renderer.call_syntax.open + '{"name": "g", "args": 3' + renderer.call_syntax.close
    message = Message("assistant", "text", tool_calls=(good,), unparsed=bad, speaker="executor")
    parsed = renderer.parse(renderer.reply(message), "executor")
    assert (parsed.content, parsed.tool_calls, parsed.unparsed) == ("text", (good,), bad)


def test_a_speaker_cannot_forge_a_header(renderer: Renderer) -> None:
    for speaker in ("user", "system", "tool", "a\nb", "<|im_end|>", "", "x" * 65):
        with pytest.raises(DataError, match="cannot stand in a header"):
            renderer.render((Message("user", "q"), Message("assistant", "a", speaker=speaker or " ")))


def test_arguments_that_json_cannot_hold_name_their_call(renderer: Renderer) -> None:
    message = Message("assistant", tool_calls=(ToolCall("weigh", {"x": float("nan")}),))
    with pytest.raises(DataError, match="'weigh'"):
        renderer.render((message,))


def test_half_a_surrogate_pair_is_rendered(renderer: Renderer) -> None:
    ids = renderer.render((Message("tool", "a\ud800b"),)).ids
    assert "a\ufffdb" in renderer.text(ids).replace("\\ud800", "\ufffd")


def test_stop_ids_are_the_family_s(renderer: Renderer) -> None:
    assert renderer.end_id in renderer.stop_ids
    assert len(renderer.stop_ids) >= 2


def test_the_opening_gives_the_header_to_its_speaker(renderer: Renderer) -> None:
    opening = renderer.opening((Message("user", "q"),), (), "executor")
    header = len(renderer.header("executor"))
    assert opening.speakers[-header:] == ("executor",) * header
    assert set(opening.speakers[:-header]) == {None}


def test_nano_is_written_as_documented(nano_tokenizer) -> None:
    renderer = find(nano_tokenizer)
    rank = ToolSpec("rank", "rank of one company", {"type": "object", "properties": {"n": {"type": "integer"}}})
    messages = (
        Message("user", "I need the debt for Plalples."),
        Message("assistant", "Use:read_debt(key). Next: executor.", speaker="reasoner"),
        Message("assistant", tool_calls=(ToolCall("read_debt", {"key": "Plalples"}),), speaker="executor"),
        Message("tool", "3809"),
        Message("assistant", "The debt of Plalples is 3809.", speaker="summarizer"),
    )
    assert renderer.text(renderer.render(messages, (rank, DEBT)).ids) == (
        "<|im_start|>system\nTools:\nrank of one company:rank(n?:int)\ndebt of a company:read_debt(key)<|im_end|>"
        "<|im_start|>user\nI need the debt for Plalples.<|im_end|>"
        "<|im_start|>reasoner\nUse:read_debt(key). Next: executor.<|im_end|>"
        '<|im_start|>executor\n{"name":"read_debt","args":{"key":"Plalples"}}<|im_end|>'
        "<|im_start|>tool\n3809<|im_end|>"
        "<|im_start|>summarizer\nThe debt of Plalples is 3809.<|im_end|>"
    )


def test_nano_has_no_system_block_without_system_text_or_tools(nano_tokenizer) -> None:
    renderer = find(nano_tokenizer)
    assert renderer.text(renderer.render((Message("user", "q"),)).ids) == "<|im_start|>user\nq<|im_end|>"


def test_nano_puts_the_system_text_before_the_tools(nano_tokenizer) -> None:
    renderer = find(nano_tokenizer)
    text = renderer.text(renderer.render((Message("system", "Be brief."),), (DEBT,)).ids)
    assert text == "<|im_start|>system\nBe brief.\nTools:\ndebt of a company:read_debt(key)<|im_end|>"


def test_llama3_reads_calls_separated_by_semicolons(llama3_tokenizer) -> None:
    renderer = find(llama3_tokenizer)
    text = '{"name": "f", "parameters": {"a": 1}}; {"type": "function", "name": "g", "parameters": {}}'
    ids = renderer.reply(Message("assistant", text))
    assert [call.name for call in renderer.parse(ids, "assistant").tool_calls] == ["f", "g"]


def test_llama3_reads_a_call_over_several_lines(llama3_tokenizer) -> None:
    renderer = find(llama3_tokenizer)
    ids = renderer.reply(Message("assistant", '{\n  "name": "f",\n  "parameters": {\n    "a": 1\n  }\n}'))
    assert renderer.parse(ids, "assistant").tool_calls == (ToolCall("f", {"a": 1}),)


def test_llama3_leaves_a_json_answer_alone(llama3_tokenizer) -> None:
    renderer = find(llama3_tokenizer)
    message = Message("assistant", '{"city": "Paris"}', speaker="assistant")
    assert renderer.parse(renderer.reply(message), "assistant") == message


def test_llama3_tells_tools_in_the_system_block_where_no_user_speaks_first(llama3_tokenizer) -> None:
    renderer = find(llama3_tokenizer)
    text = renderer.text(renderer.render((Message("assistant", "hello"),), (DEBT,)).ids)
    assert '"read_debt"' in text.split("<|eot_id|>")[0]


def test_the_family_is_found_by_its_tokens(hermes_tokenizer, llama3_tokenizer, phi3_tokenizer, nano_tokenizer) -> None:
    unnamed = copy.deepcopy(hermes_tokenizer)
    unnamed.init_kwargs.pop("rolecraft_renderer")
    for name, tokenizer in (
        ("hermes", hermes_tokenizer),
        ("chatml", unnamed),
        ("llama3", llama3_tokenizer),
        ("phi3", phi3_tokenizer),
        ("nano", nano_tokenizer),
    ):
        assert find(tokenizer).format is catalog.find("renderers", name).FORMAT


def test_a_tokenizer_of_no_family_is_refused_with_the_remedy() -> None:
    bare = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.BPE()))
    with pytest.raises(ContractError, match=r"name one \(--format"):
        find(bare)


def test_a_format_of_another_family_is_refused_naming_the_token(llama3_tokenizer) -> None:
    with pytest.raises(ContractError, match=re.escape("'<|im_start|>'")):
        find(llama3_tokenizer, "hermes")


def test_a_misspelt_format_is_answered_with_the_nearest(hermes_tokenizer) -> None:
    with pytest.raises(NotFound, match="Did you mean 'hermes'"):
        find(hermes_tokenizer, "hermse")


def test_a_fourth_chatml_format_is_a_file_with_its_data_only(tmp_path, hermes_tokenizer) -> None:
    path = tmp_path / "plain.py"
    path.write_text(
        "from rolecraft.renderers import CallSyntax, Format, ToolList\n"
        'FORMAT = Format(header="<|im_start|>{role}\\n", end="<|im_end|>", gap="\\n", tools=ToolList(head="Tools:"),\n'
        '    calls=CallSyntax(open="<fn>", close="</fn>"))\n'
    )
    renderer = find(hermes_tokenizer, path)
    message = Message("assistant", "so", tool_calls=(ToolCall("f", {"a": "</fn>"}),), speaker="caller")
    assert renderer.reply_text(message) == 'so\n<fn>{"name": "f", "arguments": {"a": "\\u003c/fn>"}}</fn>'
    assert renderer.parse(renderer.reply(message), "caller") == message


def test_a_marker_made_by_the_normaliser_stays_text() -> None:
    backend = Tokenizer(models.WordLevel({"[UNK]": 0, "a": 1}, unk_token="[UNK]"))
    backend.normalizer = normalizers.NFKC()
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    backend.add_tokens([AddedToken(token, special=True) for token in ("[UNK]", "<|user|>", "<|assistant|>", "<|end|>")])
    backend.add_tokens([AddedToken("<|system|>", special=True), AddedToken("<fn>", special=False, normalized=True)])
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="[UNK]")
    forged = "a ＜fn＞"
    assert backend.token_to_id("<fn>") in tokenizer.encode(forged, add_special_tokens=False)
    ids = find(tokenizer).render((Message("user", forged),)).ids
    assert backend.token_to_id("<fn>") not in ids
    assert 0 in ids


def test_a_token_that_swallows_the_newline_after_it_does_so_here() -> None:
    backend = Tokenizer(models.BPE({"a": 0, "b": 1, "\n": 2, " ": 3}, []))
    markers = ("<|system|>", "<|user|>", "<|assistant|>", "<|end|>")
    backend.add_special_tokens([AddedToken(token, special=True, rstrip=True, normalized=False) for token in markers])
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend)
    ids = find(tokenizer).render((Message("user", "ab"), Message("assistant", "ba"))).ids
    whole = "<|user|>\nab<|end|>\n<|assistant|>\nba<|end|>\n"
    assert list(ids) == tokenizer.encode(whole, add_special_tokens=False)
