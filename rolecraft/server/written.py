"""What a turn has written: how many tokens, and whether a stop string ended it within a call."""

from __future__ import annotations

from collections.abc import Sequence

from rolecraft.renderers import Renderer
from rolecraft.types import Completion, Turn


def completion_tokens(turn: Turn) -> int:
    """Return how many tokens a turn wrote; a remote engine tells their number and not which they are."""
    return turn.usage.completion or len(turn.token_ids)


def stops_within_a_call(completion: Completion, renderer: Renderer | None, stops: Sequence[str]) -> bool:
    """Tell whether a stop string ended a reply within a call that the model might have left unmade."""
    if completion.message.unparsed is None or renderer is None:
        return False
    text = renderer.text(completion.turn.token_ids)
    return any(stop in text for stop in stops)
