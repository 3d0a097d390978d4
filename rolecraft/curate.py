"""Makes the rows of a training of several sources: what each keeps, its rules, and how many of its rows there are.

Not covered: what a teacher would fill in, and whether an answer is right.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from random import Random
from typing import Any, Literal

from rolecraft import augment, catalog, leakage, store
from rolecraft.benchmarks import _public
from rolecraft.errors import DataError, NotFound, SettingsError
from rolecraft.judges import calls
from rolecraft.store import OnBadRow
from rolecraft.types import ToolSpec, Trajectory

_ALL = 100_000


@dataclass(frozen=True, slots=True)
class Source:
    """A file or folder of trajectories, its part of the mix, and the rules (see augment) that its rows go through.

    A `path` that is not here is looked for among the public data (the folder that ROLECRAFT_DATA names, else `data`).
    `weight` is relative to the other sources'. Rows are split by what they are about: kept are those of `services`
    (none named: all) that neither have one of `without_services` nor call one of `without_tools`, which no other row
    is offered either. `calls`: rows with calls alone ("some"), or without ("none"). `together`: where rows are drawn in
    groups, any rows make one, each offered what the others call.
    """

    path: str
    importer: str | None = None
    weight: float = 1.0
    rules: tuple[Mapping[str, Any] | str, ...] = ()
    services: tuple[str, ...] = ()
    without_services: tuple[str, ...] = ()
    without_tools: tuple[str, ...] = ()
    calls: Literal["any", "some", "none"] = "any"
    together: bool = False
    on_bad_row: OnBadRow = "skip"

    def __post_init__(self) -> None:
        """Refuse a weight and rules that cannot be meant."""
        if not 0 <= self.weight < float("inf"):
            raise SettingsError(f"the weight of {self.path!r} is {self.weight!r}; it must be a number from 0")
        augment.read(self.rules)


@dataclass(slots=True)
class Told:
    """What became of a source's rows: how many there were, were kept, and were dropped and why; and how many it gave.

    Of those dropped, some were kept and then not drawn, since what the rules made of them is a task's. `calls` and
    `tools` count those of its kept rows, tools by name.
    """

    name: str
    rows: int = 0
    kept: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    first: list[str] = field(default_factory=list)
    calls: int = 0
    tools: int = 0
    drawn: int = 0


def check(sources: Sequence[Source], without: Sequence[str] = ()) -> None:
    """Raise NotFound for a path, an importer or a benchmark that is not there, SettingsError for a split."""
    for named in without:
        column(named)
    for source in sources:
        catalog.find("importers", source.importer or "openai")
        if not place(source).exists():
            raise NotFound(
                f"no file or folder {source.path!r}, nor {str(place(source))!r}; give a path that exists, or set "
                f"{_public.FOLDER} to the folder that has it"
            )


def place(source: Source) -> Path:
    """Return where a source lies: at its path, else by that name among the public data; nothing may be there."""
    path = Path(source.path)
    return path if path.exists() else _public.place(source.path)


def column(named: str) -> leakage.Column:
    """Return the tasks of `BENCHMARK:SPLIT`, all of a data set's; raises NotFound or SettingsError for an unknown one.

    A benchmark that invents its tasks gives as many as it does by default, at seed 0.
    """
    name, colon, split = named.partition(":")
    if not colon or not split:
        raise SettingsError(f"{named!r} names no split of a benchmark; write it as BENCHMARK:SPLIT, as in snips:dev")
    benchmark = catalog.find("benchmarks", name)
    unseen = getattr(benchmark, "UNSEEN", None)
    settings = benchmark.Settings() if unseen is None else replace(benchmark.Settings(), size=_ALL)
    return leakage.Column(named, benchmark.tasks(settings, split, 0), split in (unseen or ()))


def rows(source: Source, told: Told, held_out: leakage.HeldOut | None = None) -> Iterator[Trajectory]:
    """Yield the rows of a source that may be trained, one by one, and count the others in `told` by reason."""
    bad = store.BadRows()
    read = store.read_trajectories(place(source), source.importer, source.on_bad_row, bad)
    dropped, names = Counter[str](), set[str]()
    for trajectory in read:
        reason = _reason(source, trajectory) or (held_out.reason(trajectory) if held_out else None)
        if reason:
            dropped[reason] += 1
            continue
        told.kept += 1
        told.calls += sum(len(message.tool_calls) for message in trajectory.messages)
        names.update(spec.name for spec in trajectory.task.tools)
        yield trajectory
    told.rows, told.first, told.tools = bad.total, bad.first, len(names)
    told.dropped = bad.reasons + dropped


def mix(
    sources: Sequence[Source], size: int | None, seed: int, without: Sequence[str] = (), group: int = 1
) -> tuple[list[Trajectory], list[Told]]:
    """Return `size` trajectories of all sources by weight, in a drawn order, and what became of each one's rows.

    A source that has fewer rows than its part gives them again, its rules drawing anew each time; None for `size` takes
    as many as there are rows. None of them has what a split in `without` (`BENCHMARK:SPLIT`) asks, or nearly so, nor,
    where a split is of tools that training must not have seen, its services and tools. Up to
    `group` rows of a source that tell the same tools are drawn together, and its rules give them the same ones. Raises
    DataError for a source that gives nothing.
    """
    if not any(source.weight for source in sources):
        raise SettingsError("no source has a weight above 0; nothing would be drawn")
    held_out = leakage.HeldOut([column(named) for named in without])
    told = [Told(f"{source.importer or 'openai'} {source.path}") for source in sources]
    hidden = frozenset(name for source in sources for name in source.without_tools)

    def offered(spec: ToolSpec) -> bool:
        return spec.name not in hidden and not held_out.hides(spec)

    kept = [
        [_offering(trajectory, offered) for trajectory in rows(source, one, held_out)]
        for source, one in zip(sources, told, strict=True)
    ]
    besides = (spec for source in sources for spec in _listed_tools(source) if offered(spec))
    pool = augment.Pool(itertools.chain.from_iterable(kept), besides)
    total = sum(map(len, kept)) if size is None else size
    mixed: list[Trajectory] = []
    for place, count in enumerate(_parts(sources, total)):
        made = _made(sources[place], kept[place], pool, f"{seed} {place}", group)
        drawn = _drawn(sources[place], made, held_out, told[place])
        mixed += itertools.islice(drawn, count)
        told[place].drawn = count
    Random(f"{seed} order").shuffle(mixed)
    return mixed, told


def _reason(source: Source, trajectory: Trajectory) -> str | None:
    """Return why a row is no part of the source's split, or must not be trained; None where it is and may."""
    services = set(trajectory.task.reference.get("services", ()))
    made = {call.name for message in trajectory.messages for call in message.tool_calls}
    if source.services and not services & set(source.services):
        return "another service"
    if services & set(source.without_services):
        return "a service that is held out"
    if leakage.used(trajectory) & set(source.without_tools):
        return "a tool that is held out"
    if (source.calls == "some" and not made) or (source.calls == "none" and made):
        return "calls" if made else "no calls"
    return "a call that does not fit its tool" if calls.judge(trajectory).score < 1 else None


