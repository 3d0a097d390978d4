"""The engine on an endpoint: what is asked, what is read, and what becomes of answers that are none."""

from __future__ import annotations

import asyncio
import json
import traceback
from contextlib import suppress

import pytest
from endpoint import Answer, asked, endpoint, error, said, streamed, within

from rolecraft import remote
from rolecraft.errors import ContextFull, EngineError
from rolecraft.remote import RemoteEngine, Settings
from rolecraft.remote.replies import completions
from rolecraft.remote.requests import request_body
from rolecraft.types import Message, Prompt, Sampling, ToolCall, ToolSpec, Usage

TOOL = ToolSpec(
    "stock", "stock of an item", {"type": "object", "properties": {"item": {"type": "string"}}, "required": ["item"]}
)
ASK = (Message("user", "How many lamps?"),)


def prompt(*more: Message, tools=(TOOL,), **changes) -> Prompt:
    return Prompt((*ASK, *more), tools, **changes)


def reply(engine: RemoteEngine, what: Prompt | None = None) -> Message:
    (one,) = asyncio.run(engine.complete(what or prompt()))
    assert one.turn.message == one.message
    return one.message


def body_of(what: Prompt, **settings) -> dict:
    with asked([said("ok")], **settings) as (engine, served):
        reply(engine, what)
    return served.requests[0]


def test_a_greedy_request_says_what_is_wanted_and_nothing_else():
    assert body_of(prompt()) == {
        "model": "m",
        "messages": [{"role": "user", "content": "How many lamps?"}],
        "temperature": 0.0,
        "max_tokens": 160,
        "tools": [
            {
                "type": "function",
                "function": {"name": "stock", "description": "stock of an item", "parameters": TOOL.parameters},
            }
        ],
    }


def test_a_sampled_request_carries_its_seed_in_the_bits_that_every_server_takes():
    sent = body_of(prompt(sampling=Sampling(temperature=0.7, top_p=0.9, seed=2**40 + 5, stop=("END",))))
    assert (sent["seed"], sent["temperature"], sent["top_p"], sent["stop"]) == (5, 0.7, 0.9, ["END"])


def test_all_that_a_draw_is_narrowed_by_and_the_switch_for_thinking_are_sent():
    narrowed = {"top_k": 5, "min_p": 0.1, "presence_penalty": 0.5, "frequency_penalty": -0.5}
    sent = body_of(prompt(sampling=Sampling(temperature=1.0, **narrowed), think=False))
    assert (narrowed | {"chat_template_kwargs": {"enable_thinking": False}}).items() <= sent.items()


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"sampling": Sampling(temperature=1.0, top_k=5)}, "top_k"),
        ({"sampling": Sampling(temperature=1.0, min_p=0.1)}, "min_p"),
        ({"think": True}, "think"),
    ],
)
def test_what_openais_own_api_does_not_know_is_refused_by_name(changes, named):
    with pytest.raises(EngineError, match=f"leave {named} out"):
        request_body(prompt(**changes), Settings("https://api.openai.com/v1", {"": "m"}))
    assert request_body(prompt(**changes), Settings("http://127.0.0.1/v1", {"": "m"}))["model"] == "m"


@pytest.mark.parametrize(
    ("changes", "sent"),
    [
        ({"choice": "required"}, {"tool_choice": "required"}),
        ({"choice": "none"}, {"tool_choice": "none"}),
        ({"choice": "stock"}, {"tool_choice": {"type": "function", "function": {"name": "stock"}}}),
        ({"parallel": False}, {"parallel_tool_calls": False}),
    ],
)
def test_what_a_reply_is_held_to_is_asked_for_in_openais_way(changes, sent):
    assert sent.items() <= body_of(prompt(**changes)).items()


