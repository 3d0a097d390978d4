"""Writes the right solutions of a benchmark's tasks as the data of a run; its processes share the work."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

from rolecraft import store, wire
from rolecraft.recipe import DataSettings, open_benchmark

NAME = "references.jsonl"
_PLAYERS = 4


def is_wanted(data: DataSettings, folder: Path) -> bool:
    """Tell whether the data are a benchmark's references that the run does not have yet; a resumed one has."""
    return bool(data.benchmark) and not (folder / NAME).exists()


def write_share(data: DataSettings, team: str | Path, folder: Path, process: int, processes: int) -> None:
    """Play every `processes`-th task, from the `process`-th on, and write the solutions to a file of their own."""
    benchmark, settings = open_benchmark(data)
    chosen = benchmark.tasks(settings, data.split, data.seed)[process::processes]
    with ThreadPoolExecutor(_PLAYERS) as players:  # each waits for its sandbox most of the time
        played = players.map(lambda task: benchmark.reference(task, team), chosen)
        store.write_jsonl(_share(folder, process), map(wire.trajectory_to_json, played))


def join(folder: Path, processes: int) -> None:
    """Put the shares of all processes together, in the order of the tasks."""
    shares = [_share(folder, process) for process in range(processes)]
    with store.atomic(folder / NAME) as unfinished, unfinished.open("w", encoding="utf-8", newline="\n") as file:
        file.writelines(_in_turn(shares))
    for share in shares:
        share.unlink()


def _share(folder: Path, process: int) -> Path:
    return folder / f"references-{process}.jsonl"


def _in_turn(shares: Sequence[Path]) -> Iterator[str]:
    with ExitStack() as opened:
        files = [opened.enter_context(share.open(encoding="utf-8")) for share in shares]
        for lines in itertools.zip_longest(*files):
            yield from (line for line in lines if line)
