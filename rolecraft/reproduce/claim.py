"""What a claim asks: arms of tuning to compare, how they are tuned and played, and when the comparison bears it out.

Not covered: running anything (`cells`, `reproduce`), and what the cells say (`findings`).
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import rolecraft.reproduce.columns as columns
from rolecraft.errors import NotFound, SettingsError
from rolecraft.reproduce.columns import Column, Mode
from rolecraft.settings import from_dict, read_yaml
from rolecraft.stages import Sections

_NAME = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")


@dataclass(frozen=True, slots=True)
class Arm:
    """One way of tuning, or what is played without any; `says` tells it in a phrase.

    `settings` are laid over the claim's. `stages` are those of a recipe, laid over the arm's settings, by name or, in a
    list, each starting from the one before. `search` names settings of
    the last stage (`training.learning_rate`) with values to try; the best on the development tasks is taken.
    `options` are laid over the benchmark's, where an arm is asked the same questions in a world of its own.
    `seeds` are those of the claim's that the arm is tuned at (none named: all).
    On columns of several benchmarks an arm may be a `base` that is not tuned at all, or a benchmark's trivial `policy`,
    and `play` is laid over every mode.
    """

    says: str = ""
    settings: Sections = field(default_factory=dict)
    stages: Mapping[str, Sections] | tuple[Sections, ...] = ()
    search: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)
    base: str | None = None
    policy: str | None = None
    play: Mapping[str, Any] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)
    seeds: tuple[int, ...] = ()

    @property
    def tuned(self) -> bool:
        """Whether the arm is tuned before it is played."""
        return self.base is None and self.policy is None

    @property
    def named_stages(self) -> dict[str, Sections]:
        """The stages by name, `stage-1` and so on where they have none; one without settings where there are none."""
        if isinstance(self.stages, Mapping):
            return {name: told or {} for name, told in self.stages.items()}
        return {f"stage-{number}": told for number, told in enumerate(self.stages or ({},), start=1)}

    def __post_init__(self) -> None:
        """Refuse a search that tries nothing or sets nothing."""
        for key, values in self.search.items():
            if not re.fullmatch(r"\w+\.\w+", str(key)):
                raise SettingsError(f"search has {key!r}; write a setting as section.key")
            if not isinstance(values, list | tuple) or not values:
                raise SettingsError(f"search.{key} is {values!r}; give a list of values to try")
        shaped = self.settings or self.stages or self.search or self.seeds
        if not self.tuned and (shaped or (self.base and self.policy)):
            raise SettingsError("an arm with base or policy is not tuned: it has one of them, says and play, no more")


@dataclass(frozen=True, slots=True)
class Evaluation:
    """What is played: the first `n` tasks of each split at `seed`, greedily.

    Everything that is chosen (a searched setting, when to stop) is chosen on the development tasks, whose seed is
    another. `options` are the benchmark's own settings.

    With `columns` (by `benchmark:split`) each of them is played in each of the `modes`, one cell each, and what is
    chosen is chosen on `development_columns`, in the first mode; benchmark, splits and the like then mean nothing.
    """

    benchmark: str = "toolworld"
    splits: tuple[str, ...] = ("test", "tools", "phrasing")
    n: int = 140
    seed: int = 11
    development_splits: tuple[str, ...] = ("test", "tools")
    development_n: int = 70
    development_seed: int = 7
    options: Mapping[str, Any] = field(default_factory=dict)
    max_turns: int = 10
    max_tokens: int = 96
    columns: Mapping[str, Column] = field(default_factory=dict)
    modes: Mapping[str, Mode] = field(default_factory=dict)
    development_columns: Mapping[str, Column] = field(default_factory=dict)

    @property
    def reported(self) -> tuple[str, ...]:
        """The names of what is scored: columns, or the benchmark's splits."""
        return tuple(self.columns) or self.splits

    def __post_init__(self) -> None:
        """Refuse to choose on the tasks that are reported."""
        columns.check({**self.columns, **self.development_columns}, self.modes, "evaluation")
        if bool(self.columns) != bool(self.modes):
            raise SettingsError("evaluation has columns or modes alone; write both, or neither")
        if shared := [name for name in self.columns if name in self.development_columns]:
            raise SettingsError(f"evaluation: column {shared[0]!r} is reported, and chosen on; choose on another")
        if self.seed == self.development_seed:
            raise SettingsError(f"evaluation.development_seed is {self.seed}, the test seed; give another one")
        if min(self.n, self.development_n) < 1 or not self.splits or not self.development_splits:
            raise SettingsError("evaluation: n, development_n and both lists of splits need at least 1")


