"""The server under the real OpenAI client, over real sockets."""

from __future__ import annotations

import asyncio
import json

import openai
import pytest
from serving import ANSWER, ENOUGH, QUESTION, THINK, TOOLS, models, running, scripted


@pytest.fixture(scope="module")
def address(nano_tokenizer):
    with running(models(scripted(nano_tokenizer))) as url:
        yield url


@pytest.fixture(scope="module")
def client(address):
    with openai.OpenAI(base_url=address, api_key="none", max_retries=0, timeout=20) as one:
        yield one


def ask(client, model="nano:team", messages=(QUESTION,), tools=TOOLS, **options):
    return client.chat.completions.create(model=model, messages=list(messages), tools=tools, **options)


def test_models_are_the_base_the_roles_and_the_team(client):
    ids = [model.id for model in client.models.list()]
    assert ids == ["nano", "nano:reasoner", "nano:executor", "nano:summarizer", "nano:team"]
    assert client.models.retrieve("nano:team").object == "model"


def test_a_team_reasons_and_calls(client):
    answer = ask(client)
    (choice,) = answer.choices
    assert choice.finish_reason == "tool_calls"
    assert choice.message.content is None
    assert choice.message.model_extra == {"reasoning_content": THINK, "reasoning": THINK}
    (call,) = choice.message.tool_calls
    assert (call.type, call.function.name) == ("function", "read_debt")
    assert json.loads(call.function.arguments) == {"key": "Plalples"}
    assert answer.system_fingerprint == "fp_test"
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens
    assert 0 < answer.usage.completion_tokens_details.reasoning_tokens < answer.usage.completion_tokens


def test_the_summarizer_answers_what_the_tool_observed(client):
    (call,) = (asked := ask(client).choices[0].message).tool_calls
    observed = {"role": "tool", "tool_call_id": call.id, "content": "3809"}
    (choice,) = ask(client, messages=[QUESTION, asked, observed]).choices
    assert (choice.finish_reason, choice.message.content) == ("stop", ANSWER)
    assert choice.message.tool_calls is None
    assert choice.message.reasoning_content == ENOUGH


def test_a_role_alone_writes_one_reply(client):
    (choice,) = ask(client, "nano:reasoner").choices
    assert (choice.message.content, choice.finish_reason) == (THINK, "stop")
    (choice,) = ask(client, "nano:executor").choices
    assert choice.finish_reason == "tool_calls"


def test_a_stream_has_the_order_of_openais(client):
    seen = []
    for chunk in ask(client, stream=True, stream_options={"include_usage": True}):
        if not chunk.choices:
            seen.append("usage")
            assert chunk.usage.completion_tokens > 0
            continue
        (choice,) = chunk.choices
        assert chunk.usage is None
        if choice.finish_reason:
            seen.append(choice.finish_reason)
        elif choice.delta.tool_calls:
            (delta,) = choice.delta.tool_calls
            seen.append("announced" if delta.id else "arguments")
            assert (delta.function.name, delta.function.arguments) == ("read_debt", "") or not delta.id
        elif "reasoning" in (choice.delta.model_extra or {}):
            seen.append("reasoning")
        else:
            seen.append(choice.delta.role)
    assert list(dict.fromkeys(seen)) == ["assistant", "reasoning", "announced", "arguments", "tool_calls", "usage"]


@pytest.mark.parametrize("follow_up", [False, True])
def test_a_stream_joined_is_the_plain_answer(client, follow_up):
    messages = [QUESTION]
    if follow_up:
        (call,) = (asked := ask(client).choices[0].message).tool_calls
        messages += [asked, {"role": "tool", "tool_call_id": call.id, "content": "3809"}]
    plain = ask(client, messages=messages).choices[0]
    with client.chat.completions.stream(model="nano:team", messages=messages, tools=TOOLS) as stream:
        joined = stream.get_final_completion().choices[0]
    assert (joined.finish_reason, joined.message.content or None) == (plain.finish_reason, plain.message.content)
    assert joined.message.reasoning_content == plain.message.reasoning_content
    named = [
        [(call.function.name, call.function.arguments) for call in one.message.tool_calls or ()]
        for one in (plain, joined)
    ]
    assert named[0] == named[1]


def test_the_asynchronous_client_gets_the_same(address):
    async def both():
        async with openai.AsyncOpenAI(base_url=address, api_key="none", max_retries=0) as client:
            plain = await ask(client)
            pieces = [chunk async for chunk in await ask(client, stream=True)]
        return plain.choices[0].finish_reason, pieces[-1].choices[0].finish_reason

    assert asyncio.run(both()) == ("tool_calls", "tool_calls")
