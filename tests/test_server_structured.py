"""Answers in JSON, as the openai SDK asks for them: held to their schema by a model that knows nothing."""

from __future__ import annotations

import json
from typing import Literal

import openai
import pytest
import tiny
from pydantic import BaseModel, Field
from serving import TOOLS, connected, tiny_team

from rolecraft import server
from rolecraft.engine import LocalEngine, Settings
from rolecraft.server import turns


class Person(BaseModel):
    """Short enough for a model whose words are random."""

    name: str = Field(max_length=8)
    kind: Literal["debtor", "creditor"]
    debts: list[int] = Field(max_length=2)
    nick: str | None = Field(max_length=4)


class Answer(BaseModel):
    """Begins as no call does."""

    answer: str = Field(max_length=4)


@pytest.fixture(scope="module")
def engine(nano_tokenizer):
    with LocalEngine(tiny.loaded(nano_tokenizer), Settings(max_requests=4, max_context=512)) as one:
        yield one


@pytest.fixture(scope="module")
def client(engine):
    with connected(tiny_team(engine)) as one:
        yield one


def asked(**options) -> dict:
    return {"model": "tiny", "messages": [{"role": "user", "content": "Who?"}], "max_tokens": 300, **options}


@pytest.mark.parametrize("model", ["tiny", "tiny:summarizer", "tiny:team"])
@pytest.mark.parametrize("temperature", [0.0, 1.5])
def test_the_sdk_parses_what_a_random_model_answers(client, model, temperature):
    answer = client.chat.completions.parse(
        **asked(model=model, temperature=temperature, seed=1), response_format=Person
    )
    assert isinstance(answer.choices[0].message.parsed, Person)
    assert answer.choices[0].finish_reason == "stop"


def test_a_streamed_answer_in_json_parses(client):
    with client.chat.completions.stream(**asked(), response_format=Person) as stream:
        pieces = [event.delta for event in stream if event.type == "content.delta"]
        final = stream.get_final_completion().choices[0].message
    assert len(pieces) > 3
    assert "".join(pieces) == final.content
    assert isinstance(final.parsed, Person)


def test_beside_tools_an_answer_is_a_call_or_json(client):
    kinds = set()
    told = asked(tools=[openai.pydantic_function_tool(Answer)], temperature=2.0, n=4)
    for seed in range(8):
        choices = client.chat.completions.parse(**told, seed=seed, response_format=Answer).choices
        kinds |= {"call" if choice.message.tool_calls else "json" for choice in choices}
        assert all(one.message.tool_calls or isinstance(one.message.parsed, Answer) for one in choices)
    assert kinds == {"call", "json"}


def test_a_json_object_is_an_object(client):
    told = asked(response_format={"type": "json_object"}, temperature=1.0, seed=4, max_tokens=400)
    choice = client.chat.completions.create(**told).choices[0]
    assert choice.finish_reason == "length" or isinstance(json.loads(choice.message.content), dict)
    assert choice.message.content.startswith("{")


def test_an_answer_that_was_cut_says_so(client):
    with pytest.raises(openai.LengthFinishReasonError):
        client.chat.completions.parse(**asked(max_tokens=3), response_format=Person)


def test_a_schema_that_no_grammar_keeps_is_refused_by_its_keyword(client):
    schema = {"type": "object", "properties": {"a": {"type": "array", "uniqueItems": True}}}
    says = r"schema.properties.a.uniqueItems|schema.a.uniqueItems"
    with pytest.raises(openai.BadRequestError, match=says) as caught:
        client.chat.completions.create(
            **asked(response_format={"type": "json_schema", "json_schema": {"name": "A", "schema": schema}})
        )
    assert caught.value.param == "response_format"


def test_a_schema_of_something_else_than_an_object_is_refused(client):
    told = {"type": "json_schema", "json_schema": {"name": "A", "schema": {"type": "string"}}}
    with pytest.raises(openai.BadRequestError, match="admits no object"):
        client.chat.completions.create(**asked(response_format=told))


def test_a_server_that_constrains_nothing_refuses_to_answer_in_json(engine):
    settings = server.Settings(port=0, playing=turns.Settings(constrained=False))
    with connected(tiny_team(engine), settings) as free, pytest.raises(openai.BadRequestError) as caught:
        free.chat.completions.create(**asked(response_format={"type": "json_object"}))
    assert caught.value.param == "response_format"


def test_text_is_what_is_written_without_a_format(client):
    plain = client.chat.completions.create(**asked(max_tokens=12, tools=TOOLS))
    told = client.chat.completions.create(**asked(max_tokens=12, tools=TOOLS, response_format={"type": "text"}))
    assert told.choices[0].message.content == plain.choices[0].message.content
