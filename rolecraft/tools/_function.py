"""How a Python function becomes a tool without state."""

from __future__ import annotations

import asyncio
import inspect
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from rolecraft.tools._arguments import convert
from rolecraft.tools._schema import describe
from rolecraft.types import Json, ToolSpec


@dataclass(frozen=True, slots=True)
class Tool:
    """A stateless tool: its spec and the function, plain or async, that is called with its arguments by name."""

    spec: ToolSpec
    function: Callable[..., Any]

    def __call__(self, *positional: Any, **named: Any) -> Any:
        """Call the function itself, so that a decorated function stays usable in Python."""
        return self.function(*positional, **named)

    def call(self, arguments: Mapping[str, Json]) -> str:
        """Return what the function answers as text: strings as they are, everything else as JSON."""
        answer = self.function(**convert(self.spec.parameters, arguments))
        if inspect.iscoroutine(answer):
            answer = asyncio.run(answer)  # the toolbox calls from a thread that has no loop of its own
        return _as_text(answer)

    def fork(self) -> Tool:
        """Return itself: there is no state to copy."""
        return self

    def state(self) -> Json:
        """Return None: there is no state."""
        return None

    def close(self) -> None:
        """Do nothing: there is nothing to free."""


def tool(function: Callable[..., Any]) -> Tool:
    """Turn a typed, documented function into a tool.

    The description is the docstring's text before its first section; a parameter's is its line under `Args:` or the
    string in `Annotated[type, "..."]`. Parameters with a default are optional. Raises UserError naming the parameter
    that has no type or no description.
    """
    return Tool(describe(function), function)


def _as_text(answer: Any) -> str:
    if isinstance(answer, str):
        return answer
    return "done" if answer is None else json.dumps(answer, ensure_ascii=False, default=str)
