"""The completions and responses APIs, as the openai SDK asks them: a tiny random model, and a scripted team."""

from __future__ import annotations

import json

import openai
import pytest
import tiny
from pydantic import BaseModel, Field
from serving import ANSWER, QUESTION, THINK, connected, scripted, team_models

from rolecraft import team
from rolecraft.engine import LocalEngine, Settings
from rolecraft.server import models

TOOL = {
    "type": "function",
    "name": "read_debt",
    "description": "debt of a person",
    "parameters": {"type": "object", "properties": {"key": {"type": "string"}}, "required": ["key"]},
    "strict": None,
}

USER = {"role": "user", "content": "Who?"}
CALLING = {"type": "function_call", "call_id": "c", "name": "read_debt", "arguments": "{}"}
ANSWERING = {"type": "function_call_output", "call_id": "c", "output": "3809"}


class Person(BaseModel):
    """Short enough for a model whose words are random."""

    name: str = Field(max_length=8)


@pytest.fixture(scope="module")
def client(nano_tokenizer):
    with LocalEngine(tiny.loaded(nano_tokenizer), Settings(max_requests=4, max_context=512)) as engine:
        player = models.LoadedEngine(engine, engine.loaded.renderer)
        served = models.served_models("tiny", team.find("mor", instructions=False), player, player)
        with connected(served) as one:
            yield one


@pytest.fixture(scope="module")
def scripts(nano_tokenizer):
    with connected(team_models(scripted(nano_tokenizer))) as one:
        yield one


def complete(client, **options):
    return client.completions.create(**{"model": "tiny", "prompt": "I need the debt", "max_tokens": 12, **options})


def respond(client, **options):
    return client.responses.create(**{"model": "tiny", "input": "Who?", "max_output_tokens": 24, **options})


def test_a_text_is_gone_on_with_and_no_chat_format_comes_between(client):
    answer = complete(client)
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (4, 12)
    assert answer.choices[0].finish_reason == "length"
    assert complete(client, prompt=["I need the debt"]).choices[0].text == answer.choices[0].text


def test_a_prompt_is_echoed_before_each_choice_if_asked_for(client):
    plain, told = complete(client, n=2), complete(client, n=2, echo=True)
    assert [one.text for one in told.choices] == ["I need the debt" + one.text for one in plain.choices]


@pytest.mark.parametrize("options", [{}, {"echo": True}, {"n": 2, "temperature": 1.0, "seed": 3}])
def test_a_streamed_text_is_the_plain_one(client, options):
    plain = [one.text for one in complete(client, **options).choices]
    texts, ends = [""] * len(plain), [None] * len(plain)
    for chunk in complete(client, stream=True, **options):
        for choice in chunk.choices:
            texts[choice.index] += choice.text
            ends[choice.index] = choice.finish_reason or ends[choice.index]
    assert texts == plain
    assert None not in ends


