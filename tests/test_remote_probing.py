"""What is found out of an endpoint before anything is played, and what of its settings is refused."""

from __future__ import annotations

import pytest
from endpoint import Answer, endpoint, error, said

from rolecraft.errors import EngineError, NotFound, SettingsError
from rolecraft.remote import Settings, Wishes, read_key, require, resolve
from rolecraft.remote.settings import KEY_VARIABLE

NATIVE = Wishes(tools="native")
MOR = ("reasoner", "executor", "summarizer")


def found(script=None, models=None, wishes=NATIVE, roles=("assistant",), **more) -> Settings:
    with endpoint(script or [said("ok")], models) as served:
        return resolve(Settings(served.url, pause=0.001, **more), wishes, roles)


def test_the_only_model_there_is_plays():
    assert found(models={"qwen": "vllm"}).models == {"": "qwen"}


def test_of_several_models_one_must_be_named():
    with pytest.raises(SettingsError, match=r"--model NAME; it has big, small"):
        found(models={"big": "vllm", "small": "vllm"})
    assert found(models={"big": "", "small": ""}, wishes=Wishes(["small"], "native")).models == {"": "small"}


def test_a_misspelt_model_is_told_with_the_nearest():
    with pytest.raises(NotFound, match="did you mean 'qwen-coder'"):
        found(models={"qwen-coder": "", "other": ""}, wishes=Wishes(["qwen-codr"], "native"))


def test_an_endpoint_without_a_list_plays_the_model_that_is_named():
    assert found(wishes=Wishes(["any"], "native")).models == {"": "any"}
    with pytest.raises(SettingsError, match="does not list its models"):
        found()


def test_each_role_may_have_a_model_of_its_own():
    wishes = Wishes(["big", "executor=small"], "native")
    plays = found(models={"big": "", "small": ""}, wishes=wishes, roles=MOR)
    assert [plays.model(role) for role in MOR] == ["big", "small", "big"]
    assert plays.identity.startswith("executor=small, reasoner=big, summarizer=big at http://127.0.0.1:")


@pytest.mark.parametrize(
    ("names", "told"),
    [
        (["planner=x"], "no role 'planner'; the team has reasoner"),
        (["a", "b"], "a second one"),
        (["reasoner="], "no name"),
    ],
)
def test_a_model_for_no_role_and_two_for_one_are_refused_before_anything_is_sent(names, told):
    with pytest.raises((NotFound, SettingsError), match=told):
        resolve(Settings("http://127.0.0.1:1/v1"), Wishes(names), MOR)


def test_our_own_server_is_known_by_its_models_and_plays_each_role_by_its_own():
    ids = ["nano", *(f"nano:{role}" for role in MOR), "nano:team"]
    plays = found(models=dict.fromkeys(ids, "rolecraft"), wishes=Wishes(), roles=MOR)
    assert (plays.dialect, plays.tools) == ("rolecraft", "native")
    assert [plays.model(role) for role in MOR] == ids[1:4]
    assert plays.knows_roles
    assert not found(models=dict.fromkeys(ids, "rolecraft"), wishes=Wishes(["executor=nano"]), roles=MOR).knows_roles
    assert not found(models=dict.fromkeys(ids, "someone"), wishes=Wishes(["nano"], "native"), roles=MOR).knows_roles


@pytest.mark.parametrize(
    "refusal",
    [
        error(400, '"auto" tool choice requires --enable-auto-tool-choice and --tool-call-parser to be set'),
        error(400, "registry.ollama.ai/library/x does not support tools"),
        error(500, "tools param requires --jinja flag"),
    ],
)
def test_an_endpoint_that_knows_no_tools_is_told_of_them_in_the_prompt(refusal):
    script = lambda request: refusal if "tools" in request else said("ok")  # noqa: E731
    assert found(script, {"m": "x"}, Wishes()).tools == "prompt"


def read(tokens: int) -> Answer:
    answer = said("ok")
    return Answer({**answer.body, "usage": {"prompt_tokens": tokens}})


@pytest.mark.parametrize(
    ("with_tool", "without", "form"), [(90, 30, "native"), (30, 30, "prompt"), (30, 29, "native"), (0, 0, "native")]
)
def test_an_endpoint_whose_template_drops_tools_is_told_of_them_in_the_prompt(with_tool, without, form):
    script = lambda request: read(with_tool if "tools" in request else without)  # noqa: E731
    assert found(script, {"m": "x"}, Wishes()).tools == form


@pytest.mark.parametrize(
    "refusal",
    [
        error(400, "messages with role 'tool' must be a response to a preceding message with 'tool_calls'"),
        error(500, "raise_exception: a result must follow its call"),
    ],
)
def test_an_endpoint_that_takes_no_result_of_a_call_in_the_text_is_given_calls_as_data(refusal):
    script = lambda request: refusal if request["messages"][-1]["role"] == "tool" else said("ok")  # noqa: E731
    assert not found(script, {"m": "x"}, Wishes()).texts
    assert found(None, {"m": "x"}, Wishes()).texts
    assert not found(None, {"m": "rolecraft"}, Wishes()).texts  # our own server keeps what its model wrote


