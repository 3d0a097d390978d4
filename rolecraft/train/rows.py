"""Examples as tensors: whole padded batches, or groups of rows laid out as one, behind an adapter's virtual tokens."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import torch
from torch.nn import functional
from torch.nn.utils.rnn import pad_sequence

from rolecraft import adapters, virtual_tokens
from rolecraft.examples import Example
from rolecraft.model import Loaded
from rolecraft.recipe import Recipe
from rolecraft.train.batches import Batch
from rolecraft.train.sharing import lay_out, rounded, shared_length


def virtual_of(recipe: Recipe, loaded: Loaded) -> tuple[int, ...]:
    """Return the virtual tokens that the recipe's adapter puts before every sequence of the base."""
    count = adapters.find(recipe.adapter.name).virtual_tokens(recipe.adapter.settings)
    return virtual_tokens.ids_after(len(loaded.model.get_input_embeddings().weight), count)


class Rows:
    """The examples as tensors; an item is a whole padded batch, at most `context` tokens wide."""

    def __init__(
        self,
        examples: Sequence[Example],
        speakers: Sequence[str],
        pad_id: int,
        context: int | None = None,
        virtual: Sequence[int] = (),
    ) -> None:
        """Make tensors; every row begins with the `virtual` tokens, which are nobody's and are not trained."""
        places: dict[str | None, int] = {speaker: place for place, speaker in enumerate(speakers)}
        self._pad_id, self._context = pad_id, context or sys.maxsize
        nothing, nobody = (0.0,) * len(virtual), (-1,) * len(virtual)
        self._ids = [torch.tensor((*virtual, *example.ids)) for example in examples]
        self._weights = [torch.tensor(_begun(nothing, example.weights)) for example in examples]
        self._speakers = [
            torch.tensor((*nobody, *(places.get(name, -1) for name in example.speakers))) for example in examples
        ]
        self._roles = [torch.tensor((*nobody, *example.roles)) for example in examples if example.roles]

    def __len__(self) -> int:
        """Return the number of examples."""
        return len(self._ids)

    def __getitem__(self, batch: Batch) -> dict[str, Any]:
        """Return ids, loss weights scaled to shares of the step, speakers and role ids (B, T), and the token count.

        Speakers and role ids are -1 where nobody's; role ids are absent if the examples have none. Rows that only fill
        up a step are nobody's: they pay no balance loss, and the routers' load is not theirs.

        Padding is on the right, where a causal model never looks from a real token: no attention mask is needed.
        A batch of groups is one row (1, T) instead, each group's prefix once, with what else the model's call takes.
        """
        if batch.groups:
            return self._shared(batch)
        lengths = [len(self._ids[row]) for row in batch.rows]
        width = max(max(lengths), min(self._context, rounded(max(lengths))))
        tensors = {
            "ids_BT": self._padded(self._ids, batch, width, self._pad_id),
            "weights_BT": self._padded(self._weights, batch, width, 0.0) * batch.scale,
            "speakers_BT": self._padded(self._speakers, batch, width, -1),
            "tokens": sum(lengths) if batch.scale else 0,
        }
        if self._roles:
            roles_BT = self._padded(self._roles, batch, width, -1)
            tensors["roles_BT"] = roles_BT if batch.scale else torch.full_like(roles_BT, -1)
        return tensors

    def _shared(self, batch: Batch) -> dict[str, Any]:
        lengths = [len(ids) for ids in self._ids]
        layout = lay_out(batch.groups, lengths, [self.common(group) for group in batch.groups])
        width = rounded(layout.length)
        weights_1T = layout.place(self._weights, width, 0.0) * batch.scale
        positions_1T = layout.positions(width)
        weights_1T[positions_1T == 0] = 0.0  # in a row by itself, too, the first token is never trained
        tensors = {
            "ids_BT": layout.place(self._ids, width, self._pad_id),
            "weights_BT": weights_1T,
            "speakers_BT": layout.place(self._speakers, width, -1),
            "tokens": sum(lengths[row] for row in batch.rows) if batch.scale else 0,
            "call": {"position_ids": positions_1T, "trees": layout.padded(width)},
        }
        if self._roles:
            roles_1T = layout.place(self._roles, width, -1)
            tensors["roles_BT"] = roles_1T if batch.scale else torch.full_like(roles_1T, -1)
            tensors["times_BT"] = layout.times(width)
        return tensors

    def common(self, group: Sequence[int]) -> int:
        """Return how many tokens the rows of a group share."""
        alike = [(self._ids[row], *((self._roles[row],) if self._roles else ())) for row in group]
        return shared_length(alike, [self._weights[row] for row in group])

    def _padded(self, tensors: Sequence[torch.Tensor], batch: Batch, width: int, value: float) -> torch.Tensor:
        rows_BT = pad_sequence([tensors[row] for row in batch.rows], batch_first=True, padding_value=value)
        return functional.pad(rows_BT, (0, width - rows_BT.shape[1]), value=value)


def _begun(nothing: Sequence[float], weights: Sequence[float]) -> Sequence[float]:
    """Return the weights after those of virtual tokens; the first token of all is not trained, with them or without."""
    return (*nothing, 0.0, *weights[1:]) if nothing else weights
