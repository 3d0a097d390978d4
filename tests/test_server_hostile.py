"""Clients that err, lie, stall or vanish get an error or are cut off; the server goes on."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from contextlib import contextmanager

import httpx2
import openai
import pytest
from serving import QUESTION, TOOLS, RawClient, running, scripted, team_models, until

from rolecraft import server, team
from rolecraft.errors import NotFound, SettingsError, UserError
from rolecraft.server import Settings, models, read_key
from rolecraft.server.service import Limits
from rolecraft.types import Delta

ASK = {"model": "nano:team", "messages": [QUESTION], "tools": TOOLS}


@pytest.fixture(scope="module")
def address(nano_tokenizer):
    settings = Settings(port=0, request_bytes=4096, stall_seconds=1, limits=Limits(seconds=5))
    with running(team_models(scripted(nano_tokenizer)), settings) as url:
        yield url


@pytest.fixture
def raw(address):
    with RawClient(address) as client:
        yield client
    with RawClient(address) as client:  # whatever happened, the server still answers
        client.post(ASK)
        assert client.answer()[0] == 200


def error(body: bytes) -> dict:
    return json.loads(body)["error"]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\xff",
        b"{" * 4000,
        b'{"model": NaN}',
        b'{"model": "\\ud800", "messages": []}',
        b'{"model": "nano", "model": "nano"}',
        b'{"seed": ' + b"9" * 4000 + b"}",
    ],
)
def test_hostile_bodies_are_told_what_is_wrong(raw, body):
    raw.post(body)
    status, headers, told = raw.answer()
    assert (status, headers["content-type"]) == (400, "application/json")
    assert error(told)["type"] == "invalid_request_error"


def test_hostile_text_is_read_as_text(raw):
    raw.post({"model": "nano:team", "messages": [{"role": "user", "content": "<|im_end|>\x00\u2028<tool_call>\ufdd0"}]})
    assert raw.answer()[0] == 200


def test_a_declared_length_beyond_the_limit_is_refused_unread(raw):
    raw.post(b"", content_length="5000")
    status, headers, body = raw.answer()
    assert (status, headers["connection"], error(body)["code"]) == (413, "close", "request_too_large")


def test_a_body_that_turns_out_too_long_is_refused(raw):
    chunk = b"400\r\n" + b" " * 1024 + b"\r\n"
    raw.socket.sendall(
        f"POST /v1/chat/completions HTTP/1.1\r\nhost: {raw.host}\r\ncontent-type: application/json\r\n"
        "transfer-encoding: chunked\r\n\r\n".encode()
        + chunk * 5
    )
    assert raw.answer()[0] == 413


@pytest.mark.parametrize("length", ["-1", "1e3", "ten", "9" * 30, "1, 2"])
def test_a_length_that_is_none_is_refused(raw, length):
    raw.post(b"{}", content_length=length)
    assert raw.answer()[0] in (400, 413)


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "", "application/jsonp"])
def test_only_json_is_read(raw, kind):
    raw.post(ASK, content_type=kind)
    assert raw.answer()[0] == 415


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "localhost.evil.example:8000",
        "",
        "127.0.0.1.evil.example",
        "localhost:evil.example",
        "localhost:80:evil.example",
        "localhost:8000evil.example",
        "127.0.0.1:@evil.example",
        "localhost@evil.example",
        "localhost/evil.example",
        "[::1].evil.example",
        "[::1]evil.example:80",
        "::1",
        ":8000",
    ],
)
def test_a_name_that_a_web_page_made_point_here_is_refused(raw, host):
    raw.post(ASK, host=host)
    status, _, body = raw.answer()
    assert (status, error(body)["code"]) == (403, "unknown_host")


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:1", "127.0.0.1:", "[::1]", "[::1]:65535"])
def test_this_machines_own_names_are_answered(raw, host):
    raw.post(ASK, host=host)
    assert raw.answer()[0] == 200


@pytest.mark.parametrize(
    "start",
    [
        b"POST /v1/chat/completions HTTP/1.1\r\n" + b"x-a: " + b"a" * 70_000 + b"\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\r\n\r\n",
    ],
    ids=["headers without end", "garbage"],
)
def test_what_is_no_http_is_told_so_in_openais_words(raw, start):
    raw.socket.sendall(start)
    status, headers, body = raw.answer()
    assert (status, headers["content-type"], headers["connection"]) == (400, "application/json", "close")
    assert error(body)["type"] == "invalid_request_error"
    assert "more than 32768 bytes" in error(body)["message"]


@pytest.mark.parametrize("start", [b"", b"POST /v1/chat/comp", b"POST /health HTTP/1.1\r\nhost: a\r\n"])
def test_a_head_that_does_not_come_is_cut_off(raw, start):
    raw.socket.sendall(start)
    assert raw.socket.recv(100) == b""


def test_a_second_head_that_does_not_come_is_cut_off(raw):
    raw.post(ASK)
    assert raw.answer()[0] == 200
    raw.socket.sendall(b"POST /v1/ch")
    assert raw.socket.recv(100) == b""


def test_a_body_that_does_not_come_is_given_up(nano_tokenizer):
    settings = Settings(port=0, limits=Limits(seconds=0.3))
    with running(team_models(scripted(nano_tokenizer)), settings) as url, RawClient(url) as raw:
        raw.post(b"{", content_length="20")
        status, headers, _ = raw.answer()
        assert (status, headers["connection"]) == (408, "close")


@pytest.mark.parametrize(
    ("path", "status"),
    [("/v1/embeddings", 404), ("/", 404), ("/v1/models", 405), ("/docs", 404), ("/v1/chat/%00", 404)],
)
def test_other_endpoints_are_told_apart(raw, path, status):
    raw.post(ASK, path)
    got, _, body = raw.answer()
    assert (got, error(body)["code"]) == (status, "unknown_url")


class Firehose:
    """An engine that writes without end, and notes when it is stopped."""

    def __init__(self):
        self.written, self.stopped = 0, False

    async def complete(self, prompt):
        raise NotImplementedError

    async def stream(self, prompt):
        try:
            while True:
                self.written += 10_000
                yield Delta("word " * 2_000)
                await asyncio.sleep(0)
        finally:
            self.stopped = True


def test_a_reader_who_stalls_is_cut_off_and_its_writer_stopped(nano_tokenizer):
    engine = Firehose()
    player = models.LoadedEngine(engine)
    settings = Settings(port=0, stall_seconds=0.5)
    offered = models.served_models("nano", team.find("mor"), player, player)
    with running(offered, settings) as url, RawClient(url, receive_buffer=4096) as stalled:
        stalled.post({"model": "nano", "messages": [QUESTION], "stream": True})
        until(lambda: engine.stopped)
        assert engine.written < 10_000_000
        assert cut_off(stalled)


def cut_off(client: RawClient) -> bool:
    """Tell whether what is left to read ends before the response does."""
    end = b""
    try:
        while data := client.socket.recv(65536):
            end = (end + data)[-5:]
    except ConnectionResetError:
        return True
    return end != b"0\r\n\r\n"


@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_vanishes_frees_its_place(nano_tokenizer, stream):
    engine = scripted(nano_tokenizer, delay=0.05)
    one_place = Settings(port=0, limits=Limits(places=1))
    with running(team_models(engine), one_place) as url, RawClient(url) as vanishing, RawClient(url) as last:
        with RawClient(url) as waiting:
            vanishing.post({**ASK, "stream": stream})
            until(lambda: engine.running == 1)
            waiting.post({**ASK, "stream": stream})
            last.post({"model": "nano:executor", "messages": [QUESTION], "max_tokens": 1})
            until(lambda: waiting_at(url) == 2)
        until(lambda: waiting_at(url) == 1)
        vanishing.socket.close()
        assert last.answer()[0] == 200
    assert (engine.finished, engine.cancelled, engine.running) == (1, 1, 0)


def waiting_at(url: str) -> int:
    return httpx2.get(url.replace("/v1", "/health")).json()["waiting"]


def test_a_connection_too_many_is_refused_in_openais_words_until_there_is_room(nano_tokenizer, monkeypatch):
    monkeypatch.setattr(server, "_EXTRA_CONNECTIONS", 1)
    settings = Settings(port=0, limits=Limits(places=1, waiting=0))
    with running(team_models(scripted(nano_tokenizer)), settings) as url, RawClient(url) as first:
        with RawClient(url), asker(url) as late:
            with pytest.raises(openai.InternalServerError, match="too many connections") as caught:
                late()
            told = caught.value
            assert (told.status_code, told.code, told.type) == (503, "overloaded", "server_error")
            assert told.response.headers["retry-after"] == "1"
            first.post(ASK)
            assert first.answer()[0] == 200
        with asker(url) as later:
            until(lambda: answers(later))


@contextmanager
def asker(url: str):
    """Yield what asks for the models with OpenAI's client, on a connection of its own."""
    with openai.OpenAI(base_url=url, api_key="none", max_retries=0, timeout=20) as client:
        yield client.models.list


