"""What a verb of the command line is, and how a line of words becomes a verb and its options.

To add a verb, write `commands/x.py`. The first line of its docstring is what `--help` says of it; `GROUP` is one of
`GROUPS`; `options(parser)` adds its options, each with a help text; `run(options)` does the work and returns the exit
code (None is 0). Imports of Rolecraft's own parts stand inside `run`, so that `--help` is instant; what loads torch,
which takes seconds, is imported after everything that can be told without it. What several verbs share is in the files
with an underscore. `python -m rolecraft.commands` prints the page in docs/ about all verbs.
"""

from __future__ import annotations

import argparse
import difflib
import re
import sys
from collections.abc import Iterable, Sequence
from typing import Any, NoReturn, Protocol, cast

from rolecraft import catalog
from rolecraft.commands import _overrides

__all__ = ["GROUPS", "CommandFile", "by_group", "parser", "read", "summary"]

GROUPS = (
    "getting started",
    "tuning",
    "playing",
    "measuring and showing",
    "this machine and the embedded model",
)
"""What verbs belong together, in the order in which `rolecraft --help` names them."""


class CommandFile(Protocol):
    """The contract of a file in this folder."""

    GROUP: str

    def options(self, parser: argparse.ArgumentParser) -> None:
        """Add the verb's options to its parser."""
        ...

    def run(self, options: argparse.Namespace) -> int | None:
        """Do what the verb says; returns the exit code, None for 0."""
        ...


def read(arguments: Sequence[str] | None = None) -> tuple[CommandFile, argparse.Namespace]:
    """Return the verb that a command line names, with its options; `--help` and mistakes end the process (exit code 2).

    Overrides (`section.key=value`) may stand anywhere after the verb and are found in `set`, in their order.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    if not words or words[0] not in catalog.names("commands"):
        _end(words)
    return _find(words[0]), _options(parser(words[0]), words[1:])


def parser(verb: str) -> argparse.ArgumentParser:
    """Return the parser of one verb; no other verb's file is imported."""
    command = _find(verb)
    made = argparse.ArgumentParser(prog=f"rolecraft {verb}", description=summary(command))
    command.options(made)
    return made


def by_group() -> dict[str, dict[str, CommandFile]]:
    """Return every verb by its name, under the group that it belongs to."""
    commands = {name: _find(name) for name in catalog.names("commands")}
    return {group: {name: one for name, one in commands.items() if group == one.GROUP} for group in GROUPS}


def summary(command: CommandFile) -> str:
    """Return the sentence that says what a verb does."""
    return (command.__doc__ or "").partition("\n")[0]


def _find(verb: str) -> CommandFile:
    return cast("CommandFile", catalog.find("commands", verb))


def _end(words: Sequence[str]) -> NoReturn:
    """Answer a line that names no verb: with an overview or the version if it asks for that, else with an error."""
    overview = _overview()
    if words and not words[0].startswith("-"):
        overview.error(f"no verb {words[0]!r}{_near(words[0], catalog.names('commands'))}")
    overview.parse_args(words)
    overview.error("the following arguments are required: VERB; --help lists them")


def _overview() -> argparse.ArgumentParser:
    lines = []
    for group, commands in by_group().items():
        lines += ["", f"{group}:", *(f"  {name:12}{summary(one)}" for name, one in commands.items())]
    made = argparse.ArgumentParser(
        prog="rolecraft",
        usage="rolecraft VERB [options]",
        description="Reliable tool-calling agents from small models.\n" + "\n".join(lines),
        epilog="rolecraft VERB --help tells the options of one.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument("--version", action=_Version, nargs=0, help="print the version and exit")
    return made


class _Version(argparse.Action):
    """Prints the version; importlib.metadata is slow to import, so it is left until asked."""

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        import importlib.metadata

        print(importlib.metadata.version("rolecraft"))
        parser.exit()


def _options(parser: argparse.ArgumentParser, words: Sequence[str]) -> argparse.Namespace:
    options, strange = _overrides.parse_known(parser, words)
    for word in strange:
        known = re.findall(r"--[a-z][\w-]*", parser.format_help())
        kind = "unknown option" if word.startswith("-") else "unexpected"
        parser.error(f"{kind} {word!r}{_near(word.partition('=')[0], known)}")
    return options


def _near(word: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(word, sorted(set(known)), n=1, cutoff=0.5)
    return f". Did you mean {near[0]!r}?" if near else "; --help tells what there is"