def test_told_in_the_prompt_not_to_call_a_model_is_told_so_in_words_and_its_text_is_no_call():
    call = '{"name": "stock", "arguments": {"item": "lamp"}}'
    with asked([said(call)], tools="prompt") as (engine, served):
        message = reply(engine, prompt(choice="none", lenient=True))
    assert served.requests[0]["messages"][-1]["content"].endswith("Call no tool now; answer in words.")
    assert (message.content, message.tool_calls) == (call, ())


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"prefix": "I think"}, "begun for it \\('I think'\\)"),
        ({"next_roles": ("executor",)}, "name one of"),
        ({"cache_scopes": ("alice",)}, "bound what it keeps"),
        ({"text": "Once upon"}, "go on with a text"),
        ({"sampling": Sampling(top_logprobs=3)}, "tell the 3 likeliest"),
        ({"choice": "required", "tools": ()}, "there are no tools"),
        ({"sampling": Sampling(max_tokens=0)}, "must be at least 1"),
    ],
)
def test_what_no_endpoint_can_do_is_refused_by_name_before_anything_is_sent(changes, named):
    with asked([said("ok")]) as (engine, served), pytest.raises(EngineError, match=named):
        reply(engine, prompt(**changes))
    assert served.requests == []


def test_native_calls_text_usage_and_the_stop_are_read():
    with asked([said("Let me see.", ("stock", {"item": "lamp"}), finish="length")]) as (engine, _):
        (one,) = asyncio.run(engine.complete(prompt()))
    assert one.message == Message(
        "assistant", "Let me see.", (ToolCall("stock", {"item": "lamp"}, "c0"),), speaker="assistant"
    )
    assert (one.turn.stop, one.turn.token_ids, one.turn.prompt_ids) == ("length", (), ())
    assert (one.turn.usage.cached, one.turn.usage.completion) == (3, 5)
    assert min(one.turn.usage.prompt, one.turn.usage.seconds) > 0


def test_reasoning_beside_the_text_is_kept_as_thoughts():
    with asked([said("Four.", reasoning_content="I count.")]) as (engine, _):
        assert reply(engine).content == "<think>\nI count.\n</think>\n\nFour."


@pytest.mark.parametrize("form", ["native", "prompt"])
@pytest.mark.parametrize("lenient", [True, False])
def test_a_call_that_reasoning_considers_is_no_call_and_one_after_it_is(form, lenient):
    call = '<tool_call>\n{"name": "stock", "arguments": {"item": "lamp"}}\n</tool_call>'
    thought = f"Shall I? {call}</think>\n\n{call}"
    answers = [said("No.", reasoning_content=thought), said(f"So:\n{call}", reasoning_content=thought)]
    with asked(answers, tools=form) as (engine, _):
        refused, called = (reply(engine, prompt(lenient=lenient)) for _ in answers)
    assert (refused.tool_calls, refused.content) == ((), f"<think>\n{thought}\n</think>\n\nNo.")
    if lenient or form == "prompt":
        assert [one.arguments for one in called.tool_calls] == [{"item": "lamp"}]
        assert called.content == f"<think>\n{thought}\n</think>\n\nSo:"


@pytest.mark.parametrize("arguments", ['{"item": ', "[1]", '{"item": NaN}', "null", '"lamp"', "[" * 5000])
def test_arguments_that_are_no_object_are_the_models_mistake(arguments):
    with asked([said(None, ("stock", arguments))]) as (engine, served):
        message = reply(engine)
    assert (message.tool_calls, len(served.requests)) == ((), 1)
    assert arguments in message.unparsed


@pytest.mark.parametrize(
    "call", [{}, {"function": None}, {"function": {"name": 3}}, "x", {"function": {"name": "f", "arguments": 7}}]
)
def test_an_entry_that_is_no_call_is_the_models_mistake_too(call):
    with asked([said("hm", tool_calls=[call])]) as (engine, _):
        message = reply(engine)
    assert (message.content, message.tool_calls) == ("hm", ())
    assert json.loads(message.unparsed) == call


def test_a_conversation_is_sent_with_its_calls_results_remarks_and_broken_calls():
    called = Message("assistant", "I look.", (ToolCall("stock", {"item": "lamp"}, "call_0"),), speaker="assistant")
    result = Message("tool", "4", tool_call_id="call_0", name="stock")
    broken = Message("assistant", unparsed='{"name": stock', speaker="assistant")
    remark = Message("tool", "error: not JSON", failed=True)
    sent = body_of(prompt(called, result, broken, remark))["messages"]
    function = {"name": "stock", "arguments": '{"item":"lamp"}'}
    assert sent[1:] == [
        {
            "role": "assistant",
            "content": "I look.",
            "tool_calls": [{"id": "call_0", "type": "function", "function": function}],
        },
        {"role": "tool", "tool_call_id": "call_0", "content": "4"},
        {"role": "assistant", "content": '{"name": stock'},
        {"role": "user", "content": "error: not JSON"},
    ]


