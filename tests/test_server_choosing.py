"""A request's strategy: several replies or answers, of which one is sent, and all are counted."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace

import openai
import pytest
from serving import ANSWER, CALL, QUESTION, THINK, TOOLS, ScriptedEngine, connected, debts, scripted, team_models

from rolecraft import server, team
from rolecraft.server import choosing, requests
from rolecraft.server.errors import Refused
from rolecraft.types import Completion, Message, Turn


class Varied(ScriptedEngine):
    """Writes each of several replies anew."""

    async def complete(self, prompt):
        one = replace(prompt, sampling=replace(prompt.sampling, n=1))
        made = tuple([(await super(Varied, self).complete(one))[0] for _ in range(prompt.sampling.n)])
        self.written = getattr(self, "written", 0) + sum(completion.turn.usage.completion for completion in made)
        return made


def varied(tokenizer, **texts):
    """Return an engine that draws a speaker's texts in turn, and says what `debts` does for others."""
    turns = {speaker: itertools.cycle(listed) for speaker, listed in texts.items()}
    script = lambda prompt: next(turns[prompt.speaker]) if prompt.speaker in turns else debts(prompt)  # noqa: E731
    return Varied(scripted(tokenizer).renderer, script)


def ask(engine, strategy, *, stream=False, settings=None, **more):
    body = {"messages": [QUESTION], "tools": TOOLS, "model": "nano:team", "extra_body": {"strategy": strategy}, **more}
    with connected(team_models(engine), settings) as client:
        if not stream:
            return client.chat.completions.create(**body)
        return list(client.chat.completions.create(**body, stream=True, stream_options={"include_usage": True}))


OTHER = CALL.replace("Plalples", "Grontif")


def test_the_call_that_most_replies_make_is_sent_and_all_are_counted(nano_tokenizer):
    engine = varied(nano_tokenizer, executor=[OTHER, CALL, CALL])
    answer = ask(engine, "self_consistent,n=3")
    (call,) = answer.choices[0].message.tool_calls
    assert json.loads(call.function.arguments) == {"key": "Plalples"}
    assert [prompt.sampling.temperature for prompt in engine.prompts] == [0.4] * 6
    assert answer.usage.completion_tokens == engine.written


def test_roles_that_think_are_voted_on_by_whom_they_name(nano_tokenizer):
    engine = varied(nano_tokenizer, reasoner=["Next: summarizer.", THINK, THINK])
    assert ask(engine, "self_consistent,n=3").choices[0].message.tool_calls


def test_answers_are_voted_on_by_what_they_say(nano_tokenizer):
    engine = varied(
        nano_tokenizer, reasoner=["Next: summarizer."], summarizer=["It owes 1.", "It owes 3809.0.", "It owes  3809"]
    )
    assert ask(engine, "self_consistent,n=3").choices[0].message.content == "It owes 3809.0."


def test_whole_answers_are_played_side_by_side_and_the_most_frequent_is_sent(nano_tokenizer):
    engine = varied(nano_tokenizer, reasoner=["Next: summarizer."], summarizer=["It owes 1.", ANSWER, ANSWER])
    answer = ask(engine, "best_of_n,n=3")
    assert (answer.choices[0].message.content, engine.most_running) == (ANSWER, 3)
    assert len({prompt.sampling.seed for prompt in engine.prompts}) == 6


@pytest.mark.parametrize("strategy", ["self_consistent,n=3", "best_of_n,n=3"])
def test_a_conversation_without_room_is_refused_as_it_is_without_a_strategy(nano_tokenizer, strategy):
    engine = varied(nano_tokenizer)
    engine.context = 4
    with pytest.raises(openai.BadRequestError, match="the context holds 4"):
        ask(engine, strategy)


@pytest.mark.parametrize("strategy", ["self_consistent,n=3", "best_of_n,n=3"])
def test_a_stream_tells_the_chosen_one_alone(nano_tokenizer, strategy):
    engine = varied(nano_tokenizer, reasoner=["Next: summarizer."], summarizer=["It owes 1.", ANSWER, ANSWER])
    chunks = ask(engine, strategy, stream=True)
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text == ANSWER
    assert chunks[-1].usage.completion_tokens > 3 * len(ANSWER.split())


