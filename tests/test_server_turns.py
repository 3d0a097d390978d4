"""One answer: who speaks, what is heard of it, what is remembered, and where it ends."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest
from serving import ANSWER, CALL, ENOUGH, THINK, ScriptedEngine, debts, scripted, team_models

from rolecraft import catalog
from rolecraft.errors import ContextFull
from rolecraft.renderers import Renderer
from rolecraft.server import turns
from rolecraft.server.errors import Refused
from rolecraft.server.requests import ChatRequest, SentMessage
from rolecraft.server.turns import Settings, TextDelta, ToolCallDelta
from rolecraft.types import Message, Sampling, ToolSpec

USER = Message("user", "What is the debt of Plalples?")
TOOL = ToolSpec("read_debt", "debt of a person")
ASKED = ChatRequest("nano:team", (SentMessage(USER),), (TOOL,))
TWO_CALLS = f"{CALL}\n{CALL.replace('Plalples', 'Grontif')}"


def play(engine, asked=ASKED, messages=(USER,), model="nano:team", settings=Settings(), listen=False):
    """Return what was played and, if somebody listens, what was heard."""
    offered = {one.id: one for one in team_models(engine)}
    heard = []

    async def emit(event):
        heard.append(event)

    async def run():
        return await turns.play_choice(offered[model], asked, messages, settings, seed=5, emit=emit if listen else None)

    return asyncio.run(run()), heard


def spoken(played) -> list[tuple[str | None, str]]:
    return [(message.speaker or message.role, message.content) for message in played.messages]


def test_a_round_ends_with_the_calls(nano_tokenizer):
    played, _ = play(scripted(nano_tokenizer))
    assert spoken(played) == [("reasoner", THINK), ("executor", "")]
    assert (played.reasoning, played.content, played.finish) == (THINK, "", "tool_calls")
    assert [(call.name, call.arguments) for call in played.calls] == [("read_debt", {"key": "Plalples"})]


def test_a_round_ends_with_the_answer(nano_tokenizer):
    observed = (USER, Message("assistant", THINK, speaker="reasoner"), Message("tool", "3809"))
    played, _ = play(scripted(nano_tokenizer), messages=observed)
    assert spoken(played) == [("reasoner", ENOUGH), ("summarizer", ANSWER)]
    assert (played.reasoning, played.content, played.finish) == (ENOUGH, ANSWER, "stop")


def test_every_message_keeps_the_ids_that_were_written(nano_tokenizer):
    played, _ = play(scripted(nano_tokenizer))
    assert [message.ids for message in played.messages] == [turn.token_ids for turn in played.turns]


def test_call_ids_are_never_the_same(nano_tokenizer):
    engine = scripted(nano_tokenizer, lambda prompt: THINK if prompt.speaker == "reasoner" else TWO_CALLS)
    ids = [call.id for _ in range(3) for call in play(engine)[0].calls]
    assert len(set(ids)) == 6


@pytest.mark.parametrize(
    ("model", "messages"),
    [
        ("nano:team", (USER,)),
        ("nano:team", (USER, Message("tool", "3809"))),
        ("nano:executor", (USER,)),
        ("nano", (USER,)),
    ],
)
def test_what_is_heard_joined_is_what_is_told_at_once(nano_tokenizer, model, messages):
    plain, _ = play(scripted(nano_tokenizer), messages=messages, model=model)
    streamed, heard = play(scripted(nano_tokenizer), messages=messages, model=model, listen=True)
    texts = {"reasoning": "", "content": ""}
    for event in heard:
        if isinstance(event, TextDelta):
            texts[event.channel] += event.text
    assert texts == {"reasoning": plain.reasoning, "content": plain.content}
    assert (streamed.reasoning, streamed.content, streamed.finish) == (plain.reasoning, plain.content, plain.finish)
    assert [event.calls for event in heard if isinstance(event, ToolCallDelta)] == (
        [streamed.calls] if streamed.calls else []
    )


def test_no_part_of_a_call_is_heard_as_text(nano_tokenizer):
    engine = scripted(nano_tokenizer, lambda prompt: f"Look.\n{CALL}")
    played, heard = play(engine, model="nano", listen=True)
    assert "".join(event.text for event in heard if isinstance(event, TextDelta)) == played.content == "Look."
    assert isinstance(heard[-1], ToolCallDelta)


def test_a_team_is_told_of_a_broken_call_and_mends_it(nano_tokenizer):
    def script(prompt):
        if prompt.speaker == "executor":
            mended = any("error" in message.content for message in prompt.messages)
            return CALL if mended else CALL[:-1]
        return THINK

    for listen in (False, True):
        played, heard = play(scripted(nano_tokenizer, script), listen=listen)
        assert [who for who, _ in spoken(played)] == ["reasoner", "executor", "tool", "reasoner", "executor"]
        assert played.messages[2].content == "error: not JSON: a closing } is missing"
        assert played.finish == "tool_calls"
        assert played.reasoning == f"{THINK}\n{THINK}"
        assert "".join(event.text for event in heard if isinstance(event, TextDelta)) in ("", played.reasoning)


def test_an_executor_that_writes_no_call_is_told_so(nano_tokenizer):
    script = lambda prompt: "Well." if prompt.speaker == "executor" else THINK  # noqa: E731
    played, _ = play(scripted(nano_tokenizer, script), settings=Settings(max_turns=4))
    assert [who for who, _ in spoken(played)] == ["reasoner", "executor", "tool", "reasoner", "executor", "tool"]
    assert played.messages[2].content == "error: no call was written"


def test_a_team_that_never_ends_is_ended(nano_tokenizer):
    played, _ = play(scripted(nano_tokenizer, lambda prompt: THINK), settings=Settings(max_turns=5))
    assert (played.finish, len(played.turns)) == ("length", 5)


def test_what_was_wrong_beside_good_calls_is_told_after_their_answers(nano_tokenizer):
    script = lambda prompt: THINK if prompt.speaker == "reasoner" else f"{CALL}\n{CALL[:-2]}"  # noqa: E731
    played, _ = play(scripted(nano_tokenizer, script))
    assert len(played.calls) == 1
    assert [message.content for message in played.trailing] == ["error: not JSON: a closing } is missing"]


def test_a_role_alone_is_heard_as_it_wrote(nano_tokenizer):
    for listen in (False, True):
        engine = scripted(nano_tokenizer, lambda prompt: f"Look.\n{CALL[:-1]}")
        played, heard = play(engine, model="nano:executor", listen=listen)
        assert (played.content, played.finish, len(played.turns)) == (f"Look.\n{CALL[:-1]}", "stop", 1)
        assert "".join(event.text for event in heard) in ("", played.content)


@pytest.mark.parametrize("listen", [False, True])
@pytest.mark.parametrize(("said", "calls"), [("Look.", 0), (CALL, 1)])
def test_a_cut_call_is_no_content_and_the_round_ends_by_length(nano_tokenizer, said, calls, listen):
    engine = scripted(nano_tokenizer, lambda prompt: f"{said}\n{CALL}")
    whole = len(play(engine, model="nano:executor")[0].turns[0].token_ids)
    played, heard = play(engine, replace(ASKED, max_tokens=whole - 4), model="nano:executor", listen=listen)
    assert (played.content, played.finish, len(played.calls)) == ("" if calls else said, "length", calls)
    assert "read_debt" not in "".join(event.text for event in heard if isinstance(event, TextDelta))


def test_where_no_call_may_be_made_text_that_looks_like_one_is_cut_like_any_text(nano_tokenizer):
    engine = scripted(nano_tokenizer, lambda prompt: CALL)
    played, _ = play(engine, replace(ASKED, tools=(), max_tokens=8), model="nano:executor")
    assert (played.finish, CALL.startswith(played.content), bool(played.content)) == ("length", True, True)


def test_a_call_that_a_message_has_twice_is_sent_once_where_that_is_asked_for(nano_tokenizer):
    engine = scripted(nano_tokenizer, lambda prompt: f"{CALL}\n{CALL}")
    assert len(play(engine, model="nano:executor")[0].calls) == 2
    played, _ = play(engine, model="nano:executor", settings=Settings(skip_repeats=True))
    assert len(played.calls) == 1
    assert "stood in the reply once more" in played.trailing[0].content


def test_the_limit_is_of_all_roles_together(nano_tokenizer):
    engine = scripted(nano_tokenizer)
    whole = sum(len(turn.token_ids) for turn in play(engine)[0].turns)
    for most in (1, whole - 2, whole):
        played, _ = play(engine, replace(ASKED, max_tokens=most))
        assert sum(len(turn.token_ids) for turn in played.turns) <= most
        assert played.finish == ("tool_calls" if most == whole else "length")


def test_a_request_cannot_ask_for_more_than_the_server_gives(nano_tokenizer):
    asked = replace(ASKED, max_tokens=1000)
    played, _ = play(scripted(nano_tokenizer), asked, model="nano", settings=Settings(max_tokens=3))
    assert (len(played.turns[0].token_ids), played.finish) == (3, "length")


def test_a_thought_leaves_room_for_what_it_leads_to(nano_tokenizer):
    for most, settings in ((20, Settings()), (100, Settings(max_thought=10))):
        engine = scripted(nano_tokenizer, lambda prompt: "think " * 50 if prompt.speaker == "reasoner" else CALL)
        play(engine, replace(ASKED, max_tokens=most), settings=settings)
        assert engine.prompts[0].sampling.max_tokens == 10


def test_one_call_is_kept_where_several_are_not_wanted(nano_tokenizer):
    engine = scripted(nano_tokenizer, lambda prompt: THINK if prompt.speaker == "reasoner" else TWO_CALLS)
    assert len(play(engine)[0].calls) == 2
    played, _ = play(engine, replace(ASKED, parallel=False))
    assert [call.arguments for call in played.calls] == [{"key": "Plalples"}]
    assert played.messages[-1].ids is None  # the ids hold both calls


def test_sampling_is_the_requests_where_it_says_and_the_servers_where_not(nano_tokenizer):
    engine = scripted(nano_tokenizer)
    play(engine, replace(ASKED, temperature=0.5, sampling=Sampling(top_p=0.9)), settings=Settings(temperature=0.1))
    play(engine, settings=Settings(temperature=0.1))
    first, second, third, _ = (prompt.sampling for prompt in engine.prompts)
    assert (first.temperature, first.top_p, first.seed, second.seed) == (0.5, 0.9, 5, 6)
    assert (third.temperature, third.top_p) == (0.1, 1.0)


def test_stop_strings_end_the_answer_and_no_reasoning(nano_tokenizer):
    engine = scripted(nano_tokenizer)
    played, _ = play(engine, replace(ASKED, stop=("is", "Next")), messages=(USER, Message("tool", "3809")))
    assert (played.reasoning, played.content, played.finish) == (ENOUGH, "The debt of Plalples ", "stop")


REASON, CALLS, ANSWERS = "reasoner", "executor", "summarizer"


@pytest.mark.parametrize(
    ("choice", "tools", "asked"),
    [
        ("auto", (TOOL,), [(REASON, "none", (CALLS, ANSWERS)), (CALLS, "required", ())]),
        ("none", (TOOL,), [(REASON, "none", (ANSWERS,)), (ANSWERS, "none", ())]),
        ("required", (TOOL,), [(REASON, "none", (CALLS,)), (CALLS, "required", ())]),
        ("read_debt", (TOOL,), [(REASON, "none", (CALLS,)), (CALLS, "read_debt", ())]),
        ("auto", (), [(REASON, "none", (ANSWERS,)), (ANSWERS, "none", ())]),
    ],
)
def test_each_role_is_held_to_its_part_and_the_clients_wish(nano_tokenizer, choice, tools, asked):
    engine = scripted(nano_tokenizer)
    play(engine, replace(ASKED, choice=choice, tools=tools))
    assert [(prompt.speaker, prompt.choice, prompt.next_roles) for prompt in engine.prompts] == asked


@pytest.mark.parametrize("choice", ["auto", "none", "required", "read_debt"])
def test_a_base_is_held_to_the_clients_wish(nano_tokenizer, choice):
    engine = scripted(nano_tokenizer)
    play(engine, replace(ASKED, choice=choice, parallel=False), model="nano")
    assert [(prompt.choice, prompt.parallel, prompt.next_roles) for prompt in engine.prompts] == [(choice, False, ())]


def test_unconstrained_no_role_is_held_to_anything(nano_tokenizer):
    engine = scripted(nano_tokenizer)
    play(engine, settings=Settings(constrained=False))
    assert {(prompt.choice, prompt.next_roles) for prompt in engine.prompts} == {("auto", ())}


def test_a_call_is_demanded_of_a_team_that_would_answer(nano_tokenizer):
    script = lambda prompt: ENOUGH if prompt.speaker == "reasoner" else debts(prompt)  # noqa: E731
    played, _ = play(scripted(nano_tokenizer, script), replace(ASKED, choice="required"))
    assert played.finish == "tool_calls"


def test_a_conversation_that_is_over_is_refused(nano_tokenizer):
    over = (USER, Message("assistant", ANSWER, speaker="summarizer"))
    with pytest.raises(Refused, match="the last message is an answer"):
        play(scripted(nano_tokenizer), messages=over)


@pytest.mark.parametrize("listen", [False, True])
@pytest.mark.parametrize("choice", ["required", "read_debt"])
def test_a_stop_string_is_none_in_a_call_that_is_demanded(nano_tokenizer, choice, listen):
    asked = replace(ASKED, model="nano:executor", choice=choice, stop=("Plal",))
    played, _ = play(scripted(nano_tokenizer), asked, model="nano:executor", listen=listen)
    assert ([call.arguments for call in played.calls], played.content) == ([{"key": "Plalples"}], "")


@pytest.mark.parametrize("listen", [False, True])
def test_half_a_call_that_a_stop_string_left_is_not_sent(nano_tokenizer, listen):
    engine = scripted(nano_tokenizer, lambda prompt: f"Look.\n{CALL}")
    asked = replace(ASKED, model="nano:executor", stop=("Plal",))
    free = Settings(constrained=False)
    played, heard = play(engine, asked, model="nano:executor", settings=free, listen=listen)
    assert (played.content, played.calls, played.finish) == ("Look.", (), "stop")
    assert "".join(event.text for event in heard) == ("Look." if listen else "")


def test_a_team_goes_on_where_a_reasoner_stopped(nano_tokenizer):
    played, _ = play(scripted(nano_tokenizer), messages=(USER, Message("assistant", THINK, speaker="reasoner")))
    assert [who for who, _ in spoken(played)] == ["executor"]


def test_a_prompt_that_leaves_no_room_is_an_error_but_a_later_one_an_end(nano_tokenizer):
    with pytest.raises(ContextFull):
        play(scripted(nano_tokenizer, context=4))
    asked = len(scripted(nano_tokenizer).renderer.prompt((USER,), (TOOL,), "reasoner"))
    played, _ = play(scripted(nano_tokenizer, context=asked + 4))
    assert (played.finish, len(played.turns)) == ("length", 1)


def test_whoever_stops_listening_stops_the_writing(nano_tokenizer):
    engine = scripted(nano_tokenizer)

    async def run():
        async def deaf(event):
            await asyncio.Event().wait()

        team = {one.id: one for one in team_models(engine)}["nano:team"]
        task = asyncio.create_task(turns.play_choice(team, ASKED, (USER,), Settings(), seed=0, emit=deaf))
        await asyncio.sleep(0.02)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        return engine.running, engine.cancelled

    assert asyncio.run(run()) == (0, 1)


LENIENT_CALL = '{"name": "read_debt", "arguments": {"key": "Plalples"}}'


def play_lenient(tokenizer, text, **options):
    """Play a reply of the base in a format that allows lenient reading."""
    calls = catalog.find("renderers", "hermes").FORMAT.calls
    format = replace(catalog.find("renderers", "nano").FORMAT, calls=calls, lenient=True)
    engine = ScriptedEngine(Renderer(format, tokenizer), lambda prompt: text)
    return play(engine, model="nano", **options)


@pytest.mark.parametrize("text", [LENIENT_CALL, f"```json\n{LENIENT_CALL}\n```", "read_debt(key='Plalples')"])
@pytest.mark.parametrize("lead", ["", "I look it up.\n\n"])
def test_no_part_of_a_call_that_is_read_leniently_is_heard_as_text(nano_tokenizer, text, lead):
    played, heard = play_lenient(nano_tokenizer, lead + text, listen=True)
    assert played.finish == "tool_calls"
    assert [(call.name, call.arguments) for call in played.calls] == [("read_debt", {"key": "Plalples"})]
    assert "".join(e.text for e in heard if isinstance(e, TextDelta)) == played.content == lead.strip()


@pytest.mark.parametrize("listen", [False, True])
def test_code_that_is_no_call_is_heard_whole(nano_tokenizer, listen):
    text = f"So:\n```json\n{LENIENT_CALL}\n```\nThat is how."
    played, heard = play_lenient(nano_tokenizer, text, listen=listen)
    assert (played.content, played.finish) == (text, "stop")
    assert "".join(event.text for event in heard) in ("", text)


@pytest.mark.parametrize("strict_calls", [False, True])
@pytest.mark.parametrize("choice", ["auto", "none"])
def test_calls_are_read_leniently_unless_somebody_forbids_it(nano_tokenizer, strict_calls, choice):
    played, _ = play_lenient(
        nano_tokenizer,
        f"```json\n{LENIENT_CALL}\n```",
        asked=replace(ASKED, choice=choice),
        settings=Settings(strict_calls=strict_calls),
    )
    assert bool(played.calls) == (choice == "auto" and not strict_calls)


@pytest.mark.parametrize("listen", [False, True])
def test_a_cut_call_never_is_content(nano_tokenizer, listen):
    for room in range(8, 20):
        played, heard = play_lenient(
            nano_tokenizer,
            f"```json\n{LENIENT_CALL}\n```",
            settings=Settings(max_tokens=room),
            listen=listen,
        )
        assert (played.content, played.finish) == ("", "length")
        assert heard == []


def test_what_cannot_be_read_as_a_call_is_sent_as_it_was_written(nano_tokenizer):
    text = f"I look.\n\n\n```json\n{LENIENT_CALL[:-1]}\n```"
    played, _ = play_lenient(nano_tokenizer, text)
    assert (played.content, played.finish) == (text, "stop")