FENCED = '```json\n{"name": "stock", "arguments": {"item": "lamp"}}\n```'


@pytest.mark.parametrize(
    ("settings", "sent"),
    [
        ({"texts": True}, FENCED),
        ({"tools": "prompt"}, FENCED),
        ({}, None),
    ],
)
def test_a_call_that_stood_in_the_text_goes_back_as_it_was_written_where_the_endpoint_takes_that(settings, sent):
    with asked([said(FENCED)], **settings) as (engine, _):
        called = reply(engine, prompt(lenient=True))
    called = called.edited(tool_calls=(ToolCall("stock", {"item": "lamp"}, "call_0"),))
    result = Message("tool", "4", tool_call_id="call_0", name="stock")
    _, assistant, told = body_of(prompt(called, result), **settings)["messages"][-3:]
    assert assistant["content"] == sent
    assert ("tool_calls" in assistant) == (sent is None)
    assert told["content"].strip() in ("4", "<tool_response>\n4\n</tool_response>")


def test_a_broken_call_read_leniently_goes_back_with_its_fence():
    written = '```json\n{"name": "stock", "arguments": {"item": }}\n```'
    with asked([said(written)]) as (engine, _):
        broken = reply(engine, prompt(lenient=True))
    assert broken.unparsed
    assert broken.strict
    assert body_of(prompt(broken))["messages"][1] == {"role": "assistant", "content": written}


def test_a_role_is_told_of_in_words_and_played_by_its_own_model():
    said_before = Message("assistant", "I need the stock. Next: executor.", speaker="reasoner")
    sent = body_of(prompt(said_before, speaker="executor"), models={"": "big", "executor": "small"})
    assert sent["model"] == "small"
    assert [one["role"] for one in sent["messages"]] == ["user", "assistant", "user"]
    assert "executor" in sent["messages"][-1]["content"]


def test_messages_of_several_roles_are_one_message_to_a_server_that_knows_one_assistant():
    thought = Message("assistant", "Next: executor.", speaker="reasoner")
    called = Message("assistant", "", (ToolCall("stock", {"item": "lamp"}, "call_0"),), speaker="executor")
    result = Message("tool", "4", tool_call_id="call_0", name="stock")
    sent = body_of(prompt(thought, called, result, speaker="summarizer"))["messages"]
    assert [one["role"] for one in sent] == ["user", "assistant", "tool", "user"]
    assert (sent[1]["content"], len(sent[1]["tool_calls"])) == ("Next: executor.", 1)


def test_our_own_server_is_told_who_spoke():
    thought = Message("assistant", "Next: executor.", speaker="reasoner")
    remark = Message("tool", "error: no call was written", failed=True)
    sent = body_of(prompt(thought, remark, speaker="executor"), dialect="rolecraft")["messages"]
    assert sent[1:] == [
        {"role": "assistant", "content": "Next: executor.", "speaker": "reasoner"},
        {"role": "tool", "content": "error: no call was written", "failed": True},
    ]


def test_tools_in_the_prompt_are_text_there_and_back():
    called = Message("assistant", "", (ToolCall("stock", {"item": "lamp"}, "call_0"),), speaker="assistant")
    result = Message("tool", "4", tool_call_id="call_0", name="stock")
    written = 'I look.\n<tool_call>\n{"name": "stock", "arguments": {"item": "bed"}}\n</tool_call>'
    with asked([said(written)], tools="prompt") as (engine, served):
        message = reply(engine, prompt(called, result))
    sent = served.requests[0]
    assert "tools" not in sent
    assert [one["role"] for one in sent["messages"]] == ["system", "user", "assistant", "user"]
    assert '"name": "stock"' in sent["messages"][0]["content"]
    assert '<tool_call>\n{"name": "stock"' in sent["messages"][2]["content"]
    assert sent["messages"][3]["content"] == "<tool_response>\n4\n</tool_response>"
    assert (message.content, message.tool_calls) == ("I look.", (ToolCall("stock", {"item": "bed"}),))


