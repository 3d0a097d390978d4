"""A real HTTP server on this machine that answers chat requests as a script says, badly if it says so."""

from __future__ import annotations

import itertools
import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from rolecraft.remote import RemoteEngine, Settings


@dataclass(frozen=True)
class Answer:
    """What is sent: `pieces` one after the other, each after `delay` seconds; `cut` hangs up then; endless repeats."""

    body: Any = b""
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    delay: float = 0.0
    cut: bool = False
    endless: bool = False


Script = Callable[[dict], Answer]


def said(content: str | None = None, *calls: tuple[str, Any], finish: str | None = None, **more: Any) -> Answer:
    """Return a whole chat completion, whose prompt the server counts; arguments that are text are sent as they are."""
    listed = [
        {
            "id": f"c{number}",
            "type": "function",
            "function": {"name": name, "arguments": given if isinstance(given, str) else json.dumps(given)},
        }
        for number, (name, given) in enumerate(calls)
    ]
    message = {"role": "assistant", "content": content, **({"tool_calls": listed} if calls else {}), **more}
    choice = {"index": 0, "message": message, "finish_reason": finish or ("tool_calls" if calls else "stop")}
    usage = {"completion_tokens": 5, "prompt_tokens_details": {"cached_tokens": 3}}
    return Answer({"id": "x", "object": "chat.completion", "choices": [choice], "usage": usage})


def streamed(*deltas: dict, finish: str | None = "stop", done: bool = True) -> Answer:
    """Return a stream of chunks."""
    chunks = [{"choices": [{"index": 0, "delta": delta}]} for delta in deltas]
    chunks += [{"choices": [{"index": 0, "delta": {}, "finish_reason": finish}]}] if finish else []
    lines = [f"data: {json.dumps(chunk)}\r\n\r\n" for chunk in chunks] + (["data: [DONE]\n\n"] if done else [])
    return Answer((": hello\n\n" + "".join(lines)).encode(), headers={"content-type": "text/event-stream"})


def error(status: int, message: str, **headers: str) -> Answer:
    """Return an error as OpenAI writes it."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Answer({"error": {"message": message, "type": "some_error", "code": None}}, status, named)


@dataclass
class Endpoint:
    """The running server: its address, and every request with its headers and path, in the order they came."""

    url: str
    requests: list[dict] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)
    most_at_once: int = 0


@contextmanager
def endpoint(script: Script | list[Answer], models: dict[str, str] | None = None) -> Iterator[Endpoint]:
    """Serve on a free port; a list of answers is given in order, its last one ever after."""
    if isinstance(script, list):
        listed = iter(itertools.chain(script, itertools.repeat(script[-1])))
        script = lambda _: next(listed)  # noqa: E731
    lock, ending = threading.Lock(), threading.Event()
    under_way = 0

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            if models is None:
                return self.send(error(404, "no such page"))
            data = [{"id": name, "owned_by": owner} for name, owner in models.items()]
            return self.send(Answer({"object": "list", "data": data}))

        def do_POST(self) -> None:
            nonlocal under_way
            request = json.loads(self.rfile.read(int(self.headers["content-length"])))
            with lock:
                found.requests.append(request)
                found.headers.append({name.lower(): value for name, value in self.headers.items()})
                found.paths.append(self.path)
                under_way += 1
                found.most_at_once = max(found.most_at_once, under_way)
                answer = script(request)
            if isinstance(answer.body, dict) and "usage" in answer.body:
                counted = {"prompt_tokens": len(json.dumps(request)), **answer.body["usage"]}
                answer = replace(answer, body={**answer.body, "usage": counted})
            try:
                self.send(answer)
            finally:
                with lock:
                    under_way -= 1

        def send(self, answer: Answer) -> None:
            body = answer.body if isinstance(answer.body, bytes) else json.dumps(answer.body).encode()
            with suppress(OSError):
                ending.wait(answer.delay)
                self.send_response(answer.status)
                length = 1 << 40 if answer.endless else len(body) + answer.cut
                for name, value in {"content-length": str(length), **answer.headers}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(body)
                while answer.endless and not ending.is_set():
                    self.wfile.write(body)
                self.close_connection = self.close_connection or answer.cut

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    found = Endpoint(f"http://127.0.0.1:{server.server_port}/v1")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield found
    finally:
        ending.set()
        server.shutdown()
        thread.join()
        server.server_close()


@contextmanager
def asked(script: Script | list[Answer], **settings: Any) -> Iterator[tuple[RemoteEngine, Endpoint]]:
    """Open an engine on a served script; failures are tried again at once."""
    settings = {"models": {"": "m"}, "pause": 0.001, **settings}
    key = settings.pop("key", None)
    with endpoint(script) as served, RemoteEngine(Settings(served.url, **settings), key) as engine:
        yield engine, served


def within(seconds: float) -> Callable[[], None]:
    """Return what fails if it is called later than `seconds` from now: a generous bound, where it is the claim."""
    end = time.monotonic() + seconds

    def check() -> None:
        assert time.monotonic() < end

    return check
