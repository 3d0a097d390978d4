"""All the cells of a claim, tuned and played, and which of them are finished.

Not covered: running them (`reproduce`), and what they say (`findings`, `standings`).
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import rolecraft.reproduce.cells as cells
import rolecraft.reproduce.columns as columns
import rolecraft.reproduce.plays as plays
from rolecraft.reproduce.cells import Cell, Result
from rolecraft.reproduce.claim import Claim
from rolecraft.reproduce.plays import Play, Record


@dataclass(slots=True)
class Board:
    """The claim's cells and which of them `folder` holds finished; `weights` is the digest of each arm's base.

    `modes`: only these are played; none named: all.
    """

    claim: Claim
    folder: Path
    weights: dict[str, str] = field(default_factory=dict)
    results: dict[str, Result] = field(default_factory=dict)
    records: dict[str, Record] = field(default_factory=dict)
    modes: tuple[str, ...] = ()

    def result(self, cell: Cell) -> Result | None:
        """The cell's result, if it is finished."""
        if cell.name not in self.results and (found := cells.finished(cell, self.folder)):
            self.results[cell.name] = found
        return self.results.get(cell.name)

    def record(self, play: Play) -> Record | None:
        """The played cell's record, if it is finished."""
        if play.name not in self.records and (found := plays.finished(play, self.folder)):
            self.records[play.name] = found
        return self.records.get(play.name)

    def searched(self, arm: str) -> tuple[Cell, ...]:
        """The arm's search cells."""
        return cells.search_cells(self.claim, arm, self.weights[arm])

    def chosen(self, arm: str) -> dict[str, Any] | None:
        """What the arm's search chose; nothing for an arm without one, None while it is not finished."""
        results = [self.result(cell) for cell in self.searched(arm)]
        if not all(results):
            return None
        return cells.choose([one for one in results if one]) if results else {}

    def final(self, arm: str, seed: int) -> Cell | None:
        """The arm's cell at a seed, or None while its search is not finished."""
        chosen = self.chosen(arm)
        return None if chosen is None else cells.final_cell(self.claim, arm, seed, self.weights[arm], chosen)

    def todo(
        self, arms: Sequence[str], seeds: Sequence[int], names: Collection[str], output: Path
    ) -> list[Cell | Play]:
        """What is to be run once all searches are finished, seed by seed: a part that was stopped compares all arms.

        A finished tuning is run again if it is played from and its adapter is not in `output` any more.
        """
        missing = [play for play in self.plays(arms, seeds, names) if not self.record(play)]
        found: list[Cell | Play] = [play for play in missing if play.tuning is None]
        for seed in seeds:
            mine = [play for play in missing if play.seed == seed]
            played = {play.tuning.name for play in mine if play.tuning}
            tuned = [arm for arm in self._at(seed, arms) if self.claim.arms[arm].tuned]
            tunings = [cell for arm in tuned if (cell := self.final(arm, seed))]
            for cell in tunings:
                done = self.result(cell)
                if done is None or (cell.name in played and plays.place_of(cell, done, output) is None):
                    found.append(cell)
            found += mine
        return found

    def plays(
        self, arms: Sequence[str], seeds: Sequence[int], names: Collection[str] = (), *, guess: bool = False
    ) -> list[Play]:
        """The played cells of these arms, seeds and columns (none named: all), those of arms that are not tuned first.

        Those of a tuned arm whose search is not finished are left out, as nobody knows them yet, or made without what
        it will choose (`guess`).
        """
        untuned = [arm for arm in arms if not self.claim.arms[arm].tuned]
        found = [play for name in self._asked(names) for arm in untuned for play in self._of(arm, name, None)]
        for seed in seeds:
            tuned = [(arm, self.final(arm, seed)) for arm in self._at(seed, arms) if arm not in untuned]
            if guess:
                tuned = [
                    (arm, cell or cells.final_cell(self.claim, arm, seed, self.weights[arm], {})) for arm, cell in tuned
                ]
            found += [
                play
                for name in self._asked(names)
                for arm, tuning in tuned
                if tuning is not None
                for play in self._of(arm, name, tuning)
            ]
        return found

    def _at(self, seed: int, arms: Sequence[str]) -> list[str]:
        """Return the arms that are tuned at a seed, and those that are not tuned."""
        return [arm for arm in arms if not self.claim.arms[arm].tuned or seed in self.claim.seeds_of(arm)]

    def _asked(self, names: Collection[str]) -> list[str]:
        return [name for name in self.claim.evaluation.columns if name in names or not names]

    def _of(self, arm: str, name: str, tuning: Cell | None) -> Iterator[Play]:
        """Yield the arm's plays of a column, in each mode that is played on it."""
        told, asked = self.claim.arms[arm], self.claim.evaluation
        column, weights = asked.columns[name], self.weights.get(arm, "")
        if told.policy is not None:
            if told.policy in columns.policies(name):
                yield Play(self.claim.name, arm, "", name, column, policy=told.policy)
            return
        base = told.base or (tuning.stages[0].recipe.model.base if tuning else "")
        for mode_name in (one for one in asked.modes if one in self.modes or not self.modes):
            mode = self.claim.mode(arm, mode_name)
            if not mode.columns or name in mode.columns:
                yield Play(self.claim.name, arm, mode_name, name, column, mode, base, weights, tuning=tuning)
