"""The endpoints: HTTP requests to answers and errors, plain or as a stream."""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import TypeVar

from fastapi import Depends, FastAPI, Request, Response
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

import rolecraft.server.access as access
import rolecraft.server.completions as completions
import rolecraft.server.recording as recording
import rolecraft.server.requests as requests
import rolecraft.server.responses as responses
import rolecraft.server.responses_api as responses_api
from rolecraft import wire
from rolecraft.server.errors import Refused
from rolecraft.server.models import ServedModel, largest_body
from rolecraft.server.requests import ChatRequest, RequestBody
from rolecraft.server.responses import Answer, ChatResponse
from rolecraft.server.service import Service
from rolecraft.server.settings import Settings
from rolecraft.server.stream import Event, EventQueue, EventStreamResponse, cancel, until_disconnected
from rolecraft.server.turns import FinishedChoice
from rolecraft.types import Json

_QUEUED_CHARACTERS = 64 * 1024  # of a stream, before its writer waits for its reader
_FINAL_EVENT_SECONDS = 1.0  # seconds to tell a stream why it ends, once the grace is over

_T = TypeVar("_T")
_log = logging.getLogger(__name__)


def create_app(service: Service, settings: Settings = Settings(), key: str | None = None) -> FastAPI:
    """Return the ASGI application; without a `key` a server bound to this machine answers to its local names only."""
    local = key is None and access.is_local(settings.host)
    checks = [Depends(access.require_host(settings.host))] if local else []
    locked = [Depends(access.require_key(key))] if key is not None else []
    app = FastAPI(
        title="Rolecraft",
        docs_url=None,
        redoc_url=None,
        openapi_url="/openapi.json",
        dependencies=checks,
        exception_handlers={
            Refused: _refused,
            HTTPException: _unknown_endpoint,
            ClientDisconnect: _disconnected,
            Exception: _unexpected,
        },
    )
    handlers = _Handlers(service, settings)
    app.get("/health")(handlers.health)
    app.get("/v1/models", dependencies=locked)(handlers.list_models)
    app.get("/v1/models/{model:path}", dependencies=locked)(handlers.show_model)
    schema = RequestBody.model_json_schema(ref_template="#/components/schemas/{model}")
    definitions = schema.pop("$defs")
    body = {"required": True, "content": {"application/json": {"schema": schema}}}
    app.post("/v1/chat/completions", dependencies=locked, openapi_extra={"requestBody": body})(handlers.chat)
    app.post("/v1/completions", dependencies=locked)(handlers.complete)
    app.post("/v1/responses", dependencies=locked)(handlers.respond)
    app.openapi().setdefault("components", {}).setdefault("schemas", {}).update(definitions)
    return app


