"""The server under the real OpenAI client, over real sockets."""

from __future__ import annotations

import asyncio
import json

import httpx2
import openai
import pytest
from serving import (
    ANSWER,
    CALL,
    ENOUGH,
    QUESTION,
    THINK,
    TOOLS,
    connected,
    debts,
    running,
    scripted,
    team_models,
    until,
)

from rolecraft.server import Settings
from rolecraft.server.service import Limits


@pytest.fixture(scope="module")
def address(nano_tokenizer):
    with running(team_models(scripted(nano_tokenizer))) as url:
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


def test_parallel_calls_and_their_answers_in_any_order(nano_tokenizer):
    two = f"{CALL}\n{CALL.replace('Plalples', 'Grontif')}"
    engine = scripted(nano_tokenizer, lambda prompt: two if prompt.speaker == "executor" else debts(prompt))
    with connected(team_models(engine)) as client:
        calls = (asked := ask(client).choices[0].message).tool_calls
        assert [json.loads(call.function.arguments)["key"] for call in calls] == ["Plalples", "Grontif"]
        with client.chat.completions.stream(model="nano:team", messages=[QUESTION], tools=TOOLS) as stream:
            streamed = stream.get_final_completion().choices[0].message.tool_calls
        assert [call.function.arguments for call in streamed] == [call.function.arguments for call in calls]
        assert len({call.id for call in (*calls, *streamed)}) == 4
        results = [{"role": "tool", "tool_call_id": call.id, "content": call.function.arguments} for call in calls]
        ask(client, messages=[QUESTION, asked, *reversed(results)])
        told = [message.content for message in engine.prompts[-1].messages if message.role == "tool"]
        assert told == [result["content"] for result in results]
        assert len(ask(client, parallel_tool_calls=False).choices[0].message.tool_calls) == 1


def test_several_choices_and_log_probabilities(client):
    plain = ask(client, n=3, logprobs=True, seed=1)
    assert [choice.index for choice in plain.choices] == [0, 1, 2]
    written = {"".join(token.token for token in choice.logprobs.content) for choice in plain.choices}
    assert written == {CALL}
    pieces: dict[int, str] = {0: "", 1: "", 2: ""}
    for chunk in ask(client, n=3, logprobs=True, stream=True):
        for choice in chunk.choices:
            pieces[choice.index] += (choice.delta.model_extra or {}).get("reasoning", "")
            assert (choice.logprobs is not None) == (choice.finish_reason is not None)
    assert pieces == dict.fromkeys(range(3), THINK)


def test_messages_come_back_in_any_form_of_the_client(client):
    plain = ask(client).choices[0].message
    with client.chat.completions.stream(model="nano:team", messages=[QUESTION], tools=TOOLS) as stream:
        joined = stream.get_final_completion().choices[0].message
    dumped = (plain.model_dump(), plain.model_dump(exclude_none=True), json.loads(plain.model_dump_json()))
    for form in (plain, joined, *dumped):
        call = (form if isinstance(form, dict) else form.model_dump())["tool_calls"][0]["id"]
        result = {"role": "tool", "tool_call_id": call, "content": [{"type": "text", "text": "3809"}]}
        assert ask(client, messages=[QUESTION, form, result]).choices[0].message.content == ANSWER


@pytest.mark.parametrize(
    ("options", "kind", "status", "param"),
    [
        ({"model": "gpt-7"}, openai.NotFoundError, 404, "model"),
        ({"temperature": 3}, openai.BadRequestError, 400, "temperature"),
        ({"n": 17}, openai.BadRequestError, 400, "n"),
        ({"logit_bias": {"5": 1}}, openai.BadRequestError, 400, "logit_bias"),
        ({"tool_choice": "required", "tools": []}, openai.BadRequestError, 400, "tool_choice"),
        (
            {"messages": [{"role": "tool", "tool_call_id": "x", "content": ""}]},
            openai.BadRequestError,
            400,
            "messages[0]",
        ),
        ({"messages": [QUESTION, {"role": "assistant", "content": ANSWER}]}, openai.BadRequestError, 400, "messages"),
        ({"stream": True, "model": "gpt-7"}, openai.NotFoundError, 404, "model"),
        (
            {"stream": True, "messages": [{"role": "user", "content": "a b " * 4000}]},
            openai.BadRequestError,
            400,
            "messages",
        ),
    ],
)
def test_errors_are_the_clients_own(client, options, kind, status, param):
    with pytest.raises(kind) as caught:
        ask(client, **options)
    assert (caught.value.status_code, caught.value.param) == (status, param)


