"""Makes examples of the recipe's data and audits them: each process makes a share of them, and gets them all."""

from __future__ import annotations

import hashlib
import itertools
from array import array
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from transformers import TrainingArguments

from rolecraft import examples, parts, store, team, thoughts
from rolecraft.apart import Shares
from rolecraft.errors import DataError
from rolecraft.examples import Built, Example
from rolecraft.gate import Gate
from rolecraft.recipe import Recipe, read_pairs, read_rows
from rolecraft.renderers import Renderer
from rolecraft.team import Team
from rolecraft.train.references import NAME as REFERENCES
from rolecraft.train.references import is_wanted, write_share
from rolecraft.train.references import join as join_references
from rolecraft.types import Trajectory


@dataclass(frozen=True, slots=True)
class Data:
    """The examples, of how many trajectories, how many replies they leave out, and why rows were refused.

    By the fingerprint a resumed run knows its data again. `told` is equal for examples that tell the same tools and
    begin with the same system text. `held` are the examples of the rows that are held out for validation. Of pairs the
    examples are the preferred reply's and the refused one's, in turn.
    """

    examples: tuple[Example, ...]
    trajectories: int
    dropped: int
    refused: tuple[str, ...]
    fingerprint: str
    told: tuple[str, ...] = ()
    held: tuple[Example, ...] = ()


@dataclass(frozen=True, slots=True)
class _Outcome:
    """What one trajectory gives: examples, or the reason why it must not be trained; `held` ones are only measured."""

    built: Built
    refused: str = ""
    told: str = ""
    held: bool = False


def play_references(recipe: Recipe, folder: Path, arguments: TrainingArguments) -> None:
    """Write the benchmark's right solutions, if the recipe names one, to the run folder; all processes take part."""
    if not is_wanted(recipe.data, folder):
        return
    processes = arguments.world_size
    write_share(recipe.data, recipe.team.preset, folder, arguments.process_index, processes)
    arguments.distributed_state.wait_for_everyone()
    with arguments.main_process_first(desc="joining the references"):
        if arguments.process_index == 0:
            join_references(folder, processes)


def prepare(
    recipe: Recipe, folder: Path, players: Team, renderer: Renderer, gate: Gate | None, arguments: TrainingArguments
) -> Data:
    """Return the audited examples of all rows, equal in every process; raises DataError for what must not be trained.

    With `data.on_bad_row` "skip" such rows are left out and told.
    """
    data = recipe.data
    bad_rows = store.BadRows()
    trajectories = _read(recipe, folder, bad_rows)

    def outcome(trajectory: Trajectory) -> _Outcome:
        if recipe.team.thoughts == "rule":
            trajectory = thoughts.written(trajectory)
        if recipe.team.divide:
            trajectory = replace(trajectory, messages=team.divided(trajectory.messages, players))
        if recipe.team.roles:
            trajectory = _of_roles(trajectory, recipe.team.roles)
        held = parts.place(trajectory, "validation") < data.validation
        return replace(_outcome(trajectory, players, renderer, recipe, gate), told=_told(trajectory), held=held)

    outcomes = list(_shared(trajectories, outcome, data.on_bad_row == "stop", arguments))
    if recipe.preference is not None:
        outcomes = list(_whole_pairs(outcomes))
    refused = [one.refused for one in outcomes if one.refused]
    if refused and data.on_bad_row == "stop":
        raise DataError(f"{refused[0]}; or leave such rows out (--on-bad-row skip)")
    rows, held = (
        tuple(itertools.chain.from_iterable(one.built.examples for one in outcomes if one.held == side))
        for side in (False, True)
    )
    dropped = sum(one.built.dropped for one in outcomes)
    if not rows and dropped:
        raise DataError(f"no examples: none of {dropped} replies fits into data.max_length {data.max_length}; raise it")
    examples.audit(rows[:1], renderer, players, data.max_length)  # refuses to train nothing at all
    if data.validation and not held:
        raise DataError(f"data.validation {data.validation} of {len(trajectories)} rows holds none out; raise it")
    told = tuple(one.told for one in outcomes if not one.held for _ in one.built.examples)
    notes = (*bad_rows.notes, *refused)
    return Data(rows, len(trajectories), dropped, notes, _fingerprint((*rows, *held)), told, held)