@dataclass(frozen=True, slots=True)
class Budget:
    """How long an arm is tuned and what the whole may cost.

    An arm does its `training.max_steps`. With `most_steps` it goes on in chunks of as many, until a chunk raises the
    development score by less than `least_gain` or all its stages have done `most_steps`; the best chunk's end is
    played. The learning rate's schedule is stretched to each new end, so every chunk ends where it falls to.
    `curve` plays the development tasks at so many equal distances of a fixed number of steps. A searched value is tried
    with `search_share` of the steps at tuning seed `search_seed`. `minutes` bounds the wall time on two cores.
    """

    most_steps: int | None = None
    least_gain: float = 0.01
    curve: int = 0
    search_share: float = 0.4
    search_seed: int = 100
    minutes: float = 45.0

    def __post_init__(self) -> None:
        """Refuse numbers that cannot be meant."""
        if not 0 < self.search_share <= 1:
            raise SettingsError(f"budget.search_share is {self.search_share!r}; it is a share, above 0 and at most 1")
        if self.curve < 0 or (self.curve and self.most_steps):
            raise SettingsError("budget.curve is a number of points, and with most_steps every chunk is one: set one")


@dataclass(frozen=True, slots=True)
class Comparison:
    """That arm `better` scores above arm `than`; with `decides`, the verdict asks for it on that split.

    On columns `arm/mode` is the arm played in that mode, and an arm alone is compared in every mode; it decides in
    those modes alone that are played on that column.
    """

    better: str
    than: str
    decides: str | None = None


Cost = Literal[
    "trained",
    "stored",
    "training_tokens",
    "training_flops",
    "training_seconds",
    "play_tokens",
    "play_calls",
    "play_seconds",
]
"""What an arm costs; see `costs`."""


@dataclass(frozen=True, slots=True)
class Limit:
    """That an arm costs at most so many times what arm `than` does."""

    arm: str
    than: str
    cost: Cost
    at_most: float