@pytest.mark.parametrize("form", ["native", "prompt"])
def test_a_call_that_the_server_left_in_the_text_is_read_if_the_prompt_allows_it(form):
    written = said('```json\n{"name": "stock", "arguments": {"item": "bed"}}\n```')
    with asked([written], tools=form) as (engine, _):
        lenient, strict = reply(engine, prompt(lenient=True)), reply(engine, prompt())
    assert (lenient.tool_calls, strict.tool_calls) == ((ToolCall("stock", {"item": "bed"}),), ())
    assert lenient.strict == strict


def test_tools_in_the_prompt_cannot_be_asked_for_by_force():
    with asked([said("ok")], tools="prompt") as (engine, _), pytest.raises(EngineError, match="--engine-tools native"):
        reply(engine, prompt(choice="required"))


def test_several_replies_are_asked_for_at_once_and_a_server_that_gives_one_is_named():
    two = said("a").body
    two = {**two, "choices": [two["choices"][0], {**two["choices"][0], "index": 1}]}
    with asked([Answer(two)]) as (engine, served):
        assert len(asyncio.run(engine.complete(prompt(sampling=Sampling(n=2, temperature=1.0))))) == 2
    assert served.requests[0]["n"] == 2
    with asked([said("a")], retries=0) as (engine, _), pytest.raises(EngineError, match="takes no 'n'"):
        asyncio.run(engine.complete(prompt(sampling=Sampling(n=2, temperature=1.0))))


GARBAGE = [
    Answer(b"<html>Bad gateway</html>"),
    Answer(b""),
    Answer(b"\xff\xfe\x00"),
    Answer(b"[" * 100_000),
    Answer(b'{"choices": []}'),
    Answer(b'{"choices": [{"message": "text"}]}'),
    Answer(b'{"choices": [{"message": {"content": 7}}]}'),
    Answer(b'{"choices": [{"message": {"tool_calls": 7}}]}'),
    Answer(b'{"choices": [{"index": 0, "mess', cut=True),
    Answer(b"9" * 10_000),
    Answer({"error": {"message": "overloaded"}}),
    Answer(b"\x1f\x8b" * 50, headers={"content-encoding": "gzip"}),
    error(500, "CUDA error"),
    error(503, "loading the model"),
    error(529, "overloaded"),
]


@pytest.mark.parametrize("bad", GARBAGE, ids=range(len(GARBAGE)))
def test_an_answer_that_is_none_is_asked_for_again(bad):
    with asked([bad, bad, said("fine")]) as (engine, served):
        assert reply(engine).content == "fine"
    assert len(served.requests) == 3
    assert served.requests[0] == served.requests[2]


@pytest.mark.parametrize("bad", GARBAGE, ids=range(len(GARBAGE)))
def test_an_endpoint_that_stays_ill_is_named_with_what_it_said_and_the_remedy(bad):
    with (
        asked([bad], retries=1) as (engine, served),
        pytest.raises(EngineError, match=r"tried 2 times\. .*repeat") as told,
    ):
        reply(engine)
    assert served.url in str(told.value)


def test_an_endpoint_that_is_not_there_is_told_as_that():
    with endpoint([said("ok")]) as gone:
        pass
    settings = Settings(gone.url, {"": "m"}, retries=1, pause=0.001)
    with RemoteEngine(settings) as engine, pytest.raises(EngineError, match=r"could not be asked: .*tried 2 times"):
        reply(engine)


@pytest.mark.parametrize(
    ("status", "remedy"),
    [(400, "see what the server says"), (401, "--api-key-file"), (403, "key"), (404, "--model"), (422, "refused")],
)
def test_what_another_try_cannot_change_is_told_at_once_with_status_url_and_remedy(status, remedy):
    with (
        asked([error(status, "this will not do")]) as (engine, served),
        pytest.raises(EngineError, match=remedy) as told,
    ):
        reply(engine)
    assert len(served.requests) == 1
    assert f"{served.url}/chat/completions answered {status}" in str(told.value)
    assert "this will not do" in str(told.value)


def test_a_redirect_is_not_followed_and_its_aim_is_told():
    moved = Answer(b"", 307, {"location": "http://elsewhere.test/v1"})
    with (
        asked([moved], key="sesame") as (engine, _),
        pytest.raises(EngineError, match=r"307.*http://elsewhere\.test/v1"),
    ):
        reply(engine)


