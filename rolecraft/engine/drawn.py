"""What tokens might be drawn at a place, packed to be kept with a reply, and a token's chance among them again.

A mask of V tokens takes at most V / 8 bytes and a few; most are far smaller, for a grammar lets through few tokens, or
within a string nearly all. Not covered: `top_k`, `top_p` and `min_p`, which cut by the chances themselves.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch

from rolecraft.engine.ending import Merged
from rolecraft.engine.sampling import held
from rolecraft.types import Drawn

_QUICK = 1
_MOST = 2**22
"""Bytes of a mask: more tokens than any vocabulary has."""


def pack(mask_V: torch.Tensor) -> bytes:
    """Return booleans as compressed bits."""
    return zlib.compress(np.packbits(mask_V.numpy()).tobytes(), _QUICK)


def unpack(packed: bytes, size: int) -> torch.Tensor:
    """Return the booleans (size,) of `pack`; False beyond those that were packed."""
    bits = np.frombuffer(zlib.decompressobj().decompress(packed, _MOST), dtype=np.uint8)
    mask_V = np.zeros(size, dtype=bool)
    known = np.unpackbits(bits, count=min(size, 8 * len(bits)))
    mask_V[: len(known)] = known
    return torch.from_numpy(mask_V)


def tell(logprob: float, temperature: float, mask_V: torch.Tensor | None, merged: Merged | None) -> Drawn:
    """Return how a token was drawn with this log-probability: of the tokens of a mask (None: all)."""
    plain = Drawn(logprob, temperature, b"" if mask_V is None else pack(mask_V))
    return plain if merged is None else replace(plain, meant=pack(merged.meant), written=merged.written)


def let_through(logits_NV: torch.Tensor, told: Sequence[Drawn]) -> torch.Tensor:
    """Return logits as tokens were drawn from them: -inf where one was not let through."""
    if not any(one.among for one in told):
        return logits_NV
    size = logits_NV.shape[-1]
    anything = torch.ones(size, dtype=torch.bool)
    allowed_NV = torch.stack([unpack(one.among, size) if one.among else anything for one in told])
    merged = {place: (one.written, unpack(one.meant, size)) for place, one in enumerate(told) if one.meant}
    return held(logits_NV, allowed_NV, merged)
