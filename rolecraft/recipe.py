"""What a training run is told: one frozen dataclass per section of a recipe's YAML, checked before torch is loaded.

Not covered: an adapter's own section where its module needs torch, and what the data's rows hold.
"""

from __future__ import annotations

import difflib
import json
import reprlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

from rolecraft import adapters, bases, catalog, curate, parts, renderers, store, team, ways, wire
from rolecraft.apart import Shares
from rolecraft.errors import NotFound, SettingsError
from rolecraft.experience import ExperienceSettings
from rolecraft.on_policy import OnPolicySettings
from rolecraft.preference import PreferenceSettings
from rolecraft.reinforcement import ReinforcementSettings
from rolecraft.settings import from_dict, override, read_yaml, to_dict
from rolecraft.types import Trajectory

_NAMES = ("team.preset", "model.renderer", "data.importer", "data.benchmark", "adapter.name")
"""The settings that name a member of an open folder, or a user's own file."""


@dataclass(frozen=True, slots=True)
class ModelSettings:
    """The base. `base` is `nano`, a folder, or a hub name; `renderer` None asks the tokenizer.

    `attn_implementation` has transformers' names. None: the model's own, except that short sequences in bf16 on a CPU
    take attention over blocks of queries, whose backward pass is twice as fast there.
    """

    base: str = "nano"
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    renderer: str | Path | None = None
    attn_implementation: str | None = None


@dataclass(frozen=True, slots=True)
class TeamSettings:
    """Whose replies are trained; without `instructions` the roles are told nothing but the conversation.

    `divide`: replies of a lone assistant, in data that knows no roles, are divided among the team's roles by its rule.
    `thoughts`: before that, each gets the thought that it lacks (`rule`: see thoughts), or stays without (`none`).
    `roles` are those whose replies are trained (none named: all); what the others say is context.
    Tokens of a reply's thought count `thought_weight` in the loss, those of its action `action_weight` (see apart).
    """

    preset: str | Path = "single"
    instructions: bool = True
    divide: bool = False
    thoughts: Literal["none", "rule"] = "none"
    roles: tuple[str, ...] = ()
    thought_weight: float = 1.0
    action_weight: float = 1.0

    def __post_init__(self) -> None:
        """Refuse weights that train half a reply."""
        Shares(self.thought_weight, self.action_weight)


@dataclass(frozen=True, slots=True)
class DataSettings:
    """Where trajectories come from: a file, a benchmark, or a mix of sources.

    A file (`path`) is read through `importer` unless it is OpenAI JSONL. `sources` are mixed by weight to `size` rows
    (None: as many as there are), drawn with `seed`, `without` what splits of benchmarks ask (`snips:dev`); see curate.
    A row with `unknown_keys` is bad, or is read without them; a bad row stops the run, or is skipped.
    Up to `group` rows that tell the same tools are trained together, computed from one shared prefix (1: none are); of
    `sources`, rows are drawn in such groups.
    `max_length` is the longest example in tokens, and at most the model's context; `on_long` says what becomes of a
    longer one: stop there, skip it, or cut it after the last reply that fits. `part` `1/2` is the first of two parts,
    divided by what rows ask: stages that get different parts share no request. `validation` is the share of rows that
    is held out, so divided too, and measured while training (see training.eval_steps). The rest is the benchmark's:
    which `split` and `seed`, how many tasks (`size`; None: its own default), and any other settings in `options`.
    """

    path: str | None = None
    importer: str | Path | None = None
    on_bad_row: Literal["stop", "skip"] = "stop"
    unknown_keys: Literal["refuse", "drop"] = "refuse"
    max_length: int = 1024
    on_long: Literal["stop", "skip", "cut"] = "stop"
    benchmark: str | Path | None = None
    split: str = "train"
    seed: int = 0
    size: int | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    sources: tuple[curate.Source, ...] = ()
    without: tuple[str, ...] = ()
    group: int = 1
    part: str | None = None
    validation: float = 0.0

    def __post_init__(self) -> None:
        """Refuse a recipe whose data cannot be meant."""
        named = {"path": self.path, "benchmark": self.benchmark, "sources": [source.path for source in self.sources]}
        given = [f"{key} {str(value)!r}" for key, value in named.items() if value]
        if len(given) > 1:
            raise SettingsError(f"data has both {' and '.join(given)}; give one of them")
        if self.without and not self.sources:
            raise SettingsError(f"data.without is {self.without!r}; it is for data.sources, of which there are none")
        if self.max_length < 2:
            raise SettingsError(f"data.max_length is {self.max_length}; an example has at least 2 tokens")
        if self.size is not None and self.size < 1:
            raise SettingsError(f"data.size is {self.size}; give the number of tasks, at least 1")
        if self.part is not None:
            parts.read(self.part)
        if not 0 <= self.validation <= 0.5:
            raise SettingsError(f"data.validation is {self.validation}; give the share to hold out, 0 to 0.5")
        if self.group < 1:
            raise SettingsError(f"data.group is {self.group}; give the rows that share a prefix, 1 for none")