@pytest.mark.parametrize(
    "full",
    [
        error(400, "This model's maximum context length is 2048 tokens. However, your request has 3000 input tokens."),
        Answer({"error": {"message": "too long", "code": "context_length_exceeded"}}, 400),
        Answer({"error": {"code": 400, "message": "no room", "type": "exceed_context_size_error"}}, 400),
        error(500, "the request exceeds the available context size"),
    ],
)
def test_a_full_context_ends_the_episode_and_is_not_tried_again(full):
    with asked([full]) as (engine, served), pytest.raises(ContextFull, match="shorten the conversation"):
        reply(engine)
    assert len(served.requests) == 1


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        (Answer({"error": {"message": "no", "code": "tool_use_failed", "failed_generation": "{stock"}}, 400), "{stock"),
        (error(500, "Failed to parse input at pos 3: <tool_call>{"), "Failed to parse input at pos 3: <tool_call>{"),
    ],
)
def test_a_call_that_the_server_could_not_read_is_the_models_mistake(answer, text):
    with asked([answer]) as (engine, served):
        assert reply(engine).unparsed == text
    assert len(served.requests) == 1


def test_a_stall_is_cut_off_and_the_request_tried_again():
    intime = within(20)
    with asked([Answer(delay=30), said("fine")], seconds=0.3) as (engine, _):
        assert reply(engine).content == "fine"
    intime()


def test_a_body_that_drips_for_ever_is_cut_off_in_size():
    intime = within(20)
    with asked([Answer(b" " * 1000, endless=True), said("fine")], max_bytes=50_000) as (engine, _):
        assert reply(engine).content == "fine"
    intime()


def test_what_an_endpoint_asks_to_wait_is_waited():
    with asked([error(429, "slow down", retry_after="1"), said("fine")]) as (engine, _):
        (one,) = asyncio.run(engine.complete(prompt()))
    assert one.turn.usage.seconds >= 1


@pytest.mark.parametrize("wish", ["99999999999", "Fri, 31 Dec 9999 23:59:59 GMT", "soon", "", "²"])
def test_no_endpoint_makes_a_request_wait_for_ever(wish):
    intime = within(20)
    with asked([error(429, "slow down", retry_after=wish), said("fine")], longest_pause=0.01) as (engine, _):
        assert reply(engine).content == "fine"
    intime()


def test_no_more_requests_are_under_way_than_allowed():
    async def many(engine: RemoteEngine) -> None:
        await asyncio.gather(*(engine.complete(prompt()) for _ in range(12)))

    with asked([Answer(said("fine").body, delay=0.02)], requests=3) as (engine, served):
        asyncio.run(many(engine))
    assert (len(served.requests), served.most_at_once) == (12, 3)


def test_a_caller_that_gives_up_frees_its_place():
    async def give_up(engine: RemoteEngine) -> None:
        asking = asyncio.create_task(engine.complete(prompt()))
        await asyncio.sleep(0.2)
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)

    with asked([Answer(delay=60), said("fine")], requests=1) as (engine, _):
        asyncio.run(give_up(engine))
        assert reply(engine).content == "fine"


def test_a_closed_engine_says_so():
    with asked([said("fine")]) as (engine, _):
        pass
    engine.close()
    with pytest.raises(EngineError, match="closed"):
        reply(engine)


def test_the_key_is_sent_and_stands_in_no_error_even_if_the_endpoint_repeats_it():
    refused = [error(401, "wrong key sesame-123")]
    with asked(refused, key="sesame-123") as (engine, served), pytest.raises(EngineError) as told:
        reply(engine)
    assert served.headers[0]["authorization"] == "Bearer sesame-123"
    assert "wrong key ***" in str(told.value)
    assert "sesame" not in str(told.value) + repr(engine.settings)


KEY = "sesame-123/opens"
ESCAPED = json.dumps({"choices": [], "for": KEY}).replace("/", "\\/")


