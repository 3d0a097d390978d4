"""Trajectories to training examples, each reply through its speaker's view, and the audit of what they would train.

Not covered: padding and batches (`train`), and whether a call is the right one (the judges).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from rich.console import Group
from rich.table import Table
from rich.text import Text

from rolecraft import apart
from rolecraft.apart import ALIKE, Shares
from rolecraft.errors import DataError
from rolecraft.gate import Gate
from rolecraft.renderers import Renderer, Tokenizer, why_unparsed
from rolecraft.team import Team
from rolecraft.types import Message, Trajectory

OnLong = Literal["stop", "skip", "cut"]
"""What to do with an example that is too long or a reply that was cut: refuse, leave it out, keep the whole replies."""


@dataclass(frozen=True, slots=True)
class Example:
    """What one row trains; `ids`, `weights` and `speakers` align, (T,). `source` is the trajectory's id.

    `weights` are above 0 only on replies; `speakers` tells whose token each is, None for context. `roles` are the role
    ids that a gate gave the tokens, empty without one. `forced` marks tokens of trained replies that are left out since
    a grammar, not the model, chose them; empty if none are.
    """

    ids: tuple[int, ...]
    weights: tuple[float, ...]
    speakers: tuple[str | None, ...]
    source: str = ""
    roles: tuple[int, ...] = ()
    forced: tuple[bool, ...] = ()


@dataclass(frozen=True, slots=True)
class Built:
    """The examples of some trajectories, and the number of replies that the length or a cut kept out of them."""

    examples: tuple[Example, ...]
    dropped: int = 0


@dataclass(frozen=True, slots=True)
class Budget:
    """How many tokens a speaker has, and how many of them are trained."""

    tokens: int
    trained: int


@dataclass(slots=True)
class _Sequence:
    """An example being written; `ends` are the places after each trained reply, `start` where the last one begins."""

    ids: tuple[int, ...] = ()
    weights: tuple[float, ...] = ()
    speakers: tuple[str | None, ...] = ()
    forced: tuple[bool, ...] = ()
    ends: list[int] = field(default_factory=list)
    start: int = 0

    def extend(
        self,
        ids: Sequence[int],
        speakers: Sequence[str | None],
        weights: Sequence[float] = (),
        forced: Sequence[bool] = (),
    ) -> None:
        forced, weights = forced or (False,) * len(ids), weights or (0.0,) * len(ids)
        self.ids += tuple(ids)
        self.speakers += tuple(speakers)
        self.weights += tuple(0.0 if left_out else one for one, left_out in zip(weights, forced, strict=True))
        self.forced += tuple(forced)


def build(
    trajectory: Trajectory,
    team: Team,
    renderer: Renderer,
    max_length: int | None = None,
    on_long: OnLong = "stop",
    gate: Gate | None = None,
    *,
    train_forced: bool = True,
) -> list[Example]:
    """Return the examples that train each reply of `trajectory` once, seen through its speaker's view.

    A reply joins an example that its prompt extends, so a team whose views only append gets one example; with a `gate`
    under which a token's role depends on who reads it, each reply has an example of its own. Replies of weight 0 are
    context only; without `train_forced` so are tokens that a grammar forced (`Turn.forced`).

    Raises DataError naming the trajectory: for a speaker outside the team, and with `on_long` "stop" for an example of
    more than `max_length` tokens or a reply that was cut before its end token.
    """
    built = build_all((trajectory,), team, renderer, max_length, on_long, gate, train_forced=train_forced)
    return list(built.examples)


def unlearned(messages: Sequence[Message]) -> tuple[Message, ...]:
    """Return a conversation of which nothing is trained: what a task tells before it asks, whoever wrote it."""
    return tuple(replace(one, weight=0.0) if one.role == "assistant" else one for one in messages)


def build_all(
    trajectories: Iterable[Trajectory],
    team: Team,
    renderer: Renderer,
    max_length: int | None = None,
    on_long: OnLong = "stop",
    gate: Gate | None = None,
    *,
    train_forced: bool = True,
    shares: Shares = ALIKE,
) -> Built:
    """Return the examples of all `trajectories`, and the number of replies they leave out; see `build`.

    `shares` weigh the thoughts and the actions of replies, beside the messages' own weights.
    """
    examples: list[Example] = []
    dropped = 0
    for trajectory in trajectories:
        forced = {} if train_forced else _forced(trajectory)
        packs = gate is None or gate.packs
        sequences, cut = _sequences(trajectory, team, renderer, on_long, forced, packs=packs, shares=shares)
        dropped += cut
        for sequence in sequences:
            kept = _fit(sequence, trajectory.id, max_length, on_long)
            dropped += len(sequence.ends) - kept
            length = sequence.ends[kept - 1] if kept else 0
            if any(sequence.weights[:length]):
                parts = (sequence.ids[:length], sequence.weights[:length], sequence.speakers[:length])
                roles = _roles(sequence, gate)[:length]
                left_out = sequence.forced[:length] if any(sequence.forced[:length]) else ()
                examples.append(Example(*parts, source=trajectory.id, roles=roles, forced=left_out))
    return Built(tuple(examples), dropped)


def _roles(sequence: _Sequence, gate: Gate | None) -> tuple[int, ...]:
    if gate is None:
        return ()
    return gate.ids(sequence.speakers, str(sequence.speakers[-1]), sequence.start)


def _forced(trajectory: Trajectory) -> dict[int, tuple[bool, ...]]:
    """Return which of a message's tokens were forced, by the message's place; a prefix that it began with was not."""
    found: dict[int, tuple[bool, ...]] = {}
    turns = list(trajectory.turns)
    for place, message in enumerate(trajectory.messages):
        if not turns or message != turns[0].message:
            continue
        turn = turns.pop(0)
        given = len(message.ids or ()) - len(turn.token_ids)
        if any(turn.forced) and given >= 0 and (message.ids or ())[given:] == turn.token_ids:
            found[place] = (False,) * given + turn.forced
    return found


def _sequences(
    trajectory: Trajectory,
    team: Team,
    renderer: Renderer,
    on_long: OnLong,
    forced: Mapping[int, tuple[bool, ...]],
    *,
    packs: bool,
    shares: Shares,
) -> tuple[list[_Sequence], int]:
    """Return the packed replies of a trajectory, and how many were left out because they were cut."""
    sequences: list[_Sequence] = []
    cut = 0
    for place, message in enumerate(trajectory.messages):
        if message.role != "assistant" or message.weight == 0:
            continue
        speaker = _speaker(message, team, trajectory.id)
        role = team.role(speaker)
        reply = role.written(message)
        ids = renderer.reply(reply)
        if not ids or ids[-1] != renderer.end_id:
            if on_long == "stop":
                raise DataError(
                    f"trajectory {trajectory.id!r}: message {place} was cut before its end token; "
                    "give it weight 0, or set on_long to 'skip' or 'cut'"
                )
            cut += 1
            continue
        _require_no_mark(reply, place, renderer, trajectory.id)
        told = trajectory.task.tools
        view, tools = role.view(trajectory.messages[:place], told), role.tools(told)
        opening = renderer.opening(view, tools, speaker)
        sequence = _extended(sequences, opening.ids) if packs else _new(sequences)
        sequence.start = len(opening.ids) - len(renderer.header(speaker))
        start = len(sequence.ids)
        sequence.extend(opening.ids[start:], opening.speakers[start:])
        weight = 1.0 if message.weight is None else message.weight
        weights = [weight * share for share in apart.weights(message, ids, role, renderer, shares)]
        sequence.extend(ids, (speaker,) * len(ids), weights, forced.get(place, ()))
        sequence.ends.append(len(sequence.ids))
    return sequences, cut


def _require_no_mark(message: Message, place: int, renderer: Renderer, source: str) -> None:
    """Refuse text that spells out what is one token to the model: it would learn to write the mark in pieces."""
    mark = renderer.mark_in(message.content) if message.ids is None else None
    if mark is not None:
        remedy = "write calls as 'tool_calls'" if mark in renderer.call_syntax.tags else "delete it"
        raise DataError(
            f"trajectory {source!r}: the text of message {place} spells out {mark!r}, a mark of the base's own format; "
            f"{remedy}, or give the message weight 0"
        )


def _speaker(message: Message, team: Team, source: str) -> str:
    speaker = message.speaker or "assistant"
    if speaker not in team.speakers:
        raise DataError(
            f"trajectory {source!r}: speaker {speaker!r} is not in team {team.name!r} ({', '.join(team.speakers)}); "
            "name another team, or set the speaker of each assistant message"
        )
    return speaker


def _extended(sequences: list[_Sequence], prompt: tuple[int, ...]) -> _Sequence:
    """Return the longest of `sequences` that `prompt` begins with, or a new one."""
    fitting = [sequence for sequence in sequences if prompt[: len(sequence.ids)] == sequence.ids]
    if fitting:
        return max(fitting, key=lambda sequence: len(sequence.ids))
    return _new(sequences)


def _new(sequences: list[_Sequence]) -> _Sequence:
    sequences.append(_Sequence())
    return sequences[-1]


def _fit(sequence: _Sequence, source: str, max_length: int | None, on_long: OnLong) -> int:
    """Return how many replies of `sequence` are kept, from its beginning."""
    length = len(sequence.ids)
    if max_length is None or length <= max_length:
        return len(sequence.ends)
    if on_long == "stop":
        raise DataError(
            f"trajectory {source!r}: an example of {length} tokens is longer than max_length {max_length}; raise "
            "max_length, or set on_long to 'skip' (leave it out) or 'cut' (keep the replies that fit whole)"
        )
    return sum(end <= max_length for end in sequence.ends) if on_long == "cut" else 0


def audit(examples: Sequence[Example], renderer: Renderer, team: Team, max_length: int | None = None) -> None:
    """Check, from the tokens alone, that the examples train whole replies and nothing else.

    Raises DataError naming the trajectory for: no examples, nothing trained, context trained, a reply trained in part,
    an untrained end token, a call that was truncated or does not parse, more than `max_length` tokens.
    """
    if not examples:
        raise DataError("no examples: nothing would be trained; check that the data has replies of weight above 0")
    for example in examples:
        problem = _problem(example, renderer, team, max_length)
        if problem:
            raise DataError(f"trajectory {example.source!r}: {problem}")


def _problem(example: Example, renderer: Renderer, team: Team, max_length: int | None) -> str | None:
    if not len(example.ids) == len(example.weights) == len(example.speakers):
        lengths = f"{len(example.ids)} ids, {len(example.weights)} weights, {len(example.speakers)} speakers"
        return f"{lengths}; they must align"
    if max_length is not None and len(example.ids) > max_length:
        return f"{len(example.ids)} tokens are more than max_length {max_length}; build with on_long 'skip' or 'cut'"
    if not all(math.isfinite(weight) and weight >= 0 for weight in example.weights):
        return "a loss weight is negative or not finite"
    left_out = example.forced or (False,) * len(example.ids)
    runs = list(_trained_runs([weight or float(out) for weight, out in zip(example.weights, left_out, strict=True)]))
    if not any(example.weights):
        return "no token is trained; a reply must have a weight above 0"
    found = (_run_problem(example, start, end, renderer, team) for start, end in runs)
    return next((problem for problem in found if problem), None)


def _trained_runs(weights: Sequence[float]) -> Iterator[tuple[int, int]]:
    """Yield (start, end) of each longest run of tokens with a weight above 0."""
    place = 0
    for trained, group in itertools.groupby(weights, key=lambda weight: weight > 0):
        length = sum(1 for _ in group)
        if trained:
            yield place, place + length
        place += length


def _run_problem(example: Example, start: int, end: int, renderer: Renderer, team: Team) -> str | None:
    """Return what is wrong with training the tokens `start` to `end`, which should be one whole reply."""
    speaker = example.speakers[start]
    where = f"at token {start} ({renderer.text(example.ids[start : start + 8])!r})"
    if speaker is None:
        return f"context is trained {where}: a system, user or tool message"
    if speaker not in team.speakers:
        return f"speaker {speaker!r} {where} is not in team {team.name!r} ({', '.join(team.speakers)})"
    header = renderer.header(speaker)
    if example.ids[max(0, start - len(header)) : start] != header:
        return f"what is trained {where} does not begin where a reply of {speaker!r} begins"
    body = example.ids[start:end]
    if renderer.end_id in body[:-1]:
        return f"what is trained {where} goes on after the end of the reply of {speaker!r}"
    if set(example.speakers[start - len(header) : end]) != {speaker}:
        return f"the reply {where} has tokens that are not labelled {speaker!r}"
    if body[-1] != renderer.end_id:
        return f"the end token of the reply {where} is not trained, so the model would not learn to stop"
    unparsed = renderer.parse(body, speaker).unparsed if team.role(speaker).calls_tools else None
    if unparsed is not None:
        return (
            f"a malformed or truncated call is trained {where}: {why_unparsed(unparsed, (), renderer.call_syntax)}; "
            "mend or drop it, or give the message weight 0"
        )
    return None


def budget(examples: Iterable[Example]) -> dict[str | None, Budget]:
    """Return the tokens of each speaker over all examples, in order of appearance; None is context."""
    tokens: dict[str | None, int] = {}
    trained: dict[str | None, int] = {}
    for example in examples:
        for speaker, weight in zip(example.speakers, example.weights, strict=True):
            tokens[speaker] = tokens.get(speaker, 0) + 1
            trained[speaker] = trained.get(speaker, 0) + (weight > 0)
    return {speaker: Budget(count, trained[speaker]) for speaker, count in tokens.items()}


def describe(example: Example, tokenizer: Tokenizer) -> list[tuple[str, str | None, float]]:
    """Return (text, speaker, loss weight) of each token."""
    texts = [
        str(tokenizer.decode([i], skip_special_tokens=False, clean_up_tokenization_spaces=False)) for i in example.ids
    ]
    return list(zip(texts, example.speakers, example.weights, strict=True))


def label_page(examples: Sequence[Example], tokenizer: Tokenizer) -> Group:
    """Return the first example token by token with speaker and weight, and every speaker's budget, for a terminal."""
    first = examples[0]
    tokens = Table(title=Text(f"first example, of trajectory {_printable(first.source)}"), title_justify="left")
    for name in ("place", "id", "token", "speaker", "weight"):
        tokens.add_column(name, justify="left" if name in ("token", "speaker") else "right")
    for place, (text, speaker, weight) in enumerate(describe(first, tokenizer)):
        cells = (str(place), str(first.ids[place]), _printable(text), speaker or "-", f"{weight:g}")
        tokens.add_row(*map(Text, cells), style="bold" if weight > 0 else "dim")
    return Group(tokens, _budget_table(examples))