def _read(recipe: Recipe, folder: Path, bad_rows: store.BadRows) -> tuple[Trajectory, ...]:
    data = recipe.data
    if recipe.preference is not None:
        rows: Iterator[Trajectory] = itertools.chain.from_iterable(read_pairs(data, bad_rows))
    else:
        rows = store.read_trajectories(folder / REFERENCES) if data.benchmark else read_rows(data, bad_rows)
    part = data.part
    return tuple(rows) if part is None else tuple(row for row in rows if parts.belongs(row, part))


def _whole_pairs(outcomes: Sequence[_Outcome]) -> Iterator[_Outcome]:
    """Yield the outcomes of pairs of which both replies can be trained, and what is told of the others."""
    for pair in zip(outcomes[::2], outcomes[1::2], strict=False):
        whole = all(len(one.built.examples) == 1 for one in pair)
        yield from pair if whole else (replace(one, built=replace(one.built, examples=())) for one in pair)
    yield from outcomes[len(outcomes) // 2 * 2 :]  # where the first refused row ended the reading


def _of_roles(trajectory: Trajectory, roles: Sequence[str]) -> Trajectory:
    """Return the trajectory with the replies of other roles as context only."""
    messages = (
        message.edited(weight=0.0)
        if message.role == "assistant" and (message.speaker or "assistant") not in roles
        else message
        for message in trajectory.messages
    )
    return replace(trajectory, messages=tuple(messages))


def _outcome(trajectory: Trajectory, players: Team, renderer: Renderer, recipe: Recipe, gate: Gate | None) -> _Outcome:
    data, shares = recipe.data, Shares(recipe.team.thought_weight, recipe.team.action_weight)
    try:
        built = examples.build_all((trajectory,), players, renderer, data.max_length, data.on_long, gate, shares=shares)
        if built.examples:
            examples.audit(built.examples, renderer, players, data.max_length)
    except DataError as error:
        return _Outcome(Built(()), str(error))
    return _Outcome(built)


def _shared(
    trajectories: Sequence[Trajectory],
    outcome: Callable[[Trajectory], _Outcome],
    stop: bool,
    arguments: TrainingArguments,
) -> Iterator[_Outcome]:
    """Yield the outcomes in the order of the rows; with `stop` each process ends its share at the first refused one."""
    process, processes = arguments.process_index, arguments.world_size
    share: list[_Outcome] = []
    for trajectory in trajectories[process::processes]:
        share.append(outcome(trajectory))
        if stop and share[-1].refused:
            break
    shares: list[list[_Outcome] | None] = [share] * processes
    if processes > 1:
        torch.distributed.all_gather_object(shares, share)
    for turn in itertools.zip_longest(*(one or () for one in shares)):
        yield from (one for one in turn if one is not None)


def _told(trajectory: Trajectory) -> str:
    """Return a digest of what stands before the first request: tools and system messages."""
    opening = itertools.takewhile(lambda message: message.role == "system", trajectory.messages)
    told = [message.content for message in opening], trajectory.task.tools
    return hashlib.sha256(repr(told).encode()).hexdigest()[:16]


def _fingerprint(rows: Sequence[Example]) -> str:
    """Return a digest of every id, weight and role id."""
    digest = hashlib.sha256()
    for row in rows:
        digest.update(array("q", [len(row.ids), *row.ids]).tobytes())
        digest.update(array("d", row.weights).tobytes())
        digest.update(array("q", row.roles).tobytes())
    return digest.hexdigest()[:16]
