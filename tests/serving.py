"""A scripted engine, a running server and a raw HTTP client, for the tests of all parts of the server."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import contextmanager

import openai

from rolecraft import renderers, server, team
from rolecraft.engine import LocalEngine, reply
from rolecraft.errors import ContextFull
from rolecraft.renderers import Renderer
from rolecraft.server import listener, models
from rolecraft.server.recording import Recorder
from rolecraft.types import Completion, Delta, Message, Prompt, Turn, Usage

Script = Callable[[Prompt], str]

TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "read_debt",
            "description": "debt of a person",
            "parameters": {"type": "object", "properties": {"key": {"type": "string"}}, "required": ["key"]},
        },
    }
]
CALL = '{"name":"read_debt","args":{"key":"Plalples"}}'
THINK, ENOUGH = "I need the debt for Plalples. Next: executor.", "I have the result. Next: summarizer."
ANSWER = "The debt of Plalples is 3809."
QUESTION = {"role": "user", "content": "What is the debt of Plalples?"}


def debts(prompt: Prompt) -> str:
    """Return what a tuned team says: one call, or an answer once there is a result."""
    known = prompt.messages[-1].role == "tool" or "result" in prompt.messages[-1].content
    if prompt.speaker == "reasoner":
        return ENOUGH if known else THINK
    return CALL if prompt.speaker == "executor" else ANSWER


class ScriptedEngine:
    """Writes what a script says, token by token, and remembers what it was asked; counts replies under way."""

    def __init__(self, renderer: Renderer, script: Script = debts, *, delay: float = 0.0, context: int = 4096):
        self.renderer, self.script, self.delay, self.context = renderer, script, delay, context
        self.prompts: list[Prompt] = []
        self.running = self.most_running = self.finished = self.cancelled = 0

    async def complete(self, prompt: Prompt) -> tuple[Completion, ...]:
        completions = [delta.completion async for delta in self.stream(prompt) if delta.completion]
        return tuple(completions) * prompt.sampling.n

    async def stream(self, prompt: Prompt) -> AsyncIterator[Delta]:
        self.prompts.append(prompt)
        asked = self.renderer.prompt(prompt.messages, prompt.tools, prompt.speaker)
        if len(asked) >= self.context:
            raise ContextFull(f"the prompt has {len(asked)} tokens and the context holds {self.context}")
        self.running += 1
        self.most_running = max(self.most_running, self.running)
        try:
            async for delta in self._write(prompt, asked):
                yield delta
            self.finished += 1
        except (asyncio.CancelledError, GeneratorExit):
            self.cancelled += 1
            raise
        finally:
            self.running -= 1

    async def _write(self, prompt: Prompt, asked: Sequence[int]) -> AsyncIterator[Delta]:
        ids = self.renderer.reply(Message("assistant", self.script(prompt)))
        cut = ids[: prompt.sampling.max_tokens]
        reader = reply.Reader(self.renderer, prompt.sampling.stop)
        for token in cut:
            await asyncio.sleep(self.delay)
            if text := reader.read(token):
                yield Delta(text)
        message = reply.parse(self.renderer, prompt, cut, cut=len(cut) < len(ids))
        turn = Turn(
            message,
            prompt.speaker,
            tuple(asked),
            cut,
            tuple(-0.25 for _ in cut),
            stop="end" if len(cut) == len(ids) else "length",
            usage=Usage(len(asked), 0, len(cut)),
        )
        yield Delta(reader.rest(), Completion(message, turn))


def tiny_team(engine: LocalEngine) -> tuple[models.ServedModel, ...]:
    """Return what a server offers of an engine: the roles of `mor`, and the team."""
    player = models.LoadedEngine(engine, engine.loaded.renderer)
    return models.served_models("tiny", team.find("mor", instructions=False), player, player)


def team_models(engine: ScriptedEngine) -> tuple[models.ServedModel, ...]:
    """Return `nano`, its roles and its team, all played by `engine`."""
    player = models.LoadedEngine(engine, engine.renderer, "fp_test")
    return models.served_models("nano", team.find("mor", instructions=False), player, player)


def scripted(tokenizer, script: Script = debts, **settings) -> ScriptedEngine:
    """Return a scripted engine whose tokens are `tokenizer`'s."""
    return ScriptedEngine(renderers.find(tokenizer), script, **settings)


@contextmanager
def running(
    served: Sequence[models.ServedModel],
    settings: server.Settings | None = None,
    key: str | None = None,
    recorder: Recorder | None = None,
) -> Iterator[str]:
    """Serve on a free port from a thread; yield the address that clients are given."""
    settings = settings or server.Settings(port=0)
    started: list[tuple[listener.Server, str]] = []
    told = {"ready": lambda *told: started.append(told), "recorder": recorder}
    thread = threading.Thread(target=server.serve, args=(served, settings, key), kwargs=told)
    thread.start()
    try:
        until(lambda: started and started[0][0].started)
        yield started[0][1]
    finally:
        started[0][0].should_exit = True
        thread.join(timeout=30)
        assert not thread.is_alive()


@contextmanager
def connected(
    served: Sequence[models.ServedModel],
    settings: server.Settings | None = None,
    *,
    recorder: Recorder | None = None,
    **options,
) -> Iterator[openai.OpenAI]:
    """Serve, and yield a client that does not try again."""
    options = {"api_key": "none", "max_retries": 0, "timeout": 20, **options}
    with running(served, settings, recorder=recorder) as url, openai.OpenAI(base_url=url, **options) as client:
        yield client


def until(true: Callable[[], object], seconds: float = 20.0) -> None:
    """Wait until `true` is; fail if it does not become so."""
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.01)


class RawClient:
    """A connection on which every byte is ours."""

    def __init__(self, url: str, receive_buffer: int | None = None):
        host, _, port = url.removeprefix("http://").removesuffix("/v1").rpartition(":")
        self.socket = socket.socket()
        if receive_buffer:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.socket.settimeout(20)
        self.socket.connect((host, int(port)))
        self.host = f"{host}:{port}"

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.socket.close()

    def post(self, body: bytes | dict, path: str = "/v1/chat/completions", **headers: str) -> None:
        """Send a request; headers given as names with underscores replace the usual ones."""
        body = body if isinstance(body, bytes) else json.dumps(body).encode()
        usual = {"host": self.host, "content-type": "application/json", "content-length": str(len(body))}
        given = {name.replace("_", "-"): value for name, value in headers.items()}
        lines = [f"{name}: {value}" for name, value in {**usual, **given}.items()]
        self.socket.sendall(f"POST {path} HTTP/1.1\r\n".encode() + "\r\n".join(lines).encode() + b"\r\n\r\n" + body)

    def answer(self) -> tuple[int, dict[str, str], bytes]:
        """Read one response to the end of its declared length."""
        data = b""
        while b"\r\n\r\n" not in data:
            data += self._more()
        head, _, body = data.partition(b"\r\n\r\n")
        first, *lines = head.decode().split("\r\n")
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
        while len(body) < int(headers.get("content-length", 0)):
            body += self._more()
        return int(first.split()[1]), headers, body

    def _more(self) -> bytes:
        data = self.socket.recv(65536)
        assert data, "the server hung up"
        return data
