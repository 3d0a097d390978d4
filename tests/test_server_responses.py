"""Answers as OpenAI's own types read them, and what they cost."""

from __future__ import annotations

import json

import pytest
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from rolecraft import renderers, team
from rolecraft.server import models, responses
from rolecraft.server.responses import ChatResponse
from rolecraft.server.turns import FinishedChoice, TextDelta, ToolCallDelta
from rolecraft.types import Message, ToolCall, Turn, Usage

CALL = ToolCall("look", {"für": 'a "b"', "n": [1, None]}, "call_1")


def turn(speaker: str, prompt: int, cached: int, written: int) -> Turn:
    ids = tuple(range(3, 3 + written))
    usage = Usage(prompt, cached, written)
    return Turn(Message("assistant"), speaker, (), ids, tuple(-0.5 for _ in ids), usage=usage)


def played(cached: int = 4) -> FinishedChoice:
    turns = (turn("reasoner", 20, cached, 5), turn("executor", 30, 25, 7))
    return FinishedChoice("Hm.", "", (CALL,), "tool_calls", (), turns)


def answered() -> FinishedChoice:
    turns = (turn("reasoner", 20, 0, 5), turn("summarizer", 30, 25, 3))
    return FinishedChoice("", "So.", (), "stop", (), turns)


@pytest.fixture
def model(nano_tokenizer):
    player = models.LoadedEngine(engine=None, renderer=renderers.find(nano_tokenizer), fingerprint="fp")
    return models.ServedModel("m:team", player, team.find("mor"))


def answer(model, **options) -> ChatResponse:
    return ChatResponse("chatcmpl-1", 1_700_000_000, model, **options)


def test_a_whole_answer_is_openais_type(model):
    told = ChatCompletion.model_validate(answer(model).completion([played(), answered()]), strict=False)
    first, second = told.choices
    assert json.loads(first.message.tool_calls[0].function.arguments) == CALL.arguments
    assert (first.message.content, first.message.model_extra["reasoning"]) == (None, "Hm.")
    assert (second.message.content, second.message.tool_calls, second.index) == ("So.", None, 1)
    assert not second.message.model_extra


def test_the_prompt_is_counted_once_and_the_rest_is_written(model):
    usage = answer(model).completion([played(cached=4), played(cached=18)])["usage"]
    assert usage == {
        "prompt_tokens": 20,
        "completion_tokens": 24,
        "total_tokens": 44,
        "prompt_tokens_details": {"cached_tokens": 4},
        "completion_tokens_details": {"reasoning_tokens": 10},
    }


def test_chunks_are_openais_type(model):
    one = answer(model, include_usage=True)
    told = [*one.first_chunks(), *one.event_chunks(TextDelta(0, "content", "So."))]
    told += [*one.event_chunks(ToolCallDelta(0, (CALL, CALL))), *one.last_chunks([played()])]
    read = [ChatCompletionChunk.model_validate(chunk, strict=False) for chunk in told]
    deltas = [chunk.choices[0].delta.tool_calls[0] for chunk in read[2:6]]
    assert [(delta.index, delta.id, delta.function.name) for delta in deltas[::2]] == [
        (0, "call_1", "look"),
        (1, "call_1", "look"),
    ]
    assert [json.loads(delta.function.arguments) for delta in deltas[1::2]] == [CALL.arguments] * 2
    assert (read[-2].choices[0].finish_reason, read[-1].choices, read[-1].usage.total_tokens) == ("tool_calls", [], 32)


def test_usage_is_told_only_if_asked_for(model):
    assert len(list(answer(model).last_chunks([played()]))) == 1
    assert all("usage" not in chunk for chunk in answer(model).first_chunks())


def test_logprobs_are_of_the_last_reply_without_its_end(model):
    end = model.loaded.renderer.end_id
    ids = (*model.loaded.renderer.reply(Message("assistant", "So ü."))[:-1], end)
    last = Turn(Message("assistant"), "summarizer", (), ids, (*(-0.5 for _ in ids[:-1]), float("-inf")))
    told = answer(model, logprobs=True).completion(
        [FinishedChoice("", "So ü.", (), "stop", (), (turn("reasoner", 1, 0, 2), last))]
    )
    tokens = told["choices"][0]["logprobs"]["content"]
    assert "".join(one["token"] for one in tokens).replace("\ufffd\ufffd", "ü") == "So ü."
    assert all(one["bytes"] in (None, list(one["token"].encode())) for one in tokens)
    ChatCompletion.model_validate(told, strict=False)


def test_an_impossible_token_is_still_json(model):
    ids = model.loaded.renderer.reply(Message("assistant", "So"))[:1]
    last = Turn(Message("assistant"), "summarizer", (), ids, (float("-inf"),))
    told = answer(model, logprobs=True).completion([FinishedChoice("", "So", (), "stop", (), (last,))])
    assert (
        json.loads(json.dumps(told), parse_constant=pytest.fail)["choices"][0]["logprobs"]["content"][0]["logprob"]
        < -99
    )


def test_an_event_is_one_line_whatever_the_text(model):
    line = responses.server_sent_event({"text": "a\nb\u2028\r\ud800ü"})
    assert line.startswith(b"data: ")
    assert line.endswith(b"\n\n")
    assert b"\n" not in line[:-2]
    assert b"\r" not in line
    assert json.loads(line[6:])["text"] == "a\nb\u2028\r\ud800ü"
