"""A chain of thought's first step begins the agent's first reply, exactly, in the record and in what is trained."""

from __future__ import annotations

import asyncio

import pytest
import tiny
from endpoint import Answer, endpoint, error, said

from rolecraft import agent, examples, first_thought, remote, strategies, team
from rolecraft.benchmarks import Scripted
from rolecraft.engine import LocalEngine, Settings
from rolecraft.errors import ContextFull, EngineError
from rolecraft.tools import Toolbox
from rolecraft.types import Environment, Message, Prompt, Sampling, Task, Trajectory, Verdict

QUESTION = Message("user", "What is 2 + 3?")
CHAIN = "First I add two and three.\n\nThat is five.\n\nThe answer is 5."
STEP = "First I add two and three.\n\n"


def play(reply, player=agent.greedily, players="code"):
    asked = list[Prompt]()

    def policy(prompt: Prompt) -> Message:
        asked.append(prompt)
        return Message("assistant", prompt.prefix + reply(prompt))

    task = Task("t", (Message("system", "Be short."), QUESTION))
    environment = Environment(task, Toolbox(()), lambda record: Verdict(1.0))
    playing = agent.episode(
        environment, team.find(players), Scripted(policy), player=first_thought.prefixed(player), seed=7
    )
    return asyncio.run(playing), asked


def test_the_first_reply_and_no_other_begins_with_the_first_step():
    replies = iter([CHAIN, "```python\nx = 5\n```", "```python\nfinal_answer(x)\n```"])
    record, (reasoning, first, second) = play(lambda prompt: next(replies))
    assert [prompt.prefix for prompt in (reasoning, first, second)] == ["", STEP, ""]
    assert record.messages[2].content == f"{STEP}```python\nx = 5\n```"
    assert record.turns[0].message == record.messages[2]
    assert record.messages[-1].content == "5"


def test_every_first_reply_that_a_strategy_tries_begins_so():
    player = strategies.choose("best_of_n", {"n": 3}).player()
    record, asked = play(lambda prompt: "```python\nfinal_answer(5)\n```" if prompt.prefix else CHAIN, player)
    assert [prompt.prefix for prompt in asked] == ["", STEP, STEP, STEP]
    assert record.messages[2].content.startswith(STEP)


def test_a_role_that_sees_the_first_reply_as_its_task_begins_by_itself():
    replies = iter([CHAIN, "Next: caller.", "I cannot.", "Next: conclusion.", "5"])
    _, asked = play(lambda prompt: next(replies), players="alpha_umi")
    told = [(prompt.speaker, prompt.prefix) for prompt in asked[1:]]
    assert told == [("planner", STEP), ("caller", ""), ("planner", ""), ("summarizer", "")]


def test_a_task_without_room_for_a_chain_of_thought_is_played_without():
    def reply(prompt: Prompt) -> str:
        if prompt.choice == "none":
            raise ContextFull("no room")
        return "```python\nfinal_answer(5)\n```"

    record, asked = play(reply)
    assert [prompt.prefix for prompt in asked] == ["", ""]
    assert (record.stop, record.trials) == ("answered", None)


def test_the_teacher_reasons_about_the_task_without_tools_and_is_counted():
    replies = iter([CHAIN, "```python\nfinal_answer(5)\n```"])
    record, (reasoning, _) = play(lambda prompt: next(replies))
    assert reasoning.tools == ()
    assert reasoning.choice == "none"
    assert [message.content for message in reasoning.messages[1:]] == [QUESTION.content]
    assert (record.trials.strategy, record.trials.model_calls) == ("first_thought", 1)
    assert len(record.turns) == 1


@pytest.mark.parametrize(
    ("text", "step"),
    [
        (CHAIN, STEP),
        ("One line.", "One line.\n\n"),
        ("\n\n  First.  \n\nSecond.", "First.\n\n"),
        ("<think>Hm, so.\n\nYes.</think>5", "Hm, so.\n\n"),
        ("I write\n```python\nx\n```\n\nand so on", "I write\n\n"),
        ("```python\nx\n```", ""),
        ("So <|im_end|> it is", "So\n\n"),
        ("", ""),
        ("   \n\n  ", ""),
        ("x" * 5000, "x" * 600 + "\n\n"),
    ],
)
def test_the_first_step_is_words(text, step):
    assert first_thought.first_step(text) == step