class _Handlers:
    """What each endpoint does."""

    def __init__(self, service: Service, settings: Settings) -> None:
        self._service, self._settings = service, settings
        self._request_bytes = settings.request_bytes or largest_body(list(service.models.values()))
        self._began = int(time.time())

    async def health(self) -> Response:
        """Tell that the server answers, and how busy it is."""
        writing, waiting = self._service.admission.busy
        return _json({"status": "ok", "writing": writing, "waiting": waiting})

    async def list_models(self) -> Response:
        """List the base, its roles and the team."""
        return _json({"object": "list", "data": [self._model(model) for model in self._service.models.values()]})

    async def show_model(self, model: str) -> Response:
        """Tell of one model."""
        return _json(self._model(self._service.find(model)))

    async def chat(self, request: Request) -> Response:
        """Answer a conversation, at once or as a stream."""
        return await self._answer(request, lambda body: self._read_chat(body))

    async def complete(self, request: Request) -> Response:
        """Go on with a text, at once or as a stream."""
        return await self._answer(request, lambda body: completions.read(body, self._service.find))

    async def respond(self, request: Request) -> Response:
        """Answer a conversation as OpenAI's newer API does, at once or as a stream."""
        most = self._service.limits.messages
        return await self._answer(request, lambda body: responses_api.read(body, most, self._service.find))

    async def _answer(self, request: Request, read: Callable[[bytes], tuple[ChatRequest, Answer]]) -> Response:
        try:
            return await self._write(request, read)
        except (Refused, ClientDisconnect):
            raise
        except Exception as error:
            _log.exception("a request broke off")
            raise _internal_error() from error

    def _read_chat(self, body: bytes) -> tuple[ChatRequest, Answer]:
        chat = requests.read(body, self._service.limits.messages)
        model = self._service.find(chat.model)
        identity = f"chatcmpl-{secrets.token_hex(12)}"
        return chat, ChatResponse(identity, int(time.time()), model, chat.logprobs, chat.include_usage, chat.n)

    async def _write(self, request: Request, read: Callable[[bytes], tuple[ChatRequest, Answer]]) -> Response:
        body = await self._body(request)
        # A large body takes long to read, and the other connections must not wait for it.
        chat, answer = await asyncio.to_thread(read, body)
        chat = recording.named(chat, request.headers)
        try:
            if chat.stream:
                return await self._stream(request, chat, answer)
            choices = await _unless_disconnected(request, self._service.answer(chat, identity=answer.id))
        except Refused as refused:
            raise answer.told(refused) from refused
        return _json(answer.completion(choices))

    async def _stream(self, request: Request, chat: ChatRequest, answer: Answer) -> Response:
        """Return the stream of an answer once it has begun; what fails before that is an error like any other."""
        queue = EventQueue(_QUEUED_CHARACTERS)
        writing = asyncio.ensure_future(self._service.answer(chat, queue.put, answer.id))
        writing.add_done_callback(lambda _: queue.close())
        try:
            first = await _unless_disconnected(request, queue.take())
            if first is None:
                await writing
        except BaseException:
            await cancel(writing)
            raise
        return EventStreamResponse(
            _server_sent_events(answer, first, queue, writing),
            stall=self._settings.stall_seconds,
            deadline=self._service.deadline(
                self._service.limits.seconds + self._settings.stall_seconds, _FINAL_EVENT_SECONDS
            ),
            abort=getattr(request.state, "abort", lambda: None),
            close=lambda: cancel(writing),
        )

    async def _body(self, request: Request) -> bytes:
        """Return the body; raises Refused for one that is too long, too slow, or not declared as JSON."""
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind != "application/json":  # a web page can send other types to this machine without being chat
            raise Refused(415, "send the request with 'Content-Type: application/json'", code="unsupported_media_type")
        most = self._request_bytes
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

    def _model(self, model: ServedModel) -> dict[str, Json]:
        return {"id": model.id, "object": "model", "created": self._began, "owned_by": "rolecraft"}


async def _server_sent_events(
    answer: Answer,
    event: Event | None,
    queue: EventQueue,
    writing: asyncio.Future[list[FinishedChoice]],
) -> AsyncGenerator[bytes, None]:
    """Yield the server-sent events of an answer, from its first `event` on."""
    for chunk in answer.first_chunks():
        yield responses.server_sent_event(chunk)
    while event is not None:
        for chunk in answer.event_chunks(event):
            yield responses.server_sent_event(chunk)
        event = await queue.take()
    try:
        finished = await writing
    except Refused as refused:
        yield responses.server_sent_event(answer.error_chunk(answer.told(refused)))
        return
    except Exception:  # noqa: BLE001 - the response has begun: no other place is left to tell it
        _log.exception("an answer broke off")
        yield responses.server_sent_event(answer.error_chunk(_internal_error()))
        return
    for chunk in answer.last_chunks(finished):
        yield responses.server_sent_event(chunk)
    yield answer.done


async def _unless_disconnected(request: Request, work: Awaitable[_T]) -> _T:
    """Return what `work` comes to; if the client hangs up first, it is cancelled and ClientDisconnect raised."""
    task, disconnected = asyncio.ensure_future(work), asyncio.ensure_future(until_disconnected(request.receive))
    try:
        await asyncio.wait((task, disconnected), return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise ClientDisconnect
        return task.result()
    finally:
        await cancel(task, disconnected)


def _internal_error() -> Refused:
    return Refused(500, "something broke here, and the server's log has it; try again", code="internal_error")


async def _refused(_: Request, refused: Exception) -> Response:
    assert isinstance(refused, Refused)
    return error_response(refused)


def error_response(refused: Refused) -> Response:
    """Return the response that tells an error; one that leaves a body unread closes the connection."""
    headers = {"retry-after": str(refused.wait)} if refused.wait is not None else {}
    if refused.status in (408, 413, 503):  # the rest of the body is not waited for, nor what comes after it
        headers["connection"] = "close"
    return _json(refused.to_json(), refused.status, headers)


async def _unknown_endpoint(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    what = f"{request.method} {request.url.path[:100]!r}"
    there = "there are /v1/chat/completions, /v1/responses, /v1/completions, /v1/models and /health"
    return await _refused(request, Refused(error.status_code, f"no endpoint {what}; {there}", code="unknown_url"))


async def _disconnected(_: Request, __: Exception) -> Response:
    return Response(status_code=499)  # nobody reads it


async def _unexpected(request: Request, _: Exception) -> Response:
    return await _refused(request, _internal_error())


def _json(data: Json, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    return Response(wire.dumps(data).encode(), status, headers, media_type="application/json")
