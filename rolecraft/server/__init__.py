"""An OpenAI-compatible HTTP server for a base, single roles and a whole team.

A request never ends the server: what asks wrongly, does not fit or breaks is answered with OpenAI's error body. The
client runs the tools. Not covered: TLS, several keys, running the tools here, and OpenAI's other endpoints.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Sequence

from rolecraft.errors import MissingExtra, SettingsError

try:
    import fastapi  # noqa: F401
    import uvicorn  # noqa: F401
except ModuleNotFoundError as error:
    raise MissingExtra(error.name or "fastapi", "serve") from error

from rolecraft.server import access, listener
from rolecraft.server.app import create_app, error_response
from rolecraft.server.errors import Refused
from rolecraft.server.models import ServedModel
from rolecraft.server.recording import Recorder
from rolecraft.server.service import Remind, Service
from rolecraft.server.settings import KEY_VARIABLE, Settings, check, read_key

__all__ = ["KEY_VARIABLE", "Settings", "bind", "read_key", "serve"]

_EXTRA_CONNECTIONS = 256  # connections beside those that requests may hold: idle, asking for /health, being refused


def serve(
    models: Sequence[ServedModel],
    settings: Settings = Settings(),
    key: str | None = None,
    *,
    bound: socket.socket | None = None,
    ready: Callable[[listener.Server, str], None] = lambda server, url: None,
    recorder: Recorder | None = None,
    remind: Remind | None = None,
) -> None:
    """Serve `models` until a signal stops the server; `ready` is given it and its address before it begins.

    `recorder` keeps the answers, `remind` adds to a conversation what a memory has for it.
    `bound` is a socket from `bind`, for who opens it before the models are loaded; raises what that raises.
    """
    service = Service(models, settings.playing, settings.limits, recorder=recorder, remind=remind)
    with bound or bind(settings, key) as listening:
        host, port = listening.getsockname()[:2]
        server = listener.create(
            create_app(service, settings, key),
            error_response(Refused(503, "too many connections are open; try again later", code="overloaded", wait=1)),
            grace=settings.grace_seconds,
            head_seconds=settings.stall_seconds,
            connections=settings.limits.places + settings.limits.waiting + _EXTRA_CONNECTIONS,
            on_stop=lambda: service.stop(settings.grace_seconds),
        )
        ready(server, f"http://{f'[{host}]' if ':' in host else host}:{port}/v1")
        listener.run(server, listening)


def bind(settings: Settings, key: str | None) -> socket.socket:
    """Return the socket that the settings ask for; who connects waits until the server runs.

    Raises SettingsError for an impossible setting, and for a host beyond this machine without a key; UserError for an
    address that is taken.
    """
    check(settings)
    if key is None and not settings.keyless and not access.is_local(settings.host):
        raise SettingsError(
            f"host {settings.host!r} can be reached from other machines and no API key is set; set {KEY_VARIABLE} or "
            "--api-key-file, or say --keyless if whoever reaches it may use it"
        )
    return listener.bind(settings.host, settings.port)
