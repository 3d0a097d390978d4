"""Filters tool calls out of the text of a streamed reply: what may belong to a call is held back."""

from __future__ import annotations

from collections.abc import Sequence

from rolecraft.renderers import CallSyntax, settled_length
from rolecraft.types import ToolSpec


class ToolCallFilter:
    """What comes out, joined, is always a beginning of the message's content once the reply is parsed.

    Where calls have tags, text waits only while it may be one. Where a call is an object that starts a line, a line
    waits from its first brace on; where a family begins calls in another way, all text waits for the end.
    """

    def __init__(self, syntax: CallSyntax | None, tools: Sequence[ToolSpec] = ()) -> None:
        """Watch for calls of `syntax`, None: the text holds none; and for calls of `tools` that are read leniently."""
        self._syntax, self._tools = syntax, tools
        self._strict = ""
        self._out = 0
        self._held = ""
        self._shut = False
        self._inside_line = False  # whether the held text continues a line that is no call

    def feed(self, text: str) -> str:
        """Take the next piece of text and return what is certain now."""
        certain = self._before_strict_calls(text)
        if not self._tools or not certain:
            return certain
        self._strict += certain
        start, self._out = self._out, settled_length(self._strict, self._tools, self._out)
        return self._strict[start : self._out]

    def _before_strict_calls(self, text: str) -> str:
        if self._syntax is None or self._shut:
            return text if self._syntax is None else ""
        self._held += text
        certain = self._before_tag(self._syntax.tags[0]) if self._syntax.tags else self._before_line()
        out, self._held = self._held[:certain], self._held[certain:]
        return out

    def _before_tag(self, tag: str) -> int:
        place = self._held.find(tag)
        self._shut = place >= 0
        if not self._shut:
            longest = min(len(tag) - 1, len(self._held))
            part = next((n for n in range(longest, 0, -1) if tag.startswith(self._held[-n:])), 0)
            place = len(self._held) - part
        return self._without_break(place)

    def _before_line(self) -> int:
        assert self._syntax is not None
        if not self._syntax.begins.startswith(r"\{"):
            self._shut = True
            return 0
        start = 0
        while True:
            if self._inside_line:
                end = self._held.find("\n", start)
                if end < 0:
                    return len(self._held)
                self._inside_line, start = False, end + 1
            line = self._held[start:].lstrip(" \t")
            self._shut = line.startswith("{")
            if self._shut or not line:
                # The break before the line may be the one that parts text from calls; it waits with the line.
                self._inside_line = start > 0
                return self._without_break(start)
            self._inside_line = True

    def _without_break(self, place: int) -> int:
        return place - 1 if place and self._held[place - 1] == "\n" else place