def test_this_engine_goes_on_from_the_prefix_and_all_of_it_is_trained(hermes_tokenizer):
    loaded = tiny.loaded(hermes_tokenizer, max_position_embeddings=1024)
    players = team.find("code")
    with LocalEngine(loaded, Settings(max_requests=1)) as engine:
        view = players.role("assistant").view((QUESTION,), ())
        (completion,) = asyncio.run(engine.complete(Prompt(view, sampling=Sampling(max_tokens=8), prefix=STEP)))
    reply = completion.message.edited(content=f"{completion.message.content}\n```python\nx\n```")
    assert completion.message.content.startswith(STEP.strip())
    assert loaded.renderer.text(completion.turn.prompt_ids).endswith(STEP)
    record = Trajectory("t", Task("t", (QUESTION,)), (QUESTION, reply))
    (example,) = examples.build(record, players, loaded.renderer)
    trained = [i for i, weight in zip(example.ids, example.weights, strict=True) if weight]
    assert loaded.renderer.text(trained).startswith(STEP.strip())


def goes_on(request: dict) -> Answer:
    """Answer as a server that goes on with a reply that is begun for it, and reads less of it then."""
    last = request["messages"][-1]
    begun = request.get("continue_final_message") and last["role"] == "assistant"
    answer = said(" and five." if begun else "Hello")
    tokens = len(request["messages"]) * 10 - (3 if begun else 0)
    body = {**answer.body, "usage": {**answer.body["usage"], "prompt_tokens": tokens}}
    return Answer(body)


def resolved(url: str) -> remote.Settings:
    return remote.resolve(remote.Settings(url), remote.Wishes(continues=True), ("assistant",))


def test_a_server_that_goes_on_with_a_reply_is_asked_to():
    with endpoint(goes_on, {"m": "x"}) as served:
        settings = resolved(served.url)
        with remote.RemoteEngine(settings) as engine:
            prompt = Prompt((QUESTION,), prefix="Two and three")
            (completion,) = asyncio.run(engine.complete(prompt))
    assert settings.continues
    assert completion.message.content == "Two and three and five."
    sent = served.requests[-1]
    assert sent["messages"][-1] == {"role": "assistant", "content": "Two and three"}
    assert (sent["continue_final_message"], sent["add_generation_prompt"]) == (True, False)


def unknown_field(request: dict) -> Answer:
    known = "continue_final_message" not in request
    return said("Hi") if known else error(400, "unknown field continue_final_message")


@pytest.mark.parametrize("script", [lambda request: said("Hello"), unknown_field], ids=["ignores it", "refuses it"])
def test_a_server_that_does_not_is_refused_before_anything_is_played(script):
    def same(request):
        answer = script(request)
        if answer.status == 200:
            answer.body["usage"]["prompt_tokens"] = 12
        return answer

    with endpoint(same, {"m": "x"}) as served, pytest.raises(EngineError, match="leave out --first-thought-prefix"):
        resolved(served.url)


def test_an_endpoint_that_was_not_asked_is_refused_by_name():
    settings = remote.Settings("http://127.0.0.1:9/v1", models={"": "m"})
    prompt = Prompt((QUESTION,), prefix="Two")
    with remote.RemoteEngine(settings) as engine, pytest.raises(EngineError, match="continue_final_message"):
        asyncio.run(engine.complete(prompt))


@pytest.mark.parametrize("name", ["checked", "reflect"])
def test_a_strategys_own_questions_do_not_begin_so(name):
    """The checker and the reflection are asked of the first speaker too, before anybody has replied."""
    settings = {"checked": {"checker": "role"}, "reflect": {"tries": 2, "checker": "role"}}[name]

    def reply(prompt: Prompt) -> str:
        if prompt.choice == "none" and not prompt.prefix:
            return CHAIN
        return "```python\nfinal_answer(5)\n```" if prompt.prefix else "no, wrong value"

    _, asked = play(reply, strategies.choose(name, settings).player())
    own = [
        prompt
        for prompt in asked
        if "Is " in prompt.messages[-1].content or "went wrong" in prompt.messages[-1].content
    ]
    assert own
    assert all(not prompt.prefix for prompt in own)
