"""The verbs, called and read in this process."""

from __future__ import annotations

import argparse

from rolecraft import cli, commands


def call(capsys, *arguments):
    """Run a verb in this process; returns the exit code, what it printed, and what it complained of."""
    try:
        code = cli.main(list(arguments))
    except SystemExit as stop:
        code = stop.code
    printed = capsys.readouterr()
    return code, printed.out, printed.err


def read(words: list[str]) -> argparse.Namespace:
    return commands.read(words)[1]
