"""Measures a real base at each form of its weights beside transformers' generate and llama.cpp's server, in turn.

Processor seconds of one thread, each way in a process of its own that waits while the others work: tokens/s of a prompt
and of replies at batch 1 and 8, and memory after loading. `python benchmarks/real.py --base smollm2 --json`; llama.cpp
plays the same GGUF file where `LLAMA_PYTHON` names an interpreter that has xllamacpp (`make .venv-llama/ready`). Not
covered: what the forms cost in accuracy (`rolecraft eval bfcl --weights int8`), and accelerators.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

_FORMS = ("float32", "bfloat16", "int8", "int4")
_TYPES = ("float32", "bfloat16")
_BATCHES = (1, 8)
_BARS = {
    "generate": {"prompts": 1.0, "replies, batch 1": 3.0, "replies, batch 8": 2.0},
    "llama.cpp": {"prompts": 2.0, "replies, batch 1": 1.0, "replies, batch 8": 1.5},
}
_LLAMA = Path(__file__).parents[1] / ".venv-llama" / "bin" / "python"
_SERVER = """
import json, sys, time, urllib.request, xllamacpp
from concurrent.futures import ThreadPoolExecutor
settings = xllamacpp.CommonParams()
settings.model.path, settings.n_ctx, settings.n_parallel = sys.argv[1], 8 * 1024, 8
settings.cpuparams.n_threads = settings.cpuparams_batch.n_threads = 1
settings.warmup, settings.port, settings.use_jinja = False, 0, True
server = xllamacpp.Server(settings)
def ask(text, tokens):
    asked = {"messages": [{"role": "user", "content": text}], "max_tokens": tokens, "temperature": 0,
             "cache_prompt": False, "ignore_eos": True}
    request = urllib.request.Request(f"{server.listening_address}/v1/chat/completions", json.dumps(asked).encode(),
                                     {"content-type": "application/json"})
    return json.load(urllib.request.urlopen(request))["usage"]
print(json.dumps({}), flush=True)
for line in sys.stdin:
    asked = json.loads(line)
    began = time.process_time()
    with ThreadPoolExecutor(8) as pool:
        used = list(pool.map(lambda text: ask(text, asked["tokens"]), asked["texts"]))
    seconds = time.process_time() - began
    prompt, written = (sum(one[key] for one in used) for key in ("prompt_tokens", "completion_tokens"))
    print(json.dumps({"seconds": seconds, "prompt": prompt, "written": written}), flush=True)
