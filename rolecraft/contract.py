"""What an adapter was trained on and must be played on: written beside it, and compared before it is played.

Not covered: signatures. A contract guards against mistakes, not against somebody who edits it.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rolecraft import catalog, parsing
from rolecraft.errors import ContractError, SettingsError
from rolecraft.gate import Gate
from rolecraft.renderers import TEMPLATE, Renderer, describe
from rolecraft.settings import from_dict
from rolecraft.types import Message, ToolCall, ToolSpec

FILE = "contract.json"
OWN = "own"
"""The name of a renderer that is not in the catalog."""


@dataclass(frozen=True, slots=True)
class Contract:
    """What an adapter was trained on and must be played on; it lies beside the adapter as `contract.json`.

    `golden` is the ids of a fixed conversation, so that a difference can be shown and not only told. `config` and
    `weights` are digests of the base's shape and of some of its numbers. `gate` is how tokens get role ids (None: the
    adapter knows no roles), `team` the preset it was trained for, `instructions` whether its roles were told theirs.
    `near` is where the base lies seen from the adapter's folder, where one run has made both.
    """

    base: str
    config: str
    weights: str
    renderer: str
    format: str
    golden: tuple[int, ...]
    team: str | None = None
    instructions: bool = True
    gate: Gate | None = None
    near: str | None = None


def make(
    base: tuple[str, str, str],
    renderer: Renderer,
    *,
    team: str | None = None,
    instructions: bool = True,
    gate: Gate | None = None,
) -> Contract:
    """Return the contract of an adapter trained on `base`: its name, and the digests of its shape and weights."""
    name, config, weights = base
    return Contract(
        base=name,
        config=config,
        weights=weights,
        renderer=name_of(renderer),
        format=digest(describe(renderer.format)),
        golden=_golden(renderer),
        team=team,
        instructions=instructions,
        gate=gate,
    )


def save(contract: Contract, adapter: Path) -> None:
    """Write `contract.json` into the folder of an adapter, whole or not at all."""
    partial = adapter / f"{FILE}.partial"
    partial.write_text(text(contract), encoding="utf-8")
    partial.replace(adapter / FILE)


def text(contract: Contract) -> str:
    """Return a contract as its file holds it."""
    return json.dumps(dataclasses.asdict(contract), indent=2) + "\n"


def read(adapter: Path) -> Contract | None:
    """Return the contract of an adapter, or None if it has none; raises ContractError for one that cannot be read."""
    path = adapter / FILE
    if not path.is_file():
        return None
    try:
        made = from_dict(Contract, parsing.read_json(path), "contract")
    except SettingsError as error:
        raise ContractError(f"{path}: not a contract ({error}); restore the file or tune the adapter again") from error
    known = (*catalog.names("renderers"), TEMPLATE, OWN)
    if made.renderer not in known:
        raise ContractError(
            f"{path}: renderer is {made.renderer!r}, and a contract names one of {', '.join(known)}; no file is run "
            "because a contract names it: restore the file, or tune the adapter again"
        )
    return made


def base_of(contract: Contract, adapter: Path) -> str:
    """Return where the base of the adapter in a folder lies: near it, wherever both were moved to, else as it is named.

    Only a folder that is there counts as near, and only a path that leads to no place of its own.
    """
    if contract.near is None or Path(contract.near).is_absolute():
        return contract.base
    beside = Path(os.path.normpath(adapter / contract.near))
    return str(beside) if beside.is_dir() else contract.base


def near(base: str, adapter: Path, run: Path) -> str | None:
    """Return how to reach a base from its adapter's folder, or None if it does not lie beside the adapter's run."""
    place, around = Path(base).resolve(), run.resolve().parent
    if "/" not in base or not place.is_dir() or not place.is_relative_to(around):
        return None
    return os.path.relpath(place, adapter.resolve())


def check(contract: Contract, now: Contract, renderer: Renderer) -> None:
    """Raise ContractError naming the first thing in which the base and `renderer` of `now` differ from `contract`."""
    here, there = f"{now.base!r}", f"{contract.base!r}"
    difference = None
    if contract.config != now.config:
        difference = f"was tuned on {there}, whose layers have other shapes than those of {here}; load it on {there}"
    elif contract.weights != now.weights:
        difference = (
            f"was tuned on {there} with weights {contract.weights}, and those of {here} are {now.weights}; "
            "load it on the very base it was tuned on, or tune it again"
        )
    elif contract.renderer != now.renderer:
        difference = (
            f"was tuned on prompts of renderer {contract.renderer!r}, not of {now.renderer!r}; "
            f"load it with renderer={contract.renderer!r}"
        )
    elif contract.golden != now.golden:
        difference = (
            f"was tuned on prompts that came out otherwise: {_first_difference(contract, now, renderer)}; "
            "use the tokenizer and the version it was tuned with, or tune it again"
        )
    elif contract.format != now.format:
        difference = (
            f"was tuned with a renderer {now.renderer!r} that has changed since, though a plain conversation does not "
            "show it; use the version it was tuned with, or tune it again"
        )
    if difference is not None:
        raise ContractError(f"the adapter {difference}")


def _first_difference(contract: Contract, now: Contract, renderer: Renderer) -> str:
    pairs = zip(contract.golden, now.golden, strict=False)
    shorter = min(len(contract.golden), len(now.golden))
    place = next((i for i, (then, today) in enumerate(pairs) if then != today), shorter)
    then, today = (renderer.text(ids[place : place + 1]) or "the end" for ids in (contract.golden, now.golden))
    before = renderer.text(now.golden[max(0, place - 8) : place])
    return f"token {place}, after {before!r}, was {then!r} and is {today!r}"


def digest(data: Any) -> str:
    """Return a short digest of what JSON can write."""
    return hashlib.sha256(json.dumps(data, sort_keys=True, ensure_ascii=False).encode()).hexdigest()[:16]


def name_of(renderer: Renderer) -> str:
    """Return the name of a renderer's format; a user's own has none, only its digest tells it."""
    if renderer.format.template:
        return TEMPLATE
    names = catalog.names("renderers")
    return next((name for name in names if renderer.format == catalog.find("renderers", name).FORMAT), OWN)


def _golden(renderer: Renderer) -> tuple[int, ...]:
    """Return the ids of a conversation that shows every kind of block, call and result, and text that splits oddly."""
    parameters = {
        "type": "object",
        "properties": {"name": {"type": "string", "description": "whose"}, "days": {"type": "integer"}},
        "required": ["name"],
    }
    tools = (ToolSpec("read_debt", "debt of a company", parameters), ToolSpec("noop", "nothing"))
    calls = (ToolCall("read_debt", {"name": "Plalples", "days": 12}, "a"), ToolCall("noop", {}, "b"))
    messages: Sequence[Message] = (
        Message("system", "Be brief."),
        Message("user", "What does Plalples owe, in € of 2024-05-01?  Né <b>3.5%</b>\n- 10_000"),
        Message("assistant", "I need the debt. Next: executor.", speaker="reasoner"),
        Message("assistant", tool_calls=calls, speaker="executor"),
        Message("tool", "3809", tool_call_id="a", name="read_debt"),
        Message("tool", '{"ok": true}', tool_call_id="b", name="noop"),
        Message("assistant", "The debt of Plalples is 3809.", speaker="summarizer"),
        Message("user", "Thanks."),
        Message("assistant", "You are welcome."),
    )
    if renderer.format.template:  # which knows one speaker, and perhaps none that speaks twice
        messages = [replace(one, speaker=None) for one in messages if one.speaker != "reasoner"]
    return renderer.render(messages, tools).ids
