"""Stages of a recipe: several tunings, each on the base or on what an earlier one left, read from YAML and checked.

A stage lays its sections over the recipe's. Not covered: running them (`train.stages`).
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rolecraft import adapters, recipe, team, ways
from rolecraft.errors import SettingsError
from rolecraft.recipe import AdapterSettings, Recipe, recipe_to_dict
from rolecraft.settings import read_yaml

SECTION = "stages"
CAST = "cast"
"""The key of a recipe whose stages are played together, each its own roles."""
BASE = "base"
"""What a stage names as its start to begin from the recipe's base."""

Sections = Mapping[str, Any]
"""Settings of a recipe by section and key; those of a stage may tell its `start` too."""

_NAME = re.compile(r"[a-z0-9]+([-_][a-z0-9]+)*")


@dataclass(frozen=True, slots=True)
class Stage:
    """One tuning of several: its recipe, and the earlier stage whose weights it starts from (None: the base)."""

    name: str
    recipe: Recipe
    start: str | None = None


def are_in(path: Path) -> bool:
    """Tell whether the recipe in a YAML file has stages."""
    return SECTION in read_yaml(path)


def load(path: Path, flags: Sequence[str] = ()) -> tuple[Stage, ...]:
    """Return the stages of the recipe in a YAML file, in their order; raises what `recipe.load_recipe` does.

    A flag `section.key=value` overrules the recipe and every stage, `stages.NAME.section.key=value` that stage.
    """
    found = _sections(path, flags)
    return require_order(
        [Stage(name, recipe.read_recipe(data, f"{path}, stage {name!r}"), start) for name, data, start in found]
    )


def cast(path: Path, stages: Sequence[Stage]) -> dict[str, str]:
    """Return which stage's model plays which role, where the recipe names several to be played together; else nothing.

    Each plays the roles that it trains (`team.roles`). Raises SettingsError unless they are a whole team's, each once.
    """
    named = read_yaml(path).get(CAST)
    if named is None:
        return {}
    by_name = {stage.name: stage for stage in stages}
    if not isinstance(named, list) or not named or not all(name in by_name for name in named):
        raise SettingsError(f"{path}: {CAST} holds {named!r}; list the stages that are played: {', '.join(by_name)}")
    told = [by_name[name].recipe.team for name in named]
    played = {role: name for name, one in zip(named, told, strict=True) for role in one.roles}
    speakers = team.find(told[0].preset).speakers
    alike = len({(one.preset, one.instructions) for one in told}) == 1
    if not alike or sum(len(one.roles) for one in told) != len(speakers) or set(played) != set(speakers):
        raise SettingsError(
            f"{path}: {CAST} is {', '.join(named)}, and these train {', '.join(played) or 'no roles of their own'}; "
            f"let each role of one team ({', '.join(speakers)}) be in one stage's team.roles"
        )
    return {speaker: played[speaker] for speaker in speakers}


def check(path: Path, flags: Sequence[str] = ()) -> None:
    """Raise what `load` and the start of any stage would raise, as far as it can be told without loading a model.

    A recipe without stages is checked as `recipe.check` does.
    """
    if not are_in(path):
        recipe.check(path, flags)
        return
    for name, data, _ in _sections(path, flags):
        recipe.check_sections(data, f"{path}, stage {name!r}")
    cast(path, load(path, flags))


def lay(common: Sections, layers: Sequence[Sections]) -> dict[str, Any]:
    """Return the sections of `common` with those of each layer over them, key by key; raises SettingsError.

    Another adapter has other settings: those of the one before mean nothing to it.
    """
    merged: dict[str, Any] = {section: _keys(section, values) for section, values in common.items()}
    for layer in layers:
        for section, values in layer.items():
            before, over = merged.get(section, {}), _keys(section, values)
            fresh = section == "adapter" and "name" in over and over["name"] != before.get("name")
            merged[section] = {**({} if fresh else before), **over}
    return merged


def starts(told: Mapping[str, Sections]) -> list[str | None]:
    """Return what each stage starts from: what it names, else the stage before it; None is the base.

    Raises SettingsError for a start that is no earlier stage, and for a name that can be no folder's.
    """
    found: list[str | None] = []
    for place, (name, data) in enumerate(told.items()):
        if not _NAME.fullmatch(name) or name.startswith((BASE, "checkpoint")):
            raise SettingsError(
                f"stage {name!r} names a folder; write it with small letters, digits and single hyphens, and begin it "
                f"with neither {BASE!r} nor 'checkpoint'"
            )
        start = data.get("start", list(told)[place - 1] if place else BASE)
        earlier = list(told)[:place]
        if start != BASE and start not in earlier:
            raise SettingsError(
                f"stage {name!r} starts from {start!r}, which is no earlier stage; it may start from "
                f"{', '.join([BASE, *earlier])}"
            )
        found.append(None if start == BASE else str(start))
    return found


def require_order(stages: Sequence[Stage]) -> tuple[Stage, ...]:
    """Return the stages; raises SettingsError for one that starts from what cannot be merged into its base.

    Raises ContractError for an adapter whose roles are not those of its team, whichever stage it is of.
    """
    by_name = {stage.name: stage for stage in stages}
    for place, stage in enumerate(stages):
        _require_teacher(stage, {one.name: one for one in stages[:place]})
        _require_player(stage, [one.name for one in stages[:place]])
        told, made = stage.recipe.team, stage.recipe.adapter
        if gate := adapters.find(made.name).gate(made.settings):
            gate.check(team.find(told.preset, instructions=told.instructions))
        if stage.start is None:
            continue
        before = by_name[stage.start].recipe
        if why := _unmerged(before.adapter):
            raise SettingsError(
                f"stage {stage.name!r} starts from {stage.start!r}, whose adapter {str(before.adapter.name)!r} cannot "
                f"be merged into its base, since {why}; give that stage another "
                f"adapter, or let this one start from {BASE}"
            )
    return tuple(stages)


