"""How a held reply begins: with text, or with a call, and of which tool.

A model that would call a tool which is not offered has found none that fits. Held to the tools' names it would call one
all the same; so where it may also write text, it calls only if it is likelier than not that it means one of them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from rolecraft.engine.ending import Merged
from rolecraft.grammar import fenced
from rolecraft.renderers import Renderer
from rolecraft.types import Message, ToolCall

_LEAST = 0.5
"""So likely must it be that a call's name goes on as one of the tools' does."""
_NAME = "q0q0q"  # no template has it


@dataclass(frozen=True, slots=True)
class Opening:
    """The texts up to a first call's name, `leads`, and the token that is written for those that begin an object.

    `doubts`: the reply may also be text, and is where the model means another tool than those offered.
    """

    leads: tuple[bytes, ...]
    fence_id: int
    objects: torch.Tensor
    doubts: bool

    def merged(self, allowed: torch.Tensor) -> Merged | None:
        """Return what a reply may begin with instead of an object; None if it is not `allowed` (V,)."""
        if not allowed[self.fence_id]:
            return None
        meant = self.objects & ~allowed
        meant[self.fence_id] = True
        return Merged(self.fence_id, meant)

    def is_doubtful(self, text: bytes) -> bool:
        """Tell whether a call's name follows `text`, the reply so far, and the reply might be text after all."""
        return self.doubts and text in self.leads

    def is_open(self, text: bytes) -> bool:
        """Tell whether a reply that begins with `text` may still be told to be text."""
        return self.doubts and any(lead.startswith(text) for lead in self.leads)


def is_meant(logits_V: torch.Tensor, allowed_V: torch.Tensor) -> bool:
    """Tell whether the model would rather go on with what is allowed than with anything else."""
    allowed = logits_V.masked_fill(~allowed_V.to(logits_V.device), float("-inf"))
    return float(allowed.logsumexp(-1) - logits_V.logsumexp(-1)) >= math.log(_LEAST)


def leads_of(renderer: Renderer, tokens: list[bytes], lead: str) -> tuple[bytes, ...]:
    """Return what stands before a first call's name, in the format's own syntax and in a fenced block."""
    ids = renderer.reply(Message("assistant", tool_calls=(ToolCall(_NAME, {}),)))
    own = b"".join(tokens[token] for token in ids).partition(_NAME.encode())[0]
    return own, f"{lead}{fenced.OPENING}".encode()
