"""A signal stops the server in order; what an address may reach is known."""

from __future__ import annotations

import signal
import statistics
import time

import httpx2
import openai
import pytest
from serving import RawClient, running, scripted, team_models, until
from ticker import ticking

from rolecraft.server import Settings
from rolecraft.server.access import is_local
from rolecraft.server.listener import bind

WORDS = "one two three four"


def stream(url: str, text: str = WORDS):
    client = openai.OpenAI(base_url=url, api_key="none", max_retries=0, timeout=30)
    messages = [{"role": "user", "content": text}]
    return client, client.chat.completions.create(model="tick", messages=messages, stream=True)


def refuses(url: str) -> bool:
    try:
        httpx2.get(url.replace("/v1", "/health"), timeout=5)
    except httpx2.TransportError:
        return True
    return False


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_lets_answers_finish_and_takes_no_new_ones(number):
    with ticking(times=10, delay=0.04) as (process, url):
        client, chunks = stream(url)
        with client:
            text = [next(chunks).choices[0].delta.content, next(chunks).choices[0].delta.content]
            process.send_signal(number)
            until(lambda: refuses(url), seconds=5)
            text += [chunk.choices[0].delta.content or "" for chunk in chunks]
        assert "".join(text).split() == WORDS.split() * 10
        assert process.wait(timeout=60) == 0
        assert process.stdout.read() == "stopped\n"
        assert process.stderr.read() == ""


def test_answers_that_outlast_the_grace_are_told_so():
    with ticking(times=1000, delay=0.05, grace=0.5) as (process, url):
        client, chunks = stream(url)
        with client:
            next(chunks)
            process.send_signal(signal.SIGTERM)
            began = time.monotonic()
            with pytest.raises(openai.APIError, match="the server stopped before"):
                list(chunks)
        assert process.wait(timeout=60) == 0
        assert time.monotonic() - began < 10
        assert process.stderr.read() == ""


def test_a_reader_who_stalls_does_not_outlast_the_grace():
    with ticking(times=20_000, grace=0.5) as (process, url), RawClient(url, receive_buffer=4096) as stalled:
        messages = [{"role": "user", "content": "word " * 10}]
        stalled.post({"model": "tick", "messages": messages, "stream": True, "max_tokens": 1})
        stalled._more()
        time.sleep(1)
        process.send_signal(signal.SIGTERM)
        began = time.monotonic()
        assert process.wait(timeout=60) == 0
        assert time.monotonic() - began < 20
        assert process.stderr.read() == ""


def test_a_server_with_nothing_to_do_stops_at_once():
    with ticking() as (process, url), httpx2.Client() as kept:
        assert kept.get(url.replace("/v1", "/health")).status_code == 200
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=20) == 0


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "127.8.9.1", "::1"])
def test_these_are_local(host):
    assert is_local(host)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.0.2", "example.org", "localhost.example.org", ""])
def test_these_are_not_local(host):
    assert not is_local(host)


def test_a_free_port_is_found():
    with bind("127.0.0.1", 0) as first, bind("127.0.0.1", 0) as second:
        assert first.getsockname()[1] != second.getsockname()[1]


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_an_answer_on_a_kept_connection_does_not_wait_for_an_acknowledgement(nano_tokenizer, host):
    times = []
    with running(team_models(scripted(nano_tokenizer)), Settings(host=host, port=0)) as url, httpx2.Client() as client:
        for _ in range(31):
            began = time.perf_counter()
            assert client.get(f"{url}/models").status_code == 200
            times.append(time.perf_counter() - began)
    assert statistics.median(times) < 0.03
