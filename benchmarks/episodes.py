"""Measures whole toolworld episodes, many at once beside one by one: the same engine, tasks, tools and adapter.

Both ways start from an empty cache and take turns; an episode is the same in both, or is counted. CPU seconds of the
process that decodes, on one thread, and seconds on the clock, in which tools run as well.
`python benchmarks/episodes.py --adapter runs/quickstart/adapter --json`
"""

from __future__ import annotations

import argparse
import asyncio
import json
import time
from functools import partial
from pathlib import Path

import torch
from batching import Measured
from rich.console import Console
from rich.table import Table

from rolecraft import agent, contract, engine, team
from rolecraft.benchmarks import toolworld
from rolecraft.renderers import why_unparsed
from rolecraft.types import Sampling, Task, Trajectory

Times = dict[str, list[float]]


def measure(adapter: Path, tasks: tuple[Task, ...], concurrency: int, rounds: int) -> tuple[Times, int]:
    """Return the seconds of each way in each round, by clock and way, and how many episodes differed."""
    made = contract.read(adapter)
    players = team.find(made.team, instructions=made.instructions)
    settings = agent.Settings(sampling=Sampling(max_tokens=160))
    times: Times = {f"{clock}, {way}": [] for clock in ("CPU", "wall") for way in ("at once", "one by one")}
    differing = 0
    with engine.open_local(made.base, adapter, settings=engine.Settings(max_requests=concurrency)) as local:

        async def play(at_once: int) -> dict[str, list[str]]:
            openers = [partial(toolworld.open, task) for task in tasks]
            played = agent.play(openers, players, local, settings, concurrency=at_once, explain=why_unparsed)
            return {record.id: said(record) async for record in played}

        for turn in range(rounds + 1):
            found = {}
            for way, at_once in (("at once", concurrency), ("one by one", 1)):
                local.forget()
                cpu, wall = time.process_time(), time.perf_counter()
                found[way] = asyncio.run(play(at_once))
                if turn:  # the first round warms up
                    times[f"CPU, {way}"].append(time.process_time() - cpu)
                    times[f"wall, {way}"].append(time.perf_counter() - wall)
            differing += sum(found["at once"][task.id] != found["one by one"][task.id] for task in tasks)
    return times, differing


def said(record: Trajectory) -> list[str]:
    """Return everything that was written in an episode."""
    return [str((message.speaker, message.content, message.tool_calls)) for message in record.messages]


def show(times: Times, count: int, concurrency: int) -> list[Measured]:
    """Print the table and return its rows."""
    rows = []
    for name, values in times.items():
        rows.append(Measured(name, "ms an episode", tuple(1000 * value / count for value in values)))
    for clock in ("CPU", "wall"):
        pairs = zip(times[f"{clock}, one by one"], times[f"{clock}, at once"], strict=True)
        ratios = tuple(single / many for single, many in pairs)
        rows.append(Measured(f"{clock}, one by one / {concurrency} at once", "times", ratios))
    table = Table("what", "n", "median", "low to high", "unit", title=f"{count} episodes of toolworld")
    for one in rows:
        spread = f"{min(one.values):.2f} to {max(one.values):.2f}"
        table.add_row(one.what, str(len(one.values)), f"{one.median:.2f}", spread, one.unit)
    Console(stderr=True, width=100).print(table)
    return rows


def main() -> None:
    """Read the flags, measure, and show the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--adapter", type=Path, required=True, help="a team's adapter, such as the quickstart's")
    parser.add_argument("--n", type=int, default=70, help="tasks, of all families in turn")
    parser.add_argument("--seed", type=int, default=31)
    parser.add_argument("--concurrency", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", action="store_true", help="print one JSON object as the last line")
    flags = parser.parse_args()
    torch.set_num_threads(1)
    tasks = toolworld.tasks(toolworld.Settings(size=flags.n), "test", flags.seed)
    times, differing = measure(flags.adapter, tasks, flags.concurrency, flags.rounds)
    rows = show(times, len(tasks), flags.concurrency)
    if flags.json:
        print(json.dumps({"rows": [one.to_json() for one in rows], "episodes_that_differ": differing}))


if __name__ == "__main__":
    main()
