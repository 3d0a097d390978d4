"""The HTTP listener: uvicorn, bounded in what a connection may take, and stopped in order by a signal.

Not covered: TLS, which a proxy in front does.
"""

from __future__ import annotations

import functools
import math
import signal
import socket
import threading
from collections.abc import Callable
from typing import Any, cast

from uvicorn import Config
from uvicorn import Server as UvicornServer

from rolecraft.errors import UserError
from rolecraft.server.connection import HEAD_BYTES, HttpConnection

_KEEP_ALIVE = 5
_AFTER_GRACE = 2


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
            Any, functools.partial(HttpConnection, head_seconds=head_seconds, most=connections, overloaded=overloaded)
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
        h11_max_incomplete_event_size=HEAD_BYTES,
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
