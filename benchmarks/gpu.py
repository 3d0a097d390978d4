"""Measures an accelerator in under ten minutes: MoR beside PEFT, tuning beside TRL, playing beside transformers, and
how far results lie from the CPU's.

Each part is a process of its own, bounded in time (`--seconds`): one that fails or takes too long leaves its rows so
far, and a line that says so. Weights are random, of Llama-3.2-1B's shape. `python benchmarks/gpu.py --json`; without an
accelerator small shapes are tried on the CPU, where figures mean little. Not covered: several devices.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator

from gpu_parts import SHAPES, Asked, Row, exact, layer, play, step
from rich.console import Console
from rich.table import Table

PARTS: dict[str, tuple[Callable[[Asked], Iterator[Row]], float]] = {
    "exact": (exact, 90),
    "layer": (layer, 90),
    "step": (step, 200),
    "play": (play, 180),
}
"""Each part and the seconds that it may take, 560 in all."""


def answer(part: str, asked: Asked) -> None:
    """Print a part's rows as JSON, each as soon as it is known."""
    import torch
    import transformers

    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()
    warnings.simplefilter("ignore")
    for row in PARTS[part][0](asked):
        print(json.dumps([row.what, row.unit, row.values]), flush=True)


def run(part: str, flags: list[str], seconds: float) -> list[Row]:
    """Return the rows of a part, run in a process of its own, with one more if it does not end well in time."""
    command = [sys.executable, __file__, "--answer", part, *flags]
    began, late = time.monotonic(), False
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as complaints:
        child = subprocess.Popen(command, stdout=out, stderr=complaints, text=True)
        try:
            child.wait(seconds)
        except subprocess.TimeoutExpired:
            late = True
            child.kill()
            child.wait()
        out.seek(0)
        complaints.seek(0)
        lines = [json.loads(line) for line in out if line.startswith("[") and line.endswith("]\n")]
        last = [line for line in complaints.read().splitlines() if line.strip()][-1:]
    rows = [Row(what, unit, tuple(values)) for what, unit, values in lines]
    if late:
        return [*rows, Row(part, f"stopped after {seconds:g} s; the rest was not measured")]
    if child.returncode:
        return [*rows, Row(part, f"failed: {' '.join(last)[:200] or child.returncode}")]
    return [*rows, Row(part, "s in all", (time.monotonic() - began,))]


def machine(device: str) -> str:
    """Return in words what is measured on."""
    import peft
    import torch
    import transformers

    kind = torch.device(device).type
    name = torch.cuda.get_device_name(device) if kind == "cuda" else kind
    return f"{name}, torch {torch.__version__}, transformers {transformers.__version__}, peft {peft.__version__}"


def show(console: Console, title: str, found: dict[str, list[Row]]) -> None:
    """Print a line for each row: the median, and the lowest and highest."""
    table = Table("part", "what", "n", "median", "spread", "unit, or why not", title=title)
    for part, rows in found.items():
        for row in rows:
            cells = ("", "", "")
            if row.values:
                low, high = min(row.values), max(row.values)
                cells = (str(len(row.values)), f"{statistics.median(row.values):.4g}", f"{low:.4g} to {high:.4g}")
            table.add_row(part, row.what, *cells, row.unit)
    console.print(table)


def main() -> None:
    """Read the flags, run the parts one after the other, and show the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", help="torch's name (default: the accelerator that there is, else cpu)")
    parser.add_argument("--shape", choices=list(SHAPES), help="default: 1b on an accelerator, else small")
    parser.add_argument("--parts", nargs="+", default=list(PARTS), choices=list(PARTS), metavar="PART")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, help="what each part may take (default: 90 to 200, 560 in all)")
    parser.add_argument("--json", action="store_true", help="print one JSON object as the last line")
    parser.add_argument("--answer", choices=list(PARTS), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.answer:
        answer(options.answer, Asked(options.device, SHAPES[options.shape], options.rounds))
        return
    import torch

    current = torch.accelerator.current_accelerator(check_available=True)
    device = options.device or (current.type if current else "cpu")
    shape = options.shape or ("small" if device == "cpu" else "1b")
    flags = ["--device", device, "--shape", shape, "--rounds", str(options.rounds)]
    found = {part: run(part, flags, options.seconds or PARTS[part][1]) for part in options.parts}
    title = f"{machine(device)}; shape {shape}"
    show(Console(stderr=options.json, width=160), title, found)
    if options.json:
        parts = {part: [[row.what, row.unit, list(row.values)] for row in rows] for part, rows in found.items()}
        print(json.dumps({"machine": title, "parts": parts}))


if __name__ == "__main__":
    main()
