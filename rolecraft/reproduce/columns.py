"""The columns of a claim on several benchmarks, the modes in which they are played, and how an arm comes to be played.

Not covered: the arms' tuning (`cells`), and playing (`playing`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from rolecraft import catalog, strategies
from rolecraft.errors import SettingsError
from rolecraft.settings import from_dict, to_dict


@dataclass(frozen=True, slots=True)
class Column:
    """The first `n` tasks of a benchmark's split at a seed; the column is named `benchmark:split`.

    `options` are the benchmark's own settings. Its `size`, where it has one, is `n`, so that examples to show are taken
    from the rest whatever else is asked.
    """

    n: int = 200
    seed: int = 0
    options: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuse to ask nothing."""
        if self.n < 1:
            raise SettingsError(f"a column's n is {self.n!r}; it needs at least 1 task")


@dataclass(frozen=True, slots=True)
class Mode:
    """How tasks are played; the names are those of `rolecraft eval`, and so is how a `strategy` is written.

    `first_thought` is the prefix of `rolecraft collect`. `bare` and `dtype` are of arms that are not tuned:
    a tuned one plays as it was trained. `columns` are those that are played so (none named: all). Calls are read
    leniently; what a strict reading had scored is kept beside.
    """

    constrain: bool = False
    first_call: Literal["auto", "required"] = "auto"
    on_unsupported: Literal["refuse", "ignore"] = "ignore"
    repeats: Literal["run", "skip"] = "skip"
    shots: int = 0
    bare: bool = True
    max_tokens: int = 256
    max_context: int = 4096
    max_turns: int = 12
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    strategy: str = "greedy"
    first_thought: bool = False
    columns: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Refuse numbers that cannot be meant."""
        if self.shots < 0 or min(self.max_tokens, self.max_context, self.max_turns) < 1:
            raise SettingsError("a mode: shots is at least 0, and max_tokens, max_context and max_turns at least 1")
        strategies.parse(self.strategy)  # a misspelt one is told before anything is played


def read(data: Any, kind: type[Any], where: str) -> dict[str, Any]:
    """Return the entries under a key of a claim's YAML, each read as a `kind`; raises SettingsError for others."""
    if not isinstance(data, Mapping):
        raise SettingsError(f"{where} holds {data!r}; write names, with settings under each")
    return {str(name): from_dict(kind, entry, f"{where}.{name}") for name, entry in data.items()}


def check(columns: Mapping[str, Column], modes: Mapping[str, Mode], where: str) -> None:
    """Raise SettingsError for a column that is no `benchmark:split`, or a mode that names none of them."""
    for name in columns:
        benchmark, colon, split = name.partition(":")
        if not (benchmark and colon and split) or "+" in split:
            raise SettingsError(f"{where}.columns has {name!r}; write a benchmark's split, as bfcl:multiple")
    for name, mode in modes.items():
        if "/" in name:
            raise SettingsError(f"{where}.modes has {name!r}; a mode's name has no slash")
        if stray := [one for one in mode.columns if one not in columns]:
            raise SettingsError(f"{where}.modes.{name} names column {stray[0]!r}; there are {', '.join(columns)}")


def under(mode: Mode, play: Mapping[str, Any], where: str) -> Mode:
    """Return the mode with an arm's own settings over it; raises SettingsError for one that a mode has not."""
    named = from_dict(Mode, play, where)  # the types are checked, and a misspelt name is told
    return replace(mode, **{key: getattr(named, key) for key in play})


def options(name: str, column: Column) -> dict[str, Any]:
    """Return the settings of a column's benchmark; raises NotFound for an unknown benchmark."""
    kind = catalog.find("benchmarks", name.partition(":")[0]).Settings
    sized = {"size": column.n} if "size" in kind.__dataclass_fields__ else {}
    return {**sized, **column.options}


def policies(name: str) -> Mapping[str, Any]:
    """Return the trivial policies of a column's benchmark, by name."""
    found: Mapping[str, Any] = getattr(catalog.find("benchmarks", name.partition(":")[0]), "POLICIES", {})
    return found


def unusual(mode: Mode) -> dict[str, Any]:
    """Return the settings of a mode that are not at their defaults, but for the columns it is played on."""
    plain = to_dict(Mode())
    return {key: value for key, value in to_dict(mode).items() if value != plain[key] and key != "columns"}
