"""Learned tokens that stand before every sequence: ids beyond a model's vocabulary, which its embedding knows.

As ids they are cached, placed and counted like any other token, and nobody who does so need know of them. No token is
ever predicted to be one: the logits are the vocabulary's.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["VirtualTokens", "fix", "ids", "ids_after", "layers", "rows"]


class VirtualTokens(nn.Module):
    """Stands in the place of a model's token embedding, and gives ids beyond it what the prompt encoder makes of them.

    `prompt_encoder` is PEFT's, called with places (1, N); None once `fix` has taken what it says.
    """

    fixed: Tensor | None

    def __init__(self, table: nn.Module, prompt_encoder: nn.Module, count: int) -> None:
        """Wrap `table`; `count` is how many tokens the encoder makes."""
        super().__init__()
        self.table = table
        self.prompt_encoder: nn.Module | None = prompt_encoder
        self.count = count
        self.register_buffer("fixed", None, persistent=False)

    @property
    def weight(self) -> Any:
        """The table of the vocabulary's own vectors, by which others know its size and type."""
        return self.table.weight

    def rows(self) -> Tensor:
        """Return the tokens' vectors (N, width)."""
        if self.fixed is not None:
            return self.fixed
        assert self.prompt_encoder is not None
        made: Tensor = self.prompt_encoder(torch.arange(self.count, device=self.weight.device)[None])[0]
        return made

    def forward(self, ids_BT: Tensor) -> Tensor:
        """Return (B, T, width); raises IndexError for an id beyond the last virtual token's."""
        words = len(self.weight)
        own_BTD: Tensor = self.table(ids_BT.clamp(max=words - 1))
        virtual_BTD = self.rows().to(own_BTD.dtype)[(ids_BT - words).clamp(min=0)]
        # Both are computed whatever the ids are: to ask whether there are virtual ones would wait for an accelerator.
        return torch.where((ids_BT >= words).unsqueeze(-1), virtual_BTD, own_BTD)


def layers(model: Any) -> tuple[VirtualTokens, ...]:
    """Return the embedding of a model that has virtual tokens, and nothing of any other model."""
    found = model.get_input_embeddings()
    return (found,) if isinstance(found, VirtualTokens) else ()


def ids_after(words: int, count: int) -> tuple[int, ...]:
    """Return the ids of `count` virtual tokens of a model that embeds `words`."""
    return tuple(range(words, words + count))


def ids(model: Any) -> tuple[int, ...]:
    """Return the ids that every sequence of the model begins with, in order; none for most models."""
    return next((ids_after(len(one.weight), one.count) for one in layers(model)), ())


def rows(model: Any) -> Tensor | None:
    """Return the vectors (N, width) of the model's virtual tokens as they are now, None if it has none."""
    return next((one.rows().detach() for one in layers(model)), None)


@torch.no_grad()
def fix(model: Any) -> None:
    """Keep what the prompt encoder says and let the encoder go: the model can only be played afterwards."""
    for one in layers(model):
        one.fixed = one.rows().detach().clone()
        one.prompt_encoder = None
