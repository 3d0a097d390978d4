"""From played episodes to rows of exact tokens: what a reply was drawn from, and which tokens the player chose.

Nothing is tokenised again: the ids are those that the engine read and wrote. A reply whose prompt extends a row joins
it, so an episode of a team whose views only append is one row. Distillation and reinforcement train on these.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import torch
from torch.nn.utils.rnn import pad_sequence

from rolecraft import memory
from rolecraft.errors import DataError
from rolecraft.gate import Gate
from rolecraft.renderers import Renderer
from rolecraft.team import Team
from rolecraft.train.sharing import Layout, alike, lay_out, rounded, shared_length
from rolecraft.types import Drawn, Trajectory, Turn

_Value = TypeVar("_Value")


@dataclass(frozen=True, slots=True)
class Row:
    """One sequence of an episode; all but `source` and `start` align, (T,).

    `chosen` marks the tokens that the player chose: neither context nor what a grammar forced. `logprobs` are the
    engine's, 0 on context; `steps` number the replies over the episode, -1 on context; `speakers` are None on context.
    `drawn` tell how the chosen ones were drawn, None elsewhere. `start` is where the last reply's header begins.
    """

    ids: tuple[int, ...] = ()
    chosen: tuple[bool, ...] = ()
    logprobs: tuple[float, ...] = ()
    steps: tuple[int, ...] = ()
    speakers: tuple[str | None, ...] = ()
    drawn: tuple[Drawn | None, ...] = ()
    start: int = 0
    source: str = ""

    def roles(self, gate: Gate | None) -> tuple[int, ...]:
        """Return the tokens' role ids under a gate, none without one."""
        return () if gate is None else gate.ids(self.speakers, str(self.speakers[-1]), self.start)


@dataclass(frozen=True, slots=True)
class Batch:
    """Rows as padded tensors (B, T); `extra` are values of each token by name, cut like the targets by `of_targets`.

    With a `layout` they are one row (1, T) whose groups have their prefixes once; `places` (N,) say where the trained
    tokens stand in it, in the order of the rows.
    """

    ids: torch.Tensor
    weights: torch.Tensor
    extra: dict[str, torch.Tensor] = field(default_factory=dict)
    layout: Layout | None = None
    places: torch.Tensor | None = None

    @property
    def call(self) -> dict[str, Any]:
        """What a model's call takes beside the ids."""
        if self.layout is None:
            return {}
        width = self.ids.shape[1]
        return {"position_ids": self.layout.positions(width).to(self.ids.device), "trees": self.layout.padded(width)}

    @property
    def times(self) -> torch.Tensor | None:
        """How many rows each token stands for; None where it is one."""
        return None if self.layout is None else self.layout.times(self.ids.shape[1]).to(self.ids.device)

    def as_laid_out(self, values: Sequence[_Value]) -> list[_Value]:
        """Return values of the trained tokens, which are in the order of the rows, in that of the batch."""
        if self.places is None:
            return list(values)
        by_place = dict(zip(self.places.tolist(), values, strict=True))
        return [by_place[place] for place in range(len(values))]

    def in_order(self, values_N: torch.Tensor) -> torch.Tensor:
        """Return values of the trained tokens in the order of the rows."""
        return values_N if self.places is None else values_N[self.places]

    def of_targets(self, name: str) -> torch.Tensor:
        """Return an extra's values (N,) at the tokens that are trained, in reading order."""
        chosen_BT = self.weights > 0
        chosen_BT[:, 0] = False  # nothing comes before it
        return self.extra[name][chosen_BT]


def rows(trajectory: Trajectory, team: Team, renderer: Renderer, *, packs: bool) -> list[Row]:
    """Return the rows of an episode; with `packs` a reply joins the row that its prompt extends.

    Raises DataError for an episode whose prompts are rendered otherwise than the engine read them.
    """
    return joined([trajectory], trajectory.id, team, renderer, packs=packs)


def joined(parts: Sequence[Trajectory], name: str, team: Team, renderer: Renderer, *, packs: bool) -> list[Row]:
    """Return the rows of an episode called `name` that was recorded in parts, each with its own conversation."""
    found: list[Row] = []
    said = ((part, *placed) for part in parts for placed in _placed(part))
    for step, (trajectory, turn, place) in enumerate(said):
        role = team.role(turn.speaker)
        tools = role.tools(trajectory.task.tools)
        seen = role.view(memory.folded(trajectory.messages[:place], turn.folded), trajectory.task.tools)
        opening = renderer.opening(seen, tools, turn.speaker)
        if opening.ids != turn.prompt_ids:
            raise DataError(
                f"episode {name!r}: the prompt of reply {step} is rendered otherwise than the engine read it; play and "
                "train with the same renderer (model.renderer, thinking or not), team, instructions and tools"
            )
        before = found.pop() if packs and found and turn.prompt_ids[: len(found[-1].ids)] == found[-1].ids else Row()
        extended = _context(before, turn.prompt_ids, opening.speakers)
        start = len(turn.prompt_ids) - len(renderer.header(turn.speaker))
        found.append(replace(_reply(extended, turn, step), start=start, source=name))
    return found