def test_a_fault_of_ours_is_told_without_its_inside_and_ends_nothing(nano_tokenizer, caplog):
    def broken(prompt):
        if prompt.messages[-1].content == "break":
            raise ZeroDivisionError("secret")
        return debts(prompt)

    breaking = {"role": "user", "content": "break"}
    with connected(team_models(scripted(nano_tokenizer, broken))) as client:
        for stream in (False, True):
            with pytest.raises(openai.InternalServerError) as caught:
                ask(client, messages=[breaking], stream=stream)
            assert "secret" not in str(caught.value)
        assert ask(client).choices[0].finish_reason == "tool_calls"
    assert "ZeroDivisionError: secret" in caplog.text


def test_a_fault_in_the_middle_of_a_stream_is_told_in_it(nano_tokenizer, caplog):
    def broken(prompt):
        return THINK if prompt.speaker == "reasoner" else 1 // 0

    with connected(team_models(scripted(nano_tokenizer, broken))) as client:
        stream = ask(client, stream=True)
        assert next(stream).choices[0].delta.role == "assistant"
        with pytest.raises(openai.APIError, match="something broke here"):
            list(stream)
    assert "ZeroDivisionError" in caplog.text


def test_a_client_that_leaves_a_stream_ends_the_writing_at_once(nano_tokenizer):
    engine = scripted(nano_tokenizer, delay=0.05)
    with connected(team_models(engine)) as client:
        stream = ask(client, stream=True)
        next(stream)
        stream.close()
        until(lambda: engine.cancelled == 1, seconds=5)
    assert (engine.running, engine.finished) == (0, 0)


def test_a_client_that_leaves_a_plain_request_ends_the_writing_at_once(nano_tokenizer):
    engine = scripted(nano_tokenizer, delay=0.2)
    with connected(team_models(engine), timeout=0.5) as client:
        with pytest.raises(openai.APITimeoutError):
            ask(client)
        until(lambda: engine.cancelled == 1, seconds=5)
    assert (engine.running, engine.finished) == (0, 0)


def test_a_full_server_says_when_to_come_back(nano_tokenizer):
    engine = scripted(nano_tokenizer, delay=0.02)
    settings = Settings(port=0, limits=Limits(places=1, waiting=1))

    async def run(url):
        async with openai.AsyncOpenAI(base_url=url, api_key="none", max_retries=0) as client:
            return await asyncio.gather(*(ask(client, stream=n % 2 == 0) for n in range(6)), return_exceptions=True)

    with running(team_models(engine), settings) as url:
        told = asyncio.run(run(url))
    refused = [one for one in told if isinstance(one, openai.RateLimitError)]
    assert len(refused) == 4
    assert all(1 <= int(one.response.headers["retry-after"]) <= 60 for one in refused)


def test_a_client_that_tries_again_gets_through(nano_tokenizer):
    engine = scripted(nano_tokenizer, delay=0.002)

    async def run(url):
        async with openai.AsyncOpenAI(base_url=url, api_key="none", max_retries=10) as client:
            return await asyncio.gather(*(ask(client) for _ in range(6)))

    with running(team_models(engine), Settings(port=0, limits=Limits(places=1, waiting=1))) as url:
        assert [one.choices[0].finish_reason for one in asyncio.run(run(url))] == ["tool_calls"] * 6


def test_an_answer_that_takes_too_long_is_given_up(nano_tokenizer):
    engine = scripted(nano_tokenizer, delay=0.05)
    settings = Settings(port=0, limits=Limits(seconds=0.3))
    with connected(team_models(engine), settings) as client:
        with pytest.raises(openai.APIStatusError) as caught:
            ask(client)
        with pytest.raises(openai.APIError, match="took more than"):
            list(ask(client, stream=True))
    assert caught.value.status_code == 408
    assert (engine.running, engine.cancelled) == (0, 2)


def test_the_key_opens_and_nothing_else_does(nano_tokenizer):
    key = "sk-test-0123456789"
    with running(team_models(scripted(nano_tokenizer)), key=key) as url:
        for wrong in ("none", key[:-1], key + "x", "ü" * 20):
            headers = {"authorization": f"Bearer {wrong}".encode()}
            answer = httpx2.get(f"{url}/models", headers=headers)
            assert (answer.status_code, answer.json()["error"]["code"]) == (401, "invalid_api_key")
            assert key not in answer.text
        assert httpx2.get(f"{url}/models", headers={"authorization": f"Basic {key}"}).status_code == 401
        assert httpx2.get(url.replace("/v1", "/health")).json()["status"] == "ok"
        with openai.OpenAI(base_url=url, api_key=key, max_retries=0) as client:
            assert ask(client).choices[0].finish_reason == "tool_calls"


def test_every_reference_in_the_description_leads_somewhere(address):
    described = httpx2.get(address.replace("/v1", "/openapi.json")).json()
    waiting, found = [described], []
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            waiting += value.values()
            found += [value["$ref"]] if "$ref" in value else []
        elif isinstance(value, list):
            waiting += value
    assert any(reference.endswith("StreamOptions") for reference in found)
    for reference in found:
        place = described
        for step in reference.removeprefix("#/").split("/"):
            place = place[step]
        assert place["type"] == "object"
