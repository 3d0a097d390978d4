"""How a Python function becomes a tool without state."""

from __future__ import annotations

import asyncio
import inspect
import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, overload

from rolecraft.errors import NotForkable
from rolecraft.tools._arguments import convert
from rolecraft.tools._contract import ToolFailure
from rolecraft.tools._plain import plain
from rolecraft.tools._schema import describe
from rolecraft.tools._types import Unfit
from rolecraft.types import Json, ToolSpec


@dataclass(frozen=True, slots=True)
class Tool:
    """A tool without state of its own: its spec, and the function, plain or async, that its arguments go to by name.

    `read` turns arguments that fit the spec into what the function takes; without it they are what JSON makes of them.
    With `receiver` the function is a method: the tool of an object is had by its attribute, as a bound method is.
    """

    spec: ToolSpec
    function: Callable[..., Any]
    read: Callable[[Mapping[str, Json]], dict[str, Any]] | None = None
    receiver: bool = False

    def __call__(self, *positional: Any, **named: Any) -> Any:
        """Call the function itself, so that a decorated function stays usable in Python."""
        return self.function(*positional, **named)

    def __get__(self, instance: object, owner: type | None = None) -> Tool:
        """Return the tool of an object, or of a class where the function is a class method."""
        if not self.receiver or (instance is None and not isinstance(self.function, classmethod)):
            return self
        return replace(self, function=self.function.__get__(instance, owner), receiver=False)

    def call(self, arguments: Mapping[str, Json]) -> str:
        """Return what the function answers as text: strings as they are, everything else as JSON."""
        try:
            named = self.read(arguments) if self.read else convert(self.spec.parameters, arguments)
        except Unfit as unfit:
            raise ToolFailure(f"{self.spec.name} needs {unfit}") from None
        answer = self.function(**named)
        if inspect.isawaitable(answer):
            answer = asyncio.run(_awaited(answer))  # the toolbox calls from a thread that has no loop of its own
        return _as_text(answer)

    def fork(self) -> Tool:
        """Return itself, if it changes nothing; raises NotForkable for a function that is not known to be pure.

        What it changes lies outside of it, be it an object, a file or a service, and two copies would both change it.
        """
        if self.spec.pure:
            return self
        raise NotForkable(
            f"tool {self.spec.name!r} may change something that cannot be copied, and its calls would be tried several "
            "times: write @tool(pure=True) above it if a call changes nothing, or play by the strategy 'greedy'"
        )

    def state(self) -> Json:
        """Return None: there is no state."""
        return None

    def close(self) -> None:
        """Do nothing: there is nothing to free."""


@overload
def tool(
    function: Callable[..., Any],
    *,
    name: str | None = None,
    description: str | None = None,
    pure: bool | None = None,
    repeatable: bool | None = None,
) -> Tool: ...


@overload
def tool(
    *,
    name: str | None = None,
    description: str | None = None,
    pure: bool | None = None,
    repeatable: bool | None = None,
) -> Callable[[Callable[..., Any]], Tool]: ...


def tool(
    function: Callable[..., Any] | None = None,
    *,
    name: str | None = None,
    description: str | None = None,
    pure: bool | None = None,
    repeatable: bool | None = None,
) -> Tool | Callable[[Callable[..., Any]], Tool]:
    """Turn a typed, documented function, method, partial or callable object into a tool; `@tool` or `@tool(name=...)`.

    The description is the docstring's text before its first section; a parameter's is its line under `Args:` (or in
    NumPy's or Sphinx's style) or the string in `Annotated[type, "..."]`. Parameters with a default are optional, and
    those that a partial has fixed are not told. Raises UserError naming the parameter without type or description.

    `pure`: a call changes nothing, so that what other calls answered still holds after it. `repeatable`: the same call
    twice is meant twice, as rolling a die is. A model is told neither; without them a tool is taken to be neither.
    """
    if function is None:
        return lambda written: tool(written, name=name, description=description, pure=pure, repeatable=repeatable)
    if isinstance(function, Tool):
        found, spec = function, function.spec
        spec = replace(spec, name=name or spec.name, description=description or spec.description)
    else:
        described = describe(function, name, description)
        called = function.__func__ if isinstance(function, staticmethod) else function
        found, spec = Tool(described.spec, called, described.read, described.receiver), described.spec
    pure = spec.pure if pure is None else pure
    repeatable = spec.repeatable if repeatable is None else repeatable
    return replace(found, spec=replace(spec, pure=pure, repeatable=repeatable))


async def _awaited(answer: Awaitable[Any]) -> Any:
    return await answer


def _as_text(answer: Any) -> str:
    if inspect.isgenerator(answer) or inspect.isasyncgen(answer):
        raise TypeError("the tool returned a generator, which answers nothing; it must return a list")
    value = plain(answer)
    if isinstance(value, str):
        return value
    return "done" if value is None else json.dumps(value, ensure_ascii=False, default=str)