def test_a_stop_string_ends_a_text(client):
    whole = complete(client).choices[0].text
    stop = whole[len(whole) // 2 :][:3]
    choice = complete(client, stop=stop).choices[0]
    assert (choice.text, choice.finish_reason) == (whole[: whole.index(stop)], "stop")


def test_log_probabilities_of_a_text_align(client):
    told = complete(client, logprobs=2).choices[0]
    logprobs = told.logprobs
    assert "".join(logprobs.tokens) == told.text
    assert len(logprobs.token_logprobs) == len(logprobs.top_logprobs) == len(logprobs.text_offset) == 12
    assert all(len(one) <= 2 for one in logprobs.top_logprobs)


def test_log_probabilities_end_with_the_text_that_a_stop_string_ends(client):
    whole = complete(client, logprobs=0).choices[0]
    starts, tokens = whole.logprobs.text_offset, whole.logprobs.tokens
    stop = "".join(tokens[5:8])
    cut = complete(client, logprobs=0, stop=stop).choices[0]
    assert cut.text == whole.text[: whole.text.index(stop)]
    assert cut.logprobs.tokens == tokens[: sum(start < len(cut.text) for start in starts)]


@pytest.mark.parametrize(
    ("changes", "param"),
    [
        ({"prompt": ["a", "b"]}, "prompt"),
        ({"prompt": [1, 2]}, "prompt"),
        ({"prompt": ""}, "prompt"),
        ({"prompt": "debt " * 600}, "prompt"),
        ({"suffix": "x"}, "suffix"),
        ({"best_of": 3}, "best_of"),
        ({"echo": True, "logprobs": 1}, "echo"),
        ({"model": "tiny:team"}, "model"),
        ({"extra_body": {"ehco": True}}, "ehco"),
    ],
)
def test_what_is_not_supported_of_a_text_is_named(client, changes, param):
    with pytest.raises(openai.BadRequestError) as caught:
        complete(client, **changes)
    assert caught.value.param == param


def test_a_response_says_what_a_chat_answer_says(client):
    chat = client.chat.completions.create(
        model="tiny",
        messages=[{"role": "system", "content": "Be."}, {"role": "user", "content": "Who?"}],
        max_tokens=24,
    )
    answer = respond(client, instructions="Be.")
    assert answer.output_text == chat.choices[0].message.content
    assert answer.usage.total_tokens == chat.usage.total_tokens
    assert (answer.status, answer.incomplete_details.reason) == ("incomplete", "max_output_tokens")


def test_a_response_is_parsed_into_its_format(client):
    answer = client.responses.parse(model="tiny", input="Who?", text_format=Person)
    assert isinstance(answer.output_parsed, Person)
    assert answer.status == "completed"


def test_a_team_calls_and_answers_in_items(scripts):
    asked = [QUESTION]
    first = respond(scripts, model="nano:team", input=asked, tools=[TOOL], max_output_tokens=200)
    thought, call = first.output
    assert (thought.type, thought.content[0].text) == ("reasoning", THINK)
    assert (call.type, json.loads(call.arguments)) == ("function_call", {"key": "Plalples"})
    output = {"type": "function_call_output", "call_id": call.call_id, "output": "3809"}
    again = [*asked, *(item.model_dump() for item in first.output), output]
    second = respond(scripts, model="nano:team", input=again, tools=[TOOL], max_output_tokens=200)
    assert second.output_text == ANSWER


def test_streamed_events_come_to_the_same_items(scripts):
    asked = {"model": "nano:team", "input": [QUESTION], "tools": [TOOL], "max_output_tokens": 200}
    with scripts.responses.stream(**asked) as stream:
        events = list(stream)
        final = stream.get_final_response()
    plain = respond(scripts, **asked)
    numbers = [event.sequence_number for event in events]
    assert numbers == sorted(set(numbers))
    assert [event.type for event in events[:3]] == [
        "response.created",
        "response.in_progress",
        "response.output_item.added",
    ]
    assert events[-1].type == "response.completed"
    assert [item.type for item in final.output] == [item.type for item in plain.output]
    assert final.output[1].arguments == plain.output[1].arguments
    assert "".join(one.delta for one in events if one.type == "response.reasoning_text.delta") == THINK


def test_a_streamed_text_comes_in_pieces(client):
    with client.responses.stream(model="tiny", input="Who?", max_output_tokens=24) as stream:
        pieces = [event.delta for event in stream if event.type == "response.output_text.delta"]
    assert len(pieces) > 1  # how many depends on how late the server's loop is
    assert "".join(pieces) == respond(client).output_text


def test_what_clients_send_beside_is_taken_and_nothing_is_stored(client):
    answer = respond(client, store=True, metadata={"a": "b"}, reasoning={"effort": "low"}, include=[], user="u")
    assert answer.store is False


@pytest.mark.parametrize(
    ("changes", "param", "says"),
    [
        ({"previous_response_id": "resp_1"}, "previous_response_id", "whole conversation"),
        ({"background": True}, "background", "not supported"),
        ({"tools": [{"type": "web_search"}]}, "tools", "only functions"),
        ({"input": [{"type": "item_reference", "id": "x"}]}, "input", "item_reference"),
        ({"input": [{"role": "user", "content": [{"type": "input_image", "image_url": "x"}]}]}, "input", "input_image"),
        ({"input": [{"role": "wizard", "content": "Hi"}]}, "input", "wizard"),
        ({"input": [{"type": "reasoning", "summary": 5}]}, "input", "only text"),
        ({"max_output_tokens": 0}, "max_output_tokens", "greater"),
        ({"extra_body": {"max_tokens": 5}}, "max_tokens", "max_"),
        ({"text": {"format": {"type": "json_schema"}}}, "text.format", "schema"),
        ({"text": {"format": {"type": "json_schema", "name": "a", "schema": {"not": {}}}}}, "text.format", "schema"),
        ({"input": "debt " * 600}, "input", "context"),
        ({"instructions": "Be.", "input": [USER, {**USER, "role": "wizard"}]}, "input", r"input\[1\].*wizard"),
        ({"input": [USER, CALLING, {**ANSWERING, "call_id": "d"}]}, "input", r"input\[2\]: call_id 'd' is no call"),
        ({"input": [USER, CALLING, {**CALLING, "name": 5}]}, "input", r"input\[2\].*'name' is int 5"),
        ({"input": [USER, CALLING]}, "input", "the end of 'input' an answer.*'function_call_output' with its call_id"),
    ],
)
def test_what_a_response_cannot_be_asked_is_named(client, changes, param, says):
    with pytest.raises(openai.BadRequestError, match=says) as caught:
        respond(client, **changes)
    assert caught.value.param == param
