"""Trains the policy behind an agent that is not ours: serve, let it play, reward it, learn, and serve what was learned.

The agent (`agent.py`) speaks OpenAI's API and runs its own tools. This harness poses it tasks, several tries at each,
judges what came out, and writes a line of reward for each episode. The score before and after is of the same held-out
tasks, played greedily, with a paired test.

    rolecraft train examples/own_agent/weak.yaml --output runs/own-agent/start
    python examples/own_agent/loop.py --start runs/own-agent/start --output runs/own-agent --iterations 12
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import re
import shutil
import subprocess
import sys
import time
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import agent
import openai

from rolecraft import scores, wire
from rolecraft.benchmarks import toolworld
from rolecraft.types import Task, ToolCall, Trajectory

HERE = Path(__file__).parent
MODEL = "nano:team"
_ADDRESS = re.compile(rb"(http://\S+/v1)")


async def episode(client: openai.AsyncOpenAI, task: Task, **settings: Any) -> float:
    """Let the agent play one task with its real tools, and return what the judge says."""
    world = toolworld.open(task)

    async def run(identity: str, name: str, arguments: dict[str, Any]) -> str:
        return (await world.toolbox.call(ToolCall(name, arguments, identity))).text

    asked = [wire.message_to_json(message) for message in task.messages]
    try:
        said = await agent.play(client, asked, [wire.tool_to_json(one) for one in task.tools], run, **settings)
    except openai.BadRequestError:  # its conversation is longer than the model holds
        return 0.0
    finally:
        world.toolbox.close()
    messages = tuple(wire.message_from_json(one) for one in said)
    stop = "length" if messages[-1].role != "assistant" else "answered"
    return world.judge(Trajectory(task.id, task, messages, stop=stop)).score


def play(url: str, asked: Sequence[tuple[Task, str]], temperature: float, at_once: int) -> list[float]:
    """Play tasks, each an episode of its own name, and return their scores."""

    async def all_of_them() -> list[float]:
        room = asyncio.Semaphore(at_once)
        async with openai.AsyncOpenAI(base_url=url, api_key="none", timeout=600) as client:

            async def one(task: Task, name: str) -> float:
                async with room:
                    told = {"episode": name, "task": task.id}
                    drawn = {"temperature": temperature, "seed": zlib.crc32(name.encode())}
                    return await episode(client, task, model=MODEL, metadata=told, **drawn)

            return await asyncio.gather(*(one(task, name) for task, name in asked))

    return asyncio.run(all_of_them())


@contextmanager
def serving(adapter: Path, at_once: int, record: Path | None = None) -> Iterator[str]:
    """Serve a policy, its replies free, and yield the address."""
    kept = ["--record", str(record)] if record else []
    told = ["--adapter", str(adapter), "--unconstrained", "--no-base", "--port", "0", *kept]
    limits = ["--concurrency", str(at_once), "--waiting", str(4 * at_once), "--seconds", "600"]
    room = ["--max-context", "768", "--max-tokens", "384"]
    process = subprocess.Popen([*rolecraft(), "serve", *told, *limits, *room], stdout=subprocess.PIPE)
    assert process.stdout is not None
    try:
        line = process.stdout.readline()
        found = _ADDRESS.search(line)
        if found is None:
            sys.exit(f"the server did not start: {line.decode().strip()}")
        yield found[1].decode()
    finally:
        process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(60)


def rolecraft() -> list[str]:
    """Return the command line's beginning, by this very interpreter."""
    return [sys.executable, "-c", "import sys; from rolecraft.cli import main; sys.exit(main())"]


def learn(iteration: int, policy: Path, options: argparse.Namespace) -> Path:
    """Play an iteration's tasks, several tries at each, and return the policy that has learned from them."""
    folder = options.output / f"played-{iteration}"
    learned = options.output / f"learned-{iteration}"
    if (learned / "adapter_config.json").exists():  # this command was stopped after it
        return learned
    shutil.rmtree(folder, ignore_errors=True)  # half of it was played before a stop
    began = time.monotonic()
    count = options.tasks
    found = toolworld.tasks(toolworld.Settings(size=count * options.iterations, mixed=0.0), "train", options.seed + 1)
    tasks = found[(iteration - 1) * count : iteration * count]
    tries = [(task, f"{task.id}/{number}") for task in tasks for number in range(options.group)]
    with serving(policy, options.at_once, folder) as url:
        earned = play(url, tries, 1.0, options.at_once)
    rewards = folder / "rewards.jsonl"
    with rewards.open("w") as file:
        for (_, name), reward in zip(tries, earned, strict=True):
            file.write(json.dumps({"episode": name, "reward": reward}) + "\n")
    told = [f"training.learning_rate={options.learning_rate}", f"reinforcement.minibatches={options.moves}"]
    files = ["--from", str(folder), "--rewards", str(rewards), "--output", str(learned)]
    subprocess.run([*rolecraft(), "train", options.recipe, *files, *told], check=True)
    took, right = time.monotonic() - began, sum(earned) / len(earned)
    print(f"iteration {iteration}: {right:.3f} of {len(earned)} tries were right, {took:.0f} s", flush=True)
    return learned


def measure(policy: Path, options: argparse.Namespace, name: str) -> list[float]:
    """Return the scores of the held-out tasks, played greedily; they are kept beside the runs."""
    path = options.output / f"scores-{name}.json"
    if not path.exists():
        held = toolworld.tasks(toolworld.Settings(size=options.n), options.split, options.seed + 1_000)
        with serving(policy, options.at_once) as url:
            found = play(url, [(task, task.id) for task in held], 0.0, options.at_once)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(found))
    found = json.loads(path.read_text())
    print(f"{name}: {100 * sum(found) / len(found):.1f} % of {len(found)} held-out tasks", flush=True)
    return found


def main() -> None:
    """Read the command line, learn, and print the score before and after."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--start", type=Path, required=True, help="the adapter to begin with")
    parser.add_argument("--output", type=Path, default=Path("runs/own-agent"))
    parser.add_argument("--recipe", default=str(HERE / "learn.yaml"), help="how a record is learned from")
    parser.add_argument("--iterations", type=int, default=12)
    parser.add_argument("--tasks", type=int, default=24, help="different tasks an iteration")
    parser.add_argument("--group", type=int, default=6, help="tries at each")
    parser.add_argument("--moves", type=int, default=4, help="moves of the policy an iteration")
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    parser.add_argument("--n", type=int, default=300, help="held-out tasks")
    parser.add_argument("--split", default="test")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--at-once", type=int, default=24)
    options = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    before = measure(options.start, options, "start")
    policy = options.start
    for iteration in range(1, options.iterations + 1):
        policy = learn(iteration, policy, options)
    after = measure(policy, options, f"learned-{options.iterations}")
    found = scores.pooled([before], [after])
    print(found, flush=True)


if __name__ == "__main__":
    main()
