"""The agent of somebody's own in examples/: it is not ours, plays through the server, and is learned from."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import openai
import pytest
from serving import ANSWER, QUESTION, TOOLS, running, scripted, team_models

from rolecraft import server
from rolecraft.server import turns
from rolecraft.server.recording import Recorder
from rolecraft.store import served
from rolecraft.train import episodes

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "examples" / "own_agent"


def example(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"own_agent_{name}", FOLDER / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_agent_is_short_and_knows_nothing_of_us():
    text = (FOLDER / "agent.py").read_text(encoding="utf-8")
    assert len(text.splitlines()) < 40
    assert "import rolecraft" not in text
    assert "from rolecraft" not in text


def test_its_requests_are_kept_as_one_episode_of_its_task(nano_tokenizer, tmp_path):
    listed, asked = team_models(scripted(nano_tokenizer)), list[tuple[str, dict]]()
    policy = served.Policy("nano", "abc", "mor", False)
    recorder = Recorder(tmp_path, policy, listed[-1].loaded, 1 << 20)
    free = server.Settings(port=0, playing=turns.Settings(temperature=1.0, constrained=False))

    async def run(identity, name, arguments):
        asked.append((name, arguments))
        return "3809"

    async def play(url):
        async with openai.AsyncOpenAI(base_url=url, api_key="none", max_retries=0) as client:
            names = {"episode": "e", "task": "t"}
            return await example("agent").play(client, [QUESTION], TOOLS, run, model="nano:team", metadata=names)

    with running(listed, free, recorder=recorder) as url:
        said = asyncio.run(play(url))
    assert said[-1]["content"] == ANSWER
    assert asked == [("read_debt", {"key": "Plalples"})]
    (one,) = episodes.episodes(served.answers(tmp_path))
    assert (one.name, one.task, len(one.answers), len(one.whole.turns)) == ("e", "t", 2, 4)


@pytest.mark.slow
def test_the_loop_serves_plays_learns_and_serves_again(tmp_path):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    cli = [sys.executable, "-c", "import sys; from rolecraft.cli import main; sys.exit(main())"]
    weak = [str(FOLDER / "weak.yaml"), "--output", str(tmp_path / "start"), "training.max_steps=80"]
    subprocess.run([*cli, "train", *weak], check=True, env=environment, cwd=ROOT)
    told = ["--start", str(tmp_path / "start"), "--output", str(tmp_path / "runs")]
    few = ["--iterations", "2", "--tasks", "6", "--group", "6", "--n", "10"]
    command = [sys.executable, str(FOLDER / "loop.py"), *told, *few]
    done = subprocess.run(command, check=True, env=environment, cwd=ROOT, capture_output=True, text=True)
    assert "learned-2: " in done.stdout
    first, second = (served.policy(tmp_path / "runs" / f"played-{number}") for number in (1, 2))
    assert first is not None
    assert second is not None
    assert Path(second.adapter) == tmp_path / "runs" / "learned-1"
    rewards = (tmp_path / "runs" / "played-1" / "rewards.jsonl").read_text().splitlines()
    assert len(rewards) == 36
    assert {json.loads(line)["reward"] for line in rewards} <= {0.0, 1.0}
    again = subprocess.run(command, check=True, env=environment, cwd=ROOT, capture_output=True, text=True)
    assert "iteration 1" not in again.stdout  # what was done is not done again
