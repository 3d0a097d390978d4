"""Numbers as options take them: a value that means nothing is refused where it is typed."""

from __future__ import annotations

import argparse
import math

_MOST = 10**12


def count(text: str) -> int:
    """Return a whole number of at least 1."""
    return _whole(text, 1)


def whole(text: str) -> int:
    """Return a whole number of at least 0."""
    return _whole(text, 0)


def port(text: str) -> int:
    """Return a whole number from 0 to 65535."""
    return _whole(text, 0, 65_535)


def seconds(text: str) -> float:
    """Return a number of seconds above 0."""
    found = _finite(text)
    if found <= 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not above 0")
    return found


def amount(text: str) -> float:
    """Return a number of at least 0."""
    found = _finite(text)
    if found < 0:
        raise argparse.ArgumentTypeError(f"{text!r} is below 0")
    return found


def _whole(text: str, least: int, most: int = _MOST) -> int:
    try:
        found = int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text[:50]!r} is not a whole number") from None
    if not least <= found <= most:
        raise argparse.ArgumentTypeError(f"{text[:50]!r} is not between {least} and {most}")
    return found


def _finite(text: str) -> float:
    try:
        found = float(text)
    except ValueError:
        found = math.nan
    if not math.isfinite(found):
        raise argparse.ArgumentTypeError(f"{text[:50]!r} is not a finite number")
    return found
