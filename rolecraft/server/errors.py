"""The one error that a client is told: an HTTP status with OpenAI's error body."""

from __future__ import annotations

from rolecraft.errors import RolecraftError
from rolecraft.types import Json

_STATUS_TYPES = {408: "timeout_error", 429: "rate_limit_error"}


class Refused(RolecraftError):
    """A request that is answered with an error; it says which HTTP status, and which parameter is at fault."""

    def __init__(
        self, status: int, message: str, *, param: str | None = None, code: str | None = None, wait: int | None = None
    ) -> None:
        """Take what the error body says; `wait` is after how many seconds to try again."""
        super().__init__(message)
        self.status, self.param, self.code, self.wait = status, param, code, wait

    def to_json(self) -> dict[str, Json]:
        """Return OpenAI's error body."""
        kind = _STATUS_TYPES.get(self.status, "server_error" if self.status >= 500 else "invalid_request_error")
        return {"error": {"message": str(self), "type": kind, "param": self.param, "code": self.code}}
