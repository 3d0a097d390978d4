"""The HTTP listener: uvicorn, bounded in what a connection may take, and stopped in order by a signal.

Not covered: TLS, which a proxy in front does.
"""

from __future__ import annotations

import asyncio
import functools
import math
import signal
import socket
import threading
from collections.abc import Callable
from typing import Any, cast

import h11
from uvicorn import Config
from uvicorn import Server as UvicornServer
from uvicorn.protocols.http.h11_impl import H11Protocol

from rolecraft import wire
from rolecraft.errors import UserError
from rolecraft.server.errors import Refused

_HEAD_BYTES = 32 * 1024
_KEEP_ALIVE = 5
_AFTER_GRACE = 2


class Connection(H11Protocol):
    """A connection that must send a request's head in `head_seconds` seconds, and that the application can cut off.

    One that comes beside `most` others is answered by the application `overloaded`.
    """

    def __init__(self, *arguments: Any, head_seconds: float, most: int, overloaded: Any, **named: Any) -> None:
        """Take what uvicorn gives a connection."""
        super().__init__(*arguments, **named)
        self._head_seconds, self._most, self._overloaded = head_seconds, most, overloaded
        self.app_state = {**self.app_state, "abort": self._abort}
        self._overdue: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Start waiting for the first request."""
        super().connection_made(transport)
        # Not uvicorn's limit_concurrency, which refuses in plain text, and those as well who were here before.
        if len(self.connections) > self._most:
            self.logger.warning("more than %d connections are open: one is refused", self._most)
            self.app = self._overloaded
        self._watch()

    def data_received(self, data: bytes) -> None:
        """Read on; a head that is not complete must be soon."""
        super().data_received(data)
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the timer."""
        super().connection_lost(exc)
        if self._overdue is not None:
            self._overdue.cancel()

    def send_400_response(self, msg: str) -> None:
        """Answer what is no HTTP with OpenAI's error body; uvicorn's own is plain text."""
        reason = f"this is no valid HTTP request, or its head has more than {_HEAD_BYTES} bytes; correct or shorten it"
        body = wire.dumps(Refused(400, reason, code="invalid_http").to_json()).encode()
        headers = [("content-type", "application/json"), ("content-length", str(len(body))), ("connection", "close")]
        response = h11.Response(status_code=400, headers=headers, reason="Bad Request")
        for event in (response, h11.Data(data=body), h11.EndOfMessage()):
            self.transport.write(self.conn.send(event) or b"")
        self.transport.close()

    def _watch(self) -> None:
        waits = self.cycle is None or self.cycle.response_complete
        if not waits and self._overdue is not None:
            self._overdue.cancel()
            self._overdue = None
        elif waits and self._overdue is None:
            self._overdue = self.loop.call_later(self._head_seconds, self._abort)

    def _abort(self) -> None:
        if not self.transport.is_closing():
            self.transport.abort()


class Server(UvicornServer):
    """A server that says when it begins to stop; whoever sets `should_exit` stops it, as the signals do."""

    def __init__(self, config: Config, on_stop: Callable[[], None]) -> None:
        """Call `on_stop` on the loop once no connection is accepted any more."""
        super().__init__(config)
        self._on_stop = on_stop

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Let what runs go on for the grace time; a second interrupt does not wait."""
        self._on_stop()
        await super().shutdown(sockets)


def bind(host: str, port: int) -> socket.socket:
    """Return a listening socket; raises UserError with the reason if there can be none."""
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        made = socket.create_server((host, port), family=family, backlog=1024)
    except OSError as error:
        raise UserError(f"cannot listen on {host!r} port {port} ({error}); choose another with --port") from error
    # asyncio sends without delay (TCP_NODELAY) on sockets that name their protocol; else each answer on a kept
    # connection waits 40 ms for the client's acknowledgement of its head.
    return socket.socket(made.family, made.type, socket.IPPROTO_TCP, made.detach())


def create(
    app: Any, overloaded: Any, *, grace: float, head_seconds: float, connections: int, on_stop: Callable[[], None]
) -> Server:
    """Return a server for `app`, which cuts requests `grace` seconds after the stop.

    A request's head must come within `head_seconds` seconds. Beside so many `connections` others are answered by the
    application `overloaded`.
    """
    config = Config(
        app,
        http=cast(
            Any, functools.partial(Connection, head_seconds=head_seconds, most=connections, overloaded=overloaded)
        ),
        ws="none",
        loop="asyncio",
        lifespan="off",
        log_level="warning",
        access_log=False,
        proxy_headers=False,
        server_header=False,
        timeout_keep_alive=_KEEP_ALIVE,
        timeout_graceful_shutdown=math.ceil(grace) + _AFTER_GRACE,
        h11_max_incomplete_event_size=_HEAD_BYTES,
    )
    return Server(config, on_stop)


def run(server: Server, bound: socket.socket) -> None:
    """Serve on `bound` until SIGTERM or SIGINT, and return once requests have finished or were cut."""

    def stop(*_: object) -> None:
        server.should_exit = True

    # uvicorn raises its signals again once it has stopped; these handlers take them, so that stopping is no failure.
    main = threading.current_thread() is threading.main_thread()
    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM) if main}
    try:
        server.run(sockets=[bound])
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
