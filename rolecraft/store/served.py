"""Answers that a server wrote for somebody else's agent, exactly: one line each, in the folder that they are kept in.

A line is added whole and is on disk when `append` returns; one that a kill cut short is dropped. What a policy said is
its clients' business: the file is its owner's alone. Not covered: which answers make an episode (`train.episodes`).
"""

from __future__ import annotations

import base64
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from rolecraft.errors import DataError
from rolecraft.settings import read_yaml, write_yaml
from rolecraft.store.files import atomic
from rolecraft.store.records import record_from_json, record_to_json
from rolecraft.store.run import append_line, whole_lines
from rolecraft.types import Drawn, Json, Trajectory, Turn
from rolecraft.wire.fields import read_field, read_object

FILE = "answers.jsonl"
POLICY = "serving.yaml"
"""Says which policy answered. A file of its own: the folder may be a run's too, which has its settings."""

_FACTS = ("id", "episode", "task", "model", "temperature", "refused")
_KEYS = (*_FACTS, "ids", "drawn", "record")


@dataclass(frozen=True, slots=True)
class Policy:
    """What answered: names to load it by, digests that tell it from any other, and how its engine computes.

    `weights` is the digest of the base that a contract has too, `tuned` that of the adapter's weights.
    """

    base: str
    weights: str
    team: str
    instructions: bool
    adapter: str = ""
    tuned: str = ""
    exact: bool = True
    engine: str = "float32"


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer: `record` has the conversation that it answers as its task's messages, and its turns.

    `id` is what the client was told, `episode` and `task` what it told, '' if it did not. `refused` says why nothing
    can be learned from these tokens though they are kept, '' if it can.
    """

    id: str
    episode: str
    task: str
    model: str
    temperature: float
    record: Trajectory
    refused: str = ""


def append(folder: Path, answer: Answer) -> int:
    """Add one answer, and return how many bytes that took."""
    path = folder / FILE
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        os.close(os.open(path, os.O_CREAT | os.O_WRONLY, 0o600))
    return append_line(path, _to_json(answer))


def answers(folder: Path) -> Iterator[Answer]:
    """Yield the answers in the order they were finished; raises DataError for one that is damaged."""
    for place, data in whole_lines(folder / FILE):
        try:
            yield _from_json(data)
        except DataError as error:
            raise DataError(f"{place}: {error}; delete the line, and nothing is learned from that answer") from error


def size(folder: Path) -> int:
    """Return how many bytes of answers are kept."""
    path = folder / FILE
    return path.stat().st_size if path.exists() else 0


def policy(folder: Path) -> Policy | None:
    """Return what answered, None where nothing was kept; raises DataError for a file that was not written here."""
    path = folder / POLICY
    if not path.exists():
        return None
    try:
        return Policy(**read_yaml(path))
    except TypeError as error:
        raise DataError(f"{path} is damaged ({error}); restore it") from error


def write_policy(folder: Path, found: Policy) -> None:
    """Write what answers."""
    with atomic(folder / POLICY) as unfinished:
        write_yaml(unfinished, {name: getattr(found, name) for name in Policy.__slots__})


def _to_json(answer: Answer) -> dict[str, Json]:
    """Return an answer's line; the tokens of earlier answers in its conversation stand beside their messages."""
    facts = {name: getattr(answer, name) for name in _FACTS}
    before = answer.record.task.messages
    ids = {str(place): list(one.ids) for place, one in enumerate(before) if one.ids is not None}
    drawn = [[_drawn_to_json(one) for one in turn.drawn] for turn in answer.record.turns]
    if answer.temperature == 1 and not any(isinstance(one, list) for turn in drawn for one in turn):
        drawn = []  # which the log-probabilities tell already
    return {**facts, "ids": ids, "drawn": drawn, "record": record_to_json(answer.record)}


def _from_json(data: Mapping[str, Json]) -> Answer:
    fields = read_object(data, _KEYS, "answer")
    texts = {name: read_field(fields, name, str, "answer", "") for name in _FACTS if name != "temperature"}
    temperature = read_field(fields, "temperature", float, "answer")
    record = record_from_json(read_field(fields, "record", Mapping, "answer"))
    written = _ids(read_field(fields, "ids", Mapping, "answer", {}), len(record.task.messages))
    messages = [
        replace(message, ids=written[place]) if place in written else message
        for place, message in enumerate(record.messages)
    ]
    turns = _with_drawn(record.turns, read_field(fields, "drawn", list, "answer", []), temperature)
    task = replace(record.task, messages=tuple(messages[: len(record.task.messages)]))
    whole = replace(record, task=task, messages=tuple(messages), turns=turns)
    return Answer(temperature=temperature, record=whole, **texts)


def _drawn_to_json(one: Drawn | None) -> Json:
    """Return how a token was drawn: null if it was forced, its log-probability, and what else was let through."""
    if one is None or not one.among:
        return one and one.logprob
    masks = [base64.b64encode(mask).decode("ascii") for mask in (one.among, one.meant)]
    return [one.logprob, *masks, one.written]


def _with_drawn(turns: Sequence[Turn], told: Sequence[Json], temperature: float) -> tuple[Turn, ...]:
    """Return the turns with how their tokens were drawn, if that is told."""
    if not told:
        return tuple(turns)
    try:
        found = [tuple(_drawn_from_json(one, temperature) for one in row) for row in told]
    except (TypeError, ValueError, AttributeError) as error:
        raise DataError(f"'drawn' is damaged ({type(error).__name__}: {error})") from error
    if [len(row) for row in found] != [len(turn.token_ids) for turn in turns]:
        raise DataError("'drawn' tells of other tokens than the turns have")
    return tuple(replace(turn, drawn=row) for turn, row in zip(turns, found, strict=True))


def _drawn_from_json(one: Json, temperature: float) -> Drawn | None:
    if one is None:
        return None
    if not isinstance(one, list):
        return Drawn(float(one), temperature)
    logprob, among, meant, written = one
    return Drawn(
        float(logprob),
        temperature,
        base64.b64decode(among, validate=True),
        base64.b64decode(meant, validate=True),
        int(written),
    )


def _ids(told: Mapping[str, Json], count: int) -> dict[int, tuple[int, ...]]:
    found = {}
    for place, ids in told.items():
        if not (place.isdecimal() and int(place) < count and isinstance(ids, list)):
            raise DataError(f"'ids' has {place!r}, and the conversation before the answer has {count} messages")
        if not all(isinstance(one, int) and one >= 0 for one in ids):
            raise DataError(f"'ids' of message {place} are not all token ids")
        found[int(place)] = tuple(ids)
    return found
