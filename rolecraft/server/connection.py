"""One HTTP connection: strict in what it takes for a request, bounded in time, open to clients that half-close it."""

from __future__ import annotations

import asyncio
import re
import socket
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from rolecraft import wire
from rolecraft.server.errors import Refused

HEAD_BYTES = 32 * 1024
_END_OF_HEAD = re.compile(rb"\n\r?\n")
_FIRST_PROBE = 0.05  # seconds after which a client that sends nothing more is probed, then twice as long each time


class StrictParser(h11.Connection):
    """A server's HTTP/1.1 parser that also refuses long heads and bodies whose length is told in two ways.

    Of such a body a proxy in front may see another end, and take its rest for a request of somebody else's.
    """

    def next_event(self) -> Any:
        """Return the next event; raises RemoteProtocolError for what is refused."""
        if self.their_state is h11.IDLE:
            data, _ = self.trailing_data
            if len(data) > HEAD_BYTES and _END_OF_HEAD.search(data, 0, HEAD_BYTES) is None:
                raise h11.RemoteProtocolError("the head is too long")
        event = super().next_event()
        if isinstance(event, h11.Request):
            names = [name for name, _ in event.headers]
            if b"transfer-encoding" in names and (b"content-length" in names or event.http_version < b"1.1"):
                raise h11.RemoteProtocolError("the body's length is told in two ways")
        return event


class HttpConnection(H11Protocol):
    """A connection that must send a request's head in `head_seconds` seconds, and that the application can cut off.

    One that comes beside `most` others is answered by the application `overloaded`.
    """

    def __init__(self, *arguments: Any, head_seconds: float, most: int, overloaded: Any, **named: Any) -> None:
        """Take what uvicorn gives a connection."""
        super().__init__(*arguments, **named)
        self._head_seconds, self._most, self._overloaded = head_seconds, most, overloaded
        self.conn = StrictParser(h11.SERVER, HEAD_BYTES)
        self.app_state = {**self.app_state, "abort": self._abort}
        self._overdue: asyncio.TimerHandle | None = None
        self._probing: asyncio.TimerHandle | None = None

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

    def eof_received(self) -> bool | None:  # type: ignore[override]
        """Keep the connection of a client that has sent all of its request, to answer it; else let it close."""
        if self.cycle is None or self.cycle.response_complete or self.cycle.more_body:
            return None
        if self._probing is None:
            self._probing = self.loop.call_later(_FIRST_PROBE, self._probe, _FIRST_PROBE)
        return True

    def on_response_complete(self) -> None:
        """Go on with the next request, or close after the last one of a client that sends nothing more."""
        super().on_response_complete()
        if self._probing is not None and self.cycle.response_complete:
            self.transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the timers."""
        super().connection_lost(exc)
        for timer in (self._overdue, self._probing):
            if timer is not None:
                timer.cancel()

    def send_400_response(self, msg: str) -> None:
        """Answer what is no HTTP with OpenAI's error body; uvicorn's own is plain text."""
        reason = f"this is no valid HTTP request, or its head has more than {HEAD_BYTES} bytes; correct or shorten it"
        body = wire.dumps(Refused(400, reason, code="invalid_http").to_json()).encode()
        headers = [("content-type", "application/json"), ("content-length", str(len(body))), ("connection", "close")]
        response = h11.Response(status_code=400, headers=headers, reason="Bad Request")
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):  # else the fault is in a body that nobody reads
            for event in (response, h11.Data(data=body), h11.EndOfMessage()):
                self.transport.write(self.conn.send(event) or b"")
        self.transport.close()

    def _probe(self, seconds: float) -> None:
        """Find out whether a client that sends nothing more still listens, and stop its answer if not.

        One that is gone looks the same until something is sent to it, which its machine then refuses. An interim
        response may be sent at any time before the answer and is ignored by clients; a stream needs none.
        """
        if self.transport.is_closing() or self.cycle.response_complete:
            return
        if self.transport.get_extra_info("socket").getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            self._abort()
            return
        if self.conn.our_state is h11.SEND_RESPONSE and self.scope["http_version"] == "1.1":
            event = h11.InformationalResponse(status_code=100, headers=[], reason="Continue")
            self.transport.write(self.conn.send(event) or b"")
        self._probing = self.loop.call_later(2 * seconds, self._probe, 2 * seconds)

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
