"""A recording server killed (-9) while it answers: what a client was told is kept, once, and nothing is damaged."""

from __future__ import annotations

import asyncio
import os
import random
import re
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import openai
import pytest

from rolecraft.store import served

ROOT = Path(__file__).parents[1]
KILLS = 3
AT_ONCE = 4
CLI = [sys.executable, "-c", "import sys; from rolecraft.cli import main; sys.exit(main())"]


def started(folder: Path) -> tuple[subprocess.Popen[str], str]:
    """Start a server that keeps its answers, and return it with its address."""
    told = ["--base", "nano", "--unconstrained", "--temperature", "1", "--port", "0", "--keyless"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [*CLI, "serve", *told, "--record", str(folder), "--concurrency", str(AT_ONCE)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment)
    assert process.stdout is not None
    lines = []
    for line in process.stdout:
        lines.append(line)
        if found := re.search(r"(http://\S+/v1)", line):
            return process, found[1]
    pytest.fail("the server did not start:\n" + "".join(lines))


async def ask(url: str, begin: int, answered: dict[str, str], enough: int, process: subprocess.Popen[str]) -> int:
    """Ask until `enough` answers more have come and the server is killed; returns how many requests were sent."""
    sent, before = 0, len(answered)
    async with openai.AsyncOpenAI(base_url=url, api_key="none", max_retries=0) as client:

        async def one_after_the_other() -> None:
            nonlocal sent
            while True:
                name, sent = f"e{begin + sent}", sent + 1
                answer = await client.chat.completions.create(
                    model="nano",
                    messages=[{"role": "user", "content": f"What is the rank of {name}?"}],
                    max_tokens=24,
                    seed=sent,
                    metadata={"episode": name, "task": "t"},
                )
                answered[name] = answer.id
                if len(answered) - before >= enough:
                    process.send_signal(signal.SIGKILL)

        asking = [asyncio.create_task(one_after_the_other()) for _ in range(AT_ONCE)]
        ends = await asyncio.wait_for(asyncio.gather(*asking, return_exceptions=True), 300)
    assert all(isinstance(end, openai.APIConnectionError) for end in ends), ends
    return sent


@pytest.mark.slow
def test_a_recording_server_killed_at_random_loses_no_answer_and_counts_none_twice(tmp_path):
    draw, answered, sent = random.Random(7), dict[str, str](), 0
    for _ in range(KILLS):
        process, url = started(tmp_path)
        with process:
            sent += asyncio.run(ask(url, sent, answered, draw.randint(3, 20), process))
        assert process.returncode == -signal.SIGKILL
    kept = list(served.answers(tmp_path))
    times = Counter(one.id for one in kept)
    assert set(times.values()) == {1}
    assert answered.items() <= {one.episode: one.id for one in kept}.items()
    assert 0 <= len(kept) - len(answered) <= KILLS * AT_ONCE  # written, and killed before it was told
    assert all(turn.token_ids for one in kept for turn in one.record.turns)
    assert len(answered) < sent
