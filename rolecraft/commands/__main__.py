"""Prints docs/command-line.md, made from the parsers: every verb with its options and their help.

The options are laid out here and not by argparse, whose wording and width differ from one Python to the next.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator

from rolecraft import commands

_UNTITLED = 2  # argparse's own groups, of positional arguments and of options
_HEAD = """\
# The command line

This page is written by `python -m rolecraft.commands > docs/command-line.md`; a test holds it equal to the parsers.

`rolecraft VERB --help` tells the same of one verb. A setting is changed by `SECTION.KEY=VALUE`, which may stand
anywhere after the verb.

| exit code | says |
|---|---|
| 0 | done |
| 1 | something failed; one line on stderr says what |
| 2 | the caller can mend it: a misspelt option, a bad file, a missing model |
| 130 | interrupted; the same command goes on |

With `ROLECRAFT_TRACEBACK=1` in the environment, an error's traceback is printed before its line.
"""


def page() -> str:
    """Return the page."""
    parts = [_HEAD]
    for group, members in commands.by_group().items():
        parts.append(f"## {group[0].upper()}{group[1:]}\n")
        parts += [section(name) for name in members]
    return "\n".join(parts)


def section(verb: str) -> str:
    """Return what the page says of one verb."""
    parser = commands.parser(verb)
    # argparse has no public way to ask a parser for what it takes.
    actions = [action for action in parser._actions if not isinstance(action, argparse._HelpAction)]
    words = [_value(action) for action in actions if not action.option_strings]
    required = [_spelt(action) for action in actions if action.option_strings and action.required]
    usage = " ".join([parser.prog, *words, *required, "[options]"])
    return "\n".join([f"### {verb}", "", parser.description or "", "", f"`{usage}`", "", *_table(parser), ""])


def _table(parser: argparse.ArgumentParser) -> Iterator[str]:
    yield from ("| option | |", "|---|---|")
    for place, group in enumerate(parser._action_groups):
        if place >= _UNTITLED and group._group_actions:
            yield f"| **{group.title}** | |"
        for action in group._group_actions:
            if not isinstance(action, argparse._HelpAction):
                yield f"| `{_spelt(action)}` | {_escaped(action.help or '')} |"


def _spelt(action: argparse.Action) -> str:
    value = "" if action.nargs == 0 else _value(action)
    return " ".join(filter(None, (", ".join(action.option_strings), value)))


def _value(action: argparse.Action) -> str:
    """Return what stands for a value: the choices, or a name in capitals."""
    if action.choices:
        name = "{" + ",".join(map(str, action.choices)) + "}"
    else:
        name = str(action.metavar or action.dest.upper())
    return {"*": f"[{name} ...]", "+": f"{name} ...", "?": f"[{name}]"}.get(str(action.nargs), name)


def _escaped(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "\\<").replace("%%", "%")


if __name__ == "__main__":
    print(page(), end="")
