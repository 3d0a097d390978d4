"""A GRPO step in one process and in several: the clock's seconds and all processors' seconds, of the same tries.

    OMP_NUM_THREADS=1 python benchmarks/processes.py --base nano --n 3 --json

The base is first taught a little, as in `reinforcement.py`, whose tasks these are. Each round starts either anew, in
turn, takes one step that does not count, and then one that does. Not covered: the seconds until they have started.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
import warnings
from pathlib import Path
from statistics import median
from typing import Any

import reinforcement
import transformers
from rich.console import Console
from rich.table import Table

from rolecraft import model, workers
from rolecraft.train import policy_loop, reinforce
from rolecraft.train.policy_state import begin
from rolecraft.train.processes import joined
from rolecraft.train.tally import Tally


def measure(folder: str, tasks: str, batch: str, told: str) -> None:
    """Take two steps, as one of the processes that were started; the first writes what the second one took."""
    warnings.simplefilter("ignore")
    options = argparse.Namespace(tasks=int(tasks), n=1, apart=False)
    recipe = reinforcement.recipe_of(Path(folder), options, int(batch))
    with joined() as processes:
        policy, players = reinforce.load(recipe)
        work = reinforce.Work(recipe, policy, players, Path(folder), lambda *_: None, processes)
        progress, world = begin(policy.model, recipe.training), policy_loop.tasks(work)
        with policy_loop.engine(policy, work) as player:
            reinforce._step(work, progress, world, player, Tally())
            processes.wait()
            tally, began = Tally(), (time.process_time(), time.monotonic())
            reinforce._step(work, progress, world, player, tally)
            busy = time.process_time() - began[0]
            processes.wait()
        wall, spent = time.monotonic() - began[1], processes.merged({processes.place: busy})
        if processes.is_first:
            taken = {"wall_s": wall, "cpu_s": sum(spent), "busiest_cpu_s": max(spent)}
            seen = {"tokens": tally.tokens, "loss": tally.means()["loss"]}
            Path(told).write_text(json.dumps({**taken, **seen}), encoding="utf-8")


def main() -> None:
    """Take steps of each in turn and print a table, or JSON."""
    options = _options()
    transformers.logging.set_verbosity_error()
    warnings.simplefilter("ignore")
    model.limit_threads()
    here = str(Path(__file__).parent)
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [here, os.environ.get("PYTHONPATH")]))
    steps: dict[int, list[dict[str, Any]]] = {count: [] for count in options.processes}
    with tempfile.TemporaryDirectory() as place:
        folder, told = options.start or Path(place) / "start", Path(place) / "told.json"
        if not (folder / "config.json").exists():
            reinforcement.teach(options.base, folder, *((32, 4, 3e-3) if options.base == "nano" else (12, 2, 1e-4)))
        for _ in range(options.n):
            for count, found in steps.items():
                given = [str(folder), str(options.tasks), str(options.batch), str(told)]
                workers.launch("processes:measure", given, count)
                found.append(json.loads(told.read_text(encoding="utf-8")))
                print(f"{count} processes: {found[-1]}", file=sys.stderr, flush=True)
    if options.json:
        print(json.dumps({"base": options.base, "tasks": options.tasks, "batch": options.batch, "steps": steps}))
    show(options, steps, Console(stderr=options.json))


def show(options: argparse.Namespace, steps: dict[int, list[dict[str, Any]]], console: Console) -> None:
    """Print a row for each number of processes, and how many times as fast as the first number it is."""
    title = f"{options.base}: {options.tasks * reinforcement.GROUP} tries a step, batches of {options.batch}; medians"
    names = {"wall_s": "wall s", "cpu_s": "CPU s of all", "busiest_cpu_s": "CPU s of the busiest"}
    table = Table("processes", "n", *names.values(), "times as fast, wall", "CPU of the busiest", title=title)
    began: dict[str, float] = {}
    for count, found in steps.items():
        taken = {name: [one[name] for one in found] for name in names}
        middle = {name: median(of) for name, of in taken.items()}
        began = began or middle
        told = [f"{middle[name]:.2f} ({min(of):.2f}-{max(of):.2f})" for name, of in taken.items()]
        faster = [f"{began[name] / middle[name]:.2f}" for name in ("wall_s", "busiest_cpu_s")]
        table.add_row(str(count), str(len(found)), *told, *faster)
    console.print(table)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--base", default="nano")
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2], help="how many, in turn")
    parser.add_argument("--n", type=int, default=3, help="rounds")
    parser.add_argument("--tasks", type=int, default=4, help=f"tasks a step, {reinforcement.GROUP} tries at each")
    parser.add_argument("--batch", type=int, default=16, help="episodes that are computed at once")
    parser.add_argument("--start", type=Path, help="a folder that keeps the base as it was taught")
    parser.add_argument("--json", action="store_true")
    return parser.parse_args()


if __name__ == "__main__":
    main()
