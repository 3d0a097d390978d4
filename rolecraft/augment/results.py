"""Shorter tool results: of a list that a tool answered, its first items."""

from __future__ import annotations

from collections.abc import Sequence

from rolecraft import wire
from rolecraft.errors import DataError
from rolecraft.types import Message


def with_short_results(messages: Sequence[Message], most: int) -> tuple[Message, ...]:
    """Return the messages, lists in JSON that tools answered cut to their first `most` items."""
    return tuple(_shortened(message, most) if message.role == "tool" else message for message in messages)


def _shortened(message: Message, most: int) -> Message:
    if not message.content.startswith("["):
        return message
    try:
        items = wire.loads(message.content)
    except DataError:
        return message
    return message.edited(content=wire.dumps(items[:most])) if len(items) > most else message
