"""What a tool is: the protocol that every tool fulfils, and its own way to fail."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol, runtime_checkable

from rolecraft.types import Json, ToolSpec


class ToolFailure(Exception):
    """A tool's own error, for the model to read: one short line that says what to do instead."""


@runtime_checkable
class ToolLike(Protocol):
    """The contract of a tool. Calls may come from several threads: one with state locks it itself."""

    @property
    def spec(self) -> ToolSpec:
        """The tool as the model is told of it."""
        ...

    def call(self, arguments: Mapping[str, Json]) -> str:
        """Return the observation for arguments that fit the spec; raises ToolFailure for the model's mistakes."""
        ...

    def fork(self) -> ToolLike:
        """Return an independent copy with the same state; raises NotForkable where that cannot be had."""
        ...

    def state(self) -> Json:
        """Return what a judge may compare of the state, None when there is none; one that raises is told as missed."""
        ...

    def close(self) -> None:
        """Free what the tool holds; safe to call twice."""
        ...
