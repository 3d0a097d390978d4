"""Requests share places, time and memory, and every fault of theirs has a status."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest
from serving import ANSWER, scripted, team_models

from rolecraft import reflection, team
from rolecraft.errors import ContextFull, DataError, EngineError
from rolecraft.lessons import Lesson, Lessons
from rolecraft.server import models, turns
from rolecraft.server.errors import Refused
from rolecraft.server.requests import ChatRequest, SentMessage
from rolecraft.server.service import Limits, Service
from rolecraft.types import Message, Task, ToolSpec

USER = SentMessage(Message("user", "What is the debt of Plalples?"))
ASKED = ChatRequest("nano:team", (USER,), (ToolSpec("read_debt", "debt"),))


def refusal(service: Service, asked: ChatRequest = ASKED) -> Refused:
    with pytest.raises(Refused) as caught:
        asyncio.run(service.answer(asked))
    return caught.value


def raising(error: Exception):
    def script(prompt):
        raise error

    return script


def test_an_unknown_model_is_told_with_those_there_are(nano_tokenizer):
    error = refusal(Service(team_models(scripted(nano_tokenizer))), replace(ASKED, model="gpt"))
    assert (error.status, error.code, error.param) == (404, "model_not_found", "model")
    assert "nano:team" in str(error)


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (EngineError("no memory"), 500, "engine_error"),
        (DataError("no such speaker"), 400, None),
    ],
)
def test_what_an_engine_raises_on_purpose_is_told(nano_tokenizer, error, status, code):
    told = refusal(Service(team_models(scripted(nano_tokenizer, raising(error)))))
    assert (told.status, told.code, str(told)) == (status, code, str(error))


def test_a_full_context_has_openais_code(nano_tokenizer):
    told = refusal(Service(team_models(scripted(nano_tokenizer, context=4))))
    assert (told.status, told.code, told.param) == (400, "context_length_exceeded", "messages")


def test_a_text_that_fills_the_context_is_the_prompt(nano_tokenizer):
    asked = ChatRequest("nano:summarizer", (), text="What is the debt of Plalples?")
    told = refusal(Service(team_models(scripted(nano_tokenizer, raising(ContextFull("full"))))), asked)
    assert (told.code, told.param) == ("context_length_exceeded", "prompt")


@pytest.mark.parametrize(
    ("says", "schema", "param"),
    [
        ("schema.properties.tools: the schema admits no object", {}, "response_format"),
        ("schema keywords that a grammar cannot keep: schema.a.uniqueItems", {}, "response_format"),
        ("schema keywords that a grammar cannot keep: tools[0].parameters.a.uniqueItems", {}, "tools"),
        ("the 3 tools cannot be made a grammar", None, "tools"),
        ("no such speaker", {}, None),
    ],
)
def test_what_no_grammar_can_be_made_of_is_named(nano_tokenizer, says, schema, param):
    service = Service(team_models(scripted(nano_tokenizer, raising(DataError(says)))))
    assert refusal(service, replace(ASKED, schema=schema)).param == param


def test_another_fault_is_left_to_the_caller(nano_tokenizer):
    service = Service(team_models(scripted(nano_tokenizer, raising(ZeroDivisionError()))))
    for n in (1, 3):
        with pytest.raises(ZeroDivisionError):
            asyncio.run(service.answer(replace(ASKED, n=n)))


def test_too_slow_an_answer_is_given_up_and_its_writing_cancelled(nano_tokenizer):
    engine = scripted(nano_tokenizer, delay=0.05)
    error = refusal(Service(team_models(engine), limits=Limits(seconds=0.1)))
    assert (error.status, error.code) == (408, "timeout")
    assert (engine.running, engine.cancelled) == (0, 1)


def test_waiting_counts_as_time(nano_tokenizer):
    engine = scripted(nano_tokenizer, delay=10)
    service = Service(team_models(engine), limits=Limits(places=1, seconds=0.1))

    async def run():
        return await asyncio.gather(*(service.answer(ASKED) for _ in range(3)), return_exceptions=True)

    assert [error.status for error in asyncio.run(run())] == [408] * 3
    assert (engine.most_running, service.admission.busy) == (1, (0, 0))


def test_no_more_choices_are_written_at_once_than_there_are_places(nano_tokenizer):
    engine = scripted(nano_tokenizer)
    service = Service(team_models(engine), limits=Limits(places=4))

    async def run():
        return await asyncio.gather(*(service.answer(replace(ASKED, n=1 + number % 3)) for number in range(12)))

    assert [len(choices) for choices in asyncio.run(run())] == [1, 2, 3] * 4
    assert engine.most_running <= 4


def test_choices_are_drawn_from_seeds_of_their_own(nano_tokenizer):
    engine = scripted(nano_tokenizer)
    asyncio.run(Service(team_models(engine)).answer(replace(ASKED, n=3, seed=7)))
    seeds = [prompt.sampling.seed for prompt in engine.prompts]
    assert len(set(seeds)) == len(seeds)
    assert seeds[0] == 7


def test_a_request_without_a_seed_gets_a_fresh_one(nano_tokenizer):
    engine = scripted(nano_tokenizer)
    service = Service(team_models(engine), seeds=iter((100, 200)).__next__)

    async def run():
        await service.answer(ASKED)
        await service.answer(ASKED)

    asyncio.run(run())
    assert [prompt.sampling.seed for prompt in engine.prompts] == [100, 101, 200, 201]


def test_log_probabilities_need_a_renderer(nano_tokenizer):
    blind = models.served_models("nano", team.find("mor"), models.LoadedEngine(scripted(nano_tokenizer)))
    error = refusal(Service(blind), replace(ASKED, logprobs=True))
    assert (error.status, error.param) == (400, "logprobs")


@pytest.mark.parametrize("choice", ["none", "required", "read_debt"])
def test_without_constraint_no_choice_but_auto_can_be_kept(nano_tokenizer, choice):
    service = Service(team_models(scripted(nano_tokenizer)), turns.Settings(constrained=False))
    error = refusal(service, replace(ASKED, choice=choice))
    assert (error.status, error.param) == (400, "tool_choice")
    assert "serve without --unconstrained" in str(error)
    assert asyncio.run(service.answer(replace(ASKED, choice="none", tools=())))


def test_a_follow_up_holds_the_tokens_that_were_written(nano_tokenizer):
    engine = scripted(nano_tokenizer)
    service = Service(team_models(engine))

    async def run():
        (called,) = await service.answer(ASKED)
        seen = SentMessage(Message("assistant", "", called.calls))
        result = SentMessage(Message("tool", "3809", tool_call_id=called.calls[0].id))
        (answered,) = await service.answer(replace(ASKED, messages=(USER, seen, result)))
        thanks = SentMessage(Message("user", "Thanks."))
        await service.answer(
            replace(ASKED, messages=(USER, seen, result, SentMessage(Message("assistant", ANSWER)), thanks))
        )
        return called, answered

    called, answered = asyncio.run(run())
    prompts = [engine.renderer.prompt(p.messages, p.tools, p.speaker) for p in engine.prompts]
    written = [*called.turns, *answered.turns]
    for turn, following in zip(written, prompts[1:], strict=False):
        assert following[: len(turn.prompt_ids) + len(turn.token_ids)] == (*turn.prompt_ids, *turn.token_ids)


def test_stopping_gives_those_who_are_in_some_time(nano_tokenizer):
    slow = scripted(nano_tokenizer, delay=0.5)
    engines = {"fast": scripted(nano_tokenizer, delay=0.005), "slow": slow}
    both = [replace(team_models(engine)[-1], id=name) for name, engine in engines.items()]
    service = Service(both, limits=Limits(places=2))

    async def run():
        asking = [asyncio.create_task(service.answer(replace(ASKED, model=name))) for name in ("fast", "slow", "fast")]
        await asyncio.sleep(0.02)
        service.stop(grace=1.5)
        return await asyncio.gather(*asking, return_exceptions=True)

    fast, slow_one, waited = asyncio.run(run())
    assert fast[0].finish == "tool_calls"
    assert (slow_one.status, waited.status) == (503, 503)
    assert slow.running == 0


@pytest.mark.parametrize("think", [True, False])
def test_a_request_may_have_a_model_with_a_switch_think_or_not(nano_tokenizer, think):
    seen = []

    def script(prompt):
        seen.append(prompt.think)
        return "done"

    engine = scripted(nano_tokenizer, script)
    player = models.LoadedEngine(engine, engine.renderer, switches=True)
    service = Service(models.served_models("qwen3", team.find("single"), player, player))
    asyncio.run(service.answer(ChatRequest("qwen3", (USER,), think=think)))
    assert seen == [think]


def test_a_switch_that_a_model_does_not_have_is_refused_by_name(nano_tokenizer):
    error = refusal(Service(team_models(scripted(nano_tokenizer))), replace(ASKED, think=False))
    assert (error.status, error.param) == (400, "chat_template_kwargs")
    assert "'nano:team' has no switch for thinking" in str(error)


def test_a_conversation_is_told_what_a_memory_has_for_its_question_and_adds_nothing(nano_tokenizer, tmp_path):
    path = tmp_path / "lessons.db"
    with Lessons(path) as lessons:
        lessons.add(Lesson("shop", "reflection", "What is the debt of Quil?", "Ask read_debt by the name.", ("t1",)))
    before = path.read_bytes()

    def remind(messages):
        return reflection.reminded([Task("served", messages)], path, any_family=True)[0].messages

    engine = scripted(nano_tokenizer)
    service = Service(team_models(engine), remind=remind)
    (first,) = asyncio.run(service.answer(ASKED))
    called = SentMessage(Message("assistant", tool_calls=first.calls))
    result = SentMessage(Message("tool", "3809", tool_call_id=first.calls[0].id))
    asyncio.run(service.answer(replace(ASKED, messages=(USER, called, result))))
    told = [prompt.messages[0] for prompt in engine.prompts]
    assert all(message.role == "system" and "Ask read_debt by the name." in message.content for message in told)
    assert len(set(told)) == 1  # the prompt of a follow-up extends the one before it
    assert path.read_bytes() == before
