"""The cells of a claim: one (arm, seed) each, resolved to everything that decides its result, kept as a JSON file.

A cell's file is named by a hash of its configuration, so a finished cell is known again on any machine. Settings at
their defaults are left out of the hash: one that is added later does not make old cells unknown. The whole resolved
configuration is in the file, and a cell whose settings have changed under the same hash does not count as finished.

Not covered: running a cell (`trial`).
"""

from __future__ import annotations

import hashlib
import itertools
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from rolecraft.errors import DataError, SettingsError
from rolecraft.recipe import Recipe, read_recipe, recipe_to_dict
from rolecraft.reproduce.claim import Budget, Claim, Evaluation
from rolecraft.reproduce.columns import unusual
from rolecraft.settings import from_dict, read_yaml, to_dict
from rolecraft.stages import Sections, Stage, lay, require_order, starts
from rolecraft.store import atomic
from rolecraft.train import find_recipe
from rolecraft.types import Json

VERSION = 1
"""Raised when a change of the code changes what the same configuration results in."""

_SECTIONS = ("model", "team", "data", "training")
_BESIDE_THE_POINT = ("logging_steps", "save_steps", "save_total_limit", "report_to", "processes")
"""Of a recipe's training: what changes how a run is watched and kept, not what it learns."""
_ON_COLUMNS = ("columns", "modes", "development_columns")
_INNERMOST = re.compile(r"([\[{])\n\s*([^\[\]{}]*?)\n\s*([\]}])")
"""A list or object that holds no other, over several lines; a line break is never part of a JSON string."""


@dataclass(frozen=True, slots=True)
class Cell:
    """One arm at one tuning seed. `search` holds the values that are tried, and is None for a final cell.

    `weights` is the digest of the base's weights. The last of `stages` is the adapter that is played.
    """

    claim: str
    arm: str
    seed: int
    stages: tuple[Stage, ...]
    evaluation: Evaluation
    budget: Budget
    weights: str
    search: Mapping[str, Any] | None = None

    @property
    def name(self) -> str:
        """What the cell's file and its run folder are called."""
        return f"{self.arm}-{'' if self.search is None else 'search-'}{self.seed}-{digest(self)}"

    @property
    def title(self) -> str:
        """What the cell is called in a line for people."""
        if self.search is None:
            return f"{self.arm}, seed {self.seed}"
        tried = (f"{key.partition('.')[2]} {value}" for key, value in self.search.items())
        return f"{self.arm}, trying {', '.join(tried)}"

    @property
    def most_steps(self) -> int:
        """The most steps that all stages may do together."""
        fixed = sum(stage.recipe.training.max_steps for stage in self.stages)
        return max(fixed, self.budget.most_steps or 0) if self.search is None else fixed


@dataclass(frozen=True, slots=True)
class Played:
    """A split's score; `outcomes` are the tasks' own, in their order: text of 0s and 1s where all are, else numbers.

    `tasks` is a digest of the tasks, so that only like is paired with like. `cost` is a task's mean: prompt tokens that
    were computed and tokens written, model and tool calls, seconds.
    """

    score: float
    n: int
    interval: tuple[float, ...]
    seed: int
    tasks: str
    outcomes: str | tuple[float, ...]
    families: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    failures: Mapping[str, int] = field(default_factory=dict)
    cost: Mapping[str, float] = field(default_factory=dict)

    @property
    def values(self) -> tuple[float, ...]:
        """The outcomes as numbers."""
        return tuple(map(float, self.outcomes))


@dataclass(frozen=True, slots=True)
class Point:
    """The development score after so many steps and seconds of tuning."""

    steps: int
    seconds: float
    score: float
    n: int


@dataclass(frozen=True, slots=True)
class Tuning:
    """What the tuning took, over all stages; `trainable` and `logged`, the last numbers logged, are the last stage's.

    `seconds` and `tokens` are those of the optimisation steps, reading the data left out. `losses` are (step, loss).
    `data` is the fingerprint of the last stage's examples. `stored` are the numbers of all stages, which playing
    needs beside the base. `flops` are floating-point operations (see `work`).
    """

    trainable: int
    steps: int
    tokens: int
    seconds: float
    losses: tuple[tuple[float, ...], ...] = ()
    logged: Mapping[str, float] = field(default_factory=dict)
    data: str = ""
    stored: int = 0
    flops: float = 0.0


@dataclass(frozen=True, slots=True)
class Result:
    """A finished cell: `scores` by split; a search cell has the development splits there. Seconds are wall time.

    `failed` is the reason of a search cell whose tuning went wrong, such as a learning rate at which it diverges.
    """

    claim: str
    arm: str
    seed: int
    search: Mapping[str, Any] | None
    configuration: Mapping[str, Any]
    scores: Mapping[str, Played]
    development: tuple[Point, ...] = ()
    tuning: Tuning | None = None
    seconds_per_task: float = 0.0
    seconds: float = 0.0
    machine: Mapping[str, Any] = field(default_factory=dict)
    failed: str = ""

    @property
    def mean(self) -> float:
        """The mean score over the splits; below every score if the cell failed."""
        return sum(one.score for one in self.scores.values()) / len(self.scores) if self.scores else -1.0