def _offering(trajectory: Trajectory, offered: Callable[[ToolSpec], bool]) -> Trajectory:
    """Return the trajectory without tools that are held out."""
    tools = tuple(spec for spec in trajectory.task.tools if offered(spec))
    whole = len(tools) == len(trajectory.task.tools)
    return trajectory if whole else replace(trajectory, task=replace(trajectory.task, tools=tools))


def _listed_tools(source: Source) -> Iterable[ToolSpec]:
    """Return the tools that the source lists beside its rows'."""
    module = catalog.find("importers", source.importer or "openai")
    found: Iterable[ToolSpec] = module.tools(place(source)) if hasattr(module, "tools") else ()
    return found


def _parts(sources: Sequence[Source], total: int) -> list[int]:
    """Return how many rows each source gives: whole numbers with the given sum, as near to the weights as can be."""
    weights = sum(source.weight for source in sources)
    exact = [total * source.weight / weights for source in sources]
    parts = [int(share) for share in exact]
    largest = sorted(range(len(parts)), key=lambda place: parts[place] - exact[place])
    for place in largest[: total - sum(parts)]:
        parts[place] += 1
    return parts


def _drawn(
    source: Source, turns: Iterable[Iterable[Trajectory]], held_out: leakage.HeldOut, told: Told
) -> Iterator[Trajectory]:
    """Yield of what was made in each turn what may be trained, without end."""
    for turn, rows_made in enumerate(turns):
        given = False
        for made in rows_made:
            if reason := held_out.request_reason(made):
                told.dropped[reason] += 1
                continue
            given = True
            yield replace(made, id=f"{source.importer or 'openai'} {made.id}{f'#{turn}' if turn else ''}")
        if not given:
            raise DataError(f"{source.path}: no row is left to be trained; look at them with rolecraft data")


def _made(
    source: Source, kept: Sequence[Trajectory], pool: augment.Pool, seed: str, group: int
) -> Iterator[Iterator[Trajectory]]:
    """Yield for each turn, without end, what the rules make of all rows: in a drawn order, or in drawn groups."""
    rules, order = augment.read(source.rules), list(kept)
    Random(seed).shuffle(order)
    groups = [] if group == 1 else _groups(source, rules, order, group, Random(f"{seed} groups"))
    for turn in itertools.count():
        drawn = f"{seed} {turn}"
        if group == 1:
            yield (made for one in order for made in augment.apply(rules, one, pool, drawn))
        else:
            yield (made for rows in groups for made in augment.apply_together(rules, rows, pool, drawn))


def _groups(
    source: Source, rules: Sequence[augment.Rule], order: Sequence[Trajectory], most: int, draw: Random
) -> list[list[Trajectory]]:
    """Return the rows in groups of up to `most` that may be given the same tools, in a drawn order."""
    if source.together:
        return augment.together(order, most)
    same: dict[tuple[str, ...], list[Trajectory]] = {}
    for one in order:
        same.setdefault(augment.offer(rules, one), []).append(one)
    groups = [rows[start : start + most] for rows in same.values() for start in range(0, len(rows), most)]
    draw.shuffle(groups)
    return groups
