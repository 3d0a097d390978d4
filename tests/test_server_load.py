"""Two hundred streams at once on one core, some slow, some vanishing: none lost, none mixed up, memory bounded."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from pathlib import Path

import httpx2
import pytest
from ticker import ticking

STREAMS = 200
SLOW, VANISHING = 60, 40
HEAD = (
    "POST /v1/chat/completions HTTP/1.1\r\nhost: {host}\r\ncontent-type: application/json\r\n"
    "connection: close\r\ncontent-length: {length}\r\n\r\n"
)


@dataclass
class Reader:
    """A client of its own temper; `text` is what it has heard."""

    number: int
    text: str = ""
    finish: str | None = None
    done: bool = False

    @property
    def question(self) -> str:
        return " ".join(f"{self.number}.{word}" for word in range(10))

    async def read(self, host: str, port: int) -> None:
        reader, writer = await asyncio.open_connection(host, port, limit=8192)
        body = json.dumps(
            {"model": "tick", "messages": [{"role": "user", "content": self.question}], "stream": True}
        ).encode()
        writer.write(HEAD.format(host=f"{host}:{port}", length=len(body)).encode() + body)
        try:
            while line := await reader.readline():
                if line.startswith(b"data: "):
                    self._hear(line[6:].strip())
                if self.number < SLOW:
                    await asyncio.sleep(0.01)
                elif self.number < SLOW + VANISHING and len(self.text) > self.number:
                    return
        finally:
            writer.transport.abort()

    def _hear(self, data: bytes) -> None:
        if data == b"[DONE]":
            self.done = True
            return
        (choice,) = json.loads(data)["choices"]
        self.text += choice["delta"].get("content") or ""
        self.finish = choice["finish_reason"]


def memory(pid: int) -> int:
    """Return the resident megabytes of a process."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmRSS")).split()[1]) // 1024


async def wave(url: str, streams: int) -> list[Reader]:
    host, port = url.removeprefix("http://").removesuffix("/v1").split(":")
    readers = [Reader(number) for number in range(streams)]
    await asyncio.gather(*(one.read(host, int(port)) for one in readers))
    return readers


def play(waves: int, times: int, streams: int = STREAMS, **options) -> list[int]:
    """Play waves of streams, check each, and return the memory before, and after each."""
    with ticking(times=times, delay=0.001, places=streams, **options) as (process, url):
        health = url.replace("/v1", "/health")
        httpx2.get(health)
        used = [memory(process.pid)]
        for _ in range(waves):
            for one in asyncio.run(wave(url, streams)):
                whole = f"{one.question} " * times
                if SLOW <= one.number < SLOW + VANISHING:
                    assert whole.startswith(one.text)
                    assert not one.done
                else:
                    assert (one.text, one.finish, one.done) == (whole, "stop", True)
            used.append(memory(process.pid))
            assert httpx2.get(health).json() == {"status": "ok", "writing": 0, "waiting": 0}
    return used


def test_two_hundred_streams_are_neither_lost_nor_mixed_up():
    before, after = play(waves=1, times=3)
    assert after - before < 64


@pytest.mark.slow
def test_memory_does_not_grow_from_wave_to_wave():
    before, *after = play(waves=5, times=20)
    print(f"resident MB before and after each wave of {STREAMS} streams of 200 words: {before}, {after}")
    assert after[0] - before < 96
    assert after[-1] - after[1] < 8