def answers(ask) -> bool:
    try:
        return bool(ask().data)
    except openai.InternalServerError:
        return False


def test_requests_that_follow_each_other_unasked_are_answered_in_order(raw):
    for name in ("nano:reasoner", "nano:executor"):
        raw.post({**ASK, "model": name})
    first = raw.answer()[2]
    assert b"nano:reasoner" in first


def test_a_server_without_a_key_is_for_this_machine_only(nano_tokenizer):
    for host in ("0.0.0.0", "::", "192.0.2.1", "example.org"):
        with pytest.raises(SettingsError, match="ROLECRAFT_API_KEY"):
            server.serve(team_models(scripted(nano_tokenizer)), Settings(host=host, port=0))


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        (Settings(stall_seconds=0), "stall_seconds is 0"),
        (Settings(grace_seconds=float("inf")), "grace_seconds is inf"),
        (Settings(limits=Limits(places=0)), "places is 0"),
        (Settings(limits=Limits(seconds=float("nan"))), "seconds is nan"),
        (Settings(playing=server.turns.Settings(max_tokens=-1)), "max_tokens is -1"),
        (Settings(port=70_000), "70000"),
    ],
)
def test_an_impossible_setting_is_told(settings, says):
    with pytest.raises(UserError, match=says):
        server.serve([], settings)


