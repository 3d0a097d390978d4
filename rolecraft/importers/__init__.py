"""What an importer is: it turns one raw row of a public data set, or of your own logs, into a trajectory.

To add an importer, write `importers/x.py` with

- `EXAMPLE`: one raw row of the format, synthetic and written by you, with a call and its result;
- `convert(row) -> Trajectory`: pure; raises DataError that says what is wrong with a row, and lets KeyError and the
  like through, which are told as a bad row too. A row that is merely wrong, such as a call to a tool that is not there,
  is converted as it is: reading a file refuses it, judges find it, and a report counts it.
- `KEYS`, if rows may have keys that nothing reads: those that are read (see `wire.Keys`). `--unknown-keys drop` then
  leaves the others out before a row is converted; `convert` itself refuses them.

No text of a row is lost: each string in it, or what it says as JSON, is in the trajectory, but for the format's own
words for roles. Calls have ids `call_0`, `call_1`, ... where the format has none, and each tool message names the call
it answers. The id is the row's own, or "" (then reading names it `file:line`). A call that does not parse goes verbatim
into `Message.unparsed`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from rolecraft.types import Json, Trajectory

__all__ = ["Importer"]


class Importer(Protocol):
    """The contract of a file in this folder."""

    EXAMPLE: Mapping[str, Json]

    def convert(self, row: Mapping[str, Json]) -> Trajectory:
        """Return the trajectory in one raw row; raises DataError."""
        ...
