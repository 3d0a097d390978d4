"""Show versions, devices, sandbox layers and missing extras, or try a base out."""

from __future__ import annotations

import argparse
import json

from rolecraft.commands import _playing

GROUP = "this machine and the embedded model"


def options(parser: argparse.ArgumentParser) -> None:
    """Add the verb's options."""
    text = (
        "try this base out (nano, smollm2, a folder, a GGUF file, a name on the hub): its family, chat format, "
        "context, memory and a first reply"
    )
    parser.add_argument("--base", metavar="MODEL", help=text)
    text = "the form of the base's weights for the first reply; every copy that is kept is listed (default: float32)"
    parser.add_argument("--weights", default="float32", choices=_playing.WEIGHTS, help=text)
    parser.add_argument("--json", action="store_true", help="print one JSON object as the last line")


def run(options: argparse.Namespace) -> None:
    """Print what is found here, or what a base is."""
    from rich.console import Console

    if options.base:
        from rolecraft import bases

        bases.find(options.base)
        from rolecraft import tryout

        found = tryout.examine(options.base, options.weights)
        show = tryout.show
    else:
        from rolecraft import doctor

        found = doctor.examine()
        show = doctor.show
    if options.json:
        print(json.dumps(found))
    else:
        show(found, Console())
