"""Requests that make sense are read; whatever else a client sends is refused by name."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rolecraft.server.errors import Refused
from rolecraft.server.requests import ChatRequest, read
from rolecraft.types import Message

TOOL = {"type": "function", "function": {"name": "look", "parameters": {"type": "object", "properties": {}}}}
USER = {"role": "user", "content": "Hi"}


def body(**changes) -> bytes:
    fields = {"model": "m", "messages": [USER], **changes}
    return json.dumps(fields).encode()


def refusal(raw: bytes, most_messages: int = 8) -> Refused:
    with pytest.raises(Refused) as caught:
        read(raw, most_messages)
    assert caught.value.status == 400
    json.dumps(caught.value.to_json()).encode()
    return caught.value


def calling(*ids: str) -> dict:
    calls = [{"id": one, "type": "function", "function": {"name": "look", "arguments": "{}"}} for one in ids]
    return {"role": "assistant", "content": None, "tool_calls": calls}


def answering(identity: str | None, text: str = "seen") -> dict:
    return {"role": "tool", "content": text} | ({} if identity is None else {"tool_call_id": identity})


def test_a_plain_request_leaves_all_else_to_the_server():
    asked = read(body(), 8)
    assert asked == ChatRequest("m", asked.messages)
    assert [one.message for one in asked.messages] == [Message("user", "Hi")]


def test_every_supported_wish_is_read():
    asked = read(
        body(
            tools=[TOOL],
            tool_choice={"type": "function", "function": {"name": "look"}},
            parallel_tool_calls=False,
            n=3,
            seed=-5,
            stop=["a", "b"],
            temperature=0.5,
            top_p=0.9,
            max_completion_tokens=7,
            logprobs=True,
            stream=True,
            stream_options={"include_usage": True},
            prompt_cache_key="k",
        ),
        8,
    )
    assert [tool.name for tool in asked.tools] == ["look"]
    assert (asked.choice, asked.parallel, asked.n, asked.seed, asked.stop) == ("look", False, 3, -5, ("a", "b"))
    assert (asked.temperature, asked.sampling.top_p, asked.max_tokens, asked.logprobs) == (0.5, 0.9, 7, True)
    assert (asked.stream, asked.include_usage, asked.cache_key) == (True, True, "k")


def test_a_null_is_as_good_as_nothing():
    assert read(body(tools=None, seed=None, stop=None, stream_options=None, temperature=None), 8) == read(body(), 8)


@pytest.mark.parametrize("think", [True, False, None])
def test_the_switch_for_thinking_that_other_servers_know_is_read(think):
    assert read(body(chat_template_kwargs={"enable_thinking": think}), 8).think is think


def test_what_else_is_handed_to_a_template_is_refused_by_name():
    with pytest.raises(Refused, match="unknown parameter 'documents'"):
        read(body(chat_template_kwargs={"documents": []}), 8)


@pytest.mark.parametrize(
    "inert",
    [
        {"user": "u", "metadata": {"a": "b"}, "store": True},
        {"service_tier": "auto", "safety_identifier": "s", "reasoning_effort": "low", "verbosity": "low"},
        {"frequency_penalty": 0.0, "presence_penalty": 0, "logit_bias": {}, "top_logprobs": 0, "top_k": -1},
        {"response_format": {"type": "text"}, "modalities": ["text"], "tools": []},
    ],
)
def test_what_asks_for_nothing_is_ignored(inert):
    assert read(body(**inert), 8) == read(body(), 8)


def test_text_parts_are_joined_and_a_developer_is_the_system():
    parts = [{"type": "text", "text": "Be "}, {"type": "text", "text": "brief."}]
    asked = read(body(messages=[{"role": "developer", "content": parts}, USER]), 8)
    assert asked.messages[0].message == Message("system", "Be brief.")


def test_the_old_name_of_the_limit_is_understood():
    assert read(body(max_tokens=5), 8).max_tokens == 5


def test_of_both_names_of_the_limit_the_smaller_holds():
    assert read(body(max_tokens=5, max_completion_tokens=3), 8).max_tokens == 3
    assert read(body(max_tokens=3, max_completion_tokens=5), 8).max_tokens == 3


def test_an_answer_in_json_has_its_schema():
    schema = {"type": "object", "properties": {"a": {"type": "string"}}}
    told = {"type": "json_schema", "json_schema": {"name": "A", "schema": schema, "strict": True}}
    assert read(body(response_format=told), 8).schema == schema
    assert read(body(response_format={"type": "json_object"}), 8).schema == {"type": "object"}
    assert read(body(), 8).schema is None


@pytest.mark.parametrize(
    ("changes", "param", "says"),
    [
        ({"model": None}, "model", "missing"),
        ({"messages": []}, "messages", "at least 1"),
        ({"messages": [USER] * 9}, "messages", "at most 8"),
        ({"messages": "Hi"}, "messages", "'Hi'"),
        ({"messages": [{"role": "user"}]}, "messages[0]", "'content'"),
        ({"messages": [{"role": "wizard", "content": ""}]}, "messages[0]", "'wizard'"),
        ({"messages": [{**USER, "reasoning_content": "x"}]}, "messages[0]", "'assistant'"),
        ({"messages": [{"role": "assistant", "content": "", "reasoning": 3}]}, "messages[0]", "text"),
        ({"temperature": "0.5"}, "temperature", "'0.5'"),
        ({"temperature": 2.5}, "temperature", "less than or equal to 2"),
        ({"temperature": True}, "temperature", "True"),
        ({"top_p": -1}, "top_p", "greater"),
        ({"n": 0}, "n", "greater"),
        ({"n": 1.5}, "n", "1.5"),
        ({"seed": 2**63}, "seed", "less"),
        ({"stop": ["a"] * 5}, "stop", "at most 4"),
        ({"stop": ""}, "stop", "at least 1"),
        ({"max_tokens": 0}, "max_tokens", "greater"),
        ({"stream_options": {"include_usage": True}}, "stream_options", "'stream'"),
        (
            {"stream": True, "stream_options": {"include_usages": True}},
            "stream_options.include_usages",
            "'include_usage'",
        ),
        ({"metadata": {"a": 1}}, "metadata", "1"),
        ({"temprature": 1}, "temprature", "'temperature'"),
        ({"top_logprobs": 2}, "top_logprobs", "'logprobs'"),
        ({"top_logprobs": 21, "logprobs": True}, "top_logprobs", "20"),
        ({"min_p": 1.5}, "min_p", "1.5"),
        ({"response_format": {"type": "json_schema"}}, "response_format", "has none"),
        ({"response_format": {"type": "xml"}}, "response_format.type", "'xml'"),
        ({"response_format": {"type": "text", "shema": 1}}, "response_format.shema", "'json_schema'"),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"schem": {}}}},
            "response_format.json_schema.schem",
            "'schema'",
        ),
        ({"functions": []}, "functions", "'tools'"),
        ({"frequency_penalty": 2.1}, "frequency_penalty", "less than or equal to 2"),
        ({"repetition_penalty": 1.1}, "repetition_penalty", "not supported"),
        ({"tools": [{"type": "function", "function": {"name": "a b"}}]}, "tools[0].function.name", "'a b'"),
        ({"tools": [{"type": "function", "function": {"name": "auto"}}]}, "tools[0].function.name", "'auto'"),
        ({"tools": [TOOL, TOOL]}, "tools[1].function.name", "'look'"),
        ({"tools": [{"type": "web_search"}]}, "tools[0]", "unknown key"),
        ({"tools": [TOOL] * 129}, "tools", "at most 128"),
        ({"tool_choice": "required"}, "tool_choice", "'tools'"),
        ({"tools": [TOOL], "tool_choice": "any"}, "tool_choice", "'any'"),
        ({"tools": [TOOL], "tool_choice": {"type": "function", "function": {"name": "x"}}}, "tool_choice", "'x'"),
        ({"tools": [TOOL], "tool_choice": {"type": "allowed_tools"}}, "tool_choice", "must be"),
    ],
)
def test_a_wrong_parameter_is_named_with_its_remedy(changes, param, says):
    error = refusal(body(**changes))
    assert error.param == param
    assert says in str(error)


@pytest.mark.parametrize(
    "part",
    [
        {"type": "image_url", "image_url": {"url": "data:"}},
        {"type": "input_audio", "input_audio": {}},
        {"type": "file", "file": {}},
    ],
)
def test_what_is_not_text_is_refused(part):
    error = refusal(body(messages=[{"role": "user", "content": [part]}]))
    assert error.param.startswith("messages[0].content[0]")


@pytest.mark.parametrize(
    ("raw", "says"),
    [
        (b"", "not JSON"),
        (b"\xff\xfe", "not UTF-8"),
        (b"[]", "send a JSON object"),
        (b'{"model": "m", "messages": [], "messages": []}', "twice"),
        (b'{"model": "m", "temperature": NaN}', "NaN"),
        (b'{"model": "m", "temperature": 1e999}', "1e999"),
        (b'{"model": "m", "seed": ' + b"9" * 5000 + b"}", "not usable JSON"),
        (b'{"model": "m", "seed": ' + b"9" * 400 + b"}", "1024 bits"),
        (b'{"model": "\\ud800"}', "surrogate"),
        (b'{"a": {"\\udfff": 1}}', "surrogate"),
        (b'{"\\ud800": 1}', "surrogate"),
        (b'{"metadata": ' + b'{"a":' * 65 + b"1" + b"}" * 66, "64 deep"),
        (b"[" * 100_000, "not usable JSON"),
        (b'{"a":' * 100_000, "not usable JSON"),
    ],
)
def test_hostile_json_is_an_error_and_no_crash(raw, says):
    assert says in str(refusal(raw))


@settings(deadline=None)
@given(st.binary(max_size=60))
def test_no_bytes_crash_the_reader(raw):
    with pytest.raises(Refused):
        read(raw, 8)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
KEYS = st.sampled_from(
    "model messages tools tool_choice n seed stop temperature top_p max_tokens logprobs stream stream_options user "
    "metadata response_format parallel_tool_calls logit_bias".split()
)


@settings(deadline=None)
@given(st.dictionaries(KEYS, JSON))
def test_no_values_crash_the_reader(fields):
    try:
        read(json.dumps({"model": "m", "messages": [USER], **fields}).encode(), 8)
    except Refused as refused:
        json.dumps(refused.to_json())


@settings(deadline=None)
@given(JSON)
def test_no_message_crashes_the_reader(value):
    for message in (value, {"role": "assistant", "content": value}, {**calling("a"), "tool_calls": value}):
        try:
            read(json.dumps({"model": "m", "messages": [message]}).encode(), 8)
        except Refused as refused:
            json.dumps(refused.to_json())


def test_answers_come_in_the_order_of_their_calls():
    sent = [USER, calling("a", "b"), answering("b", "of b"), answering("a", "of a"), answering(None, "remark")]
    asked = read(body(messages=sent), 8)
    assert [one.message.content for one in asked.messages[2:]] == ["of a", "of b", "remark"]


def test_a_call_that_cannot_be_read_may_be_answered_and_need_not_be():
    torn = calling("a", "b")
    torn["tool_calls"][0]["function"]["arguments"] = "{oops"
    asked = read(body(messages=[USER, torn, answering("b", "of b"), answering("a", "no JSON"), USER]), 8)
    assert [one.message.content for one in asked.messages[2:4]] == ["no JSON", "of b"]
    assert len(read(body(messages=[USER, torn, answering("b"), USER]), 8).messages) == 4
    assert "twice" in str(refusal(body(messages=[USER, torn, answering("a"), answering("a")])))
    assert "'b' needs" in str(refusal(body(messages=[USER, torn, answering("a")])))


@pytest.mark.parametrize(
    ("message", "key"),
    [
        ({**USER, "weight": 0}, "weight"),
        ({**USER, "failed": True}, "failed"),
        ({**USER, "strict": {"role": "assistant", "content": "x"}}, "strict"),
        ({"role": "assistant", "content": "x", "failed": True}, "failed"),
    ],
)
def test_what_no_data_file_may_hold_is_refused(message, key):
    error = refusal(body(messages=[USER, message, USER]))
    assert f"messages[1]: {key!r} belongs to" in str(error)
    assert error.param == "messages[1]"


@pytest.mark.parametrize(
    ("messages", "says"),
    [
        ([USER, calling("a")], "'a' needs"),
        ([USER, calling("a", "b"), answering("a"), USER], "'b' needs"),
        ([USER, answering("a")], "no call"),
        ([USER, calling("a"), answering("b")], "no call"),
        ([USER, calling("a", "b"), answering("a"), answering("a")], "twice"),
        ([USER, calling("a", "a"), answering("a")], "id of its own"),
        ([USER, calling("")], "id of its own"),
    ],
)
def test_calls_and_answers_must_fit(messages, says):
    error = refusal(body(messages=messages))
    assert says in str(error)
    assert error.param.startswith("messages")


def test_reasoning_stays_beside_its_message():
    reply = {"role": "assistant", "content": "So.", "reasoning_content": "Hm.", "reasoning": "Hm."}
    asked = read(body(messages=[USER, reply, USER]), 8)
    assert (asked.messages[1].message.content, asked.messages[1].reasoning) == ("So.", "Hm.")


def test_what_client_libraries_note_on_an_answer_is_ignored():
    notes = {"provider_specific_fields": {"a": 1}, "thinking_blocks": [], "reasoning_details": None, "parsed": None}
    plain = {"role": "assistant", "content": "So."}
    assert read(body(messages=[USER, {**plain, **notes}, USER]), 8) == read(body(messages=[USER, plain, USER]), 8)
    assert refusal(body(messages=[{**USER, **notes}])).param == "messages[0]"


def test_notes_on_calls_are_ignored_and_arguments_of_that_name_are_not():
    message = calling("a")
    message["tool_calls"][0] |= {"provider_specific_fields": None}
    message["tool_calls"][0]["function"] = {"name": "look", "arguments": {"parsed": 1}, "parsed_arguments": {"x": 1}}
    (call,) = read(body(messages=[USER, message, answering("a")]), 8).messages[1].message.tool_calls
    assert call.arguments == {"parsed": 1}


@pytest.mark.parametrize(
    ("status", "kind"),
    [(400, "invalid_request_error"), (408, "timeout_error"), (429, "rate_limit_error"), (503, "server_error")],
)
def test_an_error_has_openais_form(status, kind):
    told = Refused(status, "No.", param="n", code="c").to_json()
    assert told == {"error": {"message": "No.", "type": kind, "param": "n", "code": "c"}}
