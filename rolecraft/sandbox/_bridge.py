"""Gives a session's code functions that the host answers: each call goes over the session's channel and waits.

Runs in the session itself, next to code that may change anything here: a call that is written by hand is as good as one
of these functions, so the host checks each as if nobody had. Standard library only.
"""

from __future__ import annotations

import _thread
import inspect
import json
import keyword
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from rolecraft.sandbox._runner import ANSWER, CALL, CALL_BYTES, NONE, RESULT

ENDING = "final_answer"


class ToolError(Exception):
    """What a function of the host's says of a call that failed."""


class Bridge:
    """The functions of one session; they work in the step that is asked for with them, and in no other."""

    def __init__(self, channel: int) -> None:
        self._channel = channel
        self._nonce = NONE
        self._lock = _thread.allocate_lock()  # threads of one session take turns
        self._read, self._write, self._loads, self._dumps = os.read, os.write, json.loads, json.dumps
        self._set_blocking = os.set_blocking

    def bind(self, names: dict[str, Any], functions: str, nonce: bytes) -> None:
        """Put the functions into `names` anew, in place of what the code has put there; without any nothing works."""
        self._nonce = nonce if functions else NONE
        if not functions:
            return
        self._set_blocking(self._channel, True)  # whatever an earlier step has made of it
        for told in self._loads(functions):
            names[told["name"]] = self._function(told["name"], told["parameters"], told["text"])
        names[ENDING] = self._ending()
        names["ToolError"] = ToolError

    def _function(self, name: str, parameters: Sequence[str], text: str) -> Callable[..., Any]:
        def function(*values: Any, **named: Any) -> Any:
            return self._ask(name, _arguments(name, parameters, values, named))

        # A name that Python has another use for, `from` say, is given by its place or as `**{"from": ...}`.
        named = [one for one in parameters if one.isidentifier() and not keyword.iskeyword(one)]
        kinds = [inspect.Parameter(one, inspect.Parameter.POSITIONAL_OR_KEYWORD, default=None) for one in named]
        vars(function).update(__signature__=inspect.Signature(kinds))
        function.__name__ = function.__qualname__ = name
        function.__doc__ = text
        return function

    def _ending(self) -> Callable[[Any], None]:
        def final_answer(answer: Any) -> None:
            """End the task with this answer."""
            self._ask(ENDING, {"answer": answer})
            raise SystemExit(0)

        return final_answer

    def _ask(self, name: str, arguments: Mapping[str, Any]) -> Any:
        """Return the host's answer to a call; raises ToolError with its reason."""
        request = self._dumps([name, arguments], default=_plain, ensure_ascii=False).encode("utf-8", "replace")
        if len(request) > CALL_BYTES:
            raise ToolError(f"{name}: the arguments take {len(request)} bytes; at most {CALL_BYTES} are taken")
        if self._nonce == NONE:
            raise ToolError(f"{name} can be called in a step of its own alone")
        with self._lock:
            self._write(self._channel, ANSWER.pack(self._nonce, CALL) + request)
            raw = self._read(self._channel, ANSWER.size + CALL_BYTES)
        if len(raw) < ANSWER.size or raw[ANSWER.size - 1 : ANSWER.size] != RESULT:
            raise ToolError(f"{name} was not answered")
        failed, value = self._loads(raw[ANSWER.size :])
        if failed:
            raise ToolError(value)
        return value


def _arguments(name: str, parameters: Sequence[str], values: Sequence[Any], named: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments of a call by name, as Python binds them."""
    if len(values) > len(parameters):
        raise TypeError(f"{name}() takes {len(parameters)} arguments ({', '.join(parameters)}), got {len(values)}")
    found = dict(zip(parameters, values, strict=False))
    if twice := found.keys() & named.keys():
        raise TypeError(f"{name}() got several values for {sorted(twice)[0]!r}")
    return {**found, **named}


def _plain(value: Any) -> Any:
    """Return what JSON has in place of a value that it lacks: a number, a list, else its text."""
    if isinstance(value, set | frozenset | range):
        return list(value)
    if callable(getattr(value, "tolist", None)):  # NumPy's numbers and arrays
        return value.tolist()
    for number in (int, float):
        kind = "__index__" if number is int else "__float__"
        if hasattr(value, kind) and not isinstance(value, str):
            return number(value)
    return str(value)
