"""How long a conversation may be on a model where nobody says so, and what its keys and values take.

Not covered: memory that other processes use.
"""

from __future__ import annotations

import os
from typing import Any

import torch

from rolecraft.model import Loaded

LONGEST = 8192
_SHORTEST = 1024
_MIB = 2**20


def own_context(loaded: Loaded, max_requests: int, memory_mb: int | None, *, packed: bool = False) -> int:
    """Return the tokens of a model's own context, at most 8192 and not more than memory holds for all requests.

    The memory is `memory_mb`, else half of what the machine has, whatever of it is free now: a score must not depend on
    that. With `packed` weights they are of float32. Below 1024 it does not go, where the model has as many.
    """
    parameter = next(iter(loaded.model.parameters()))
    room = memory_mb * _MIB if memory_mb else memory(parameter.device) // 2
    fitting = room // (max_requests * token_bytes(loaded.model.config, 4 if packed else parameter.element_size()))
    most = min(loaded.context or _SHORTEST, LONGEST)
    return max(min(most, fitting), min(most, 1 if memory_mb else _SHORTEST))


def token_bytes(config: Any, width: int) -> int:
    """Return the bytes of one token's keys and values, by a model's config, in numbers of `width` bytes."""
    text = config.get_text_config()
    heads = getattr(text, "num_key_value_heads", None) or text.num_attention_heads
    size = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    return int(2 * text.num_hidden_layers * heads * size * width)


def memory(device: torch.device) -> int:
    """Return the bytes of memory of a device, 2 GiB where the system does not tell."""
    if device.type == "cuda":
        return int(torch.cuda.get_device_properties(device).total_memory)
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return 2**31
