"""How much faster this machine multiplies in bfloat16 than in float32: by processor, from half to several times.

Not covered: kernels that are compiled for each new shape, which cost bfloat16 more on a CPU than a trial shows.
"""

from __future__ import annotations

import time

import torch

_TRIAL = (256, 512, 1024)
_LARGE = (4096, 4096, 4096)
"""For an accelerator, which would spend a smaller product's time on its launch."""
_REPEATS = 7


def gain(device: torch.device) -> float:
    """Return how many times faster a product is in bfloat16 than in float32, each at its best of several tries."""
    rows, inner, columns = _TRIAL if device.type == "cpu" else _LARGE
    x, weight = torch.ones(rows, inner, device=device), torch.ones(columns, inner, device=device)
    taken: dict[torch.dtype, list[float]] = {torch.float32: [], torch.bfloat16: []}
    for _ in range(_REPEATS):
        for dtype, seconds in taken.items():
            left, right = x.to(dtype), weight.to(dtype)
            began = time.perf_counter()
            float(torch.nn.functional.linear(left, right)[0, 0])
            seconds.append(time.perf_counter() - began)
    return min(taken[torch.float32]) / min(taken[torch.bfloat16])