@pytest.mark.parametrize(
    "repeated",
    [
        Answer({"message": f"denied for Bearer {KEY}"}),
        Answer(ESCAPED.encode()),
        Answer(f"{'no ' * 24}{KEY}".encode()),
        Answer({"choices": [{"message": {"role": "assistant", "content": {KEY: 1}}}]}),
    ],
    ids=range(4),
)
def test_an_answer_that_is_none_is_shown_without_the_key(repeated):
    with asked([repeated], key=KEY, retries=0) as (engine, _), pytest.raises(EngineError) as told:
        reply(engine)
    assert "***" in str(told.value)
    assert "sesame" not in "".join(traceback.format_exception(told.value))


@pytest.mark.parametrize("lead", ["", "x" * 195, "x" * 395])
def test_a_streams_error_is_shown_without_the_key(lead):
    events = Answer(b"data: " + json.dumps({"error": {"message": f"{lead}{KEY}"}}).encode() + b"\n\n")
    with asked([events], key=KEY, retries=0) as (engine, _), pytest.raises(EngineError, match="the stream") as told:
        asyncio.run(_streamed(engine, prompt()))
    assert "sesame" not in "".join(traceback.format_exception(told.value))


def test_what_the_server_could_not_read_is_recorded_without_the_key():
    body = {"error": {"message": "no", "code": "tool_use_failed", "failed_generation": f'{{"auth":\n "{KEY}"}}'}}
    with asked([Answer(body, 400)], key=KEY) as (engine, _):
        assert reply(engine).unparsed == '{"auth":\n "***"}'


def test_an_answer_is_kept_by_its_exact_request_and_a_damaged_one_asked_for_again(tmp_path):
    with asked([said("one"), said("two"), said("three")], cache=tmp_path) as (engine, served):
        assert [reply(engine).content for _ in range(3)] == ["one", "one", "one"]
        assert reply(engine, prompt(sampling=Sampling(max_tokens=7))).content == "two"
        for file in tmp_path.rglob("*.json"):
            file.write_text('{"choices": 3')
        assert reply(engine).content == "three"
    assert len(served.requests) == 3


def test_nothing_is_kept_unless_a_folder_is_named():
    with asked([said("one"), said("two")]) as (engine, _):
        assert [reply(engine).content for _ in range(2)] == ["one", "two"]


async def _streamed(engine: RemoteEngine, what: Prompt) -> tuple[list[str], Message]:
    deltas = [delta async for delta in engine.stream(what)]
    assert [delta.completion is None for delta in deltas] == [True] * (len(deltas) - 1) + [False]
    return [delta.text for delta in deltas if delta.text], deltas[-1].completion.message


def test_a_stream_brings_its_text_as_it_comes_and_its_calls_at_the_end():
    piece = {"index": 0, "id": "c0", "function": {"name": "stock", "arguments": '{"item"'}}
    rest = {"index": 0, "function": {"arguments": ': "lamp"}'}}
    chunks = [{"content": "I "}, {"content": "look."}, {"tool_calls": [piece]}, {"tool_calls": [rest]}]
    with asked([streamed(*chunks, finish="tool_calls")]) as (engine, served):
        texts, message = asyncio.run(_streamed(engine, prompt()))
    assert served.requests[0]["stream"] is True
    assert texts == ["I ", "look."]
    assert (message.content, message.tool_calls) == ("I look.", (ToolCall("stock", {"item": "lamp"}, "c0"),))


@pytest.mark.parametrize(
    "bad",
    [
        streamed({"content": "half"}, finish=None),
        Answer(b'data: {"choices": [{"delta": {"content": "ha'),
        Answer(b'data: {"error": {"message": "broke"}}\n\n'),
        Answer(b"data: 7\n\n"),
        Answer(b"<html>"),
        streamed({"tool_calls": [{"index": "x"}]}),
        Answer(b"data: " + b"x" * 9999, endless=True),
        Answer(b": ping\n\n" * 100, endless=True),
        Answer(delay=30),
    ],
    ids=range(9),
)
def test_a_stream_that_is_none_ends_in_an_error_that_names_the_endpoint(bad):
    intime = within(20)
    bounds = {"retries": 1, "max_bytes": 100_000, "seconds": 0.5}
    with asked([bad], **bounds) as (engine, served), pytest.raises(EngineError) as told:
        asyncio.run(_streamed(engine, prompt()))
    intime()
    assert served.url in str(told.value)