"""


@dataclass(frozen=True, slots=True)
class Asked:
    """What answering some texts took: processor seconds, and tokens of prompts and of replies."""

    seconds: float
    prompt: int
    written: int


class Way:
    """A process that answers texts in one way, and sleeps between them."""

    def __init__(self, name: str, command: list[str]) -> None:
        """Start it and wait until its model is loaded; `told` is what it says of that."""
        self.name = name
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        self.told: dict[str, Any] = self._read()

    def ask(self, texts: list[str], tokens: int) -> Asked:
        """Let it answer all texts at once, each with `tokens` tokens."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"texts": texts, "tokens": tokens}) + "\n")
        self._process.stdin.flush()
        return Asked(**self._read())

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.wait()

    def _read(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.startswith("{"):
                found: dict[str, Any] = json.loads(line)
                return found
        raise RuntimeError(f"{self.name} ended by itself; run its command to see why: {self._process.args}")


def text(number: int, words: int) -> str:
    """Return a question of about so many tokens that shares no beginning with others and wants a long answer."""
    filler = " ".join(
        f"{'abcdefgh'[(number + place) % 8]}{(place * 7 + number) % 10} day" for place in range(words // 4)
    )
    return f"{number} {filler} Write a very long story about all of this."


def rates(way: Way, prompt: int, tokens: int) -> dict[str, float]:
    """Return tokens/s of one prompt, and of replies at each batch: longer ones less those of one token."""
    one = way.ask([text(0, prompt)], 1)
    found = {"prompts": one.prompt / one.seconds}
    for batch in _BATCHES:
        texts = [text(number, 60) for number in range(batch)]
        short, long = way.ask(texts, 1), way.ask(texts, tokens + 1)
        found[f"replies, batch {batch}"] = (long.written - short.written) / max(long.seconds - short.seconds, 1e-9)
    return found


def measure(base: str, names: list[str], rounds: int, prompt: int, tokens: int) -> dict[str, Any]:
    """Return the rates of every way in every round, what each told when it was loaded, and what was left out."""
    ways, skipped = [], {}
    for name in names:
        command = _command(name, base)
        if isinstance(command, str):
            skipped[name] = command
        else:
            ways.append(Way(name, command))
    found: dict[str, dict[str, list[float]]] = {way.name: {} for way in ways}
    try:
        for turn in range(rounds + 1):
            for way in ways:
                for what, rate in rates(way, prompt, tokens).items():
                    if turn:  # the first round compiles kernels
                        found[way.name].setdefault(what, []).append(rate)
    finally:
        for way in ways:
            way.close()
    return {
        "base": base,
        "rounds": rounds,
        "load": os.getloadavg()[1],
        "rates": found,
        "ratios": _ratios(found),
        "loaded": {way.name: way.told for way in ways},
        "skipped": skipped,
    }


def _command(name: str, base: str) -> list[str] | str:
    """Return the command of a way, or why it is left out."""
    if name != "llama.cpp":
        return [sys.executable, __file__, "--base", base, "--answer", name]
    from rolecraft import bases

    place, python = bases.find(base), os.environ.get("LLAMA_PYTHON", str(_LLAMA))
    if not bases.is_gguf(place):
        return f"{base} is no GGUF file"
    if not Path(python).exists() or subprocess.run([python, "-c", "import xllamacpp"], capture_output=True).returncode:
        return f"{python} has no xllamacpp; run `make .venv-llama/ready`, or set LLAMA_PYTHON"
    return [python, "-c", _SERVER, place]


def _ratios(found: dict[str, dict[str, list[float]]]) -> list[dict[str, Any]]:
    """Return the engine's best form over each peer's best, by the medians, with what it is measured by."""
    rows = []
    for peer, bars in _BARS.items():
        for what, bar in bars.items():
            ours, theirs = (_best(found, kind, what) for kind in ("engine", peer))
            if ours and theirs:
                pairs = zip(found[ours][what], found[theirs][what], strict=True)
                ratio = statistics.median(a / b for a, b in pairs)
                rows.append(
                    {"what": what, "ours": ours, "peer": theirs, "ratio": ratio, "bar": bar, "met": ratio >= bar}
                )
    return rows


def _best(found: dict[str, dict[str, list[float]]], kind: str, what: str) -> str | None:
    names = [name for name in found if name.startswith(kind)]
    return max(names, key=lambda name: statistics.median(found[name][what]), default=None)


def answer(base: str, name: str) -> None:
    """Load the base in one way, and answer what comes on stdin."""
    import torch
    import transformers

    from rolecraft import model

    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()
    kind, form = name.split(" ")
    model.load_config(base)
    before = _resident()
    ask, told = _engine(base, form) if kind == "engine" else _generate(base, form)
    print(json.dumps({"memory_mib": _resident() - before, **told}), flush=True)
    for line in sys.stdin:
        asked = json.loads(line)
        began = time.process_time()
        prompt, written = ask(asked["texts"], asked["tokens"])
        print(json.dumps({"seconds": time.process_time() - began, "prompt": prompt, "written": written}), flush=True)


Ask = Callable[[list[str], int], tuple[int, int]]
"""Answers texts with so many tokens each; returns how many tokens the prompts and the replies have."""


def _engine(base: str, form: Any) -> tuple[Ask, dict[str, Any]]:
    from rolecraft import engine
    from rolecraft.types import Message, Prompt, Sampling

    opened = engine.open_local(base, settings=engine.Settings(max_requests=8, max_context=1024, weights=form))

    def ask(texts: list[str], tokens: int) -> tuple[int, int]:
        opened.forget()
        sampling = Sampling(max_tokens=tokens)

        async def all_of_them() -> list[Any]:
            prompts = [Prompt((Message("user", text),), sampling=sampling) for text in texts]
            return await asyncio.gather(*(opened.complete(prompt) for prompt in prompts))

        used = [one.turn.usage for (one,) in asyncio.run(all_of_them())]
        return sum(one.prompt for one in used), sum(one.completion for one in used)

    return ask, {"told": opened.weights, "copies_mib": {what: size / 2**20 for what, size in opened.copies.items()}}


def _generate(base: str, form: Any) -> tuple[Ask, dict[str, Any]]:
    import batching

    from rolecraft import model
    from rolecraft.types import Message, Prompt, Sampling

    loaded = model.load(base, dtype=form)
    loaded.model.generation_config.eos_token_id = None

    def ask(texts: list[str], tokens: int) -> tuple[int, int]:
        prompts = [Prompt((Message("user", text),), sampling=Sampling(max_tokens=tokens)) for text in texts]
        batching.generate(loaded, prompts)
        return sum(len(loaded.renderer.prompt(p.messages, (), p.speaker)) for p in prompts), len(texts) * tokens

    return ask, {}


def _resident() -> float:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


def show(console: Console, found: dict[str, Any]) -> None:
    """Print what was measured."""
    columns = ["prompts", *(f"replies, batch {batch}" for batch in _BATCHES)]
    table = Table("way", *columns, "MiB after loading", title=f"{found['base']}, tokens/s, n = {found['rounds']}")
    for name, rates_of in found["rates"].items():
        cells = [f"{statistics.median(v):.0f} ({min(v):.0f}-{max(v):.0f})" for v in (rates_of[c] for c in columns)]
        told = found["loaded"][name]
        copies = sum(told.get("copies_mib", {}).values())
        memory = f"{told['memory_mib']:.0f}" if "memory_mib" in told else ""
        table.add_row(name, *cells, f"{memory} (copies {copies:.0f})" if copies else memory)
    console.print(table)
    for row in found["ratios"]:
        verdict = "met" if row["met"] else "missed"
        console.print(f"{row['what']}: {row['ours']} / {row['peer']} {row['ratio']:.2f}, bar {row['bar']:g}: {verdict}")
    for name, why in found["skipped"].items():
        console.print(f"left out: {name}: {why}")
    console.print(f"load of the machine meanwhile: {found['load']:.1f}")


def main() -> None:
    """Read the flags, measure, and show the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    every = [*(f"engine {form}" for form in _FORMS), *(f"generate {kind}" for kind in _TYPES), "llama.cpp"]
    parser.add_argument("--base", default="smollm2")
    parser.add_argument("--ways", nargs="+", default=every, choices=every, metavar="WAY", help=", ".join(every))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--prompt", type=int, default=330, help="tokens of the prompt, about")
    parser.add_argument("--tokens", type=int, default=32, help="tokens of each reply")
    parser.add_argument("--json", action="store_true", help="print one JSON object as the last line")
    parser.add_argument("--answer", help=argparse.SUPPRESS)
    flags = parser.parse_args()
    if flags.answer:
        answer(flags.base, flags.answer)
        return
    found = measure(flags.base, flags.ways, flags.rounds, flags.prompt, flags.tokens)
    show(Console(stderr=flags.json, width=120), found)
    if flags.json:
        print(json.dumps(found))


if __name__ == "__main__":
    main()
