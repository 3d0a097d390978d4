"""The verbs, called and read in this process."""

from __future__ import annotations

import argparse
from pathlib import Path

from rolecraft import cli, commands

_STOCK = '''
from rolecraft.tools import tool


@tool
def stock(item: str) -> int:
    """stock of one item

    Args:
        item: the item's name
    """
    return 4
'''


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


def stock_tools(folder: Path) -> str:
    """Write a user's file with one tool, and return its path."""
    path = folder / "my_tools.py"
    path.write_text(_STOCK)
    return str(path)