def _placed(trajectory: Trajectory) -> Iterator[tuple[Turn, int]]:
    """Yield each turn with the place of its message."""
    messages, place = trajectory.messages, len(trajectory.task.messages)
    for turn in trajectory.turns:
        while place < len(messages) and messages[place] != turn.message:
            place += 1
        if place == len(messages):
            raise DataError(f"episode {trajectory.id!r}: a reply is not among its messages; keep its record whole")
        yield turn, place
        place += 1


def _context(row: Row, ids: Sequence[int], speakers: Sequence[str | None]) -> Row:
    new = len(ids) - len(row.ids)
    return Row(
        tuple(ids),
        row.chosen + (False,) * new,
        row.logprobs + (0.0,) * new,
        row.steps + (-1,) * new,
        row.speakers + tuple(speakers[len(row.ids) :]),
        row.drawn + (None,) * new,
    )


def _reply(row: Row, turn: Turn, step: int) -> Row:
    count = len(turn.token_ids)
    forced = turn.forced or (False,) * count
    drawn = turn.drawn or tuple(map(Drawn, turn.logprobs))  # who did not ask drew at temperature 1, of all tokens
    return Row(
        row.ids + turn.token_ids,
        row.chosen + tuple(not one for one in forced),
        row.logprobs + turn.logprobs,
        row.steps + (step,) * count,
        row.speakers + (turn.speaker,) * count,
        row.drawn + drawn,
    )


def batch(
    chosen: Sequence[Row],
    pad_id: int,
    values: dict[str, list[Sequence[float]]],
    device: torch.device | str = "cpu",
) -> Batch:
    """Return rows as one batch, padded on the right, with `values` of each row's tokens by name.

    A token's weight is 1 if the player chose it; replies of different rows have different numbers in extra `steps`.
    """
    width = max(len(row.ids) for row in chosen)
    most = 1 + max(max(row.steps) for row in chosen)

    def padded(lists: Sequence[Sequence[float]], fill: float, kind: torch.dtype) -> torch.Tensor:
        return torch.tensor([[*one, *[fill] * (width - len(one))] for one in lists], dtype=kind, device=device)

    steps = [[number + most * place for number in row.steps] for place, row in enumerate(chosen)]
    extra = {name: padded(lists, 0.0, torch.float32) for name, lists in values.items()}
    extra["steps"] = padded(steps, -1, torch.long)
    extra["logprobs"] = padded([row.logprobs for row in chosen], 0.0, torch.float32)
    return Batch(
        padded([row.ids for row in chosen], pad_id, torch.long),
        padded([row.chosen for row in chosen], 0.0, torch.float32),
        extra,
    )


def laid_out(chosen: Sequence[Row], pad_id: int, gate: Gate | None, device: torch.device | str = "cpu") -> Batch | None:
    """Return rows as one, what groups of them begin with computed once; None where no two begin alike."""
    ids, weights = [torch.tensor(row.ids) for row in chosen], [torch.tensor(row.chosen).float() for row in chosen]
    told = [
        (one,) if gate is None else (one, torch.tensor(row.roles(gate))) for one, row in zip(ids, chosen, strict=True)
    ]
    groups = alike(told, weights)
    shared = [shared_length([told[row] for row in group], [weights[row] for row in group]) for group in groups]
    if not any(prefix and len(group) > 1 for prefix, group in zip(shared, groups, strict=True)):
        return None
    layout = lay_out(groups, [len(one) for one in ids], shared)
    width = rounded(layout.length)
    counts = [int(one.sum()) for one in weights]
    parts = torch.split(torch.arange(sum(counts)), [counts[row] for group in groups for row in group])
    by_row = dict(zip((row for group in groups for row in group), parts, strict=True))
    return Batch(
        layout.place(ids, width, pad_id).to(device),
        layout.place(weights, width, 0.0).to(device),
        layout=layout,
        places=torch.cat([by_row[row] for row in range(len(chosen))]).to(device),
    )


def roles_of(
    chosen: Sequence[Row], gate: Gate | None, device: torch.device | str = "cpu", layout: Layout | None = None
) -> torch.Tensor | None:
    """Return the rows' role ids (B, T), -1 on padding, or as they are laid out; None without a gate."""
    if gate is None:
        return None
    told = [torch.tensor(row.roles(gate)) for row in chosen]
    if layout is not None:
        return layout.place(told, rounded(layout.length), -1).to(device)
    return pad_sequence(told, batch_first=True, padding_value=-1).to(device)
