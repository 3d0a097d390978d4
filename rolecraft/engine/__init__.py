"""The local engine: batched decoding with one KV cache across turns and roles, and schema-constrained calls.

`local` is its asynchronous front; `scheduler` batches the requests, `model_runner` computes them over the `kv_cache`.
"""

from __future__ import annotations

from rolecraft.engine.by_role import RoleEngines
from rolecraft.engine.local import LocalEngine
from rolecraft.engine.opened import open_local
from rolecraft.engine.settings import Settings

__all__ = ["LocalEngine", "RoleEngines", "Settings", "open_local"]