def test_a_wrong_key_is_told_before_anything_is_played():
    with pytest.raises(EngineError, match=r"401.*--api-key-file"):
        found([error(401, "no")], {"m": "x"}, Wishes())


def test_an_endpoint_that_is_no_endpoint_is_told():
    with endpoint([said("ok")]) as gone:
        pass
    with pytest.raises(EngineError, match="could not be asked"):
        resolve(Settings(gone.url, pause=0.001), Wishes(["m"]), MOR)
    with pytest.raises(EngineError, match="no chat completion"):
        found([Answer(b"<html>")], {"m": "x"}, Wishes())


@pytest.mark.parametrize(
    "url",
    [
        "",
        "127.0.0.1:8000",
        "ftp://h/v1",
        "http://",
        "http://h:99999/v1",
        "http://[::1/v1",
        "http://h/a b",
        "http://h/\n",
    ],
)
def test_what_is_no_address_is_refused(url):
    with pytest.raises(SettingsError, match="give one as http"):
        Settings(url)


@pytest.mark.parametrize(
    "url", ["http://u:sesame@h/v1", "http://sesame@h/v1", "http://h/v1?key=sesame", "http://h/#sesame"]
)
def test_an_address_that_holds_a_secret_is_refused_without_repeating_it(url):
    with pytest.raises(SettingsError, match="written into records") as told:
        Settings(url)
    assert "sesame" not in str(told.value)


def test_an_address_may_be_given_with_the_endpoints_own_path():
    assert {Settings(f"http://h/v1{end}").url for end in ("", "/", "/chat/completions")} == {"http://h/v1"}


@pytest.mark.parametrize(
    "bad", [{"requests": 0}, {"retries": -1}, {"seconds": 0}, {"seconds": float("nan")}, {"pause": float("nan")}]
)
def test_bounds_that_bound_nothing_are_refused(bad):
    with pytest.raises(SettingsError, match=next(iter(bad))):
        Settings("http://h/v1", **bad)


def test_the_key_comes_from_a_file_or_a_variable(tmp_path, monkeypatch):
    file = tmp_path / "key"
    file.write_text("  from-file\n")
    monkeypatch.delenv(KEY_VARIABLE, raising=False)
    monkeypatch.setenv("OTHER", "from-other")
    assert read_key() is None
    assert read_key(file) == "from-file"
    assert read_key(variable="OTHER") == "from-other"
    monkeypatch.setenv(KEY_VARIABLE, "usual")
    assert read_key() == "usual"


def test_a_key_that_was_named_and_is_not_there_or_cannot_be_sent_is_told_without_repeating_it(tmp_path, monkeypatch):
    with pytest.raises(NotFound, match="endpoint's key"):
        read_key(tmp_path / "none")
    with pytest.raises(NotFound, match="NOT_SET_AT_ALL"):
        read_key(variable="NOT_SET_AT_ALL")
    for bad in ("", "two words", "sesame\nsesame", "sésame"):
        monkeypatch.setenv("OTHER", bad)
        with pytest.raises(SettingsError, match="no usable key") as told:
            read_key(variable="OTHER")
        assert "same" not in str(told.value)


def several(count: int, told: bool = True) -> Answer:
    logprobs = {"content": [{"token": "a", "logprob": -0.5}]} if told else None
    choices = [
        {"index": i, "message": {"role": "assistant", "content": "a"}, "finish_reason": "length", "logprobs": logprobs}
        for i in range(count)
    ]
    return Answer({"choices": choices})


def required(*answers: Answer, needs=("n", "logprobs")):
    with endpoint(list(answers)) as served:
        found = require(Settings(served.url, models={"": "any"}, pause=0.001), needs, "assistant")
        return found, served.requests


def test_an_endpoint_that_has_what_a_strategy_needs_is_asked_for_it():
    found, (probe,) = required(several(2))
    assert found.logprobs
    assert (probe["n"], probe["logprobs"], probe["max_tokens"]) == (2, True, 1)
    found, (probe,) = required(several(1), needs=("logprobs",))
    assert "n" not in probe


@pytest.mark.parametrize(
    ("answer", "lacks"),
    [
        (several(1), r"does not give several replies to one request \(n\), which"),
        (several(2, told=False), r"does not give log-probabilities \(logprobs\), which"),
        (several(1, told=False), r"\(n\) nor log-probabilities"),
        (
            error(400, "Only one completion choice is allowed: n must be 1"),
            r"several replies to one request \(n\), which",
        ),
        (error(422, "logprobs are not supported"), r"log-probabilities \(logprobs\), which"),
    ],
)
def test_what_an_endpoint_lacks_for_a_strategy_is_told_by_name_before_anything_is_played(answer, lacks):
    with pytest.raises(SettingsError, match=lacks):
        required(answer)


def test_an_endpoint_that_refuses_for_another_reason_is_told_as_it_says():
    with pytest.raises(EngineError, match="model is loading"):
        required(error(400, "the model is loading"))