def _unmerged(told: AdapterSettings) -> str:
    """Return why the adapter cannot be merged into its base, '' if it can."""
    adapter = adapters.find(told.name)
    if adapter.gate(told.settings) is not None:
        return "what it adds depends on each token's role"
    return "its virtual tokens stand in the prompt" if adapter.virtual_tokens(told.settings) else ""


def _require_player(stage: Stage, earlier: Sequence[str]) -> None:
    """Raise SettingsError for a round that is played by what is no earlier stage."""
    told = stage.recipe.experience
    if told is not None and told.stage not in earlier:
        known = ", ".join(earlier) or "none"
        raise SettingsError(
            f"the experience of stage {stage.name!r} is of {told.stage!r}, which is no earlier stage; there are {known}"
        )
    if told is not None and told.update == "preference" and stage.start != told.stage:
        raise SettingsError(
            f"stage {stage.name!r} learns by preference from what {told.stage!r} played, and starts from "
            f"{stage.start or BASE!r}, which its pairs are not of; set its start to {told.stage}"
        )


def _require_teacher(stage: Stage, earlier: Mapping[str, Stage]) -> None:
    """Raise SettingsError for a teacher that is no earlier stage, or one that cannot be merged."""
    name = stage.recipe.on_policy.stage if stage.recipe.on_policy else None
    if name is None:
        return
    if name not in earlier:
        known = ", ".join(earlier) or "none"
        raise SettingsError(
            f"the teacher of stage {stage.name!r} is {name!r}, which is no earlier stage; there are {known}"
        )
    before = earlier[name].recipe.adapter
    if _unmerged(before):
        raise SettingsError(
            f"the teacher of stage {stage.name!r} is {name!r}, whose adapter {str(before.name)!r} cannot be merged "
            "into its base; give that stage another adapter, or name its folder in on_policy.teacher_adapter"
        )


def to_dict(stages: Sequence[Stage], played: Sequence[str] = ()) -> dict[str, Any]:
    """Return the sections that `load` reads back: those of the last stage, and of each stage all.

    `played` are the stages that `cast` reads back.
    """
    told = {stage.name: {"start": stage.start or BASE, **recipe_to_dict(stage.recipe)} for stage in stages}
    common = recipe_to_dict(stages[-1].recipe)
    for section in ways.SECTIONS:  # one stage's way of learning is not every stage's
        common.pop(section, None)
    return {**common, SECTION: told, **({CAST: list(played)} if played else {})}


def _sections(path: Path, flags: Sequence[str]) -> Iterator[tuple[str, dict[str, Any], str | None]]:
    """Yield each stage's name, sections and start."""
    common = read_yaml(path)
    common.pop(CAST, None)
    told = _told(common.pop(SECTION, None), path)
    plain, own = _divided(flags, told)
    told = {name: {**sections, **_start(own[name])} for name, sections in told.items()}
    for (name, data), start in zip(told.items(), starts(told), strict=True):
        layer = {section: values for section, values in data.items() if section != "start"}
        yield name, recipe.overruled(lay(common, [layer]), [*plain, *own[name]]), start


def _told(data: Any, path: Path) -> dict[str, Sections]:
    if not isinstance(data, Mapping) or not data:
        raise SettingsError(f"{path}: {SECTION} holds {data!r}; write each stage's name, and its sections under it")
    for name, sections in data.items():
        if not isinstance(sections, Mapping | None):
            raise SettingsError(f"{path}: stage {name!r} holds {sections!r}; write sections with keys under it")
    return {str(name): sections or {} for name, sections in data.items()}


def _divided(flags: Sequence[str], told: Mapping[str, Sections]) -> tuple[list[str], dict[str, list[str]]]:
    """Return the flags for every stage, and those for one each, as flags of a recipe."""
    plain, own = list[str](), {name: list[str]() for name in told}
    for flag in flags:
        section, _, rest = flag.partition(".")
        if section != SECTION:
            plain.append(flag)
            continue
        name, _, setting = rest.partition(".")
        if name not in told:
            near = difflib.get_close_matches(name, list(told), n=1, cutoff=0.5)
            hint = f" Did you mean {near[0]!r}?" if near else f" There are {', '.join(told)}."
            raise SettingsError(f"{flag!r} names stage {name!r}, which is not there.{hint}")
        own[name].append(setting)
    return plain, own


def _start(settings: list[str]) -> dict[str, str]:
    """Take the flags that say what a stage starts from out of its own; the last one counts."""
    found = [setting for setting in settings if setting.partition("=")[0] == "start" and "=" in setting]
    settings[:] = [setting for setting in settings if setting not in found]
    return {"start": found[-1].partition("=")[2]} if found else {}


def _keys(section: str, values: Any) -> dict[str, Any]:
    if not isinstance(values, Mapping | None):
        raise SettingsError(f"section {section!r} holds {values!r}; write keys and values under it")
    return dict(values or {})
