"""What a connection takes for a request, byte for byte, and what it does with clients that close half of it."""

from __future__ import annotations

import json
import socket

import pytest
from serving import QUESTION, RawClient, running, scripted, team_models

from rolecraft.server import Settings
from rolecraft.server.connection import HEAD_BYTES
from rolecraft.server.service import Limits

ASK = {"model": "nano:executor", "messages": [QUESTION], "max_tokens": 4}
BODY = json.dumps(ASK).encode()
CHUNKED = f"{len(BODY):x}\r\n".encode() + BODY + b"\r\n0\r\n\r\n"
LENGTH = f"content-length: {len(BODY)}"


@pytest.fixture(scope="module")
def address(nano_tokenizer):
    settings = Settings(port=0, request_bytes=4096, stall_seconds=5, limits=Limits(seconds=5))
    with running(team_models(scripted(nano_tokenizer)), settings) as url:
        yield url


@pytest.fixture
def raw(address):
    with RawClient(address) as client:
        yield client
    with RawClient(address) as client:  # whatever happened, the server still answers
        client.post(ASK)
        assert client.answer()[0] == 200


def send(raw: RawClient, body: bytes, *headers: str, start: str = "POST /v1/chat/completions HTTP/1.1") -> None:
    lines = [start, f"host: {raw.host}", "content-type: application/json", *headers]
    raw.socket.sendall("\r\n".join(lines).encode() + b"\r\n\r\n" + body)


def closed(raw: RawClient) -> bool:
    try:
        return raw.socket.recv(1) == b""
    except ConnectionResetError:
        return True


@pytest.mark.parametrize(
    ("headers", "body"),
    [
        ([LENGTH, "transfer-encoding: chunked"], CHUNKED),
        (["transfer-encoding: chunked", LENGTH], CHUNKED),
        (["transfer-encoding: chunked", "content-length: 5"], CHUNKED),
        (["content-length: 5", LENGTH], BODY),
        ([f"{LENGTH}, 5"], BODY),
        (["content-length: +5"], BODY),
        (["transfer-encoding: chunked", "transfer-encoding: chunked"], CHUNKED),
        (["transfer-encoding: gzip, chunked"], CHUNKED),
        (["transfer-encoding : chunked"], CHUNKED),
        (["transfer-encoding: identity"], BODY),
        (["transfer-encoding: chunked"], b"5 0\r\nabcde\r\n0\r\n\r\n"),
        (["transfer-encoding: chunked"], b"-5\r\nabcde\r\n0\r\n\r\n"),
        (["transfer-encoding: chunked"], b"5\r\nabcdefgh\r\n0\r\n\r\n"),
        (["host: another.example", LENGTH], BODY),
    ],
)
def test_a_request_that_a_proxy_could_read_otherwise_is_refused_and_ends_the_connection(raw, headers, body):
    send(raw, body, *headers)
    status, told, content = raw.answer()
    assert (status, told["connection"]) == (400, "close")
    assert json.loads(content)["error"]["code"] == "invalid_http"
    assert closed(raw)


def test_a_chunked_body_of_an_old_client_is_refused(raw):
    send(raw, CHUNKED, "transfer-encoding: chunked", start="POST /v1/chat/completions HTTP/1.0")
    assert raw.answer()[0] == 400


@pytest.mark.parametrize(
    ("headers", "body"),
    [
        ([LENGTH], BODY),
        ([LENGTH, LENGTH], BODY),
        (["transfer-encoding: Chunked"], CHUNKED),
        (["transfer-encoding: chunked"], CHUNKED.replace(b"\r\n", b";name=value\r\n", 1)),
        (["x-note: one", " and its fold", LENGTH], BODY),
    ],
)
def test_a_request_that_can_be_read_in_one_way_only_is_answered(raw, headers, body):
    send(raw, body, *headers)
    assert raw.answer()[0] == 200


