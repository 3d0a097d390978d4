"""Write one HTML page about run folders."""

from __future__ import annotations

import argparse
from pathlib import Path

GROUP = "measuring and showing"


def options(parser: argparse.ArgumentParser) -> None:
    """Add the verb's options."""
    parser.add_argument("run", nargs="+", type=Path, metavar="RUN", help="a run folder, of tuning or of playing")
    text = "the page to write (default: report.html in the first run folder)"
    parser.add_argument("--output", type=Path, metavar="FILE", help=text)


def run(options: argparse.Namespace) -> None:
    """Write the page and print where it is."""
    from rolecraft import report

    print(report.write(options.run, options.output or options.run[0] / "report.html"))
