"""The tour on the embedded base: play it untuned, tune an adapter, play it again, and show the difference."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from rich.console import Console

from rolecraft import agent, bases, engine, evaluate, report, store, team, train
from rolecraft.benchmarks.toolworld import policies
from rolecraft.errors import UserError
from rolecraft.recipe import Recipe
from rolecraft.scores import Scores
from rolecraft.store import Run
from rolecraft.types import Sampling

SPLITS = ("test", "tools", "phrasing")
"""Unseen entities; unseen functions, topics and entities; unseen sentence frames and entities."""

_PLAYING = agent.Settings(max_turns=10, sampling=Sampling(max_tokens=96))


@dataclass(frozen=True, slots=True)
class Settings:
    """Which recipe is tuned, and how many held-out tasks of which seed each split has."""

    recipe: str = "quickstart"
    n: int = 210
    seed: int = 29
    processes: int = 2


@dataclass(slots=True)
class _Tour:
    """What the steps share: where they write, what they print to, and how long each took."""

    settings: Settings
    output: Path
    console: Console
    seconds: dict[str, float] = field(default_factory=dict)

    @property
    def command(self) -> str:
        """The command line that repeats the tour."""
        asked = self.settings
        return f"rolecraft quickstart --recipe {asked.recipe} --n {asked.n} --seed {asked.seed}"

    @contextmanager
    def step(self, name: str, says: str) -> Iterator[None]:
        """Announce a step and record its seconds."""
        self.console.print(f"[bold]{says}[/bold]")
        started = time.perf_counter()
        yield
        self.seconds[name] = time.perf_counter() - started


def quickstart(settings: Settings, output: Path, *, resume: bool = False) -> Path:
    """Do the tour; the table is printed and left in `summary.json`, the trajectories in `report.html`.

    A finished tour in `output` is moved aside, never overwritten. Returns the report's path.
    """
    recipe = train.load_recipe(train.find_recipe(settings.recipe), [f"training.processes={settings.processes}"])
    _clear(output, resume)
    with store.lock(output):
        return _take_tour(_Tour(settings, output, Console()), recipe, resume)


def _take_tour(tour: _Tour, recipe: Recipe, resume: bool) -> Path:
    output = tour.output
    untuned = _untuned(tour, recipe)
    with tour.step("train", "Tuning an adapter on reference trajectories"):
        train.train(recipe, output / "adapter", resume=resume)
    with tour.step("tuned", "Playing the held-out tasks with the adapter"):
        tuned = _play(tour, "tuned", recipe, output / "adapter")
    trivial = _policies(tour)
    _show(tour, untuned, tuned, trivial)
    evaluate.write_summary(output / "summary.json", untuned, tuned, tour.seconds, policies=trivial)
    with tour.step("report", "Writing the report"):
        page = report.write([output], output / "report.html", title="Rolecraft quickstart")
    tour.console.print(f"{sum(tour.seconds.values()):.0f} s in all. Look at the trajectories: {page}")
    return page


def _clear(output: Path, resume: bool) -> None:
    if not output.exists() or resume:
        return
    if not output.is_dir():
        raise UserError(f"{str(output)!r} is a file; give another --output")
    with store.lock(output):  # whoever writes there must not find it gone
        pass
    aside = next(p for i in range(1, 10_000) if not (p := output.with_name(f"{output.name}-{i}")).exists())
    output.rename(aside)


def _untuned(tour: _Tour, recipe: Recipe) -> dict[str, dict[str, Scores]]:
    """Play without the adapter; where calls cannot be malformed only a seventh of the tasks: they go on for longest."""
    fewer = max(1, tour.settings.n // 7)
    with tour.step("untuned", f"Playing {tour.settings.n} held-out tasks per split with the untuned base"):
        return {
            "zero-shot": _play(tour, "zero-shot", recipe),
            "few-shot": _play(tour, "few-shot", recipe, shots=3),
            "few-shot, constrained": _play(tour, "few-shot-constrained", recipe, shots=3, constrained=True, n=fewer),
        }


def _play(
    tour: _Tour,
    name: str,
    recipe: Recipe,
    adapter: Path | None = None,
    shots: int = 0,
    constrained: bool = False,
    n: int | None = None,
) -> dict[str, Scores]:
    settings = evaluate.Settings(
        name=name,
        split="+".join(SPLITS),
        seed=tour.settings.seed,
        shots=shots,
        concurrency=32,
        workers=tour.settings.processes,
        options={"size": n or tour.settings.n},
        model=bases.identity(recipe.model.base, adapter),
        command=tour.command,
    )
    opener = partial(engine.open_local, recipe.model.base, adapter, settings=engine.Settings(max_requests=32))
    players = team.find(recipe.team.preset, instructions=recipe.team.instructions)
    playing = replace(_PLAYING, constrained=constrained)
    return evaluate.play_splits(settings, players, opener, Run(tour.output / name), playing, console=tour.console)


def _policies(tour: _Tour) -> dict[str, dict[str, Scores]]:
    """Play what needs no model: a score means little where these get it too."""
    found = {}
    with tour.step("policies", "Playing trivial policies"):
        for name in policies.POLICIES:
            settings = evaluate.Settings(
                name=name,
                split="+".join(SPLITS),
                seed=tour.settings.seed,
                options={"size": tour.settings.n},
                model=f"policy {name}",
                command=tour.command,
            )
            players = team.find("single", instructions=False)
            run = Run(tour.output / "policies" / name)
            opener = partial(policies.open_engine, name)
            found[name] = evaluate.play_splits(settings, players, opener, run, _PLAYING, console=tour.console)
    return found


def _show(
    tour: _Tour,
    untuned: Mapping[str, Mapping[str, Scores]],
    tuned: Mapping[str, Scores],
    trivial: Mapping[str, Mapping[str, Scores]],
) -> None:
    rows = {**{f"policy: {k}": v for k, v in trivial.items()}, **{f"untuned, {k}": v for k, v in untuned.items()}}
    tour.console.print(evaluate.score_table({**rows, "tuned": tuned}))
    tour.console.print(evaluate.family_table(tuned))
    tour.console.print(evaluate.failure_table(tuned))
