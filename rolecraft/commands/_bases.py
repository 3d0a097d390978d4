"""Where bases lie, as the command line tells it."""

from __future__ import annotations

import argparse


def place_of_base(text: str) -> tuple[str, str]:
    """Return the base's name and path in `NAME=PATH`; raises ArgumentTypeError for anything else."""
    name, equals, path = text.partition("=")
    if not (name and equals and path):
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=PATH, such as smollm2=models/smollm2.gguf")
    return name, path