@dataclass(frozen=True, slots=True)
class TrainingSettings:
    """The optimisation, with the names of transformers' TrainingArguments; any other of them goes into `extra`.

    `warmup_steps` below 1 is a share of all steps. `max_steps` above 0 overrules `num_train_epochs`. `save_steps` 0
    saves at the end only. `bf16` is autocast to bfloat16; `auto` does it where this machine is faster by it.
    `processes` are data-parallel workers on this machine; one optimisation step takes `per_device_train_batch_size *
    gradient_accumulation_steps * processes` examples, but for what learns from play: its step is shared out. Every
    `eval_steps` the rows held out (data.validation) are measured role by role, and each role ends with the weights that
    were best on them; after `early_stopping_patience` measures without a gain a role stops (0: never).
    """

    learning_rate: float = 2e-4
    num_train_epochs: float = 2.0
    max_steps: int = -1
    per_device_train_batch_size: int = 8
    gradient_accumulation_steps: int = 1
    lr_scheduler_type: str = "linear"
    warmup_steps: float = 0.0
    weight_decay: float = 0.0
    max_grad_norm: float = 1.0
    bf16: bool | Literal["auto"] = False
    gradient_checkpointing: bool = False
    logging_steps: int = 10
    save_steps: int = 200
    save_total_limit: int = 2
    seed: int = 42
    report_to: str | tuple[str, ...] = "none"
    processes: int = 1
    eval_steps: int = 0
    early_stopping_patience: int = 0
    extra: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuse numbers that cannot be meant."""
        least = {
            "per_device_train_batch_size": 1,
            "gradient_accumulation_steps": 1,
            "logging_steps": 1,
            "save_steps": 0,
            "save_total_limit": 1,
            "processes": 1,
            "warmup_steps": 0,
            "learning_rate": 0,
            "eval_steps": 0,
            "early_stopping_patience": 0,
        }
        for name, bound in least.items():
            if not getattr(self, name) >= bound:  # not a number is not at least anything
                raise SettingsError(f"training.{name} is {getattr(self, name)!r}; it must be at least {bound}")
        if self.max_steps <= 0 and self.num_train_epochs <= 0:
            raise SettingsError("training: set max_steps or num_train_epochs above 0; as it stands nothing is trained")
        if self.early_stopping_patience and not self.eval_steps:
            raise SettingsError("training.early_stopping_patience counts measures; set training.eval_steps too")


@dataclass(frozen=True, slots=True)
class AdapterSettings:
    """Which adapter, and its own settings: the `Settings` of `adapters/<name>.py`."""

    name: str | Path
    settings: Any


@dataclass(frozen=True, slots=True)
class Recipe:
    """Everything a training run is told; the last four are ways to learn other than imitation (see ways)."""

    model: ModelSettings
    team: TeamSettings
    data: DataSettings
    adapter: AdapterSettings
    training: TrainingSettings
    on_policy: OnPolicySettings | None = None
    experience: ExperienceSettings | None = None
    reinforcement: ReinforcementSettings | None = None
    preference: PreferenceSettings | None = None


def find_recipe(name: str) -> Path:
    """Return the YAML file at path `name`, or of that name in `recipes/`; raises NotFound with the names there are."""
    folders = [folder for folder in (Path("recipes"), Path(__file__).parents[1] / "recipes") if folder.is_dir()]
    for path in (Path(name), *(folder / f"{name}.yaml" for folder in folders)):
        if path.is_file():
            return path
    known = sorted({path.stem for folder in folders for path in folder.glob("*.yaml")})
    raise NotFound(f"no recipe {name!r}: give a YAML file, or one of {', '.join(known) or '(recipes/ is not here)'}")


def load_recipe(path: Path, flags: Sequence[str] = ()) -> Recipe:
    """Return the recipe in a YAML file with `section.key=value` flags applied; see `read_recipe` for its errors.

    A Python file that a flag names is run; one that the YAML file names is refused.
    """
    return read_recipe(_told(path, flags), str(path))


def load_data(path: Path, flags: Sequence[str] = ()) -> DataSettings:
    """Return the data section of the recipe in a YAML file, as `load_recipe` reads it; torch is not needed."""
    _, _, data, _ = _plain_sections(_told(path, flags), str(path))
    return data


def _told(path: Path, flags: Sequence[str]) -> dict[str, Any]:
    return overruled(read_yaml(path), flags)


def overruled(sections: Mapping[str, Any], flags: Sequence[str]) -> dict[str, Any]:
    """Return the sections with flags applied, and a Python file that a flag names as a `Path`."""
    data = override(sections, flags)
    for name in {flag.partition("=")[0] for flag in flags} & set(_NAMES):
        section, _, key = name.partition(".")
        if isinstance(data[section][key], str):
            data[section][key] = catalog.given(data[section][key])
    return data


def check(path: Path, flags: Sequence[str] = ()) -> None:
    """Raise what `load_recipe` and the start of a training would raise, as far as it can be told without torch.

    That is: any setting that is unknown or cannot be meant, and a team, a base, an importer, a benchmark or a data file
    that is not there.
    """
    check_sections(_told(path, flags), str(path))


def check_sections(data: Mapping[str, Any], where: str) -> None:
    """Raise what `check` does for the sections of a recipe."""
    model, told, rows, _ = _plain_sections(data, where)
    players = team.find(told.preset)
    for role in told.roles:
        players.role(role)
    bases.find(model.base)
    renderers.require(model.renderer)
    distils, played, reinforces, prefers = ways.read(data, where)
    if rows.benchmark:
        open_benchmark(rows)
    elif reinforces is not None and reinforces.recorded:
        pass  # a record is all the data there is
    elif prefers is not None and played is None:
        read_pairs(rows)
    else:
        read_rows(rows)
    ways.check(distils, players)
    _adapter(data)  # the last: some adapters' settings need torch


def read_rows(data: DataSettings, bad_rows: store.BadRows | None = None) -> Iterator[Trajectory]:
    """Return the trajectories of the user's file, to be read one by one; raises NotFound at once if it is not there.

    Of several sources they are mixed, which reads all of them.
    """
    if data.sources:
        curate.check(data.sources, data.without)
        return _mixed(data, bad_rows)
    if not data.path:
        raise SettingsError("the recipe names no data; set data.path to a file of trajectories, or data.benchmark")
    return store.read_trajectories(Path(data.path), data.importer, data.on_bad_row, bad_rows, data.unknown_keys)


def read_pairs(data: DataSettings, bad_rows: store.BadRows | None = None) -> Iterator[wire.Pair]:
    """Return the pairs of the user's file, to be read one by one; raises NotFound at once if it is not there."""
    if not data.path:
        raise SettingsError("the recipe prefers and names no pairs; set data.path to a file of them")
    return store.read_pairs(Path(data.path), data.on_bad_row, bad_rows)


