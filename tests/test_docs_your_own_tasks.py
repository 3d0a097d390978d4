"""The page about one's own tasks shows rows that are read and a benchmark that is played."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

from rolecraft import evaluate, team
from rolecraft.benchmarks import tasks
from rolecraft.store import Run
from rolecraft.types import Completion, Message, Turn

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "your-own-tasks.md").read_text(encoding="utf-8")


def block(language: str) -> str:
    return re.findall(rf"^```{language}\n(.+?)^```$", PAGE, re.MULTILINE | re.DOTALL)[0]


class Adder:
    async def complete(self, prompt):
        a, b = re.findall(r"\d+", prompt.messages[-1].content)
        message = Message("assistant", f"That is {int(a) + int(b)}")
        return (Completion(message, Turn(message, prompt.speaker)),)


def test_the_rows_on_the_page_are_read(tmp_path):
    (tmp_path / "tasks.jsonl").write_text(block("jsonl"), encoding="utf-8")
    settings = tasks.Settings(tmp_path / "tasks.jsonl", (ROOT / "examples" / "shop" / "tools.py",))
    assert [task.id for task in tasks.tasks(settings, "test", 0)] == ["stock-lamp", "weather", "price"]


def test_the_benchmark_on_the_page_is_played(tmp_path):
    path = tmp_path / "sums.py"
    path.write_text(block("python"), encoding="utf-8")
    settings = evaluate.Settings(benchmark=path, options={"size": 5})
    scores = asyncio.run(evaluate.evaluate(settings, team.find("single"), Adder(), Run(tmp_path / "run")))
    assert (scores.score, scores.n) == (1.0, 5)
