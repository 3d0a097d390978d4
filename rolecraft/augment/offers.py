"""Other tools beside those that are called: more, fewer, or none that fits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from random import Random

from rolecraft.augment.masks import require_share
from rolecraft.augment.pool import Pool, heard, subjects
from rolecraft.errors import SettingsError
from rolecraft.importers import NO_TOOL_FITS
from rolecraft.types import Message, ToolSpec, Trajectory


@dataclass(frozen=True, slots=True)
class Distractors:
    """How many tools are offered, from `least` to `most`, and the share of added ones that are near misses.

    With `own` the row's uncalled tools are the first distractors, without it they are left out.
    """

    least: int = 2
    most: int = 6
    near: float = 0.5
    own: bool = True

    def __post_init__(self) -> None:
        """Refuse numbers that cannot be meant."""
        require_share(self.near, "distractors.near")
        if not 1 <= self.least <= self.most:
            raise SettingsError(f"distractors: 1 <= least <= most must hold; got {self.least!r} and {self.most!r}")


@dataclass(frozen=True, slots=True)
class HideTools:
    """How many trajectories lose the tools they call, and how many others are offered at least.

    Without `own` they lose all of their own, as a dialogue with one service should: others of that service may help.
    """

    share: float = 0.1
    least: int = 2
    own: bool = True

    def __post_init__(self) -> None:
        """Refuse numbers that cannot be meant."""
        require_share(self.share, "hide_tools.share")
        if self.least < 1:
            raise SettingsError(f"hide_tools.least is {self.least!r}; offer at least 1")


def distractors(
    trajectory: Trajectory, settings: Distractors, draw: Random, pool: Pool, group: Sequence[Trajectory] = ()
) -> tuple[Trajectory, ...]:
    """Return the trajectory with other tools around those that it needs, all in a drawn order.

    Needed are the tools that are called or asked for; where nobody tells for which one a reply asks, all of the row's
    own. Where nothing fits, no word of an added tool's subject stands in the request. A `group` of rows, this one among
    them, is given the same tools: those that any of them needs, and others that are wrong for all.
    """
    rows = group or (trajectory,)
    own = rows[0].task.tools
    called = {name for row in rows for name in needed_by(row)}
    negative = is_negative(trajectory)
    asks = any(asks_for_any(row) for row in rows)
    kept = [spec for spec in own if asks or spec.name in called]
    others = [spec for spec in own if spec not in kept] if settings.own else []
    draw.shuffle(others)
    count = draw.randint(settings.least, settings.most)
    kept += others[: max(0, count - len(kept))]
    needed = [spec for spec in own if spec.name in called]
    said = heard(message for row in rows for message in row.messages)
    avoided = said if negative else frozenset(w for spec in kept for w in subjects(spec.name))
    _fill(kept, count, avoided, needed, settings.near, draw, pool)
    draw.shuffle(kept)
    return (replace(trajectory, task=replace(trajectory.task, tools=tuple(kept))),)


def hide_tools(
    trajectory: Trajectory, settings: HideTools, draw: Random, pool: Pool, group: Sequence[Trajectory] = ()
) -> tuple[Trajectory, ...]:
    """Return the first request alone, offered tools of which none fits, and the answer that says so.

    Hidden are the tools that are called and those that are about the same. Of a `group` of rows, this one among them,
    all are offered the same, and nothing that fits any.
    """
    rows = group or (trajectory,)
    called = {call.name for row in rows for message in row.messages for call in message.tool_calls}
    if draw.random() >= settings.share or not called:
        return (trajectory,)
    about = {word for name in called for word in subjects(name)}
    kept = [spec for spec in trajectory.task.tools if settings.own and not subjects(spec.name) & about]
    opening = trajectory.task.messages
    said = heard(message for row in rows for message in row.task.messages)
    _fill(kept, settings.least, said | about, [], 0.0, draw, pool)
    if not kept:
        return (trajectory,)
    step = {"at": len(opening), "calls": [], "services": trajectory.task.reference.get("services", [])}
    reference = {**trajectory.task.reference, "steps": [step]}
    task = replace(trajectory.task, tools=tuple(kept), reference=reference)
    return (replace(trajectory, task=task, messages=(*opening, Message("assistant", NO_TOOL_FITS))),)


def needed_by(trajectory: Trajectory) -> set[str]:
    """Return the names of the tools that a row calls or asks for."""
    called = {call.name for message in trajectory.messages for call in message.tool_calls}
    return called | {name for step in trajectory.task.reference.get("steps", ()) for name in step.get("asks_for", ())}


def asks_for_any(trajectory: Trajectory) -> bool:
    """Tell whether a row asks for a value, and nobody tells for which of its tools."""
    steps = trajectory.task.reference.get("steps", ())
    return not is_negative(trajectory) and any(not step["calls"] and "asks_for" not in step for step in steps)


def is_negative(trajectory: Trajectory) -> bool:
    """Tell whether a row is the answer that no tool fits."""
    last = trajectory.messages[-1]
    return last.content == NO_TOOL_FITS and not any(message.tool_calls for message in trajectory.messages)


def _fill(
    kept: list[ToolSpec],
    count: int,
    avoided: frozenset[str] | set[str],
    needed: list[ToolSpec],
    near: float,
    draw: Random,
    pool: Pool,
) -> None:
    """Add tools of the pool to `kept` until there are `count`, or none is found."""
    while len(kept) < count and pool.tools:
        taken = {spec.name for spec in kept} | {spec.name for spec in needed}
        alike = needed and draw.random() < near
        found = pool.near(draw.choice(needed), taken, draw) if alike else None
        found = found or pool.far(avoided, taken, draw)
        if found is None:
            return
        kept.append(found)
