"""The engine for OpenAI-compatible endpoints: a teacher, a judge model, a baseline, a team on a server.

`engine` is its asynchronous front; `transport` sends a request until it is answered, within bounds; `requests` writes
one from a prompt and `replies` reads the answer; `probing` finds out what an endpoint is before anything is played.

What an endpoint cannot do is refused by name: a reply that is held to name the next role, exact token ids, and one that
is begun with a given text, unless the endpoint takes `continue_final_message`. Not covered: Azure's addresses with
query strings, and certificates of one's own beyond what the environment's `SSL_CERT_FILE` names.
"""

from __future__ import annotations

from rolecraft.remote.cache import take_lost
from rolecraft.remote.engine import RemoteEngine
from rolecraft.remote.probing import Wishes, require, resolve
from rolecraft.remote.settings import Settings, read_key

__all__ = ["RemoteEngine", "Settings", "Wishes", "read_key", "require", "resolve", "take_lost"]
