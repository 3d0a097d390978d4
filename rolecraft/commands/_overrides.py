"""Overrides (`section.key=value`) on the command line: where they may stand, and which ones `--help` lists.

Not covered: what an override means (`settings`).
"""

from __future__ import annotations

import argparse
import ast
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

_OVERRIDE = re.compile(r"[A-Za-z_][\w.-]*=")


@dataclass(frozen=True)
class _Allowed:
    beside: str
    listing: Callable[[Sequence[str]], str]


def add(
    parser: argparse.ArgumentParser,
    form: str,
    text: str,
    *,
    beside: str = "",
    listing: Callable[[Sequence[str]], str] = lambda words: "",
) -> None:
    """Let a verb take overrides, found in `set`.

    `beside` is the one other positional argument that the verb takes, if any; `listing` returns from the words of a
    command line what `--help` says of the settings that there are.
    """
    parser.add_argument("set", nargs="*", default=[], metavar=form, help=f"{text}; may stand anywhere")
    parser.set_defaults(overrides=_Allowed(beside, listing))


def is_one(word: str) -> bool:
    """Return whether a word reads as an override."""
    return _OVERRIDE.match(word) is not None


def parse_known(parser: argparse.ArgumentParser, words: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
    """Return the options in `words`, overrides in `set` if the verb takes them, and the words that nothing takes."""
    allowed = parser.get_default("overrides")
    if allowed is None:
        return parser.parse_known_args(words)
    if {"-h", "--help"} & set(words):
        parser.formatter_class, parser.epilog = argparse.RawDescriptionHelpFormatter, allowed.listing(words)
    options, strange = parser.parse_known_intermixed_args(words)
    if not strange:
        _separate(parser, options, allowed.beside)
    del options.overrides
    return options, strange


def _separate(parser: argparse.ArgumentParser, options: argparse.Namespace, beside: str) -> None:
    """Separate the overrides from the one argument that may stand beside them: argparse takes words in order alone."""
    words = [*([getattr(options, beside)] if beside else []), *options.set]
    options.set = [word for word in words if word and is_one(word)]
    others = [word for word in words if word and not is_one(word)]
    if len(others) > bool(beside):
        parser.error(f"unexpected {others[bool(beside)]!r}; a setting is changed as section.key=value")
    if beside:
        chosen = others[0] if others else parser.get_default(beside)
        if chosen is None:
            parser.error(f"the following arguments are required: {beside}")
        setattr(options, beside, chosen)


def settings_in(path: Path, title: str) -> str:
    """Return the settings in a file's `Settings`. It is read and not run: what it imports would take seconds."""
    try:
        body = ast.parse(path.read_text(encoding="utf-8")).body
    except (OSError, SyntaxError, ValueError):
        return ""
    values = [(node.targets[0], node.value) for node in body if isinstance(node, ast.Assign)]
    constants = {target.id: value for target, value in values if isinstance(target, ast.Name)}
    lines = [f"{title}, as KEY=VALUE (here with their defaults):"]
    kinds = [node for node in body if isinstance(node, ast.ClassDef) and node.name == "Settings"]
    for node in (node for kind in kinds for node in kind.body):
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            value = node.value
            value = constants.get(value.id, value) if isinstance(value, ast.Name) else value
            lines.append(f"  {node.target.id}={'' if value is None else _default(ast.unparse(value))}")
    return "\n".join(lines)


def _default(source: str) -> str:
    """Return a default as it may be written after KEY=."""
    source = {"field(default_factory=dict)": "{}", "field(default_factory=list)": "[]"}.get(source, source)
    try:
        return json.dumps(ast.literal_eval(source))
    except ValueError:
        return source
