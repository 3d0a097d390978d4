"""Make or check the embedded base model."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

from rolecraft.commands import _overrides
from rolecraft.commands._numbers import count

GROUP = "this machine and the embedded model"

_PRETRAIN = Path(__file__).parents[1] / "nano" / "pretrain.py"


def options(parser: argparse.ArgumentParser) -> None:
    """Add the verb's options."""
    text = "pretrain makes a base, check measures one"
    parser.add_argument("action", type=_action, metavar="{pretrain,check}", help=text)
    _overrides.add(parser, "KEY=VALUE", "change a pretraining setting", beside="action", listing=_listing)
    text = "the shape that pretrain makes: nano, the shipped one, or larger, of 2.9 million parameters (default: nano)"
    parser.add_argument("--size", choices=("nano", "larger"), default="nano", help=text)
    text = "where pretrain writes (default: runs/nano)"
    parser.add_argument("--output", type=Path, default=Path("runs/nano"), metavar="DIR", help=text)
    parser.add_argument(
        "--base", default="nano", metavar="MODEL", help="what check measures (default: nano, the shipped base)"
    )
    text = "processes that pretrain in parallel (default: 2)"
    parser.add_argument("--processes", type=count, default=2, metavar="N", help=text)
    parser.add_argument("--n", type=count, default=200, metavar="N", help="probes per check (default: 200)")
    parser.add_argument("--json", action="store_true", help="print the checks as one JSON object")


def run(options: argparse.Namespace) -> int:
    """Pretrain, or check; returns 1 if a check fails."""
    from rolecraft import bases, settings

    if options.action == "check":
        bases.find(options.base)
    from rolecraft import model
    from rolecraft.nano import checks, pretrain

    if options.action == "pretrain":
        changes = settings.override({}, [f"pretrain.{flag}" for flag in options.set]).get("pretrain")
        pretrain.launch(pretrain.sized(options.size, changes), options.output, options.processes)
        print(options.output)
        return 0
    loaded = model.load(options.base)
    found = checks.check(loaded.model, loaded.tokenizer, n=options.n)
    for check in found:
        print(f"{check.name}: {check.accuracy:.3f} (n {check.n}, bar {check.bar:.2f})")
    if options.json:
        print(json.dumps({check.name: {"accuracy": check.accuracy, "n": check.n} for check in found}))
    return 0 if all(check.passed for check in found) else 1


def _action(word: str) -> str:
    # argparse's own `choices` would refuse an override that stands first.
    if word not in ("pretrain", "check") and not _overrides.is_one(word):
        raise argparse.ArgumentTypeError(f"{word!r} is neither 'pretrain' nor 'check'")
    return word


def _listing(words: Sequence[str]) -> str:
    return _overrides.settings_in(_PRETRAIN, "settings of pretraining")
