"""Where a held reply may end, and by which tokens a model says that it does, or begins a call.

Not covered: calls without tags around them, after which a call may be written twice.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from rolecraft.renderers import Renderer


@dataclass(frozen=True, slots=True)
class Merged:
    """Tokens that mean one and the same, `meant` (V,), and the one that is then `written`, with all their chances.

    Where a reply may end these are whatever stops a reply: a model that was not taught a format stops by another token
    than the format's. After a call between tags that the reply has already it is every token: who repeats a call has
    nothing new to ask. Where a reply begins they are what begins an object, for which a fenced block is begun.
    """

    written: int
    meant: torch.Tensor


@dataclass(frozen=True, slots=True)
class Whole:
    """How the end of a reply is told, and of a call within it: `close` is its closing tag, empty where it has none.

    `repeatable`: some tool may be called twice in the same words; else a reply ends with a call that it has already.
    """

    end_id: int
    stop_ids: list[int]
    close: bytes
    repeatable: bool

    @classmethod
    def of(cls, renderer: Renderer, repeatable: bool) -> Whole:
        """Return how it is in a format."""
        close = renderer.call_syntax.close.strip().encode()
        return cls(renderer.end_id, sorted(renderer.stop_ids), close, repeatable)

    def ends_in_call(self, tail: bytes) -> bool:
        """Tell whether a text ends in a call between tags."""
        return bool(self.close) and tail.rstrip().endswith(self.close)

    def ends_in_twin(self, text: bytes) -> bool:
        """Tell whether the call that a text ends in stands in it before, and no tool may be called so."""
        *before, last, _ = text.split(self.close)
        return not self.repeatable and last.strip() in [call.strip() for call in before]