def test_a_stream_is_begun_again_only_while_nothing_of_it_has_come():
    with asked([error(503, "loading"), streamed({"content": "fine"})]) as (engine, _):
        assert asyncio.run(_streamed(engine, prompt()))[0] == ["fine"]


def test_an_engine_answers_on_one_event_loop_after_another():
    with asked([said("fine")]) as (engine, served):
        assert [reply(engine).content for _ in range(3)] == ["fine"] * 3
    assert len(served.requests) == 3


def test_tokens_of_several_replies_are_counted_once_and_log_probabilities_read():
    told = {"content": [{"token": "a", "logprob": -0.5}, {"token": "b", "logprob": -1}]}
    bad = {"content": [{"logprob": "x"}, {"logprob": 1.0}]}
    choices = [
        {"message": {"content": "a"}, "finish_reason": "stop", "logprobs": logprobs} for logprobs in (told, bad, None)
    ]
    body = {"choices": choices, "usage": {"prompt_tokens": 9, "completion_tokens": 7}}
    found = completions(body, prompt(sampling=Sampling(n=3)), "native", 2.0)
    assert [one.turn.logprobs for one in found] == [(-0.5, -1.0), (), ()]
    assert [one.turn.usage for one in found] == [Usage(9, 0, 3, 2.0), Usage(0, 0, 2, 2.0), Usage(0, 0, 2, 2.0)]


def test_log_probabilities_are_asked_for_where_they_are_wanted():
    assert "logprobs" not in body_of(prompt())
    assert body_of(prompt(), logprobs=True)["logprobs"] is True


def test_requests_that_nobody_awaits_any_more_are_counted_once(tmp_path):
    async def left() -> None:
        with suppress(TimeoutError):
            await asyncio.wait_for(engine.complete(Prompt((Message("user", "slow"),))), 0.5)

    with asked([said("ok"), Answer(delay=30)], cache=tmp_path, retries=0) as (engine, _):
        reply(engine, Prompt((Message("user", "good"),)))
        asyncio.run(left())
    assert remote.take_lost(tmp_path) == 1
    assert remote.take_lost(tmp_path) == 0


@pytest.mark.parametrize(
    "answer",
    [
        error(401, "no"),
        error(400, "maximum context length"),
        Answer({"error": {"code": "tool_use_failed"}}, 400),
        error(503, "loading"),
    ],
    ids=range(4),
)
def test_a_request_that_is_refused_misread_or_given_up_is_not_lost(tmp_path, answer):
    with asked([answer], cache=tmp_path, retries=0) as (engine, _), suppress(EngineError):
        reply(engine)
    assert list(tmp_path.rglob("*")) != []
    assert remote.take_lost(tmp_path) == 0


def test_half_a_character_is_replaced_wherever_a_reply_has_one():
    body = (
        rb'{"choices": [{"message": {"content": "a\ud800b \ud83d\ude00", "tool_calls": [{"id": "c\udfff", "function": '
    )
    body += rb'{"name": "stock\ud800", "arguments": "{\"item\": [\"\\ud800\"]}"}}]}, "finish_reason": "stop"}]}'
    with asked([Answer(body)]) as (engine, _):
        message = reply(engine)
    (call,) = message.tool_calls
    assert (message.content, call.name, call.id) == ("a\ufffdb \U0001f600", "stock\ufffd", "c\ufffd")
    assert call.arguments == {"item": ["\ufffd"]}


def test_a_character_that_a_stream_halves_is_whole_in_the_message_and_none_is_told_in_halves():
    with asked([streamed({"content": "a\ud83d"}, {"content": "\ude00b"})]) as (engine, _):
        texts, message = asyncio.run(_streamed(engine, prompt()))
    assert (texts, message.content) == (["a\ufffd", "\ufffdb"], "a\U0001f600b")


def test_an_assistant_that_said_nothing_is_sent_as_no_text_and_null_stands_beside_calls_alone():
    asks = Message("user", "And chairs?")
    silent, calling = Message("assistant", ""), Message("assistant", "", tool_calls=(ToolCall("stock", {}, "c1"),))
    sent = body_of(prompt(silent, asks, silent, silent, asks, silent, calling))["messages"]
    replies = [(one["content"], "tool_calls" in one) for one in sent if one["role"] == "assistant"]
    assert replies == [("", False), ("", False), (None, True)]
