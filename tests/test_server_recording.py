"""What a server keeps of answers, asked by the openai SDK: exact turns, whose episode, and why none is learned from."""

from __future__ import annotations

import openai
import pytest
import tiny
from serving import QUESTION, TOOLS, connected, scripted, team_models

from rolecraft import server, team
from rolecraft.engine import LocalEngine, Settings
from rolecraft.errors import SettingsError
from rolecraft.server import models, turns
from rolecraft.server.recording import Recorder
from rolecraft.store import served

POLICY = served.Policy("tiny", "abc", "mor", False)
FREE = server.Settings(port=0, playing=turns.Settings(temperature=1.0, constrained=False))


@pytest.fixture(scope="module")
def engine(nano_tokenizer):
    with LocalEngine(tiny.loaded(nano_tokenizer), Settings(max_requests=4, max_context=512)) as one:
        yield one


def offered(engine: LocalEngine) -> tuple[models.ServedModel, ...]:
    player = models.LoadedEngine(engine, engine.loaded.renderer)
    bare = models.LoadedEngine(engine, engine.loaded.renderer)
    return models.served_models("tiny", team.find("mor", instructions=False), player, bare)


@pytest.fixture
def run(engine, tmp_path):
    """A function that asks a recording server, and returns what it kept."""
    listed = offered(engine)

    def ask(*requests, settings=FREE, most=1 << 20):
        recorder = Recorder(tmp_path, POLICY, listed[-1].loaded, most)
        with connected(listed, settings, recorder=recorder) as client:
            answers = [client.chat.completions.create(**told(**request)) for request in requests]
        return answers, list(served.answers(tmp_path))

    return ask


def told(**request):
    usual = {"model": "tiny:executor", "messages": [{"role": "user", "content": "rank"}], "max_tokens": 12}
    return {**usual, **request}


def test_the_tokens_that_are_kept_are_those_that_were_written(run):
    request = {"logprobs": True, "metadata": {"episode": "e1", "task": "t1", "other": "x"}}
    (answer,), (kept,) = run(request)
    (turn,) = kept.record.turns
    assert (kept.id, kept.episode, kept.task, kept.model) == (answer.id, "e1", "t1", "tiny:executor")
    assert (kept.temperature, kept.refused) == (1.0, "")
    told = [one.logprob for one in answer.choices[0].logprobs.content]
    assert list(turn.logprobs[: len(told)]) == pytest.approx(told)
    assert len(turn.token_ids) == answer.usage.completion_tokens
    assert len(turn.prompt_ids) == answer.usage.prompt_tokens


def test_names_may_come_in_headers_and_in_the_responses_api(run, engine, tmp_path):
    _, (kept,) = run({"extra_headers": {"X-Rolecraft-Episode": "e", "X-Rolecraft-Task": "t"}})
    assert (kept.episode, kept.task) == ("e", "t")
    listed = offered(engine)
    recorder = Recorder(tmp_path, POLICY, listed[-1].loaded, 1 << 20)
    with connected(listed, FREE, recorder=recorder) as client:
        said = client.responses.create(
            model="tiny:executor", input="Who?", max_output_tokens=8, metadata={"episode": "r"}
        )
        for event in client.chat.completions.create(**told(stream=True, extra_body={"metadata": {"episode": "s"}})):
            last = event.id
    *_, responded, streamed = served.answers(tmp_path)
    assert (responded.id, responded.episode) == (said.id, "r")
    assert (streamed.id, streamed.episode) == (last, "s")


def test_each_choice_is_an_answer_of_its_own(run):
    (answer,), kept = run({"n": 2})
    assert [one.id for one in kept] == [answer.id, f"{answer.id}#1"]
    assert kept[0].record.turns[0].token_ids != kept[1].record.turns[0].token_ids


def test_the_bare_base_beside_an_adapter_and_plain_texts_are_not_kept(run, engine, tmp_path):
    _, kept = run({"model": "tiny"})
    assert kept == []


@pytest.mark.parametrize(
    ("request_", "why"),
    [
        ({"top_p": 0.9}, "top_p was 0.9, so it was not drawn from all that the policy might say"),
        ({"extra_body": {"strategy": "self_consistent,n=2"}}, "strategy 'self_consistent' chose it among others"),
    ],
)
def test_what_cannot_be_learned_from_is_kept_with_the_reason(run, request_, why):
    _, (kept,) = run(request_)
    assert kept.refused == why


def test_a_reply_that_a_grammar_held_is_kept_with_what_it_let_through(run):
    settings = server.Settings(port=0, playing=turns.Settings(temperature=0.7, constrained=True))
    _, (kept,) = run({"tools": TOOLS}, settings=settings)
    (turn,) = kept.record.turns
    assert kept.refused == ""
    assert [one is None for one in turn.drawn] == list(turn.forced)
    chosen = [one for one in turn.drawn if one is not None]
    assert all(one.among and one.temperature == 0.7 for one in chosen)


@pytest.mark.parametrize(
    ("request_", "says"),
    [
        ({"metadata": {"episode": "x" * 201}}, "at most 200"),
        ({"metadata": {"task": "a\nb"}}, "can be printed"),
        ({"metadata": {"episode": "a"}, "n": 2}, "'n' is 2; an episode goes on with one answer"),
        ({"metadata": {"episode": "a"}, "extra_headers": {"X-Rolecraft-Episode": "b"}}, "send one"),
    ],
)
def test_an_episode_that_cannot_be_kept_is_refused(run, request_, says):
    with pytest.raises(openai.BadRequestError, match=says):
        run(request_)


def test_a_full_record_refuses_requests_before_half_an_episode_is_kept(run, tmp_path):
    with pytest.raises(openai.InternalServerError, match="has 0 MiB, all that --record-mb allows") as caught:
        run({}, {}, most=10)
    assert caught.value.status_code == 503
    assert len(list(served.answers(tmp_path))) == 1


def test_a_folder_holds_one_policy_s_answers(engine, tmp_path):
    loaded = offered(engine)[-1].loaded
    Recorder(tmp_path, POLICY, loaded, 1)
    Recorder(tmp_path, POLICY, loaded, 1)
    (tmp_path / "settings.yaml").write_text("data: {size: 7}\n")
    assert served.policy(tmp_path) == POLICY  # a run's own settings may stand beside it
    other = served.Policy("tiny", "abc", "mor", False, "runs/a", "def")
    with pytest.raises(SettingsError, match=r"holds answers of tiny .*, and tiny with runs/a .*name another folder"):
        Recorder(tmp_path, other, loaded, 1)


def test_a_team_s_conversation_is_kept_with_the_tokens_of_its_earlier_answers(nano_tokenizer, tmp_path):
    listed = team_models(scripted(nano_tokenizer))
    recorder = Recorder(tmp_path, POLICY, listed[-1].loaded, 1 << 20)
    with connected(listed, FREE, recorder=recorder) as client:
        asked = {"model": "nano:team", "tools": TOOLS}
        first = client.chat.completions.create(messages=[QUESTION], **asked).choices[0].message
        answered = {"role": "tool", "tool_call_id": first.tool_calls[0].id, "content": "3809"}
        client.chat.completions.create(messages=[QUESTION, first, answered], **asked)
    one, two = served.answers(tmp_path)
    assert [turn.speaker for turn in one.record.turns + two.record.turns] == [
        *("reasoner", "executor", "reasoner", "summarizer")
    ]
    before = [message.ids for message in two.record.task.messages if message.role == "assistant"]
    assert before == [turn.token_ids for turn in one.record.turns]
