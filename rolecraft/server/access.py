"""Who may send requests: the check of the API key, and without one of the host name that was asked for."""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import re
from collections.abc import Awaitable, Callable

from fastapi import Request

from rolecraft.server.errors import Refused

_LOCAL_NAMES = frozenset(("localhost", "127.0.0.1", "[::1]"))
_HOST = re.compile(r"(?P<name>\[[0-9a-f:.]+\]|[^:\[\]]+)(:[0-9]{0,5})?")


def is_local(host: str) -> bool:
    """Tell whether only this machine can reach `host`."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def require_key(key: str) -> Callable[[Request], Awaitable[None]]:
    """Return what refuses a request without the key; how long it takes tells nothing of the key."""
    expected = hashlib.sha256(key.encode()).digest()

    async def check(request: Request) -> None:
        scheme, _, given = request.headers.get("authorization", "").partition(" ")
        right = hmac.compare_digest(hashlib.sha256(given.strip().encode()).digest(), expected)
        if not right or scheme.lower() != "bearer":
            raise Refused(
                401, "the API key is missing or wrong; send 'Authorization: Bearer <key>'", code="invalid_api_key"
            )

    return check


def require_host(host: str) -> Callable[[Request], Awaitable[None]]:
    """Return what refuses a name that a web page has made to point to this machine (DNS rebinding)."""
    allowed = _LOCAL_NAMES | {f"[{host}]" if ":" in host else host}

    async def check(request: Request) -> None:
        given = request.headers.get("host", "").lower()
        parts = _HOST.fullmatch(given)
        if parts is None or parts["name"] not in allowed:
            reason = (
                f"this server has no API key and answers to {', '.join(sorted(allowed))} only, not to {given[:100]!r}"
            )
            raise Refused(403, reason, code="unknown_host")

    return check
