"""Causal attention over blocks of queries: on a CPU in bf16 about twice as fast, forward and back, as what torch has.

For training only. Not covered: attention masks (rows must be padded on the right, where causality hides the padding),
sliding windows, dropout, and key-value caches.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers import AttentionInterface

NAME = "rolecraft_blocks"
_BLOCK = 128


def register() -> str:
    """Make the attention known to transformers and return the name that `set_attn_implementation` takes."""
    AttentionInterface.register(NAME, attend)
    return NAME


def serves(model: Any) -> bool:
    """Tell whether a model attends causally to everything before, with nothing that this leaves out."""
    config = model.config.get_text_config()
    windowed = getattr(config, "sliding_window", None) and getattr(config, "use_sliding_window", True)
    capped = getattr(config, "attn_logit_softcapping", None)
    return not (windowed or capped or getattr(config, "attention_dropout", 0.0))


def attend(
    module: torch.nn.Module, q_BHTD: Tensor, k_BKTD: Tensor, v_BKTD: Tensor, *_: Any, scaling: float, **__: Any
) -> tuple[Tensor, None]:
    """Return (B, T, H, D): every query attends to the keys up to its own place; K divides H (grouped queries)."""
    groups = q_BHTD.shape[1] // k_BKTD.shape[1]
    if groups > 1:
        k_BKTD, v_BKTD = k_BKTD.repeat_interleave(groups, 1), v_BKTD.repeat_interleave(groups, 1)
    length = q_BHTD.shape[2]
    mask = torch.full((_BLOCK, _BLOCK), float("-inf"), dtype=q_BHTD.dtype, device=q_BHTD.device).triu(1)
    blocks = []
    for start in range(0, length, _BLOCK):
        end = min(length, start + _BLOCK)
        scores = (q_BHTD[:, :, start:end] @ k_BKTD[:, :, :end].transpose(-1, -2)) * scaling
        scores[..., start:end] += mask[: end - start, : end - start]
        blocks.append(torch.softmax(scores, -1) @ v_BKTD[:, :, :end])
    return torch.cat(blocks, 2).transpose(1, 2), None
