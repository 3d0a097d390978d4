"""The whole way: OpenAI's client, the server, the team and a tiny random model."""

from __future__ import annotations

import asyncio
import json
import time
from concurrent.futures import ThreadPoolExecutor

import jsonschema
import openai
import pytest
import tiny
from serving import ANSWER, ENOUGH, QUESTION, THINK, TOOLS, connected, running, tiny_team, until

from rolecraft import server, team, wire
from rolecraft.engine import LocalEngine, Settings
from rolecraft.server import models
from rolecraft.server.service import Limits
from rolecraft.types import Message, Prompt, Sampling, ToolCall


@pytest.fixture(scope="module")
def engine(nano_tokenizer):
    with LocalEngine(tiny.loaded(nano_tokenizer), Settings(max_requests=4, max_context=512)) as one:
        yield one


@pytest.fixture(scope="module")
def client(engine):
    with connected(tiny_team(engine)) as one:
        yield one


def ask(client, model, text, **options):
    options = {"max_tokens": 24, **options}
    return client.chat.completions.create(model=model, messages=[{"role": "user", "content": text}], **options)


def test_a_base_says_what_its_engine_says(engine, client):
    prompt = Prompt((Message("user", "Tools: rank"),), sampling=Sampling(max_tokens=24))
    ((completion),) = asyncio.run(engine.complete(prompt))
    (choice,) = ask(client, "tiny", "Tools: rank", logprobs=True).choices
    said = "\n".join(part for part in (completion.message.content, completion.message.unparsed) if part)
    assert choice.message.content == said
    written = [token.logprob for token in choice.logprobs.content]
    assert written == pytest.approx(completion.turn.logprobs[: len(written)], abs=1e-4)


@pytest.mark.parametrize("model", ["tiny", "tiny:executor", "tiny:team"])
def test_a_stream_of_random_text_is_the_plain_answer(client, model):
    for text in ("rank", "debt of a company", "user"):
        plain = ask(client, model, text).choices[0]
        texts = {"content": "", "reasoning": ""}
        for chunk in ask(client, model, text, stream=True):
            (choice,) = chunk.choices
            texts["content"] += choice.delta.content or ""
            texts["reasoning"] += (choice.delta.model_extra or {}).get("reasoning", "")
        assert texts["content"] == (plain.message.content or "")
        assert texts["reasoning"] == (plain.message.model_extra or {}).get("reasoning", "")
        assert choice.finish_reason == plain.finish_reason


def test_answers_under_way_together_are_not_mixed_up(client):
    texts = [f"rank of company {number}" for number in range(12)]
    alone = [ask(client, "tiny:team", text).choices[0].message for text in texts]
    with ThreadPoolExecutor(12) as pool:
        together = list(pool.map(lambda text: ask(client, "tiny:team", text).choices[0].message, texts))
    assert [one.model_dump() for one in together] == [one.model_dump() for one in alone]


def test_two_hundred_streams_of_a_model_are_neither_lost_nor_mixed_up(nano_tokenizer):
    """Some are read slowly, some are left; 16 are written at once."""
    loaded, texts = tiny.loaded(nano_tokenizer), [f"rank of company {number}" for number in range(200)]
    limits = Limits(places=16, waiting=200)

    async def hear(client: openai.AsyncOpenAI, number: int) -> str:
        said, messages = "", [{"role": "user", "content": texts[number]}]
        stream = await client.chat.completions.create(model="tiny", messages=messages, max_tokens=24, stream=True)
        async for chunk in stream:
            said += chunk.choices[0].delta.content or ""
            if number % 5 == 1:
                await asyncio.sleep(0.02)
            if number % 5 == 2 and said:
                break
        await stream.close()
        return said

    async def hear_all(url: str) -> list[str]:
        async with openai.AsyncOpenAI(base_url=url, api_key="none", max_retries=0, timeout=60) as client:
            return await asyncio.gather(*(hear(client, number) for number in range(len(texts))))

    settings = Settings(max_requests=16, max_context=512, memory_mb=16)
    with LocalEngine(loaded, settings) as engine, running(tiny_team(engine), server.Settings(limits=limits)) as url:
        heard = asyncio.run(hear_all(url))
        until(lambda: not engine._scheduler._is_busy())
        with openai.OpenAI(base_url=url, api_key="none", max_retries=0) as client:
            alone = [ask(client, "tiny", text).choices[0].message.content for text in texts]
        assert engine._runner.cache.nbytes <= 16 * 2**20
    whole = [said for number, said in enumerate(heard) if number % 5 != 2]
    expected = [said for number, said in enumerate(alone) if number % 5 != 2]
    # Rounding may decide between two tokens that are as good as equally likely.
    assert sum(one != other for one, other in zip(whole, expected, strict=True)) <= 3
    assert all(one[:8] == other[:8] for one, other in zip(whole, expected, strict=True))
    assert all(alone[number].startswith(heard[number]) for number in range(2, 200, 5))