# ---- from a claim to its cells


def search_cells(claim: Claim, arm: str, weights: str) -> tuple[Cell, ...]:
    """Return a cell for each point of the arm's grid; none if it searches nothing."""
    grid = claim.arms[arm].search
    points = [dict(zip(grid, values, strict=True)) for values in itertools.product(*grid.values())] if grid else []
    return tuple(_cell(claim, arm, claim.budget.search_seed, point, weights, search=True) for point in points)


def final_cell(claim: Claim, arm: str, seed: int, weights: str, chosen: Mapping[str, Any]) -> Cell:
    """Return the arm's cell at a tuning seed, with what its search chose."""
    return _cell(claim, arm, seed, chosen, weights, search=False)


def choose(results: Sequence[Result]) -> dict[str, Any]:
    """Return the values of the search cell with the best mean development score, the first of equals.

    Raises DataError if every one failed.
    """
    best = max(results, key=lambda result: result.mean)
    if best.failed:
        raise DataError(f"every searched setting of arm {best.arm!r} failed, the last for: {best.failed}; try others")
    return dict(best.search or {})


def stages(claim: Claim, name: str, chosen: Mapping[str, Any] | None = None) -> tuple[Stage, ...]:
    """Return an arm's stages, one where it names none; raises SettingsError naming the arm, NotFound for its recipe."""
    arm = claim.arms[name]
    common = read_yaml(find_recipe(claim.recipe))
    told = arm.named_stages
    try:
        found = []
        for (stage, data), start in zip(told.items(), starts(told), strict=True):
            layer = {section: values for section, values in data.items() if section != "start"}
            last = _as_sections(chosen or {}) if stage == list(told)[-1] else ()
            found.append(Stage(stage, _recipe(lay(common, [claim.settings, arm.settings, layer, *last])), start))
        return require_order(found)
    except SettingsError as error:
        raise SettingsError(f"claim {claim.name!r}, arm {name!r}: {error}") from error


def _recipe(sections: Sections) -> Recipe:
    recipe = read_recipe(sections)
    if recipe.training.max_steps < 1:
        raise SettingsError("training.max_steps is not set; a claim's arms are tuned for a number of steps")
    if recipe.training.early_stopping_patience:
        raise SettingsError(
            "training.early_stopping_patience is set; a claim's arms do all of their steps: leave it out"
        )
    if recipe.on_policy is not None and recipe.on_policy.validation:
        raise SettingsError(
            "on_policy.validation is set; a claim's arms are played as their last step left them: set it to 0"
        )
    if recipe.reinforcement is not None and recipe.reinforcement.validation:
        raise SettingsError(
            "reinforcement.validation is set; a claim's arms are played as their last step left them: set it to 0"
        )
    return recipe


def _as_sections(chosen: Mapping[str, Any]) -> Iterator[Sections]:
    for path, value in chosen.items():
        section, _, key = path.partition(".")
        yield {section: {key: value}}


def _cell(claim: Claim, arm: str, seed: int, values: Mapping[str, Any], weights: str, *, search: bool) -> Cell:
    share = claim.budget.search_share if search else 1.0
    found = tuple(
        replace(stage, recipe=_watched(stage.recipe, seed, share, claim.budget, search))
        for stage in stages(claim, arm, values)
    )
    asked = replace(claim.evaluation, options={**claim.evaluation.options, **claim.arms[arm].options})
    return Cell(claim.name, arm, seed, found, asked, claim.budget, weights, values if search else None)


