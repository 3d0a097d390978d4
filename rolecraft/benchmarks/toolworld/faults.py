"""Tools of a world of which the first call of an episode fails, and the same call works if it is made again.

Not covered: which tasks are posed so (the split `faults`), and functions that always fail (the family recover).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from rolecraft.types import Json, Observation, ToolCall, Toolset, ToolSpec

ERROR = "error: connection reset, call again"
"""What the failed call answers, in words that no training task has."""


@dataclass(slots=True)
class Faulty:
    """A toolbox whose next `left` calls fail; all else is the toolbox's own."""

    toolbox: Toolset
    left: int
    trunk: Faulty | None = None

    @property
    def specs(self) -> tuple[ToolSpec, ...]:
        """The tools as the model is told of them, in order."""
        return self.toolbox.specs

    async def call(self, call: ToolCall) -> Observation:
        """Run one call, or let it fail."""
        if self.left:
            self.left -= 1
            return Observation(ERROR, failed=True)
        return await self.toolbox.call(call)

    def fork(self) -> Faulty:
        """Return an independent copy, of which as many calls fail."""
        return Faulty(self.toolbox.fork(), self.left)

    def branch(self) -> Faulty:
        """Return a branch, of which as many calls fail."""
        return Faulty(self.toolbox.branch(), self.left, self)

    def commit(self) -> None:
        """Let what this is a branch of go on with its state, failures that are past among it."""
        self.toolbox.commit()
        one = self.trunk
        while one is not None:
            one.left, one = self.left, one.trunk

    def state(self) -> Mapping[str, Json]:
        """Return the toolbox's state."""
        return self.toolbox.state()

    def close(self) -> None:
        """Close the toolbox."""
        self.toolbox.close()
