"""What an adapter is: a trainable part put on a frozen base.

To add an adapter, write `adapters/x.py` with the five names of `Adapter`; a recipe then names it in `adapter.name`.
Importing a member costs no torch: `Settings` is read by commands that never load a model. An attached model starts as
the base, gives the base no gradient, and is saved and loaded by PEFT's own `save_pretrained` and `from_pretrained`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol, cast

from rolecraft import catalog

if TYPE_CHECKING:
    import torch

__all__ = ["Adapter", "count_trainable", "find"]


class Adapter(Protocol):
    """The contract of a member of `adapters/`: a module with these names."""

    Settings: type[Any]
    """A frozen dataclass with PEFT's names."""

    def attach(self, model: Any, settings: Any) -> Any:
        """Return `model` with the adapter on it and the base frozen; random numbers come from torch's generator."""
        ...

    def inputs(self, speakers_BT: torch.Tensor) -> Mapping[str, torch.Tensor]:
        """Return what the forward call takes beside the ids; `speakers_BT` holds role ids, -1 for context (B, T)."""
        ...

    def penalty(self, model: Any) -> torch.Tensor | float:
        """Return what the last forward call adds to the token loss, in nats; 0 for an adapter that adds nothing."""
        ...

    def merge(self, model: Any) -> Any:
        """Return the base with the adapter's weights added in; raises ContractError where that cannot be done."""
        ...


def find(name: str) -> Adapter:
    """Return the member `adapters/<name>.py`, or the one in the file `name`; raises NotFound with the nearest name."""
    return cast("Adapter", catalog.find("adapters", name))


def count_trainable(model: Any) -> int:
    """Return how many numbers of `model` are trained."""
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
