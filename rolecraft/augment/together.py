"""Rows of different tools made to tell the same: each is offered what the others call, which are its distractors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from rolecraft.augment.offers import asks_for_any, is_negative, needed_by
from rolecraft.augment.pool import subjects
from rolecraft.types import ToolSpec, Trajectory

_OPEN = 32


@dataclass(slots=True)
class _Group:
    """Rows, the tools that any of them needs, and what these are about."""

    rows: list[Trajectory] = field(default_factory=list)
    tools: dict[str, ToolSpec] = field(default_factory=dict)
    about: set[str] = field(default_factory=set)


def together(rows: Sequence[Trajectory], most: int) -> list[list[Trajectory]]:
    """Return the rows in groups of up to `most`, in order, those of a group offered the same tools: all that one needs.

    No tool of a group is about what another row's is, so that it is wrong for all but the rows that call it. A row to
    which none fits, and one that asks for a value of nobody knows which tool, stays as it is, alone.
    """
    groups: list[_Group] = []
    waiting: list[_Group] = []
    for row in rows:
        needed = needed_by(row)
        if is_negative(row) or asks_for_any(row) or not needed:
            groups.append(_Group([row], {spec.name: spec for spec in row.task.tools}))
            continue
        tools = {spec.name: spec for spec in row.task.tools if spec.name in needed}
        about = {word for name in tools for word in subjects(name)}
        group = next((one for one in waiting if not one.about & about and not one.tools.keys() & tools), None)
        if group is None:
            group = _Group()
            groups.append(group)
            waiting = [*waiting, group][-_OPEN:]
        group.rows.append(row)
        group.tools |= tools
        group.about |= about
        if len(group.rows) == most:
            waiting.remove(group)
    return [[_offered(row, tuple(group.tools.values())) for row in group.rows] for group in groups]


def _offered(row: Trajectory, tools: tuple[ToolSpec, ...]) -> Trajectory:
    return replace(row, task=replace(row.task, tools=tools))