def _mixed(data: DataSettings, bad_rows: store.BadRows | None) -> Iterator[Trajectory]:
    trajectories, told = curate.mix(data.sources, data.size, data.seed, data.without, data.group)
    notes = store.BadRows() if bad_rows is None else bad_rows
    for one in told:
        notes.count += sum(one.dropped.values())
        notes.total += one.rows
        notes.first += [f"{one.name}: {reason} x{count:,}" for reason, count in one.dropped.most_common()]
    yield from trajectories


def open_benchmark(data: DataSettings) -> tuple[ModuleType, Any]:
    """Return the benchmark that makes the data, and its own settings."""
    name = data.benchmark or ""
    benchmark = catalog.find("benchmarks", name)
    options = dict(data.options) | ({} if data.size is None else {"size": data.size})
    return benchmark, from_dict(benchmark.Settings, options, f"{name} options")


def read_recipe(data: Mapping[str, Any], where: str = "recipe") -> Recipe:
    """Return a recipe from its sections; an absent section has its defaults.

    Raises SettingsError for an unknown section or key, with the nearest name, and NotFound for an unknown adapter.
    """
    model, told, rows, training = _plain_sections(data, where)
    return Recipe(model, told, rows, _adapter(data), training, *ways.read(data, where))


def _plain_sections(
    data: Mapping[str, Any], where: str
) -> tuple[ModelSettings, TeamSettings, DataSettings, TrainingSettings]:
    """Return the sections whose settings are known here: all but the adapter's."""
    known = [section.name for section in fields(Recipe)]
    for name, section in data.items():
        if name == "stages":
            raise SettingsError(f"{where} has stages, and one tuning is asked for; only rolecraft train runs them")
        if name not in known:
            near = difflib.get_close_matches(str(name), known, n=1, cutoff=0.5)
            hint = f"Did you mean {near[0]!r}?" if near else f"It has: {', '.join(known)}."
            raise SettingsError(f"unknown section {name!r} in {where}. {hint}")
        if section is not None and not isinstance(section, Mapping):
            raise SettingsError(
                f"{where}: section {name!r} holds {reprlib.repr(section)}; write keys and values under it"
            )
    rows = from_dict(DataSettings, data.get("data"), "data")
    training = from_dict(TrainingSettings, data.get("training"), "training")
    if bool(rows.validation) != bool(training.eval_steps):
        raise SettingsError(
            f"data.validation is {rows.validation} and training.eval_steps {training.eval_steps}; rows are held out to "
            "be measured: set both, or neither"
        )
    batch = training.per_device_train_batch_size
    if rows.group > batch:
        raise SettingsError(
            f"data.group is {rows.group}, above training.per_device_train_batch_size, {batch}: such rows are in one "
            "batch; make it as large, or the group smaller"
        )
    return (
        from_dict(ModelSettings, data.get("model"), "model"),
        from_dict(TeamSettings, data.get("team"), "team"),
        rows,
        training,
    )