def test_a_seed_repeats_and_none_does_not(client):
    def drawn(**options):
        return ask(client, "tiny", "rank", temperature=1, n=3, **options).choices

    first, again = drawn(seed=7), drawn(seed=7)
    assert [choice.message.content for choice in first] == [choice.message.content for choice in again]
    assert len({choice.message.content for choice in first}) == 3
    assert drawn()[0].message.content != drawn()[0].message.content


def test_too_long_a_conversation_has_openais_error(client):
    with pytest.raises(openai.BadRequestError) as caught:
        ask(client, "tiny", "rank " * 600)
    assert caught.value.code == "context_length_exceeded"


def test_a_client_that_vanishes_stops_the_model(nano_tokenizer):
    loaded, most = tiny.loaded(nano_tokenizer, max_position_embeddings=2048), 1000
    # The likeliest token's logit is above 0, so that a greedy reply never ends.
    loaded.model.lm_head.weight.data[list(loaded.renderer.stop_ids)] = 0
    with (
        LocalEngine(loaded, Settings(max_requests=2, max_context=2048)) as engine,
        connected(tiny_team(engine)) as client,
    ):
        counted = tiny.Counted(engine)
        assert ask(client, "tiny", "rank", max_tokens=most).usage.completion_tokens == most
        undisturbed, counted.calls = counted.calls, 0
        stream = ask(client, "tiny", "rank", stream=True, max_tokens=most)
        for _ in range(3):
            next(stream)
        stream.close()
        until(lambda: at_rest(counted))
    assert undisturbed >= most
    assert 0 < counted.calls < most // 2


def at_rest(counted: tiny.Counted) -> bool:
    before = counted.calls
    time.sleep(0.1)
    return counted.calls == before


def conversation(renderer) -> list[Message]:
    """Return an episode whose reasoner spells its words letter by letter, as no tokenizer would."""
    letters = [renderer.reply(Message("assistant", letter))[0] for letter in THINK]
    call = ToolCall("read_debt", {"key": "Plalples"})
    return [
        Message("user", QUESTION["content"]),
        Message("assistant", THINK, speaker="reasoner", ids=(*letters, renderer.end_id)),
        Message("assistant", tool_calls=(call,), speaker="executor"),
        Message("tool", "3809"),
        Message("assistant", ENOUGH, speaker="reasoner"),
        Message("assistant", ANSWER, speaker="summarizer"),
    ]


def lead(model, ids):
    """Make a model write `ids`: its keys and values stay its own, only its choice of the next token is ours.

    Such a hook is heeded by the generic runner alone once the engine is open.
    """

    def hook(_module, _arguments, named, output):
        last = named["position_ids"][:, -1].tolist()
        for row, place in enumerate(last):
            output.logits[row, -1] = -30.0
            output.logits[row, -1, ids[min(place + 1, len(ids) - 1)]] = 30.0

    return model.register_forward_hook(hook, with_kwargs=True)


def test_a_follow_up_computes_only_what_is_new(nano_tokenizer):
    loaded = tiny.loaded(nano_tokenizer)
    renderer = loaded.renderer
    tools = wire.tools_from_json(TOOLS)
    messages = conversation(renderer)
    whole = renderer.render(messages, tools)
    with (
        LocalEngine(loaded, Settings(max_requests=2, max_context=512, fused=False)) as engine,
        connected(tiny_team(engine)) as client,
    ):
        lead(loaded.model, whole.ids)

        def emit(*more):
            return client.chat.completions.create(model="tiny:team", messages=[QUESTION, *more], tools=TOOLS)

        first = emit()
        asked = first.choices[0].message
        assert asked.model_extra["reasoning"] == THINK
        result = {"role": "tool", "tool_call_id": asked.tool_calls[0].id, "content": "3809"}
        bare = {"role": "assistant", "content": None, "tool_calls": [asked.tool_calls[0].model_dump()]}
        second = emit(bare, result)
    assert second.choices[0].message.content == ANSWER
    # All that is known but the call's end token, which nobody had to read yet.
    known = len(renderer.render(messages[:3], tools).ids) - 1
    assert second.usage.prompt_tokens == whole.starts[4]
    assert second.usage.prompt_tokens_details.cached_tokens == known
    assert first.usage.completion_tokens == sum(len(renderer.reply(message)) for message in messages[1:3])


