"""Show versions, devices, sandbox layers and missing extras."""

from __future__ import annotations

import argparse
import json

GROUP = "this machine and the embedded model"


def options(parser: argparse.ArgumentParser) -> None:
    """Add the verb's options."""
    parser.add_argument("--json", action="store_true", help="print one JSON object as the last line")


def run(options: argparse.Namespace) -> None:
    """Print what is found here."""
    from rich.console import Console

    from rolecraft import doctor

    found = doctor.examine()
    if options.json:
        print(json.dumps(found))
    else:
        doctor.show(found, Console())
