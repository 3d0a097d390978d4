"""What a tool's JSON Schema says, whatever its draft, brought into one form that judges and grammars share."""

from __future__ import annotations

from rolecraft.schemas.bounds import Keys, Matching, bounded, closed, followed, keys_of, usable, validator, within
from rolecraft.schemas.drafts import Unusable

__all__ = ["Keys", "Matching", "Unusable", "bounded", "closed", "followed", "keys_of", "usable", "validator", "within"]