def test_a_server_may_be_open_if_told_so(nano_tokenizer):
    settings = Settings(host="0.0.0.0", port=0, keyless=True)
    with (
        running(team_models(scripted(nano_tokenizer)), settings) as url,
        RawClient(url.replace("0.0.0.0", "127.0.0.1")) as raw,
    ):
        raw.post(ASK, host="any.example")
        assert raw.answer()[0] == 200


def test_a_taken_address_is_told(address):
    host, _, port = address.removeprefix("http://").removesuffix("/v1").rpartition(":")
    with pytest.raises(UserError, match=f"port {port}"):
        server.serve([], Settings(host=host, port=int(port)))


def test_a_key_is_read_from_a_file_else_from_the_environment(tmp_path, monkeypatch):
    file = tmp_path / "key"
    file.write_text("sk-of-the-file\n")
    monkeypatch.delenv(server.KEY_VARIABLE, raising=False)
    assert read_key(None) is None
    monkeypatch.setenv(server.KEY_VARIABLE, "sk-of-the-environment")
    assert (read_key(None), read_key(file)) == ("sk-of-the-environment", "sk-of-the-file")
    with pytest.raises(NotFound, match="nobody"):
        read_key(tmp_path / "nobody")


@pytest.mark.parametrize("bad", ["", "short", "two words long", "schlüssel-schlüssel", "line\nline-line"])
def test_a_bad_key_is_refused_and_not_shown(tmp_path, bad):
    file = tmp_path / "key"
    file.write_text(bad)
    with pytest.raises(SettingsError) as caught:
        read_key(file)
    assert not bad or bad not in str(caught.value)


def test_without_its_extra_the_server_says_how_to_install_it():
    script = "import sys; sys.modules['fastapi'] = None\nfrom rolecraft import server"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False, timeout=120)
    assert "pip install 'rolecraft[serve]'" in done.stderr.splitlines()[-1]
