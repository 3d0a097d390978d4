"""The verbs that play, on an endpoint instead of a model in this process."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
from pathlib import Path

import pytest
from endpoint import Answer, endpoint, error, said
from verbs import call, stock_tools

from rolecraft.store import Run


@pytest.fixture
def tools(tmp_path):
    return stock_tools(tmp_path)


def asks_then_answers(request: dict) -> Answer:
    """Call the first tool once, its text parameters filled, and then say what came of it."""
    last = request["messages"][-1]
    if last["role"] == "tool" or not request.get("tools"):
        return said(f"It is {last['content']}.")
    function = request["tools"][0]["function"]
    return said(None, (function["name"], dict.fromkeys(function["parameters"]["properties"], "lamp")))


def test_run_plays_a_users_tools_on_an_endpoint(capsys, tools):
    with endpoint(asks_then_answers, {"m": "x"}) as served:
        code, out, _ = call(capsys, "run", "How many lamps?", "--tools", tools, "--engine", served.url, "--json")
    record = json.loads(out.splitlines()[-1])
    assert code == 0
    assert [message["role"] for message in record["messages"]] == ["user", "assistant", "tool", "assistant"]
    assert record["messages"][-1]["content"] == "It is 4."


def test_a_team_plays_on_an_endpoint_each_role_by_its_own_model(capsys, tools):
    def script(request: dict) -> Answer:
        known = any(message["role"] == "tool" for message in request["messages"])
        if request["model"] == "small":
            return said(None, ("stock", {"item": "lamp"}))
        if "reasoner" in request["messages"][-1]["content"]:
            return said("I have it. Next: summarizer." if known else "I need the stock. Next: executor.")
        return said("There are 4.")

    words = ["--tools", tools, "--team", "mor", "--model", "big", "--model", "executor=small", "--json"]
    with endpoint(script, {"big": "x", "small": "x"}) as served:
        code, out, _ = call(capsys, "run", "How many lamps?", "--engine", served.url, *words)
    spoken = [(m["speaker"]) for m in json.loads(out.splitlines()[-1])["messages"] if m["role"] == "assistant"]
    assert (code, spoken) == (0, ["reasoner", "executor", "reasoner", "summarizer"])


@pytest.mark.parametrize(("owner", "told"), [("rolecraft", False), ("someone", True)])
def test_roles_that_a_server_instructs_are_not_instructed_twice(capsys, tools, owner, told):
    named = () if owner == "rolecraft" else ("--model", "m:assistant")
    words = ("--tools", tools, "--engine-tools", "native", *named)
    with endpoint(asks_then_answers, {"m": owner, "m:assistant": owner}) as served:
        call(capsys, "run", "How many lamps?", "--engine", served.url, *words)
    assert {sent["model"] for sent in served.requests} == {"m:assistant"}
    assert (served.requests[0]["messages"][0]["role"] == "system") is told


def test_chat_keeps_its_connection_from_question_to_question(capsys, tools, monkeypatch):
    questions = iter(["How many lamps?", "And now?", ""])
    monkeypatch.setattr("builtins.input", lambda *_: next(questions))
    with endpoint(asks_then_answers, {"m": "x"}) as served:
        assert call(capsys, "chat", "--tools", tools, "--engine", served.url)[0] == 0
    assert [message["content"] for message in served.requests[-1]["messages"] if message["role"] == "user"] == [
        "How many lamps?",
        "And now?",
    ]


def ill(script, every: str):
    """Return `script` with ill answers among its own: one letter for each request, over and over."""
    kinds = itertools.cycle(every)
    bad = {
        "e": error(500, "CUDA error"),
        "g": Answer(b"<html>garbage</html>"),
        "h": Answer(b'{"choices": [{"ind', cut=True),
        "s": Answer(delay=60),
    }
    return lambda request: bad.get(next(kinds)) or script(request)


def played(folder: Path) -> dict:
    return {one.id: (one.messages, one.stop, one.verdict) for one in Run(folder).trajectories()}


def evaluate(capsys, url: str, folder: Path, *more: str) -> tuple[int, str, str]:
    return call(capsys, "eval", "--engine", url, "--limit", "20", "--output", str(folder), *more)


def test_an_endpoint_that_fails_stalls_and_writes_garbage_loses_no_episode(capsys, tmp_path):
    with endpoint(asks_then_answers, {"m": "x"}) as well:
        assert evaluate(capsys, well.url, tmp_path / "well")[0] == 0
    with endpoint(ill(asks_then_answers, "e..g...h...e..."), {"m": "x"}) as bad:
        code, _, _ = evaluate(capsys, bad.url, tmp_path / "ill", "--engine-seconds", "2", "--engine-tools", "native")
    assert code == 0
    assert len(bad.requests) > 1.2 * len(well.requests)
    assert len(played(tmp_path / "ill")) == 20
    assert played(tmp_path / "ill") == played(tmp_path / "well")


def test_an_endpoint_that_stalls_loses_no_episode(capsys, tmp_path):
    with endpoint(ill(asks_then_answers, "......s"), {"m": "x"}) as bad:
        code, _, _ = evaluate(capsys, bad.url, tmp_path / "ill", "--engine-seconds", "1", "--engine-tools", "native")
    assert (code, len(played(tmp_path / "ill"))) == (0, 20)


def test_an_endpoint_that_dies_keeps_what_was_finished_and_the_same_command_goes_on(capsys, tmp_path):
    dead: list[bool] = []
    count = itertools.count()

    def script(request: dict) -> Answer:
        dead[:] = [True] if next(count) > 14 and not dead else dead
        return error(503, "gone") if dead == [True] else asks_then_answers(request)

    few = ("--engine-retries", "0", "--concurrency", "2", "--engine-tools", "native")
    with endpoint(script, {"m": "x"}) as served:
        code, _, err = evaluate(capsys, served.url, tmp_path / "run", *few)
        finished = played(tmp_path / "run")
        assert (code, 0 < len(finished) < 20) == (1, True)
        assert "answered 503 (Service Unavailable): gone; tried once" in err
        dead[:] = [False]
        code, _, _ = evaluate(capsys, served.url, tmp_path / "run", *few)
    whole = played(tmp_path / "run")
    assert (code, len(whole)) == (0, 20)
    assert {key: whole[key] for key in finished} == finished


def test_workers_share_the_tasks_and_find_the_key_themselves(capsys, tmp_path):
    key = tmp_path / "key"
    key.write_text("sesame-123")
    with endpoint(asks_then_answers, {"m": "x"}) as served:
        code, _, _ = evaluate(capsys, served.url, tmp_path / "run", "--workers", "2", "--api-key-file", str(key))
    assert (code, len(played(tmp_path / "run"))) == (0, 20)
    assert {sent["authorization"] for sent in served.headers} == {"Bearer sesame-123"}


def test_a_run_records_what_played_and_no_key(capsys, tmp_path):
    key = tmp_path / "key"
    key.write_text("sesame-123")
    with endpoint(asks_then_answers, {"qwen": "x"}) as served:
        evaluate(capsys, served.url, tmp_path / "run", "--api-key-file", str(key))
        how = "native tools, calls as they were written"
        assert Run(tmp_path / "run").lineage()["model"] == f"qwen at {served.url} ({how})"
        texts = [path.read_text() for path in (tmp_path / "run").rglob("*") if path.is_file()]
        assert not any("sesame" in text for text in texts)
        code, _, err = evaluate(capsys, served.url, tmp_path / "run", "--engine-tools", "prompt")
    assert code == 2
    assert "holds another evaluation: model was" in err


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("--engine http://127.0.0.1:1/v1 --base nano", "--base belongs to a model in this process"),
        ("--engine http://127.0.0.1:1/v1 --constrain", "--constrain belongs to"),
        ("--engine http://127.0.0.1:1/v1 --max-context 99", "--max-context belongs to"),
        ("--model x", "--model needs --engine URL"),
        ("--engine-seconds 3", "--engine-seconds needs --engine URL"),
        ("--engine http://u:sesame@h/v1", "written into records"),
    ],
)
@pytest.mark.parametrize("verb", ["run hi", "chat", "eval"])
def test_an_option_that_would_not_be_heeded_is_refused(capsys, verb, words, told):
    code, _, err = call(capsys, *verb.split(), *words.split())
    assert code == 2
    assert told in err
    assert "sesame" not in err


def test_an_endpoint_is_played_without_loading_torch(tools):
    script = (
        "import sys\nfrom rolecraft import cli\n"
        f"code = cli.main(['run', 'hi', '--engine', sys.argv[1], '--tools', {tools!r}])\n"
        "print(code, 'torch' in sys.modules)"
    )
    with endpoint(asks_then_answers, {"m": "x"}) as served:
        done = subprocess.run([sys.executable, "-c", script, served.url], capture_output=True, text=True, timeout=120)
    assert done.stdout.splitlines()[-1] == "0 False", done.stderr


def test_an_endpoint_without_several_replies_is_refused_before_a_vote_is_played(capsys, tools):
    with endpoint([said("ok")], {"m": "vllm"}) as served:
        words = ("--engine", served.url, "--engine-tools", "native", "--strategy", "self_consistent")
        code, _, told = call(capsys, "run", "Hello?", *words)
    assert code == 2
    assert "does not give several replies to one request (n) nor log-probabilities" in told
    assert len(served.requests) == 1
