"""What a benchmark is: tasks with worlds that open, really run, and are judged.

To add one, write `benchmarks/x.py` (or a package) that exports what `Benchmark` lists; a path to such a file works
wherever a name does. The contract test opens its tasks: the judge must accept the reference and refuse a wrong answer.
A module may also export `few_shot` (see toolworld), `POLICIES`: functions from a prompt to a message, by name, whose
scores then stand beside a model's, `REPORTED`: the splits that are played where nobody names one, and `UNSEEN`:
if its tasks are rows of a data set, the splits of which a training must know neither services nor tools; `Settings`
then has a `size`.

One whose tasks open in the middle of an episode exports `in_roles(tasks, team)`, which returns them with what was said
before in the roles of the team that plays.

One whose tasks are read from files that its settings do not name exports `sources(split)`: these files and folders. A
training by them is done again once they have changed.

One whose worlds need more than the task, such as a user's own tools, also exports `opener(settings)`, which returns
what opens a task; `open` then opens those that need nothing else.

Not covered here: who plays (a team and an engine) and how verdicts add up to a score; see agent.py and evaluate.py.
"""

from __future__ import annotations

from typing import Any, Protocol

from rolecraft.benchmarks._scripted import Scripted
from rolecraft.types import Environment, Task, Trajectory

__all__ = ["Benchmark", "Scripted"]


class Benchmark(Protocol):
    """The contract of a module in this folder."""

    Settings: type[Any]
    """A frozen dataclass; `Settings()` gives the benchmark as it is reported."""

    SPLITS: tuple[str, ...]
    """The names that `tasks` accepts, the training split first if there is one."""

    def tasks(self, settings: Any, split: str, seed: int) -> tuple[Task, ...]:
        """Return the tasks of a split, the same ones for the same arguments.

        `reference` holds what the judge needs: JSON, with `family` where scores are told by family. A smaller size
        gives the first tasks of a larger one. Raises SettingsError for an unknown split.
        """
        ...

    def open(self, task: Task) -> Environment:
        """Open the task's world for one episode, from the task alone: a task read from a file opens as well."""
        ...

    def reference(self, task: Task, team_name: str) -> Trajectory:
        """Return a right solution in the roles of a preset team, its tool results really computed."""
        ...
