"""The same questions on several servers: which first calls differ from those of the model in this process, and how.

The tasks of examples/shop are played by `rolecraft eval`, greedily: in this process, behind `rolecraft serve`, and
behind llama.cpp on the same GGUF file, where `LLAMA_PYTHON` names an interpreter that has xllamacpp (`make
.venv-llama/ready`); any other server is named by `--endpoint NAME=URL`. Episodes are kept in `--output`: a server that
has answered all is not asked again. Not covered: seconds.

    python benchmarks/endpoints.py --base model.gguf --n 30
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from rolecraft import store
from rolecraft.types import Trajectory

SHOP = Path(__file__).parents[1] / "examples" / "shop"
HERE = "in this process"
_TOKENS = 96
_ROLECRAFT = [sys.executable, "-c", "import sys; from rolecraft.cli import main; sys.exit(main())"]
_LLAMA = """
import sys, xllamacpp
settings = xllamacpp.CommonParams()
settings.model.path, settings.n_ctx, settings.n_parallel = sys.argv[1], 8192, 2
settings.warmup, settings.port, settings.use_jinja, settings.cpuparams.n_threads = False, 0, True, 1
server = xllamacpp.Server(settings)
print("listening", server.listening_address, flush=True)
sys.stdin.read()
"""


@contextmanager
def listening(command: Sequence[str]) -> Iterator[str]:
    """Run a server until the end of the block; yield the address that its output tells."""
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        try:
            assert process.stdout is not None
            told = (word for line in process.stdout for word in line.split() if word.startswith("http://"))
            address = next(told, None)
            if address is None:
                sys.exit(f"{command[0]} ended and told no address; run it by hand to see why")
            yield address.rstrip("/.,").removesuffix("/v1") + "/v1"
        finally:
            process.kill()


def played(folder: Path, n: int, options: Sequence[str]) -> dict[str, Trajectory]:
    """Play the first `n` tasks into a folder, unless it has them; return the episodes by id."""
    kept = folder / "trajectories.jsonl"
    if kept.exists() and len(found := {one.id: one for one in store.read_trajectories(kept)}) == n:
        return found
    tasks = [str(SHOP / "tasks.jsonl"), "--tools", str(SHOP / "tools.py"), "--limit", str(n), "--output", str(folder)]
    told = ["--max-tokens", str(_TOKENS), "--concurrency", "2"]
    subprocess.run([*_ROLECRAFT, "eval", *tasks, *told, *options], check=True, stdout=subprocess.DEVNULL)
    return {one.id: one for one in store.read_trajectories(kept)}


def calls(episode: Trajectory, replies: int | None = None) -> list[tuple[str, Any]]:
    """Return the calls of an episode's first `replies`, of all without a number."""
    said = [message for message in episode.messages if message.role == "assistant"][:replies]
    return [(call.name, call.arguments) for message in said for call in message.tool_calls]


def compare(reference: dict[str, Trajectory], other: dict[str, Trajectory]) -> tuple[int, int, list[str]]:
    """Return how many episodes have the same first calls and the same calls, and a line for each other one."""
    differ = []
    for name, episode in reference.items():
        if calls(episode, 1) != calls(other[name], 1):
            differ.append(f"{name}: {_said(episode)} | {_said(other[name])}")
    whole = sum(calls(episode) == calls(other[name]) for name, episode in reference.items())
    return len(reference) - len(differ), whole, differ


def _said(episode: Trajectory) -> str:
    first = next(message for message in episode.messages if message.role == "assistant")
    return "; ".join(f"{name}({arguments})" for name, arguments in calls(episode, 1)) or repr(first.content[:160])


def main() -> None:
    """Play the questions everywhere and print who calls otherwise."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", required=True, help="a GGUF file, or without llama.cpp any base")
    parser.add_argument("--n", type=int, default=30, help="questions (default: 30)")
    parser.add_argument("--endpoint", action="append", default=[], metavar="NAME=URL", help="another server")
    parser.add_argument("--output", type=Path, default=Path("runs/endpoints"), metavar="DIR")
    options = parser.parse_args()
    local = ["--base", options.base]
    answers = {HERE: played(options.output / "here", options.n, local)}
    with listening([*_ROLECRAFT, "serve", *local, "--port", "0", "--keyless"]) as url:
        answers["rolecraft serve"] = played(options.output / "serve", options.n, ["--engine", url])
    python = os.environ.get("LLAMA_PYTHON", sys.executable)
    if subprocess.run([python, "-c", "import xllamacpp"], capture_output=True, check=False).returncode:
        print(f"{python} has no xllamacpp; run `make .venv-llama/ready`, or set LLAMA_PYTHON")
    elif options.base.endswith(".gguf"):
        with listening([python, "-c", _LLAMA, options.base]) as url:
            answers["llama.cpp"] = played(options.output / "llama", options.n, ["--engine", url])
    for named in options.endpoint:
        name, _, url = named.partition("=")
        answers[name] = played(options.output / name, options.n, ["--engine", url])
    show(answers)


def show(answers: dict[str, dict[str, Trajectory]]) -> None:
    """Print how many calls are the same, and those that are not."""
    console, lines = Console(), []
    table = Table("server", "n", "the same first calls", "the same calls", "all calls right", title="against " + HERE)
    for name, episodes in answers.items():
        first, whole, differ = compare(answers[HERE], episodes)
        right = sum(one.verdict is not None and one.verdict.parts.get("calls") == 1 for one in episodes.values())
        table.add_row(name, str(len(episodes)), str(first), str(whole), str(right))
        lines += [f"{name}: {line}" for line in differ]
    console.print(table)
    for line in lines:
        console.print(line, markup=False, soft_wrap=True)


if __name__ == "__main__":
    main()