def _budget_table(examples: Sequence[Example]) -> Table:
    table = Table(title=f"tokens of {len(examples)} examples", title_justify="left")
    for name in ("speaker", "tokens", "trained"):
        table.add_column(name, justify="left" if name == "speaker" else "right")
    for speaker, spent in budget(examples).items():
        table.add_row(Text(speaker or "context"), f"{spent.tokens:,}", f"{spent.trained:,}")
    return table


def label_text(examples: Sequence[Example], tokenizer: Tokenizer) -> str:
    """Return the same page as text for a log: a line for each run of one speaker and weight, `|` between tokens."""
    first = examples[0]
    lines = [f"first example, of trajectory {_printable(first.source)}:"]
    place = 0
    rows = describe(first, tokenizer)
    for (speaker, weight), group in itertools.groupby(rows, key=lambda row: row[1:]):
        texts = [_printable(text) for text, _, _ in group]
        lines.append(f"{place:6} {speaker or 'context':<12} x{weight:<4g} {'|'.join(texts)}")
        place += len(texts)
    lines.append(f"tokens of {len(examples)} examples:")
    for speaker, spent in budget(examples).items():
        lines.append(f"       {speaker or 'context':<12} {spent.tokens:,} tokens, {spent.trained:,} trained")
    return "\n".join(lines)


def _printable(text: str) -> str:
    """Return `text` with line breaks and terminal codes spelled out."""
    return "".join(character if character.isprintable() else repr(character)[1:-1] for character in text)
