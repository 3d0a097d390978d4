"""Gives memory that was freed back to the system, which the C library keeps for itself.

Opening an engine frees about as much as the model weighs: what was read, and the weights as they were before they were
packed. Not covered: other C libraries than glibc, where nothing happens.
"""

from __future__ import annotations

import ctypes


def return_freed() -> None:
    """Let the C library return what it holds and nobody uses; it takes some milliseconds."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
