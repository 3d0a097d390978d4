"""A served team that acts by code plays whole episodes with the server's own tools, for the openai package."""

from __future__ import annotations

import threading
from pathlib import Path

import openai
import pytest
import tiny
from serving import TOOLS, connected, running, scripted, until
from several import Counter
from verbs import call

from rolecraft import server, team
from rolecraft.engine import LocalEngine, Settings
from rolecraft.errors import SettingsError
from rolecraft.sandbox import layers
from rolecraft.server import models, service, turns
from rolecraft.tools import Toolbox, find

pytestmark = pytest.mark.skipif(not layers()["seccomp"], reason="no system-call filter on this machine")
SHOP = Path(__file__).parents[1] / "examples" / "shop" / "tools.py"
QUESTION = {"role": "user", "content": "How many lamps are twice the stock?"}
LOOK = "I look.\n```python\nn = stock('lamp')\nprint(n)\n```"
ANSWER = "Twice it.\n```python\nfinal_answer(2 * n)\n```"


def shop() -> Toolbox:
    return Toolbox(find(SHOP))


def served(engine, renderer, open_tools=shop):
    player = models.LoadedEngine(engine, renderer)
    return models.served_models("m", team.find("code"), player, player, open_tools)


def says(*replies):
    """Return a script that says these in turn, by how many steps of this answer the prompt shows."""

    def script(prompt):
        last = max(place for place, one in enumerate(prompt.messages) if one.role == "user")
        said = sum(one.role == "assistant" for one in prompt.messages[last:])
        return replies[min(said, len(replies) - 1)]

    return script


@pytest.fixture
def speaking(nano_tokenizer):
    """Return what serves a scripted model, and yields its client; `engine` of it is what was asked."""

    def speak(*replies, open_tools=shop, settings=None, **engine):
        one = scripted(nano_tokenizer, says(*replies), **{"context": 1 << 16, **engine})
        opened = connected(served(one, one.renderer, open_tools), settings)
        opened.engine = one
        return opened

    return speak


def ask(client, *more, model="m:team", **options):
    return client.chat.completions.create(model=model, messages=[QUESTION, *more], **options)


def test_an_answer_is_a_whole_episode_with_the_servers_tools(speaking):
    with speaking(LOOK, ANSWER) as client:
        answer = ask(client)
    (choice,) = answer.choices
    assert (choice.finish_reason, choice.message.content, choice.message.tool_calls) == ("stop", "24", None)
    assert choice.message.model_extra["reasoning"] == f"{LOOK}\n12\n{ANSWER}"
    assert answer.usage.completion_tokens > 0


def test_a_stream_tells_the_steps_and_then_the_answer(speaking):
    with speaking(LOOK, ANSWER) as client:
        told = [
            (key, text)
            for chunk in ask(client, stream=True)
            for key in ("reasoning", "content")
            if (text := chunk.choices[0].delta.model_dump().get(key))
        ]
    assert [key for key, _ in told] == ["reasoning"] * (len(told) - 1) + ["content"]
    assert "".join(text for key, text in told if key == "reasoning") == f"{LOOK}\n12\n{ANSWER}"
    assert told[-1][1] == "24"


def test_a_follow_up_knows_the_answer_and_no_variable(speaking):
    again = {"role": "user", "content": "And once more?"}
    opened = speaking("```python\nfinal_answer('n' in globals())\n```")
    with opened as client:
        first = ask(client).choices[0].message
        then = ask(client, {"role": "assistant", "content": first.content}, again).choices[0].message
    assert (first.content, then.content) == ("false", "false")
    assert [one.content for one in opened.engine.prompts[-1].messages[1:]] == [
        QUESTION["content"],
        "false",
        again["content"],
    ]


def test_each_answer_has_tools_of_its_own_and_closes_them(speaking):
    opened = []

    def tools():
        opened.append(Counter())
        return Toolbox(opened[-1:])

    with speaking("```python\nfinal_answer(add(by=1))\n```", open_tools=tools) as client:
        answers = [choice.message.content for choice in ask(client, n=3).choices]
    assert answers == ["n is 1"] * 3
    assert len(opened) == 3
    assert all(one.closed for one in opened)


