"""Plays the same GSM8K questions in smolagents' CodeAgent and in team `code`, on one model: score, steps, seconds.

smolagents' executor runs the model's Python in its own process, so smolagents runs as a whole in a confined one: no
network, an empty home, the user's files hidden, bounded memory; the model is reached through a socket in the one folder
that it may write to. It is installed in an environment of its own, whose interpreter is named:

    python -m venv .venv-smolagents && .venv-smolagents/bin/pip install 'smolagents[openai]==1.26.0'
    python benchmarks/smolagents_code.py --base MODEL.gguf --python .venv-smolagents/bin/python --n 50 --json

Both play greedily, one question at a time, with as many steps and tokens a step; each agent has its own prompt. Without
user namespaces (`unshare -Urnm`) nothing is run. Not covered: what the kernel lets such a process do, see `sandbox`.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import mean

from rich.console import Console
from rich.table import Table

from rolecraft import agent, engine, server, team
from rolecraft.benchmarks import gsm8k
from rolecraft.errors import RolecraftError
from rolecraft.server import models, service, turns
from rolecraft.types import Message, Sampling, Task, Trajectory

_MODEL = "model"
_MEMORY_KB = 4 << 20

_AGENT = """
import json, sys, time
import httpx2 as httpx
from smolagents import CodeAgent, OpenAIServerModel

folder, steps, tokens = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
client = httpx.Client(transport=httpx.HTTPTransport(uds=folder + "/model.sock"), timeout=600)
model = OpenAIServerModel(
    "MODEL", api_base="http://localhost/v1", api_key="none",
    client_kwargs={"http_client": client, "max_retries": 0}, temperature=0, max_tokens=tokens,
)
for line in open(folder + "/questions.jsonl"):
    task, began = json.loads(line), time.monotonic()
    agent = CodeAgent(tools=[], model=model, max_steps=steps, verbosity_level=0)
    try:
        answer = str(agent.run(task["question"]))
    except Exception as error:
        answer = f"error: {type(error).__name__}: {error}"[:500]
    taken = sum(type(step).__name__ == "ActionStep" for step in agent.memory.steps)
    row = {"id": task["id"], "answer": answer, "steps": taken, "seconds": time.monotonic() - began}
    with open(folder + "/answers.jsonl", "a") as out:
        out.write(json.dumps(row) + "\\n")
