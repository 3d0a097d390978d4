"""CLINC-150: short requests of 150 intents, and requests outside all of them.

A path is `data_full.json`; a row is a request with its `intent` and the intents that are `offered`. An intent is a
function without arguments, told by its name alone, since the source has no schemas; a request outside all of them
(`oos`) is answered by saying that none fits. Each request is offered eight functions, its own among them, drawn by
the request's text. To be offered tools of other sources instead, a recipe's rules hide these.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from rolecraft import store
from rolecraft.errors import DataError
from rolecraft.importers import NO_TOOL_FITS
from rolecraft.types import Json, Message, Task, ToolCall, ToolSpec, Trajectory

EXAMPLE: Mapping[str, Json] = {
    "text": "where did i leave my bicycle",
    "intent": "find_bicycle",
    "offered": ["lock_bicycle", "find_bicycle", "pump_tyres"],
}

LEFT_OUT = ()

OUTSIDE = "oos"
"""The source's word for a request outside all intents."""

_OFFERED = 8
_KEYS = ("text", "intent", "offered")


def rows(path: Path) -> Iterator[tuple[str, Json]]:
    """Yield each request, those outside all intents first, after where it stands."""
    if path.suffix != ".json":
        yield from store.objects(path)
        return
    found = [splits for _, splits in store.objects(path)]
    if len(found) != 1 or not isinstance(found[0], dict):
        raise DataError(f"{path}: not one whole JSON object; it must have a list of requests for each split")
    (splits,) = found
    known = sorted({item[1] for items in splits.values() for item in _pairs(items)} - {OUTSIDE})
    for split in sorted(splits, key=lambda name: not name.startswith(OUTSIDE)):
        for number, item in enumerate(splits[split] if isinstance(splits[split], list) else [], 1):
            row: Json = item
            if [item] == list(_pairs([item])):
                row = {"text": item[0], "intent": item[1], "offered": _offered(item[0], item[1], known)}
            yield f"{path}: {split} {number}", row


def convert(row: Mapping[str, Json]) -> Trajectory:
    """Return the request and the call of its intent, or the answer that none fits; raises DataError."""
    if unknown := [key for key in row if key not in _KEYS]:
        raise DataError(f"unknown key {unknown[0]!r}; a row has {', '.join(_KEYS)}")
    text, intent, offered = row["text"], row["intent"], row["offered"]
    if not all(isinstance(one, str) and one.strip() for one in (text, intent, *offered)):
        raise DataError("a request and its intents must be texts")
    if intent != OUTSIDE and intent not in offered:
        raise DataError(f"intent {intent[:40]!r} is not among those offered")
    calls = () if intent == OUTSIDE else (ToolCall(intent, {}, "call_0"),)
    reply = Message("assistant", "" if calls else NO_TOOL_FITS, calls)
    written = [{"name": call.name, "arguments": {}} for call in calls]
    services = ["clinc", *([intent] if calls else [])]
    reference = {"services": services, "steps": [{"at": 1, "calls": written, "services": services}]}
    question = Message("user", text)
    tools = tuple(ToolSpec(name, name.replace("_", " ")) for name in offered)
    return Trajectory("", Task("", (question,), tools, reference), (question, reply))


def _pairs(items: Json) -> Iterator[list[str]]:
    for item in items if isinstance(items, list) else ():
        if isinstance(item, list) and len(item) == 2 and all(isinstance(one, str) for one in item):
            yield item


def _offered(text: str, intent: str, known: Sequence[str]) -> list[str]:
    """Return the intent and others of `known`, in an order that the text alone decides."""

    def key(name: str) -> bytes:
        return hashlib.blake2b(f"{text}\n{name}".encode("utf-8", "replace"), digest_size=8).digest()

    own = [intent] if intent != OUTSIDE else []
    others = sorted((name for name in known if name != intent), key=key)[: _OFFERED - len(own)]
    return sorted([*own, *others], key=key)