ROOM = {
    "type": "object",
    "properties": {"floor": {"type": "integer", "minimum": 1, "maximum": 9}, "side": {"enum": ["left", "right"]}},
    "required": ["floor", "side"],
    "additionalProperties": False,
}
LOOK = {"type": "function", "function": {"name": "look", "description": "look", "parameters": ROOM}}


@pytest.mark.parametrize("model", ["tiny", "tiny:executor", "tiny:team"])
def test_a_random_model_can_only_call_what_fits(client, model):
    options = {"tools": [*TOOLS, LOOK], "temperature": 1, "n": 4, "seed": 3, "max_tokens": 200}
    for choice in ("required", {"type": "function", "function": {"name": "look"}}):
        told = ask(client, model, "rank", tool_choice=choice, parallel_tool_calls=False, **options)
        for one in told.choices:
            (call,) = one.message.tool_calls
            assert one.finish_reason == "tool_calls"
            if choice != "required" or call.function.name == "look":
                jsonschema.validate(json.loads(call.function.arguments), ROOM)
            else:
                assert json.loads(call.function.arguments).keys() == {"key"}


def test_a_random_model_can_be_kept_from_calling(client):
    told = ask(client, "tiny:team", "rank", tools=[LOOK], tool_choice="none", temperature=1, n=4, max_tokens=80)
    assert all(one.message.tool_calls is None for one in told.choices)


def test_a_schema_that_no_grammar_keeps_is_refused_by_name(client):
    schema = {"type": "object", "properties": {"a": {"type": "integer", "not": {"const": 7}}}, "required": ["a"]}
    odd = {"type": "function", "function": {"name": "odd", "parameters": schema}}
    with pytest.raises(openai.BadRequestError, match=r"a\.not"):
        ask(client, "tiny", "rank", tools=[odd], tool_choice="required")


def test_a_random_teams_follow_up_computes_only_what_is_new(client):
    asked = {"model": "tiny:team", "tools": [LOOK], "tool_choice": "required", "max_tokens": 200}
    first = client.chat.completions.create(messages=[QUESTION], **asked)
    message = first.choices[0].message
    results = [{"role": "tool", "tool_call_id": call.id, "content": "3809"} for call in message.tool_calls]
    messages = [
        QUESTION,
        {"role": "assistant", "tool_calls": [call.model_dump() for call in message.tool_calls]},
        *results,
    ]
    second = client.chat.completions.create(messages=messages, **asked)
    assert (
        second.usage.prompt_tokens_details.cached_tokens
        >= first.usage.prompt_tokens + first.usage.completion_tokens - 1
    )


def cached(answer) -> int:
    return answer.usage.prompt_tokens_details.cached_tokens


SECRET = "my number is 83160427"


@pytest.mark.parametrize("model", ["tiny", "tiny:team"])
def test_nobody_can_read_by_the_cache_what_another_client_sent(client, model):
    ask(client, model, SECRET)
    probes = ["my number is 8316", SECRET, f"{SECRET}, and yours?", "my number is 9"]
    assert {text: cached(ask(client, model, text)) for text in probes} == dict.fromkeys(probes, 0)


def test_nobody_can_read_what_another_client_said_later_in_a_conversation(client):
    """The beginning is one that anybody can repeat, answer and all."""

    def emit(*said):
        messages = [{"role": role, "content": text} for role, text in said]
        return client.chat.completions.create(model="tiny", messages=messages, max_tokens=24)

    hello = ("user", "rank of a company")
    first = emit(hello)
    begun = (hello, ("assistant", first.choices[0].message.content))
    known = first.usage.total_tokens
    assert cached(emit(*begun, ("user", SECRET))) == known - 1
    guesses = (SECRET, "my number is 831", "your nose")
    assert {cached(emit(*begun, ("user", text))) for text in guesses} == {known - 1}


def test_conversations_that_send_the_same_cache_key_share_what_was_computed(client):
    def emit(key):
        return cached(ask(client, "tiny", "rank of many companies", extra_body={"prompt_cache_key": key}))

    assert [emit("mine") > 0, emit("yours") > 0, emit("mine") > 0] == [False, False, True]


def test_what_the_model_cannot_hold_is_refused_unread(nano_tokenizer):
    """The limit follows the model's own context, however large the one that was asked for."""
    with LocalEngine(tiny.loaded(nano_tokenizer), Settings(max_requests=2, max_context=100_000)) as engine:
        player = models.LoadedEngine(engine, engine.loaded.renderer, context=engine.context)
        offered = models.served_models("tiny", team.find("mor", instructions=False), player, player)
        with connected(offered) as client, pytest.raises(openai.APIStatusError, match="65536 bytes") as caught:
            ask(client, "tiny", "<|im_end|>" * 12_000)
    assert caught.value.status_code == 413