@pytest.mark.parametrize(
    ("strategy", "told"),
    [
        ("depth_first", "'depth_first' is not served; it needs what tools answer, and they run at the client's"),
        ("self_consistent,mode=paper", "tries calls, and tools run at the client's"),
        ("self_consistent,n=0", "self_consistent.n is 0"),
        ("self_consistent,m=3", "unknown key 'm'"),
        ("my/own.py", "is not served; there are greedy, self_consistent, best_of_n"),
        ("x" * 999, "has 999 characters"),
    ],
)
def test_what_is_not_served_is_refused_by_name(strategy, told):
    with pytest.raises(Refused, match=told.replace("(", r"\(")) as refused:
        choosing.read(strategy)
    assert (refused.value.status, refused.value.param) == (400, "strategy")


def test_a_request_without_a_strategy_has_none():
    body = json.dumps({"model": "m", "messages": [QUESTION]}).encode()
    assert requests.read(body, 10).strategy is None
    assert requests.read(body[:-1] + b', "strategy": "greedy"}', 10).strategy is None
    with pytest.raises(Refused, match="'strategy' is 3"):
        requests.read(body[:-1] + b', "strategy": 3}', 10)


def test_more_replies_at_once_than_there_are_places_are_refused(nano_tokenizer):
    with pytest.raises(openai.BadRequestError, match="asks for 99 replies; at most"):
        ask(scripted(nano_tokenizer), "self_consistent,n=99", settings=server.Settings(port=0))


def test_choices_and_replies_that_are_too_many_together_are_both_named(nano_tokenizer):
    says = "'n' is 3 and 'strategy' writes 8 replies for each choice.*lower one of the two"
    with pytest.raises(openai.BadRequestError, match=says):
        ask(scripted(nano_tokenizer), "best_of_n,n=8", settings=server.Settings(port=0), n=3)


def test_a_vote_needs_log_probabilities(nano_tokenizer):
    engine = scripted(nano_tokenizer)
    served = [replace(one, loaded=replace(one.loaded, renderer=None)) for one in team_models(engine)]
    with connected(served) as client, pytest.raises(openai.BadRequestError, match="does not tell log-probabilities"):
        client.chat.completions.create(model="nano:team", messages=[QUESTION], extra_body={"strategy": "best_of_n"})


def test_a_reply_that_was_cut_or_cannot_be_read_has_failed():
    def made(message, stop="end"):
        return Completion(message, Turn(message, "assistant", stop=stop))

    broken, cut, fine = Message("assistant", unparsed="{"), Message("assistant", "a"), Message("assistant", "b")
    found = choosing.replies([made(broken), made(cut, "length"), made(fine)], lambda message: None)
    assert [one.outcome for one in found] == [None, None, ("final", "b")]


def cmat_models(engine):
    loaded = team_models(engine)[-1].loaded
    return (server.ServedModel("nano:team", loaded, team.find("cmat", instructions=False)),)


def test_a_team_with_a_checker_sends_what_it_accepts_and_tells_what_it_does_not(nano_tokenizer):
    opinions = ["no: another key", "yes"]
    engine = varied(nano_tokenizer, assistant=[OTHER, CALL], checker=opinions)
    with connected(cmat_models(engine)) as client:
        answer = client.chat.completions.create(model="nano:team", messages=[QUESTION], tools=TOOLS)
    (call,) = answer.choices[0].message.tool_calls
    assert json.loads(call.function.arguments) == {"key": "Plalples"}
    asked = [prompt for prompt in engine.prompts if prompt.speaker == "assistant"]
    assert "another key" in asked[1].messages[-1].content
    assert asked[1].sampling.temperature > asked[0].sampling.temperature
    assert answer.usage.completion_tokens == engine.written


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("checked", "dry_run"),
        ("checked,checker=rules,retries=99", "retries"),
        ("checked,checker=rules,as_result=true", "as_result"),
    ],
)
def test_a_checker_that_tries_calls_or_never_ends_is_refused(text, why):
    with pytest.raises(Refused, match=why):
        choosing.read(text)
