"""How a held reply begins: with text, or with a call, and of which tool.

A model that would call a tool which is not offered has found none that fits. Held to the tools' names it would call one
all the same; so where it may also write text, it calls only if it is likelier than not that it means one of them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch

from rolecraft.engine.ending import Merged
from rolecraft.grammar import Wanted
from rolecraft.grammar.fenced import LIST, OBJECT
from rolecraft.renderers import Renderer
from rolecraft.types import Message, ToolCall

_LEAST = math.log(0.5)
"""So likely must it be that a reply that looks like a call is one of a tool that there is."""
_NAME = "q0q0q"  # no template has it
_QUOTE = b'"'


@dataclass(frozen=True, slots=True)
class Opening:
    """The texts up to a first call's name, `leads`, and the token that is written for those that begin an object.

    `tags` are the tokens that begin a call in the format's own syntax. `names`: what may stand there. `doubts`: the
    reply may also be something else, and is where the model means another tool than those offered.
    """

    leads: tuple[bytes, ...]
    names: tuple[bytes, ...]
    fence_id: int
    objects: torch.Tensor
    tags: tuple[int, ...]
    doubts: bool

    @property
    def longest(self) -> int:
        """The most bytes, and so the most tokens, after which a reply may still be told to be something else."""
        return max(map(len, self.leads)) + max(map(len, self.names)) if self.doubts else 0

    def merged(self, allowed: torch.Tensor) -> Merged | None:
        """Return what a reply may begin with instead of an object; None if it is not `allowed` (V,)."""
        if not allowed[self.fence_id]:
            return None
        meant = self.objects & ~allowed
        meant[self.fence_id] = True
        return Merged(self.fence_id, meant)

    def doubted(self, text: bytes, allowed: torch.Tensor) -> torch.Tensor | None:
        """Return the tokens (V,) that say that a call is meant, where a reply that begins with `text` says so.

        That is at its beginning and within the first call's name, where these are `allowed`; else None.
        """
        if not self.doubts:
            return None
        if not text:
            calls = self.objects.clone()
            calls[[self.fence_id, *self.tags]] = True
            return calls
        return allowed if self.is_name(text) else None

    def is_name(self, text: bytes) -> bool:
        """Tell whether the next token belongs to a first call's name."""
        begun = [text[len(lead) :] for lead in self.leads if text.startswith(lead)]
        return any(name.startswith(rest) and name != rest for rest in begun for name in self.names)

    def is_open(self, text: bytes) -> bool:
        """Tell whether a reply that begins with `text` may still be told to be something else."""
        return self.doubts and (any(lead.startswith(text) for lead in self.leads) or self.is_name(text))


@dataclass(slots=True)
class Doubt:
    """How likely it is so far that a reply's call is meant, as a log-probability."""

    logprob: float = 0.0

    def add(self, logits_V: torch.Tensor, meant_V: torch.Tensor) -> None:
        """Take in a place where the tokens `meant_V` say so."""
        meant = logits_V.masked_fill(~meant_V.to(logits_V.device), float("-inf"))
        self.logprob += float(meant.logsumexp(-1) - logits_V.logsumexp(-1))

    @property
    def prevails(self) -> bool:
        """Whether it is likelier that something else is meant."""
        return self.logprob < _LEAST


def opening_of(
    wanted: Wanted, renderer: Renderer, tokens: list[bytes], lead: str, fence_id: int, objects: torch.Tensor
) -> Opening | None:
    """Return how a reply may begin that is held to what is `wanted`; None where no call can be fenced.

    `tokens` are the tokenizer's, `objects` (V,) tells which begin an object; `lead` is what it puts before any text.
    """
    if not (wanted.lenient and wanted.tools) or wanted.choice == "none" or wanted.schema is not None:
        return None
    ids = renderer.reply(Message("assistant", tool_calls=(ToolCall(_NAME, {}),)))
    own = b"".join(tokens[token] for token in ids).partition(_NAME.encode())[0]
    names = tuple(renderer.shielded(tool.name).encode() + _QUOTE for tool in wanted.tools)
    leads = own, f"{lead}{wanted.block.opening}".encode() + _QUOTE
    return Opening(leads, names, fence_id, objects, ids[:1], wanted.choice == "auto" or wanted.block is LIST)


def otherwise(wanted: Wanted) -> Wanted:
    """Return what a reply is held to once its call has been doubted: to one object in place of a list, then to text."""
    if wanted.block is LIST:
        return replace(wanted, block=OBJECT)
    return replace(wanted, choice="none")
