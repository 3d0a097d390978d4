"""Plays at once those cells that differ only in what replies are held to: each prompt of theirs is computed once.

Not covered: cells of other prompts, which are played one after another (`playing`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import rolecraft.reproduce.playing as playing
from rolecraft import evaluate
from rolecraft.errors import DataError, RolecraftError
from rolecraft.reproduce.cells import hash_json
from rolecraft.reproduce.clock import Clock
from rolecraft.reproduce.playing import Player
from rolecraft.reproduce.plays import Play, Record, configuration
from rolecraft.store import Run


def groups(todo: Sequence[Play]) -> list[tuple[Play, ...]]:
    """Return the plays in groups that can be played at once, in the order of their first ones."""
    found: dict[str, list[Play]] = {}
    for play in todo:
        found.setdefault(_shared(play), []).append(play)
    return [tuple(group) for group in found.values()]


def run(
    group: Sequence[Play], folder: Path, results: Path, paths: Mapping[str, str], *, side_by_side: int = 1
) -> list[Record]:
    """Do what `playing.run` does for each play of a group; a part that was played before stands.

    Where one cannot be played with the others, each is played by itself. Raises RolecraftError that names the first
    that cannot be played at all, once the others are.
    """
    player = playing.find_player(group[0], folder, results, paths) if len(group) > 1 else None
    if player is not None:
        with suppress(DataError):  # of one part: what it is, it tells alone
            _play(group, folder, player)
    records, failed = list[Record](), dict[str, RolecraftError]()
    for play in group:
        try:
            records.append(playing.run(play, folder, results, paths, side_by_side=side_by_side))
        except DataError as error:
            failed[play.title] = error
    for title, reason in failed.items():
        others = f"; {len(records)} others of its column are finished" if records else ""
        raise RolecraftError(f"{title}: {reason}{others}") from reason
    return records


def _shared(play: Play) -> str:
    """Return a digest that plays of the same prompts share."""
    mode = replace(play.mode, constrain=False, first_call="auto", columns=())
    alone = play.policy is not None or mode.strategy != "greedy" or mode.first_thought
    return hash_json([play.arm, configuration(replace(play, mode=mode)), play.mode_name if alone else None])


def _play(group: Sequence[Play], folder: Path, player: Player) -> None:
    """Play what the plays miss; of the time that it takes, each play's share is that of its episodes.

    A run that is played so is marked before: how many tokens of its prompts were computed says nothing of its mode.
    """
    runs = [Run(folder / play.name) for play in group]
    for run in runs:
        run.log({"played": 0, "seconds": 0.0, playing.TOGETHER: len(group)})
    clock = Clock(runs)
    try:
        with playing.open_player(player, group[0].mode) as engine:
            clock.start()
            parts = [
                evaluate.Part(
                    playing.what_is_played(play, player.identity),
                    player.team,
                    engine.holding(playing.constrain(play.mode)),
                    run,
                    playing.episode_settings(play.mode),
                )
                for play, run in zip(group, runs, strict=True)
            ]
            asyncio.run(evaluate.play_together(parts, playing.SLOTS))
    finally:
        clock.log()