def _watched(recipe: Recipe, seed: int, share: float, budget: Budget, search: bool) -> Recipe:
    """Return the recipe at the seed, for its share of the steps, in one process, kept so that it can be resumed."""
    steps = max(1, round(recipe.training.max_steps * share))
    points = 0 if search else budget.curve
    kept = steps if budget.most_steps else max(1, steps // (points or 4))
    training = replace(
        recipe.training,
        max_steps=steps,
        seed=seed,
        processes=1,
        logging_steps=max(1, steps // 20),
        save_steps=kept,
        save_total_limit=1_000 if points or budget.most_steps else 1,
        report_to="none",
    )
    return replace(recipe, training=training)


# ---- what a cell is known by


def configuration(cell: Cell) -> dict[str, Json]:
    """Return everything that decides the cell's result, as JSON."""
    played = _played(cell, bool(cell.search is not None or cell.budget.most_steps or cell.budget.curve))
    grows = cell.search is None and cell.budget.most_steps is not None
    budget = {"most_steps": cell.budget.most_steps, "least_gain": cell.budget.least_gain} if grows else {}
    curve = {"curve": cell.budget.curve} if cell.search is None and cell.budget.curve else {}
    return {
        "version": VERSION,
        "weights": cell.weights,
        "stages": [{**_told(stage.recipe), **_start(cell, place)} for place, stage in enumerate(cell.stages)],
        "evaluation": played,
        "budget": {**budget, **curve},
    }


def _played(cell: Cell, develops: bool) -> dict[str, Json]:
    """Return what of the evaluation decides the result; what is played on columns is no part of a tuning."""
    played = to_dict(cell.evaluation)
    on_columns = {key: played.pop(key) for key in _ON_COLUMNS}
    if cell.evaluation.columns:
        first = unusual(next(iter(cell.evaluation.modes.values())))
        return {"development_columns": on_columns["development_columns"], "mode": first} if develops else {}
    for key in ("splits", "n", "seed"):
        if cell.search is not None:
            del played[key]
        elif not develops:
            del played[f"development_{key}"]
    return played


def digest(cell: Cell) -> str:
    """Return the hash that names the cell: of its configuration without the settings that are at their defaults."""
    told = configuration(cell)
    plain = to_dict(Evaluation())
    told["evaluation"] = {key: value for key, value in told["evaluation"].items() if value != plain.get(key)}
    told["stages"] = [
        {**_unusual(stage.recipe, _told(stage.recipe)), **_start(cell, place)}
        for place, stage in enumerate(cell.stages)
    ]
    told["search"] = cell.search is not None
    return hash_json(told)


def hash_json(data: Json) -> str:
    """Return twelve hexadecimal digits of the data's SHA-256, the same whatever the order of its keys."""
    return hashlib.sha256(json.dumps(data, sort_keys=True, ensure_ascii=False).encode()).hexdigest()[:12]


def _told(recipe: Recipe) -> dict[str, dict[str, Json]]:
    told = recipe_to_dict(recipe)
    told["training"] = {key: value for key, value in told["training"].items() if key not in _BESIDE_THE_POINT}
    return told


def _start(cell: Cell, place: int) -> dict[str, Json]:
    """Return how far back the stage lies from which one starts (0: the base), unless it is the one before."""
    start = cell.stages[place].start
    back = 0 if start is None else place - [stage.name for stage in cell.stages].index(start)
    return {} if back == min(1, place) else {"starts": back}


def _unusual(recipe: Recipe, told: Mapping[str, Mapping[str, Json]]) -> dict[str, dict[str, Json]]:
    plain = {section: to_dict(type(getattr(recipe, section))()) for section in _SECTIONS}
    plain["adapter"] = to_dict(type(recipe.adapter.settings)())
    plain["reinforcement"] = {} if recipe.reinforcement is None else to_dict(type(recipe.reinforcement)())
    plain["on_policy"] = {} if recipe.on_policy is None else to_dict(type(recipe.on_policy)(teacher=""))
    plain["preference"] = {} if recipe.preference is None else to_dict(type(recipe.preference)())
    plain["experience"] = {} if recipe.experience is None else to_dict(type(recipe.experience)(stage=""))
    return {
        section: {key: value for key, value in values.items() if value != plain[section].get(key, ...)}
        for section, values in told.items()
    }


def agrees(recorded: Json, now: Json) -> bool:
    """Return whether two configurations agree in everything that both of them tell."""
    if isinstance(recorded, dict) and isinstance(now, dict):
        return all(agrees(recorded[key], now[key]) for key in recorded.keys() & now.keys())
    if isinstance(recorded, list) and isinstance(now, list):
        return len(recorded) == len(now) and all(map(agrees, recorded, now))
    return bool(recorded == now)


# ---- on disk


def finished(cell: Cell, folder: Path) -> Result | None:
    """Return the cell's result if `folder` holds it, or a folder beside it under another name: nothing is run twice.

    Raises DataError for a file that cannot be read.
    """
    found = sorted(folder.parent.glob(f"*/*-{cell.seed}-{digest(cell)}.json"))
    now = json.loads(json.dumps(configuration(cell)))
    for path in sorted(found, key=lambda path: path.parent != folder):  # its own first
        if agrees(dict((result := read(path)).configuration), now):
            return replace(result, claim=cell.claim, arm=cell.arm)
    return None


def write(cell: Cell, result: Result, folder: Path) -> Path:
    """Write the result under the cell's name, whole or not at all, and return its path."""
    return dump(folder / f"{cell.name}.json", asdict(result))


def dump(path: Path, data: Json) -> Path:
    """Write JSON that a person can read, whole or not at all: a list or object that holds no other is a line."""
    text = json.dumps(data, indent=1, ensure_ascii=False)
    short = _INNERMOST.sub(lambda found: found[1] + re.sub(r"\n\s*", " ", found[2]) + found[3], text)
    with atomic(path) as unfinished:
        unfinished.write_text(short + "\n", encoding="utf-8")
    return path


def read(path: Path) -> Result:
    """Return the result in a cell's file; raises DataError naming it."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        data["scores"] = {split: from_dict(Played, one, split) for split, one in data["scores"].items()}
        return from_dict(Result, data, path.name)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError, SettingsError) as error:
        raise DataError(
            f"{path}: not a finished cell ({error}); restore the file, or delete it to have it written again"
        ) from error


def read_all(folder: Path) -> list[Result]:
    """Return every finished cell in `folder`, whatever its settings."""
    return [read(path) for path in sorted(folder.glob("*.json"))]
