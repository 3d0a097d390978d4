"""An OpenAI-compatible HTTP server for a base, single roles and a whole team.

A request never ends the server: what asks wrongly, does not fit or breaks is answered with OpenAI's error body. The
client runs the tools. Not covered: TLS, several keys, running the tools here, and OpenAI's other endpoints.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import logging
import math
import os
import secrets
import socket
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from rolecraft.errors import MissingExtra, NotFound, SettingsError

try:
    from fastapi import Depends, FastAPI, Request, Response
    from starlette.exceptions import HTTPException
    from starlette.requests import ClientDisconnect
    from uvicorn import Server as _  # noqa: F401
except ModuleNotFoundError as error:
    raise MissingExtra(error.name or "fastapi", "serve") from error

from rolecraft import wire
from rolecraft.server import chunks, listener, protocol, rounds
from rolecraft.server.chunks import Answer
from rolecraft.server.outbox import Event, EventStream, Outbox, end, gone
from rolecraft.server.protocol import Asked, ChatRequest, Refused
from rolecraft.server.rounds import Played
from rolecraft.server.served import Served
from rolecraft.server.service import Limits, Service
from rolecraft.types import Json

KEY_VARIABLE = "ROLECRAFT_API_KEY"

_WAITING_CHARACTERS = 64 * 1024  # of a stream, before its writer waits for its reader
_LAST_WORDS = 1.0  # seconds to tell a stream why it ends, once the grace is over
_BESIDES = 256  # connections beside those that requests may hold: idle, asking for /health, being refused
_LEAST = {"request_bytes": 1, "stall_seconds": 0.1, "grace_seconds": 0}
_LEAST_LIMITS = {"places": 1, "waiting": 0, "seconds": 0.1, "messages": 1, "remembered": 0}
_LEAST_PLAYING = {"temperature": 0, "max_tokens": 1, "max_thought": 1, "max_turns": 1, "max_calls": 1}
_LOCAL_NAMES = frozenset(("localhost", "127.0.0.1", "[::1]"))

_T = TypeVar("_T")
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Settings:
    """Where the server listens, and what one connection may take.

    `request_bytes` bounds a body. Whoever takes nothing of a stream for `stall_seconds`, or needs longer for the head
    of a request, is cut off. After a signal requests may go on for `grace_seconds`. `keyless`: listen beyond this
    machine though no key is asked for.
    """

    host: str = "127.0.0.1"
    port: int = 8000
    request_bytes: int = 1 << 20
    stall_seconds: float = 30.0
    grace_seconds: float = 20.0
    keyless: bool = False
    limits: Limits = field(default_factory=Limits)
    playing: rounds.Settings = field(default_factory=rounds.Settings)


def serve(
    models: Sequence[Served],
    settings: Settings = Settings(),
    key: str | None = None,
    *,
    bound: socket.socket | None = None,
    ready: Callable[[listener.Listener, str], None] = lambda server, url: None,
) -> None:
    """Serve `models` until a signal stops the server; `ready` is given it and its address before it begins.

    `bound` is a socket from `bind`, for who opens it before the models are loaded; raises what that raises.
    """
    service = Service(models, settings.playing, settings.limits)
    with bound or bind(settings, key) as listening:
        host, port = listening.getsockname()[:2]
        server = listener.listener(
            app(service, settings, key),
            _told(Refused(503, "too many connections are open; try again later", code="overloaded", wait=1)),
            grace=settings.grace_seconds,
            patience=settings.stall_seconds,
            connections=settings.limits.places + settings.limits.waiting + _BESIDES,
            on_stop=lambda: service.stop(settings.grace_seconds),
        )
        ready(server, f"http://{f'[{host}]' if ':' in host else host}:{port}/v1")
        listener.run(server, listening)


def bind(settings: Settings, key: str | None) -> socket.socket:
    """Return the socket that the settings ask for; who connects waits until the server runs.

    Raises SettingsError for an impossible setting, and for a host beyond this machine without a key; UserError for an
    address that is taken.
    """
    _check(settings)
    if key is None and not settings.keyless and not listener.is_local(settings.host):
        raise SettingsError(
            f"host {settings.host!r} can be reached from other machines and no API key is set; set {KEY_VARIABLE} or "
            "--api-key-file, or say --keyless if whoever reaches it may use it"
        )
    return listener.bind(settings.host, settings.port)


def _check(settings: Settings) -> None:
    if not 0 <= settings.port < 1 << 16:
        raise SettingsError(f"the server's port is {settings.port!r}; it must be below 65536, and 0 takes a free one")
    limits, playing = settings.limits, settings.playing
    parts = ((settings, _LEAST), (limits, _LEAST_LIMITS), (playing, _LEAST_PLAYING))
    for part, bounds in parts:
        for name, least in bounds.items():
            value = getattr(part, name)
            if not least <= value < math.inf:
                raise SettingsError(f"the server's {name} is {value!r}; it must be at least {least}")


def read_key(file: Path | None) -> str | None:
    """Return the API key in `file`, else in the environment, else None; raises without ever showing the key."""
    source = KEY_VARIABLE if file is None else str(file)
    if file is None:
        key = os.environ.get(KEY_VARIABLE)
    elif file.is_file():
        key = file.read_bytes().decode("latin-1").strip()
    else:
        raise NotFound(f"no file {str(file)!r}; write the API key into it, and let nobody else read it")
    if key is not None and (not key.isascii() or not key.isprintable() or " " in key or len(key) < 8):
        raise SettingsError(f"the API key in {source!r} must be at least 8 ASCII characters without spaces")
    return key


def app(service: Service, settings: Settings = Settings(), key: str | None = None) -> FastAPI:
    """Return the ASGI application; without a `key` a server bound to this machine answers to its local names only."""
    local = key is None and listener.is_local(settings.host)
    checks = [Depends(_names(settings.host))] if local else []
    locked = [Depends(_lock(key))] if key is not None else []
    made = FastAPI(
        title="Rolecraft",
        docs_url=None,
        redoc_url=None,
        openapi_url="/openapi.json",
        dependencies=checks,
        exception_handlers={
            Refused: _refused,
            HTTPException: _no_endpoint,
            ClientDisconnect: _hung_up,
            Exception: _broken,
        },
    )
    handlers = _Handlers(service, settings)
    made.get("/health")(handlers.health)
    made.get("/v1/models", dependencies=locked)(handlers.list_models)
    made.get("/v1/models/{model:path}", dependencies=locked)(handlers.show_model)
    schema = {"application/json": {"schema": ChatRequest.model_json_schema()}}
    made.post("/v1/chat/completions", dependencies=locked, openapi_extra={"requestBody": {"content": schema}})(
        handlers.chat
    )
    return made


class _Handlers:
    """What each endpoint does."""

    def __init__(self, service: Service, settings: Settings) -> None:
        self._service, self._settings = service, settings
        self._began = int(time.time())

    async def health(self) -> Response:
        """Tell that the server answers, and how busy it is."""
        writing, waiting = self._service.admission.busy
        return _json({"status": "ok", "writing": writing, "waiting": waiting})

    async def list_models(self) -> Response:
        """List the base, its roles and the team."""
        return _json({"object": "list", "data": [self._model(served) for served in self._service.models.values()]})

    async def show_model(self, model: str) -> Response:
        """Tell of one model."""
        return _json(self._model(self._service.served(model)))

    async def chat(self, request: Request) -> Response:
        """Answer a conversation, at once or as a stream."""
        try:
            return await self._chat(request)
        except (Refused, ClientDisconnect):
            raise
        except Exception as error:
            _log.exception("a request broke off")
            raise _ours() from error

    async def _chat(self, request: Request) -> Response:
        asked = protocol.read(await self._body(request), self._service.limits.messages)
        served = self._service.served(asked.model)
        answer = Answer(
            f"chatcmpl-{secrets.token_hex(12)}", int(time.time()), served, asked.logprobs, asked.include_usage
        )
        if asked.stream:
            return await self._stream(request, asked, answer)
        choices = await _while_there(request, self._service.answer(asked))
        return _json(answer.whole(choices))

    async def _stream(self, request: Request, asked: Asked, answer: Answer) -> Response:
        """Return the stream of an answer once it has begun; what fails before that is an error like any other."""
        outbox = Outbox(_WAITING_CHARACTERS)
        writing = asyncio.ensure_future(self._service.answer(asked, outbox.put))
        writing.add_done_callback(lambda _: outbox.close())
        try:
            first = await _while_there(request, outbox.take())
            if first is None:
                await writing
        except BaseException:
            await end(writing)
            raise
        return EventStream(
            _lines(answer, asked.n, first, outbox, writing),
            stall=self._settings.stall_seconds,
            clock=self._service.clock(self._service.limits.seconds + self._settings.stall_seconds, _LAST_WORDS),
            abort=getattr(request.state, "abort", lambda: None),
            close=lambda: end(writing),
        )

    async def _body(self, request: Request) -> bytes:
        """Return the body; raises Refused for one that is too long, too slow, or not declared as JSON."""
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind != "application/json":  # a web page can send other types to this machine without being asked
            raise Refused(415, "send the request with 'Content-Type: application/json'", code="unsupported_media_type")
        most = self._settings.request_bytes
        too_long = Refused(413, f"the body has more than {most} bytes; shorten it", code="request_too_large")
        declared = request.headers.get("content-length", "0")
        if not declared.isdecimal() or int(declared[:20]) > most:
            raise too_long
        body = bytearray()
        try:
            async with asyncio.timeout(self._service.limits.seconds):
                async for piece in request.stream():
                    body += piece
                    if len(body) > most:
                        raise too_long
        except TimeoutError as error:
            raise Refused(408, "the request's body did not come in time", code="timeout") from error
        return bytes(body)

    def _model(self, served: Served) -> dict[str, Json]:
        return {"id": served.id, "object": "model", "created": self._began, "owned_by": "rolecraft"}


async def _lines(
    answer: Answer, choices: int, event: Event | None, outbox: Outbox, writing: asyncio.Future[list[Played]]
) -> AsyncGenerator[bytes, None]:
    """Yield the server-sent events of an answer, from its first `event` on."""
    for choice in range(choices):
        yield chunks.event(answer.opening(choice))
    while event is not None:
        for chunk in answer.heard(event):
            yield chunks.event(chunk)
        event = await outbox.take()
    try:
        played = await writing
    except Refused as refused:
        yield chunks.event(refused.to_json())
        return
    except Exception:  # noqa: BLE001 - the response has begun: no other place is left to tell it
        _log.exception("an answer broke off")
        yield chunks.event(_ours().to_json())
        return
    for chunk in answer.closing(played):
        yield chunks.event(chunk)
    yield chunks.DONE


async def _while_there(request: Request, work: Awaitable[_T]) -> _T:
    """Return what `work` comes to; if the client hangs up first, it is cancelled and ClientDisconnect raised."""
    working, leaving = asyncio.ensure_future(work), asyncio.ensure_future(gone(request.receive))
    try:
        await asyncio.wait((working, leaving), return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise ClientDisconnect
        return working.result()
    finally:
        await end(working, leaving)


def _lock(key: str) -> Callable[[Request], Awaitable[None]]:
    expected = hashlib.sha256(key.encode()).digest()

    async def check(request: Request) -> None:
        """Refuse a request without the key; how long that takes tells nothing of it."""
        scheme, _, given = request.headers.get("authorization", "").partition(" ")
        right = hmac.compare_digest(hashlib.sha256(given.strip().encode()).digest(), expected)
        if not right or scheme.lower() != "bearer":
            raise Refused(
                401, "the API key is missing or wrong; send 'Authorization: Bearer <key>'", code="invalid_api_key"
            )

    return check


def _names(host: str) -> Callable[[Request], Awaitable[None]]:
    allowed = _LOCAL_NAMES | {host, f"[{host}]"}

    async def check(request: Request) -> None:
        """Refuse a name that a web page has made to point here (DNS rebinding)."""
        name = request.headers.get("host", "").lower()
        if name.rpartition(":")[0] not in allowed and name not in allowed:
            reason = (
                f"this server has no API key and answers to {', '.join(sorted(allowed))} only, not to {name[:100]!r}"
            )
            raise Refused(403, reason, code="unknown_host")

    return check


def _ours() -> Refused:
    return Refused(500, "something broke here, and the server's log has it; try again", code="internal_error")


async def _refused(_: Request, refused: Exception) -> Response:
    assert isinstance(refused, Refused)
    return _told(refused)


def _told(refused: Refused) -> Response:
    headers = {"retry-after": str(refused.wait)} if refused.wait is not None else {}
    if refused.status in (408, 413, 503):  # the rest of the body is not waited for, nor what comes after it
        headers["connection"] = "close"
    return _json(refused.to_json(), refused.status, headers)


async def _no_endpoint(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    what = f"{request.method} {request.url.path[:100]!r}"
    there = "there are /v1/chat/completions, /v1/models and /health"
    return await _refused(request, Refused(error.status_code, f"no endpoint {what}; {there}", code="unknown_url"))


async def _hung_up(_: Request, __: Exception) -> Response:
    return Response(status_code=499)  # nobody reads it


async def _broken(request: Request, _: Exception) -> Response:
    return await _refused(request, _ours())


def _json(data: Json, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    return Response(wire.dumps(data).encode(), status, headers, media_type="application/json")