def _adapter(data: Mapping[str, Any]) -> AdapterSettings:
    section = dict(data.get("adapter") or {})
    name = section.pop("name", "lora")
    if not isinstance(name, str | Path):
        raise SettingsError(f"adapter.name is {name!r}; give the name of an adapter, such as 'lora'")
    return AdapterSettings(name, from_dict(adapters.find(name).Settings, section, "adapter"))


def recipe_to_dict(recipe: Recipe) -> dict[str, Any]:
    """Return the recipe as the YAML sections that `read_recipe` reads back."""
    sections = {name: to_dict(getattr(recipe, name)) for name in ("model", "team", "data", "training")}
    adapter = {"name": str(recipe.adapter.name), **to_dict(recipe.adapter.settings)}
    played = {name: getattr(recipe, name) for name in ways.SECTIONS}
    order = [section.name for section in fields(Recipe) if section.name not in played]
    told = {name: {**sections, "adapter": adapter}[name] for name in order}
    return told | {name: to_dict(section) for name, section in played.items() if section is not None}


def own_files(recipe: Recipe) -> list[str]:
    """Return the flags that name the user's own Python files once more, for a recipe that is read from its YAML."""
    named = {name: getattr(getattr(recipe, name.partition(".")[0]), name.partition(".")[2]) for name in _NAMES}
    return [f"{name}={json.dumps(str(path))}" for name, path in named.items() if isinstance(path, Path)]


def read_again(path: Path, recipe: Recipe) -> Recipe:
    """Return the recipe written to `path`; of the Python files it names, those are run that `recipe` was given."""
    written = read_yaml(path)
    flags = [flag for flag in own_files(recipe) if _is_written(flag, written)]
    return read_recipe(_told(path, flags), str(path))


def _is_written(flag: str, data: Mapping[str, Any]) -> bool:
    name, _, value = flag.partition("=")
    section, _, key = name.partition(".")
    values = data.get(section)
    return isinstance(values, Mapping) and values.get(key) == json.loads(value)


def differences(recipe: Recipe, other: Recipe, ignored: Sequence[str] = ()) -> list[str]:
    """Return `section.key: one -> other` for each setting in which the two differ, without the `ignored` keys."""
    before, after = recipe_to_dict(recipe), recipe_to_dict(other)
    found = []
    for section in dict.fromkeys([*before, *after]):
        values, others = before.get(section, {}), after.get(section, {})
        for key in dict.fromkeys([*values, *others]):
            one, two = values.get(key), others.get(key)
            if one != two and f"{section}.{key}" not in ignored:
                found.append(f"{section}.{key}: {one!r} -> {two!r}")
    return found
