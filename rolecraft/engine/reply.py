"""From the tokens of a reply to its text as they come, and to its message, cut at stop strings."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace

from rolecraft.renderers import Renderer, reread
from rolecraft.types import Message, Prompt


class Reader:
    """Turns tokens into text one by one, holding back half a character and whatever may begin a stop string."""

    def __init__(self, renderer: Renderer, stops: Sequence[str] = ()) -> None:
        self._renderer, self._stops = renderer, tuple(stops)
        self._ids: list[int] = []
        self._from = self._taken = 0  # the text of `ids[:_taken]` is out or held; decoding starts at `_from`
        self._held = ""
        self._stopped = False

    def read(self, token: int) -> str:
        """Return the text that is certain now."""
        if self._stopped or token in self._renderer.stop_ids:
            return ""
        self._ids.append(token)
        text = self._new_text()
        if text.endswith("\ufffd"):  # perhaps half a character
            return ""
        self._from, self._taken = self._taken, len(self._ids)
        self._held += text
        if (place := find_stop(self._held, self._stops)) is not None:
            self._stopped = True
            return self._held[:place]
        held = self._suspicious()
        certain, self._held = self._held[: len(self._held) - held], self._held[len(self._held) - held :]
        return certain

    def rest(self) -> str:
        """Return what was held back, once the reply is finished."""
        if self._stopped:
            return ""
        text = self._held + self._new_text()
        return text[: find_stop(text, self._stops)]

    def _new_text(self) -> str:
        # Some tokenizers drop a space where decoding starts, so tokens that are out already come along.
        before = self._renderer.text(self._ids[self._from : self._taken])
        return self._renderer.text(self._ids[self._from :])[len(before) :]

    def _suspicious(self) -> int:
        """Return how many of the held characters may begin a stop string."""
        most = min(max(map(len, self._stops), default=1) - 1, len(self._held))
        ends = range(most, 0, -1)
        return next((n for n in ends if any(stop.startswith(self._held[-n:]) for stop in self._stops)), 0)


def find_stop(text: str, stops: Sequence[str]) -> int | None:
    """Return where the first stop string in `text` begins, or None."""
    return min((text.find(stop) for stop in stops if stop in text), default=None)


def has_stop(renderer: Renderer, ids: Sequence[int], stops: Sequence[str]) -> bool:
    """Tell whether `ids`, one token longer than when last asked, end in text with a stop string."""
    # A character is at most four bytes and a token at least one: these hold any stop string, and half a character.
    tail = renderer.text(ids[-4 * (max(map(len, stops)) + 1) :])
    return find_stop(tail, stops) is not None


def parse(renderer: Renderer, prompt: Prompt, ids: Sequence[int], *, cut: bool = False) -> Message:
    """Return the message in the reply `ids`; text from a stop string on is cut, and such a message keeps no ids.

    What goes on with a text is content, and so is the JSON that a schema asks for, whatever it looks like; only what
    begins as a call of a tool is one. Else calls are read leniently if the prompt asks for it and the renderer's format
    allows it; `cut`: see `reread`.
    """
    whole = renderer.text(ids)
    place = find_stop(whole, prompt.sampling.stop)
    message = _parse(renderer, prompt, ids, whole, place)
    text = prompt.prefix + whole[:place] if message.ids is None else renderer.reply_text(message)
    if prompt.schema is not None or prompt.text is not None:
        begins = _begins_call(renderer, prompt, text)
        return message if begins else replace(message, content=text, tool_calls=(), unparsed=None)
    if not (prompt.lenient and renderer.format.lenient) or prompt.choice == "none":
        return message
    return reread(message, text, prompt.tools, cut=cut)


def _begins_call(renderer: Renderer, prompt: Prompt, text: str) -> bool:
    syntax = renderer.call_syntax
    if prompt.choice == "none" or not prompt.tools:
        return False
    if syntax.open:
        return text.lstrip().startswith(syntax.tags[0])
    colon = ":" if syntax.compact else ": "
    head = f"{{{json.dumps(syntax.name_key)}{colon}"
    return any(text.lstrip().startswith(f"{head}{json.dumps(tool.name, ensure_ascii=False)}") for tool in prompt.tools)


def _parse(renderer: Renderer, prompt: Prompt, ids: Sequence[int], text: str, place: int | None) -> Message:
    """Return the message in the reply `ids`, whose `text` has its first stop string at `place`."""
    if place is None:
        return renderer.parse(ids, prompt.speaker, prompt.prefix)
    whole = next(count for count in range(len(ids), -1, -1) if len(renderer.text(ids[:count])) <= place)
    message = renderer.parse(ids[:whole], prompt.speaker, prompt.prefix)
    rest = text[len(renderer.text(ids[:whole])) : place]  # the last token may begin before the stop string
    if message.unparsed is not None:
        return message.edited(unparsed=message.unparsed + rest)
    return message.edited(content=message.content + rest)
