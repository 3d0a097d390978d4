"""What is loaded is what is offered, and the verb serves it."""

from __future__ import annotations

import os
import signal
import threading
from dataclasses import replace
from pathlib import Path

import httpx2
import openai
import pytest
import tiny
from serving import connected, until

from rolecraft import cli, team
from rolecraft.engine import LocalEngine
from rolecraft.server import loading
from rolecraft.server.listener import bind


@pytest.fixture
def opening(nano_tokenizer):
    """Return what opens tiny engines, and the adapters it was asked for."""
    asked: list[Path | None] = []

    def open_engine(adapter):
        asked.append(adapter)
        return LocalEngine(replace(tiny.loaded(nano_tokenizer), adapter=adapter))

    return open_engine, asked


def test_a_base_alone_is_loaded_once(opening):
    open_engine, asked = opening
    with loading.open_models("nano", None, team.find("mor"), open_engine) as models:
        assert [one.id for one in models] == ["nano", "nano:reasoner", "nano:executor", "nano:summarizer", "nano:team"]
        assert len({one.loaded.fingerprint for one in models}) == 1
    assert asked == [None]


def test_a_base_beside_an_adapter_is_another_model(opening, tmp_path):
    open_engine, asked = opening
    with loading.open_models("nano", tmp_path, team.find("single"), open_engine) as models:
        base, role, whole = models
        assert base.loaded.engine is not whole.loaded.engine
        assert role.loaded.engine is whole.loaded.engine
        assert base.loaded.fingerprint != whole.loaded.fingerprint
        assert [one.loaded.tuned for one in models] == [False, True, True]
    assert asked == [tmp_path, None]


def test_a_base_may_be_left_out(opening, tmp_path):
    open_engine, asked = opening
    with loading.open_models("nano", tmp_path, team.find("single"), open_engine, with_base=False) as models:
        assert [one.id for one in models] == ["nano:assistant", "nano:team"]
    assert asked == [tmp_path]


def test_a_folder_is_called_by_its_name_alone(opening, tmp_path):
    folder = tmp_path / "my-model"
    folder.mkdir()
    with loading.open_models(str(folder), None, team.find("single"), opening[0]) as models:
        assert models[0].id == "my-model"
    with loading.open_models("some/hub-name", None, team.find("single"), opening[0]) as models:
        assert models[0].id == "some/hub-name"


def test_with_a_budget_the_oldest_observations_are_folded_and_the_rest_is_refused(opening):
    call = {"id": "a", "type": "function", "function": {"name": "find", "arguments": "{}"}}
    again = {**call, "id": "b"}
    seen = [
        {"role": "user", "content": "Who?"},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "a", "content": "a name " * 40},
        {"role": "assistant", "content": None, "tool_calls": [again]},
        {"role": "tool", "tool_call_id": "b", "content": "nobody"},
    ]
    told = {"model": "tiny", "max_tokens": 4}

    def ask(budget, messages):
        opened = loading.open_models("tiny", None, team.find("single"), opening[0], fold=budget)
        with opened as models, connected(models) as client:
            return client.chat.completions.create(messages=messages, **told).usage.prompt_tokens

    whole = ask(None, seen)
    assert ask(whole, seen) == whole
    assert ask(whole - 1, seen) < whole
    with pytest.raises(openai.BadRequestError, match=r"with all that may be folded .*raise it \(--fold\)") as caught:
        ask(20, seen)
    assert caught.value.code == "context_length_exceeded"


def test_the_verb_serves_until_it_is_told_to_stop(tmp_path, capfd):
    key = tmp_path / "key"
    key.write_text("sk-of-the-file\n")
    with bind("127.0.0.1", 0) as free:
        port = free.getsockname()[1]
    heard = []

    def client():
        address = f"http://127.0.0.1:{port}"
        until(lambda: answers(f"{address}/health"), seconds=120)
        try:
            with openai.OpenAI(base_url=f"{address}/v1", api_key="sk-of-the-file", max_retries=0) as one:
                messages = [{"role": "user", "content": "Hi"}]
                heard.append(one.chat.completions.create(model="nano", messages=messages, max_tokens=5))
        finally:
            os.kill(os.getpid(), signal.SIGTERM)

    asking = threading.Thread(target=client)
    asking.start()
    assert cli.main(["serve", "--port", str(port), "--api-key-file", str(key)]) == 0
    asking.join()
    told = capfd.readouterr()
    assert heard[0].usage.completion_tokens == 5
    assert (
        told.out.splitlines()[-1]
        == f"nano, nano:assistant, nano:team (the bare base): with a key at http://127.0.0.1:{port}/v1"
    )
    assert "sk-of-the-file" not in told.out + told.err


def answers(url: str) -> bool:
    try:
        return httpx2.get(url, timeout=60).status_code == 200
    except httpx2.TransportError:
        return False