""".replace("MODEL", _MODEL, 1)


@dataclass(frozen=True, slots=True)
class Played:
    """What came of one question: whether it is right, the replies it took, and the seconds."""

    id: str
    answer: str
    score: float
    steps: int
    seconds: float


def main() -> None:
    """Play both and print a table, or JSON."""
    options = _options()
    asked = gsm8k.tasks(gsm8k.Settings(size=options.n, python=False), "test", options.seed)
    bounds = engine.Settings(max_requests=1, max_context=options.max_context, weights=options.weights)
    with engine.open_local(options.base, settings=bounds) as local:
        ours = asyncio.run(_ours(local, asked, options))
        theirs = _theirs(local, asked, options)
    told = {"team code": ours, "smolagents CodeAgent": theirs}
    if options.json:
        print(json.dumps({name: [asdict(one) for one in played] for name, played in told.items()}))
    table = Table("agent", "n", "right, %", "steps a question", "seconds a question")
    for name, played in told.items():
        right, steps, seconds = (mean(getattr(one, key) for one in played) for key in ("score", "steps", "seconds"))
        table.add_row(name, str(len(played)), f"{100 * right:.1f}", f"{steps:.1f}", f"{seconds:.1f}")
    Console(stderr=options.json).print(table)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--base", required=True)
    parser.add_argument("--python", type=Path, required=True, help="the interpreter that has smolagents")
    parser.add_argument("--n", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--max-tokens", type=int, default=256)
    parser.add_argument("--max-context", type=int, default=8192)
    parser.add_argument("--weights", default="float32")
    parser.add_argument("--seconds", type=float, default=3600.0, help="what smolagents may take in all")
    parser.add_argument("--json", action="store_true")
    return parser.parse_args()


async def _ours(local: engine.LocalEngine, asked: tuple[Task, ...], options: argparse.Namespace) -> list[Played]:
    settings = agent.Settings(max_turns=options.steps, sampling=Sampling(max_tokens=options.max_tokens))
    found = []
    for task in asked:
        began, environment = time.monotonic(), gsm8k.open(task)
        try:
            record = await agent.episode(environment, team.find("code"), local, settings)
        finally:
            environment.toolbox.close()
        seconds = time.monotonic() - began
        assert record.verdict is not None
        found.append(Played(task.id, record.messages[-1].content, record.verdict.score, len(record.turns), seconds))
    return found


def _theirs(local: engine.LocalEngine, asked: tuple[Task, ...], options: argparse.Namespace) -> list[Played]:
    with tempfile.TemporaryDirectory(prefix="rolecraft-") as name:
        folder = Path(name)
        rows = [json.dumps({"id": task.id, "question": task.messages[-1].content}) for task in asked]
        (folder / "questions.jsonl").write_text("\n".join(rows) + "\n")
        (folder / "agent.py").write_text(_AGENT)
        with _listening(local, folder / "model.sock", options):
            _run_confined(folder, options)
        answers = [json.loads(line) for line in (folder / "answers.jsonl").read_text().splitlines()]
    by_id = {one["id"]: one for one in answers}
    if missing := [task.id for task in asked if task.id not in by_id]:
        raise RolecraftError(
            f"smolagents answered {len(by_id)} of {len(asked)}, not {missing[0]!r}; give more --seconds"
        )
    return [_judged(task, by_id[task.id]) for task in asked]


def _judged(task: Task, told: dict[str, object]) -> Played:
    """Judge an answer as the benchmark judges ours: as the last words of an episode."""
    messages = (*task.messages, Message("assistant", str(told["answer"]), speaker="assistant"))
    record = Trajectory(id=task.id, task=task, messages=messages, turns=(), stop="answered", seed=0)
    score = gsm8k.judge(replace(record)).score
    return Played(task.id, str(told["answer"]), score, int(str(told["steps"])), float(str(told["seconds"])))


@contextlib.contextmanager
def _listening(local: engine.LocalEngine, socket: Path, options: argparse.Namespace) -> Iterator[None]:
    """Serve the model on a socket of the file system, from a thread."""
    import uvicorn

    playing = turns.Settings(max_tokens=options.max_tokens, constrained=False)
    plain = team.find("single", instructions=False)
    loaded = models.LoadedEngine(local, local.loaded.renderer, context=local.context)
    served = (models.ServedModel(_MODEL, loaded, plain, plain.first),)
    app = server.create_app(service.Service(served, playing, service.Limits(seconds=600.0)), key=None)
    running = uvicorn.Server(uvicorn.Config(app, uds=str(socket), log_level="warning"))
    thread = threading.Thread(target=running.run)
    thread.start()
    try:
        while not running.started:
            time.sleep(0.05)
        yield
    finally:
        running.should_exit = True
        thread.join()


def _run_confined(folder: Path, options: argparse.Namespace) -> None:
    """Run smolagents in namespaces of its own: no network, an empty home, and nothing of the user's files.

    What it needs is mounted into a new root, read-only but for `folder`.
    """
    if shutil.which("unshare") is None:
        raise RolecraftError("no 'unshare' (util-linux): smolagents is not run unconfined")
    # the folder of the environment, and of the interpreter that it was made from
    prefixes = subprocess.run(
        [options.python, "-c", "import sys; print(sys.prefix); print(sys.base_prefix)"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    script = _script(folder, [Path(one) for one in prefixes])
    (folder / "confine.sh").write_text(script)
    inside = [str(options.python.absolute()), "-I", str(folder / "agent.py"), str(folder)]
    command = ["unshare", "-Urnmpf", "sh", str(folder / "confine.sh"), *inside, str(options.steps)]
    environment = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/home-of-nobody", "LANG": "C.UTF-8"}
    subprocess.run(
        [*command, str(options.max_tokens)], env=environment, check=True, timeout=options.seconds, stdout=sys.stderr
    )


def _script(folder: Path, needed: list[Path]) -> str:
    """Return what makes the new root and runs the rest of its words in it."""
    system = [Path(one) for one in ("/usr", "/bin", "/lib", "/lib64") if Path(one).exists()]
    places = list(dict.fromkeys([*system, *needed]))
    lines = [
        "set -e",
        "root=$(mktemp -d)",
        "mount -t tmpfs -o size=64m none $root",
        "mkdir -p $root/home-of-nobody $root/proc $root/dev $root/tmp",
        "mount -t proc none $root/proc",
        "for one in null urandom; do touch $root/dev/$one; mount --bind /dev/$one $root/dev/$one; done",
    ]
    for place in places:
        lines.append(f'mkdir -p "$root{place}"')
        lines.append(f'mount --bind "{place}" "$root{place}"')
        lines.append(f'mount -o remount,bind,ro "$root{place}"')
    lines += [
        f'mkdir -p "$root{folder}"',
        f'mount --bind "{folder}" "$root{folder}"',
        f"ulimit -v {_MEMORY_KB}",
        # without rights over its namespaces it cannot leave the new root; in a chroot the kernel gives it no new ones
        'exec chroot "$root" setpriv --bounding-set=-all --inh-caps=-all --no-new-privs "$@"',
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