@dataclass(frozen=True, slots=True)
class Paper:
    """The paper's own figures, by arm and column, and of rows that are no arm here; never mixed with ours."""

    says: str = ""
    figures: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    also: Mapping[str, Mapping[str, float]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Claim:
    """A question, the arms that answer it, and the rule for the verdict.

    All tuned arms stand on `recipe` with `settings` over it. `measures` names logged numbers to show beside the scores.
    `bases` says of a base that is no name on the hub what it is and how it is got. The
    verdict is `reproduced` if every deciding comparison is significant in its direction (exact sign flips over the
    tasks, each with all its seeds, p < 0.05, and every seed's difference of that sign), `opposite` if one is
    significant the other way round, else `not at this scale`. With `limits` each of them has to hold, too.
    """

    name: str
    title: str
    question: str
    source: str
    arms: Mapping[str, Arm]
    recipe: str = ""
    seeds: tuple[int, ...] = (0, 1, 2)
    settings: Sections = field(default_factory=dict)
    evaluation: Evaluation = Evaluation()
    budget: Budget = Budget()
    comparisons: tuple[Comparison, ...] = ()
    limits: tuple[Limit, ...] = ()
    measures: tuple[str, ...] = ()
    paper: Paper = Paper()
    bases: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuse names that nothing bears."""
        for name in self.arms:
            if not _NAME.fullmatch(name):
                raise SettingsError(f"arm {name!r} names files; write it with small letters, digits and single hyphens")
            self._check_arm(name)
        self._check_comparisons()
        for name in self.paper.figures:
            require(name, self.arms, "paper.figures names arm")
        if not self.seeds or len(set(self.seeds)) < len(self.seeds):
            raise SettingsError(f"seeds are {list(self.seeds)}; give at least one, and each once")
        if self.budget.search_seed in self.seeds:
            raise SettingsError(f"budget.search_seed {self.budget.search_seed} is one of the seeds; give another one")
        if self.evaluation.columns and not self.evaluation.development_columns and self._chooses():
            raise SettingsError("something is chosen, and on columns it needs evaluation.development_columns")

    def mode(self, arm: str, name: str) -> Mode:
        """Return the mode as the arm is played in it; raises SettingsError for a setting that a mode has not."""
        return columns.under(self.evaluation.modes[name], self.arms[arm].play, f"arms.{arm}.play")

    def seeds_of(self, arm: str, among: Sequence[int] | None = None) -> tuple[int, ...]:
        """Return the seeds that the arm is tuned at, of those `among` which they are to be."""
        own = self.arms[arm].seeds or self.seeds
        return tuple(seed for seed in (self.seeds if among is None else among) if seed in own)

    def spread(self, one: Comparison) -> list[Comparison]:
        """Return a comparison on columns in every mode, if it names none: both arms in the same one.

        It decides in those modes alone in which both arms are played on the column that it is decided on.
        """
        found = []
        for mode in self.evaluation.modes:
            better, than = self._in_mode(one.better, mode), self._in_mode(one.than, mode)
            decides = one.decides and self._is_played(better, one.decides) and self._is_played(than, one.decides)
            found.append(Comparison(better, than, one.decides if decides else None))
        return list(dict.fromkeys(found))

    def _in_mode(self, contender: str, mode: str) -> str:
        plain = "/" in contender or self.arms[contender].policy is not None
        return contender if plain else f"{contender}/{mode}"

    def _is_played(self, contender: str, column: str) -> bool:
        arm, _, mode = contender.partition("/")
        if (policy := self.arms[arm].policy) is not None:
            return policy in columns.policies(column)
        own = self.mode(arm, mode).columns
        return not own or column in own

    def _chooses(self) -> bool:
        return bool(self.budget.most_steps or self.budget.curve or any(arm.search for arm in self.arms.values()))

    def _check_arm(self, name: str) -> None:
        arm = self.arms[name]
        if self.evaluation.columns and arm.options:
            raise SettingsError(f"arm {name!r} has options, and columns have their own; write them there")
        if not self.evaluation.columns and (not arm.tuned or arm.play):
            raise SettingsError(f"arm {name!r} has base, policy or play; these are for evaluation.columns")
        if stray := [seed for seed in arm.seeds if seed not in self.seeds]:
            raise SettingsError(f"arm {name!r} is tuned at seed {stray[0]}; the claim's are {list(self.seeds)}")
        if arm.tuned and not self.recipe:
            raise SettingsError(f"'recipe' is missing, and arm {name!r} is tuned; name one, or give the arm a base")
        for mode in self.evaluation.modes:
            for column in self.mode(name, mode).columns:
                require(column, self.evaluation.columns, f"arms.{name}.play, or mode {mode!r}, names column")
        if arm.policy is not None:
            known = [one for column in self.evaluation.columns for one in columns.policies(column)]
            require(arm.policy, list(dict.fromkeys(known)), f"arm {name!r} is policy")

    def _check_comparisons(self) -> None:
        for one in self.comparisons:
            for contender in (one.better, one.than):
                self._check_contender(contender)
            if one.decides is not None:
                self._require_every_seed(one)
                require(one.decides, self.evaluation.reported, f"{one.better} against {one.than} is decided on split")
                if self.evaluation.columns and not any(each.decides for each in self.spread(one)):
                    raise SettingsError(
                        f"{one.better} against {one.than} is decided on column {one.decides!r}, which they are played "
                        "on in no mode together; let the mode have that column, or decide on another"
                    )
        for limit in self.limits:
            for contender in (limit.arm, limit.than):
                require(contender, self.arms, "a limit names arm")
        if self.limits and self.evaluation.columns:
            raise SettingsError("limits are of tuned arms on one benchmark, and there are evaluation.columns")
        if not self.limits and not any(one.decides for one in self.comparisons):
            raise SettingsError(f"claim {self.name!r} has no comparison with `decides`: no verdict could follow")

    def _require_every_seed(self, one: Comparison) -> None:
        for arm in (one.better.partition("/")[0], one.than.partition("/")[0]):
            if self.arms[arm].tuned and self.seeds_of(arm) != self.seeds:
                raise SettingsError(
                    f"{one.better} against {one.than} decides, and arm {arm!r} has {len(self.seeds_of(arm))} of "
                    f"{len(self.seeds)} seeds; give it all of them, or let another comparison decide"
                )

    def _check_contender(self, contender: str) -> None:
        arm, slash, mode = contender.partition("/")
        require(arm, self.arms, "a comparison names arm")
        if slash:
            require(mode, self.evaluation.modes, f"a comparison names {contender!r}, and mode")


def names() -> list[str]:
    """Return the claims in `recipes/claims/`."""
    return sorted({path.stem for folder in _folders() for path in folder.glob("*.yaml")})


def find(name: str) -> Path:
    """Return the YAML file at path `name`, or of that name in `recipes/claims/`; raises NotFound with the nearest."""
    for path in (Path(name), *(folder / f"{name}.yaml" for folder in _folders())):
        if path.is_file():
            return path
    raise NotFound(f"no claim {name!r}{_hint(name, names())}")


def load(path: Path) -> Claim:
    """Return the claim in a YAML file; raises SettingsError for an unknown key, or a name that nothing bears.

    `like` another claim it has that one's arms and settings, and so its cells, but its own comparisons.
    """
    data = read_yaml(path)
    if like := data.pop("like", None):  # the same cells, asked otherwise
        data = {**read_yaml(find(str(like))), "comparisons": [], "paper": {}, **data}
    if "name" in data:
        raise SettingsError(f"{path}: unknown key 'name'; a claim is called what its file is")
    arms = data.get("arms")
    if not isinstance(arms, Mapping) or not arms:
        raise SettingsError(f"{path}: arms holds {arms!r}; name at least one arm, with its settings under it")
    read = {str(name): from_dict(Arm, arm, f"arms.{name}") for name, arm in arms.items()}
    missing = [key for key in ("title", "question", "source") if not data.get(key)]
    if missing:
        raise SettingsError(f"{path}: {missing[0]!r} is missing; a claim says its title, question and source")
    evaluation = _evaluation(data.get("evaluation"))
    return from_dict(Claim, {**data, "name": path.stem, "arms": read, "evaluation": evaluation}, str(path))


def _evaluation(data: Any) -> Any:
    """Return the evaluation as YAML has it, with its columns and modes read; another value is refused later."""
    if not isinstance(data, Mapping):
        return data or {}
    kinds = {"columns": Column, "modes": Mode, "development_columns": Column}
    read = {key: columns.read(data[key], kind, f"evaluation.{key}") for key, kind in kinds.items() if key in data}
    return {**data, **read}


def require(name: str, known: Collection[str], what: str) -> None:
    """Raise SettingsError, with the nearest of `known`, if `name` is not among them."""
    if name not in known:
        raise SettingsError(f"{what} {name!r}, which is not there{_hint(name, known)}")


def _hint(name: str, known: Collection[str]) -> str:
    near = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f". Did you mean {near[0]!r}?" if near else f"; there are {', '.join(known) or 'none'}"


def _folders() -> list[Path]:
    return [root / "recipes" / "claims" for root in (Path(), Path(__file__).parents[2])]
