"""A server in a process of its own, on one core, whose engine repeats the question word by word, so many times."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path

from rolecraft import server, team
from rolecraft.server import models
from rolecraft.server.service import Limits
from rolecraft.types import Completion, Delta, Message, Prompt, Turn, Usage


class Ticker:
    """Says `times` times what it was asked, a word at a time with `delay` seconds between them."""

    def __init__(self, times: int, delay: float):
        self.times, self.delay = times, delay

    async def complete(self, prompt: Prompt) -> tuple[Completion, ...]:
        return tuple([delta.completion async for delta in self.stream(prompt) if delta.completion])

    async def stream(self, prompt: Prompt) -> AsyncIterator[Delta]:
        words = [f"{word} " for word in prompt.messages[-1].content.split()] * self.times
        for word in words:
            await asyncio.sleep(self.delay)
            yield Delta(word)
        message = Message("assistant", "".join(words), speaker=prompt.speaker)
        usage = Usage(len(words), 0, len(words))
        yield Delta("", Completion(message, Turn(message, prompt.speaker, usage=usage)))


def main(times: int, delay: float, places: int, seconds: float, grace: float) -> None:
    os.sched_setaffinity(0, {sorted(os.sched_getaffinity(0))[-1]})
    player = models.LoadedEngine(Ticker(times, delay))
    settings = server.Settings(port=0, grace_seconds=grace, limits=Limits(places=places, seconds=seconds))
    single = team.find("single", instructions=False)
    server.serve(
        models.served_models("tick", single, player, player), settings, ready=lambda _, url: print(url, flush=True)
    )
    print("stopped", flush=True)


@contextmanager
def ticking(
    times: int = 1, delay: float = 0.0, places: int = 16, seconds: float = 60, grace: float = 10
) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Run the server; yield its process and its address. What is still running at the end is killed."""
    options = json.dumps([times, delay, places, seconds, grace])
    command = [sys.executable, str(Path(__file__)), options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield process, process.stdout.readline().strip()
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGKILL)


if __name__ == "__main__":
    main(*json.loads(sys.argv[1]))
