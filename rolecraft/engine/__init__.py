"""The local engine: batched decoding with one KV cache across turns and roles, and schema-constrained calls.

`local` is its asynchronous front; `scheduler` batches the requests, `model_runner` computes them over the `kv_cache`.
"""

from __future__ import annotations

from rolecraft.engine.local import LocalEngine, open_local
from rolecraft.engine.settings import Settings

__all__ = ["LocalEngine", "Settings", "open_local"]