def test_strategies_try_on_branches_of_the_servers_tools(speaking):
    tool = Counter()
    script = ("```python\nadd(by=2)\n```", "```python\nfinal_answer(add(by=1))\n```")
    with speaking(*script, open_tools=lambda: Toolbox([tool])) as client:
        answer = ask(client, extra_body={"strategy": "self_consistent,n=3"})
    assert answer.choices[0].message.content == "n is 3"
    assert all(copy.closed for copy in tool.copies)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"tools": TOOLS}, "functions are this server's own; leave 'tools' out, or ask 'm:assistant'"),
        ({"response_format": {"type": "json_object"}}, "leave 'response_format' out"),
        ({"stop": ["x"]}, "leave 'stop' out"),
        ({"logprobs": True}, "leave 'logprobs' out"),
    ],
)
def test_what_a_program_cannot_keep_is_refused_by_name(speaking, options, says):
    opened = speaking(LOOK)
    with opened as client, pytest.raises(openai.BadRequestError, match=says) as refused:
        ask(client, **options)
    assert refused.value.param == next(iter(options))
    assert opened.engine.prompts == []


def test_the_role_alone_writes_code_for_the_clients_tools_and_runs_nothing(speaking):
    opened = speaking(LOOK)
    with opened as client:
        (choice,) = ask(client, model="m:assistant", tools=TOOLS).choices
    assert (choice.message.content, choice.message.tool_calls) == (LOOK, None)
    (prompt,) = opened.engine.prompts
    assert "read_debt(key: str)" in prompt.messages[0].content
    assert prompt.tools == ()


def test_turns_and_tokens_bound_an_answer(speaking):
    loops = "```python\nprint('again')\n```"
    few = server.Settings(playing=turns.Settings(max_turns=2))
    with speaking(loops, settings=few) as client:
        (choice,) = ask(client).choices
    assert (choice.finish_reason, choice.message.content) == ("length", "")
    opened = speaking("no code here")
    with opened as client:
        answer = ask(client, max_tokens=5)
    assert answer.choices[0].finish_reason == "length"
    assert answer.usage.completion_tokens <= 5


def test_a_prompt_without_room_has_openais_error(speaking):
    with speaking(LOOK, context=8) as client, pytest.raises(openai.BadRequestError) as refused:
        ask(client)
    assert refused.value.code == "context_length_exceeded"


def test_a_step_that_never_ends_costs_its_answer_alone(speaking):
    late = server.Settings(limits=service.Limits(seconds=1.0))
    with speaking("```python\nwhile True: pass\n```", settings=late) as client:
        with pytest.raises(openai.APIStatusError) as refused:
            ask(client)
        assert refused.value.status_code == 408
        assert client.models.list().data


def test_a_client_that_hangs_up_ends_the_episode_and_closes_its_tools(nano_tokenizer):
    tool, asked = Counter(), threading.Event()

    def script(prompt):
        asked.set()
        return "```python\nwhile True: pass\n```"

    engine = scripted(nano_tokenizer, script, context=1 << 16)
    with running(served(engine, engine.renderer, lambda: Toolbox([tool]))) as url:
        client = openai.OpenAI(base_url=url, api_key="none", max_retries=0, timeout=0.5)
        with pytest.raises(openai.APITimeoutError):
            ask(client)
        assert asked.is_set()
        until(lambda: tool.closed, 60)


def test_a_tiny_model_is_played_to_an_end(nano_tokenizer):
    """What it writes is noise, which is told to it as no code until its turns or tokens are spent."""
    with (
        LocalEngine(
            tiny.loaded(nano_tokenizer, max_position_embeddings=4096), Settings(max_requests=4, max_context=4096)
        ) as engine,
        connected(served(engine, engine.loaded.renderer)) as client,
    ):
        answers = [ask(client, max_tokens=40, seed=seed, temperature=1.0) for seed in (1, 1, 2)]
    texts = [one.choices[0].message.model_extra["reasoning"] for one in answers]
    assert texts[0] == texts[1] != texts[2]
    assert all(one.usage.completion_tokens <= 40 for one in answers)


def test_tools_are_whose_the_team_says():
    player = models.LoadedEngine(None)
    with pytest.raises(SettingsError, match="open_tools"):
        models.served_models("m", team.find("code"), player)
    with pytest.raises(SettingsError, match="calls the client's tools"):
        models.served_models("m", team.find("mor"), player, open_tools=shop)


def test_the_verb_takes_tools_for_code_alone(capsys):
    code, _, err = call(capsys, "serve", "--port", "0", "--team", "mor", "--tools", str(SHOP))
    assert code == 2
    assert "leave --tools out, or serve --team code" in err
    code, _, err = call(capsys, "serve", "--port", "0", "--team", "code", "--tools", "nothere.py")
    assert code == 2
    assert "nothere.py" in err
