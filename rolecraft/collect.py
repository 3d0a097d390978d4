"""Has a teacher solve tasks, keeps what it did right as rows to train on, and tells what became of the rest.

It is an evaluation whose episodes are sifted: they are played and resumed as `evaluate` does, each task as often as is
wanted, until a budget is spent. What is kept stands in `kept.jsonl` beside them, in the format that training reads,
sorted by task and sample. Not covered: near duplicates across tasks (`curate`), and tasks that a test asks (`leakage`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

from rich.console import Console
from rich.table import Table

from rolecraft import agent, examples, wire
from rolecraft.errors import SettingsError
from rolecraft.evaluate import batches
from rolecraft.evaluate.playing import EngineOpener, Explain
from rolecraft.renderers import why_unparsed
from rolecraft.scores import family, spent
from rolecraft.store import Run, lock, write_jsonl
from rolecraft.team import Team
from rolecraft.types import Json, Message, Task, Trajectory

KEPT = "kept.jsonl"

REASONS = {
    "no answer": "the episode ran out of turns or tokens, went in circles, or gave up",
    "wrong": "its verdict is below what is kept",
    "unparsed": "a reply could not be read as a call",
    "same again": "another sample of the task is the same, word for word",
}
"""Why an episode is not kept, the first that holds."""


@dataclass(frozen=True, slots=True)
class Budget:
    """What may be spent in all, earlier runs of the folder included; episodes that have begun are played to the end.

    `requests` are replies that were asked for, `tokens` those of prompts and of replies.
    """

    tokens: int | None = None
    requests: int | None = None

    def spent_by(self, requests: int, tokens: int) -> bool:
        """Tell whether so many requests and tokens are enough."""
        pairs = ((tokens, self.tokens), (requests, self.requests))
        return any(most is not None and used >= most for used, most in pairs)


@dataclass(frozen=True, slots=True)
class Rules:
    """What is kept: episodes with an answer, a verdict of at least `score`, and all replies read; see REASONS.

    An error that was recovered from is kept: it teaches recovery (section 1.4).
    """

    score: float = 1.0
    unparsed: bool = False

    def __post_init__(self) -> None:
        """Raise SettingsError for a score that no verdict has."""
        if not 0 <= self.score <= 1:
            raise SettingsError(f"a verdict's score is in 0..1; got {self.score!r} to keep from (--min-score)")

    def against(self, episode: Trajectory) -> str | None:
        """Return why an episode is not kept, None if it is."""
        if episode.stop != "answered":
            return "no answer"
        if episode.verdict is None or episode.verdict.score < self.score:
            return "wrong"
        if not self.unparsed and any(message.unparsed is not None for message in episode.messages):
            return "unparsed"
        return None


@dataclass(frozen=True, slots=True)
class Harvest:
    """What came of a collection: counts by family, why episodes were dropped, and what it has cost.

    `asked` are the episodes that were wanted, `lost` the requests that a kill left without an answer.
    """

    asked: int
    played: Counter[str]
    right: Counter[str]
    kept: Counter[str]
    dropped: Counter[str]
    tasks: Counter[str] = field(default_factory=Counter)
    requests: int = 0
    tokens: int = 0
    lost: int = 0


def run(
    what: batches.Settings,
    team: Team,
    open_engine: EngineOpener,
    run: Run,
    playing: agent.Settings,
    *,
    budget: Budget = Budget(),
    rules: Rules = Rules(),
    lost: int = 0,
    explain: Explain = why_unparsed,
    console: Console | None = None,
) -> Harvest:
    """Play what `run` does not hold yet, within the budget, and write what is kept; raises as `evaluate.run`.

    `lost` requests were found of a process that was killed; they are added to those that the run knows of.
    """
    if (what.samples or 1) > 1 and playing.sampling.temperature <= 0:
        raise SettingsError(
            f"{what.samples} samples of a task are the same at temperature 0; set --temperature 0.7, say"
        )
    if (budget.tokens or budget.requests) and what.workers > 1:
        raise SettingsError("a budget is kept by one process; leave out --workers")
    with lock(run.path):
        batch = batches.begin(what, team, run, playing)
        if lost:
            run.log({"lost_requests": lost})
        spending = _Spending(batch)
        players = batches.players_of(what, team, playing, explain)
        batches.play_all([batch], players, open_engine, console, lambda: budget.spent_by(*spending.now()))
        return _write(batch, run, rules, spending.now())


def rows(tasks: Sequence[Task], held: dict[str, Trajectory], rules: Rules) -> Iterator[tuple[Trajectory, str | None]]:
    """Yield the episodes that there are by task and sample, each with why it is not kept, None if it is."""
    kept = set[tuple[str, str]]()
    for task in sorted(tasks, key=lambda task: _place(task.id)):
        if task.id not in held:
            continue
        episode = held[task.id]
        reason = rules.against(episode)
        told = (_place(task.id)[0], wire.dumps([_said(message) for message in episode.messages]))
        if reason is None and told in kept:
            reason = "same again"
        if reason is None:
            kept.add(told)
        yield episode, reason


def table(harvest: Harvest) -> Table:
    """Return the yield by family."""
    found = Table(title="yield by family", title_justify="left")
    for name in ("family", "tasks", "episodes", "right", "kept", "kept, %"):
        found.add_column(name, justify="left" if name == "family" else "right")
    for name in (*sorted(harvest.played), "all"):
        counts = [
            sum(one.values()) if name == "all" else one[name]
            for one in (harvest.tasks, harvest.played, harvest.right, harvest.kept)
        ]
        found.add_row(name, *(f"{count:,}" for count in counts), f"{100 * counts[3] / max(1, counts[1]):.1f}")
    return found


def told(harvest: Harvest) -> str:
    """Return in a line what was dropped and why, what it has cost and what is not played yet."""
    dropped = ", ".join(f"{reason} {count:,}" for reason, count in harvest.dropped.most_common()) or "nothing"
    left = harvest.asked - sum(harvest.played.values())
    more = f"; {left:,} of {harvest.asked:,} episodes are not played" if left else ""
    lost = f", {harvest.lost:,} lost to kills" if harvest.lost else ""
    return f"dropped: {dropped}; {harvest.requests:,} requests{lost}, {harvest.tokens:,} tokens{more}"


class _Spending:
    """What the episodes of a batch have cost; each is counted once."""

    def __init__(self, batch: batches.Batch) -> None:
        self._batch = batch
        self._counted = set[str]()
        self._requests = self._tokens = 0

    def now(self) -> tuple[int, int]:
        """Return the requests and tokens so far."""
        for name, episode in self._batch.held.items():
            if name not in self._counted:
                self._counted.add(name)
                used = spent(episode)
                self._requests += requests(episode)
                self._tokens += used.prompt + used.completion
        return self._requests, self._tokens


def by_task(episode: Trajectory) -> Trajectory:
    """Return an episode under the name of its task alone, as which two collections are compared."""
    return replace(episode, task=replace(episode.task, id=episode.task.id.rpartition("#")[0] or episode.task.id))


def requests(episode: Trajectory) -> int:
    """Return how many replies an episode asked for."""
    return len(episode.turns) + (episode.trials.model_calls if episode.trials is not None else 0)


def _write(batch: batches.Batch, run: Run, rules: Rules, used: tuple[int, int]) -> Harvest:
    """Write the rows that are kept, and return the counts."""
    sifted = list(rows(batch.tasks, batch.held, rules))
    kept = [episode for episode, reason in sifted if reason is None]
    write_jsonl(run.path / KEPT, map(_row, kept))
    least = rules.score
    return Harvest(
        asked=len(batch.tasks),
        played=Counter(family(episode) for episode, _ in sifted),
        right=Counter(family(episode) for episode, _ in sifted if episode.verdict and episode.verdict.score >= least),
        kept=Counter(map(family, kept)),
        dropped=Counter(reason for _, reason in sifted if reason is not None),
        tasks=Counter({name: len(ids) for name, ids in _tasks(episode for episode, _ in sifted).items()}),
        requests=used[0],
        tokens=used[1],
        lost=sum(int(line.get("lost_requests", 0)) for line in run.metrics()),
    )


def _tasks(episodes: Iterator[Trajectory]) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for episode in episodes:
        found.setdefault(family(episode), set()).add(episode.task.id.rpartition("#")[0])
    return found


def _row(episode: Trajectory) -> Json:
    """Return the row of a kept episode; what its tools ended as, and what was said before it, is not to be trained."""
    opening = len(episode.task.messages)
    messages = (*examples.unlearned(episode.messages[:opening]), *episode.messages[opening:])
    return wire.trajectory_to_json(replace(episode, messages=messages, turns=(), final_state=None, trials=None))


def _said(message: Message) -> Json:
    """Return what a message says and does, without the ids of its calls."""
    return [message.role, message.content, [[call.name, dict(call.arguments)] for call in message.tool_calls]]


def _place(name: str) -> tuple[str, int]:
    """Return the task of an episode and the number of its sample, 0 where it is the only one."""
    whole, mark, sample = name.rpartition("#")
    return (whole, int(sample)) if mark and sample.isdecimal() else (name, 0)