@pytest.mark.parametrize("pieces", [1, 2, 50])
@pytest.mark.parametrize("extra", [0, 1, 200_000])
def test_a_head_beyond_the_documented_limit_is_refused_however_it_arrives(raw, pieces, extra):
    start = f"GET /health HTTP/1.1\r\nhost: {raw.host}\r\nx-a: ".encode()
    head = start + b"a" * (HEAD_BYTES + extra - len(start) - 4) + b"\r\n\r\n"
    size = -(-len(head) // pieces)
    try:
        for begin in range(0, len(head), size):
            raw.socket.sendall(head[begin : begin + size])
        assert raw.answer()[0] == (400 if extra else 200)
    except (BrokenPipeError, ConnectionResetError):  # refused before all of it was sent
        assert extra > 1


def test_a_long_head_behind_another_request_is_refused(raw):
    start = f"GET /health HTTP/1.1\r\nhost: {raw.host}\r\n".encode()
    raw.socket.sendall(start + b"\r\n" + start + b"x-a: " + b"a" * HEAD_BYTES + b"\r\n\r\n")
    assert raw.answer()[0] == 200
    assert closed(raw) or raw.answer()[0] == 400


@pytest.mark.parametrize("options", [{}, {"stream": True}])
def test_a_client_that_has_only_finished_sending_is_answered(nano_tokenizer, options):
    engine = scripted(nano_tokenizer, delay=0.05)
    with running(team_models(engine)) as url, RawClient(url) as raw:
        raw.post({**ASK, "model": "nano:team", "max_tokens": 40, **options})
        raw.socket.shutdown(socket.SHUT_WR)
        data = b""
        while piece := raw.socket.recv(65536):
            data += piece
    *interim, final = [line for line in data.split(b"\r\n") if line.startswith(b"HTTP/1.1")]
    assert final == b"HTTP/1.1 200 OK"
    assert set(interim) <= {b"HTTP/1.1 100 Continue"}
    assert b"finish_reason" in data
    assert engine.cancelled == 0


def test_two_requests_of_a_client_that_has_finished_sending_are_both_answered(raw):
    for name in ("nano:executor", "nano:reasoner"):
        raw.post({**ASK, "model": name})
    raw.socket.shutdown(socket.SHUT_WR)
    data = b""
    while piece := raw.socket.recv(65536):
        data += piece
    assert data.count(b"HTTP/1.1 200 OK") == 2


def test_a_client_that_finishes_sending_halfway_is_let_go(raw):
    raw.post(BODY[:10], content_length=str(len(BODY)))
    raw.socket.shutdown(socket.SHUT_WR)
    assert closed(raw)


def test_a_client_that_waits_to_be_told_to_continue_is_told(raw):
    send(raw, b"", LENGTH, "expect: 100-continue")
    assert raw.answer()[0] == 100
    raw.socket.sendall(BODY)
    assert raw.answer()[0] == 200


def test_a_client_that_waits_to_be_told_to_continue_is_not_told_to_send_too_much(raw):
    send(raw, b"", "content-length: 5000", "expect: 100-continue")
    assert raw.answer()[0] == 413


@pytest.mark.parametrize("target", ["http://evil.example/health", "*", "evil.example:80"])
def test_a_target_that_is_no_path_is_no_endpoint(raw, target):
    send(raw, b"", start=f"GET {target} HTTP/1.1")
    assert raw.answer()[0] in (400, 404)


def test_a_bad_chunk_after_the_answer_closes_the_connection(nano_tokenizer, caplog):
    with (
        running(team_models(scripted(nano_tokenizer)), Settings(port=0), "sk-secret-key") as url,
        RawClient(url) as raw,
    ):
        send(raw, b"5\r\nabcde\r\n", "transfer-encoding: chunked")
        assert raw.answer()[0] == 401
        raw.socket.sendall(b"nonsense\r\n")
        assert closed(raw)
    assert "Traceback" not in caplog.text
    assert not [record for record in caplog.records if record.levelname == "ERROR"]
