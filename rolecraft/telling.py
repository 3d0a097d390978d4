"""What is said of an error where one ends: a line on stderr for whoever started the process, a trace for who asks."""

from __future__ import annotations

import errno
import os
import sys
import traceback
import unicodedata

from rolecraft.errors import RolecraftError

_SWITCH = "ROLECRAFT_TRACEBACK"
_JOINING = "\n\t\u200c\u200d"  # ends and parts lines, and joins the letters of many scripts
_LONGEST = 2000  # characters of an error that was not raised on purpose

_REMEDIES = {
    errno.ENOSPC: "make room and repeat the command",
    errno.EDQUOT: "make room and repeat the command",
    errno.EACCES: "check its permissions",
    errno.EPERM: "check its permissions",
    errno.EROFS: "choose a place that can be written",
}

_IN_WORDS: dict[type[Exception], str] = {
    UnicodeError: "text that is not valid in its encoding",
    RecursionError: "nested too deeply",
    OverflowError: "a number is out of range",
    MemoryError: "out of memory",
}


def tell(error: Exception) -> None:
    """Say on stderr what happened; with ROLECRAFT_TRACEBACK=1 in the environment, after the error's traceback."""
    if os.environ.get(_SWITCH, "0") not in ("", "0"):
        traceback.print_exception(error)
    print(f"rolecraft: {printable(in_words(error))}", file=sys.stderr)


def in_words(error: Exception) -> str:
    """Return what happened, to what, and what to do; of errors that were not raised on purpose, in one line."""
    if isinstance(error, RolecraftError):
        return str(error)
    if isinstance(error, OSError) and error.strerror:
        remedy = f"; {_REMEDIES[error.errno]}" if error.errno in _REMEDIES else ""
        if error.filename is not None:
            return f"{os.fsdecode(error.filename)!r}: {error.strerror}{remedy}"
        return f"{error.strerror}{remedy} ({_origin(error)})"
    kind = next((text for kind, text in _IN_WORDS.items() if isinstance(error, kind)), type(error).__name__)
    said = " ".join(str(error).split())[:_LONGEST]
    return f"{kind}{': ' if said else ''}{said} ({_origin(error)})"


def _origin(error: Exception) -> str:
    """Return the innermost line of Rolecraft that the error passed, and what shows all of them."""
    here = os.path.dirname(__file__)
    passed = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename.startswith(here + os.sep)]
    place = f"in {os.path.relpath(passed[-1].filename, os.path.dirname(here))}:{passed[-1].lineno}; " if passed else ""
    return f"{place}{_SWITCH}=1 shows where it came from"


def printable(text: str) -> str:
    """Return the text with control characters and halves of a surrogate pair spelled out.

    What a file holds or a model writes must not steer a terminal, and a half cannot be written at all.
    """
    return "".join(one if _is_printable(one) else one.encode("unicode_escape").decode() for one in text)


def _is_printable(one: str) -> bool:
    return one.isprintable() or one in _JOINING or unicodedata.category(one) == "Zs"
