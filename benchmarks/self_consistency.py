"""Measures what self-consistent action generation costs beside greedy play: seconds and tokens, one episode at a time.

Both play the same toolworld tasks on one engine in float32 and one thread, task by task in turn, each episode from an
empty cache. The model's seconds are those in which replies are awaited, on the clock and of the processor (which other
load on the machine disturbs less); what else an episode takes, its tools above all, stands apart. The bar is the
model's: eight replies at most three times as long as one. An episode may take another way once a vote chose another
reply; seconds for each model step stand beside.

    python benchmarks/self_consistency.py --adapter runs/quickstart/adapter --json
    python benchmarks/self_consistency.py --base smollm2.gguf --n 7 --max-turns 4 --json
"""

from __future__ import annotations

import argparse
import asyncio
import json
import time
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from batching import Measured
from rich.console import Console
from rich.table import Table

from rolecraft import agent, contract, engine, scores, strategies, team
from rolecraft.benchmarks import toolworld
from rolecraft.renderers import why_unparsed
from rolecraft.step import Episode
from rolecraft.team import Team
from rolecraft.types import Completion, Delta, Prompt, Sampling, Task

_BAR = 3.0


@dataclass(slots=True)
class Timed:
    """An engine before another that adds up the seconds in which its replies are awaited."""

    local: engine.LocalEngine
    wall: float = 0.0
    cpu: float = 0.0

    async def complete(self, prompt: Prompt) -> tuple[Completion, ...]:
        """Return the engine's completions."""
        cpu, wall = time.process_time(), time.perf_counter()
        made = await self.local.complete(prompt)
        self.cpu += time.process_time() - cpu
        self.wall += time.perf_counter() - wall
        return made

    async def stream(self, prompt: Prompt) -> Delta:
        """Refuse: an episode does not stream."""
        raise NotImplementedError


@dataclass(slots=True)
class Sums:
    """What the episodes of one way in one round came to."""

    model: float = 0.0
    model_cpu: float = 0.0
    beside: float = 0.0
    steps: int = 0
    written: int = 0
    computed: int = 0
    right: float = 0.0


def play(task: Task, players: Team, local: engine.LocalEngine, settings: agent.Settings, player: agent.Player) -> Sums:
    """Play one episode from an empty cache."""
    local.forget()
    timed, environment = Timed(local), toolworld.open(task)
    began = time.perf_counter()
    try:
        record = asyncio.run(player(Episode(environment, players, timed, settings, explain=why_unparsed)))  # type: ignore[arg-type, call-arg]
    finally:
        whole = time.perf_counter() - began
        environment.toolbox.close()
    used = scores.spent(record)
    right = 0.0 if record.verdict is None else record.verdict.score
    computed = used.prompt - used.cached
    return Sums(timed.wall, timed.cpu, whole - timed.wall, len(record.turns), used.completion, computed, right)


def measure(flags: argparse.Namespace) -> dict[str, list[Sums]]:
    """Return what each way came to in each round; a task is played both ways before the next."""
    made = contract.read(flags.adapter) if flags.adapter else None
    players = team.find(made.team, instructions=made.instructions) if made else team.find("single", instructions=False)
    base = made.base if made else flags.base
    settings = agent.Settings(max_turns=flags.max_turns, sampling=Sampling(max_tokens=flags.max_tokens))
    tasks = toolworld.tasks(toolworld.Settings(size=flags.n), "test", flags.seed)
    voted = strategies.choose("self_consistent", {"n": flags.samples})
    ways = {"greedy": agent.greedily, "self-consistent": voted.player()}
    found: dict[str, list[Sums]] = {way: [] for way in ways}
    opened = engine.Settings(max_requests=flags.samples, max_context=flags.max_context)
    with engine.open_local(base, flags.adapter, settings=opened) as local:
        for way in ways.values():  # warms up
            play(tasks[0], players, local, settings, way)
        for _ in range(flags.rounds):
            sums = {way: Sums() for way in ways}
            for task in tasks:
                for name, way in ways.items():
                    one = play(task, players, local, settings, way)
                    sums[name] = added(sums[name], one)
            for name, one in sums.items():
                found[name].append(one)
    return found


def added(first: Sums, second: Sums) -> Sums:
    """Return the sums of both."""
    return replace(first, **{name: getattr(first, name) + getattr(second, name) for name in Sums.__slots__})


def rows_of(found: dict[str, list[Sums]], n: int) -> list[Measured]:
    """Return each measure of each way for a task, and the ratios."""
    kinds = {"model": "ms a task", "model_cpu": "CPU ms a task", "beside": "ms a task, tools and the rest"}
    rows = []
    for way, rounds in found.items():
        for name, unit in kinds.items():
            rows.append(Measured(f"{way}: {name}", unit, tuple(1000 * getattr(one, name) / n for one in rounds)))
        for name in ("steps", "written", "computed", "right"):
            rows.append(Measured(f"{way}: {name}", "a task", tuple(getattr(one, name) / n for one in rounds)))
    pairs = list(zip(found["self-consistent"], found["greedy"], strict=True))
    for name in ("model", "model_cpu", "written", "computed"):
        ratios = tuple(getattr(one, name) / getattr(other, name) for one, other in pairs)
        rows.append(Measured(f"self-consistent / greedy: {name}", "times", ratios))
    steps = tuple((one.model_cpu / one.steps) / (other.model_cpu / other.steps) for one, other in pairs)
    return [*rows, Measured("self-consistent / greedy: CPU of a step", "times", steps)]


def main() -> None:
    """Read the flags, measure, and show the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--adapter", type=Path, help="a team's adapter, such as the quickstart's")
    parser.add_argument("--base", default="nano", help="without an adapter: the base, played by a plain agent")
    parser.add_argument("--n", type=int, default=35, help="tasks, of all families in turn")
    parser.add_argument("--seed", type=int, default=31)
    parser.add_argument("--samples", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--max-turns", type=int, default=10)
    parser.add_argument("--max-tokens", type=int, default=96)
    parser.add_argument("--max-context", type=int, default=1024)
    parser.add_argument("--json", action="store_true", help="print one JSON object as the last line")
    flags = parser.parse_args()
    torch.set_num_threads(1)
    rows = rows_of(measure(flags), flags.n)
    table = Table(
        "what", "n", "median", "low to high", "unit", title=f"{flags.n} tasks, {flags.samples} replies a step"
    )
    for one in rows:
        spread = f"{min(one.values):.2f} to {max(one.values):.2f}"
        table.add_row(one.what, str(len(one.values)), f"{one.median:.2f}", spread, one.unit)
    Console(stderr=True, width=110).print(table)
    if flags.json:
        bar = next(one.median for one in rows if one.what.endswith("/ greedy: model_cpu"))
        told = f"<= {_BAR:g}: {'met' if bar <= _BAR else 'missed'}"
        print(json.dumps({"rows": [one.to_json() for one in rows], "bar": told}))


if __name__ == "__main__":
    main()
