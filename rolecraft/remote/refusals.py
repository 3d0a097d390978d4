"""What an endpoint's error status means: whose fault it is, and what to do."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from http import HTTPStatus

from rolecraft import wire
from rolecraft.errors import ContextFull, DataError, EngineError
from rolecraft.remote.settings import KEY_VARIABLE
from rolecraft.types import Json

_FULL = re.compile(
    r"context[ _-]?(length|size|window)|maximum context|exceed_context|prompt is too long|too many (input )?tokens",
    re.IGNORECASE,
)
_MISREAD = re.compile(r"failed to parse input|tool_use_failed", re.IGNORECASE)
_SHOWN = 400
_TELLING = 8  # a key's beginning of so many characters is no word that stands there by chance
_PHRASES = {status.value: status.phrase for status in HTTPStatus}

_REMEDIES = {
    401: f"give its key in a file (--api-key-file) or in {KEY_VARIABLE}",
    403: f"give a key that may do this, in a file (--api-key-file) or in {KEY_VARIABLE}",
    404: "check the URL, which mostly ends in /v1, and the model's name (--model)",
    405: "check the URL, which mostly ends in /v1",
    413: "shorten the conversation",
    429: "ask for less at once (--engine-requests), or try later",
}


class Misread(EngineError):
    """The endpoint could not read what its own model wrote as calls; `text` is that, as far as it tells."""

    def __init__(self, reason: str, text: str) -> None:
        super().__init__(reason)
        self.text = text


class Refused(EngineError):
    """The endpoint will not do what it is asked."""

    def __init__(self, reason: str, refusal: Refusal) -> None:
        super().__init__(reason)
        self.refusal = refusal


@dataclass(frozen=True, slots=True)
class Refusal:
    """An error status with what the body says of it."""

    url: str
    status: int
    said: str = ""
    code: str = ""
    written: str | None = None

    def __str__(self) -> str:
        phrase = _PHRASES.get(self.status, "no known status")
        return f"{self.url} answered {self.status} ({phrase}){': ' if self.said else ''}{self.said}"

    @property
    def is_full(self) -> bool:
        """Tell whether the prompt is too long for the model's context."""
        return self.status in (400, 413, 422, 500) and _FULL.search(f"{self.code} {self.said}") is not None

    @property
    def is_misread(self) -> bool:
        """Tell whether the endpoint choked on what its own model wrote."""
        said = f"{self.code} {self.said}"
        return self.status >= 400 and (self.written is not None or _MISREAD.search(said) is not None)

    @property
    def is_lasting(self) -> bool:
        """Tell whether no other try can change it, though its status is one that mostly does change."""
        return self.is_full or self.is_misread

    def error(self) -> EngineError:
        """Return the error that the caller is told."""
        if self.is_full:
            return ContextFull(f"{self}; shorten the conversation, or give the server a longer context")
        if self.is_misread:
            return Misread(str(self), self.said if self.written is None else self.written)
        remedy = _REMEDIES.get(self.status, "the request is refused; see what the server says of it")
        if 300 <= self.status < 400:
            remedy = "give the address that it leads to (it is not followed, since it would get the key)"
        return Refused(f"{self}; {remedy}", self)

    def concerns_tools(self) -> bool:
        """Tell whether the endpoint says that it, or its model, knows no tools."""
        return self.status != 404 and re.search(r"\btools?\b|tool[_-]|function", self.said, re.IGNORECASE) is not None


def read_refusal(url: str, status: int, location: str, raw: bytes, key: str | None) -> Refusal:
    """Return what an error's body says, the key blotted out; any body will do."""
    try:
        body = wire.loads(raw.decode())
    except (UnicodeDecodeError, DataError):
        body = raw.decode(errors="replace")
    fields = body.get("error", body) if isinstance(body, dict) else body
    fields = fields if isinstance(fields, dict) else {"message": fields}
    said = location if 300 <= status < 400 else _text(fields, "message", "detail", "msg")
    code = " ".join(filter(None, (_text(fields, "code"), _text(fields, "type"))))
    written = fields.get("failed_generation")
    written = blotted(written, key) if isinstance(written, str) else None
    return Refusal(url, status, in_a_line(said, key), in_a_line(code, key), written)


def _text(fields: dict[str, Json], *keys: str) -> str:
    return next((str(fields[key]) for key in keys if fields.get(key)), "")


def in_a_line(text: str, key: str | None) -> str:
    """Return what an endpoint says in one line that is not too long, its key blotted out."""
    shown = " ".join(blotted(text, key).split())
    return shown if len(shown) <= _SHOWN else shown[:_SHOWN] + " ..."


def blotted(text: str, key: str | None) -> str:
    """Return the text without the key, as it is or as JSON writes it, nor a beginning of it that a cut has left."""
    spellings = (key, json.dumps(key)[1:-1], key.replace("/", "\\/")) if key else ()
    beginnings = (one[:length] for one in spellings for length in range(len(one), _TELLING - 1, -1))
    for part in (*spellings, *beginnings):
        text = text.replace(part, "***")
    return text
