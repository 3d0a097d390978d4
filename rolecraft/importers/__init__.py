"""What an importer is: it turns one raw row of a public data set, or of your own logs, into a trajectory.

To add an importer, write `importers/x.py` with

- `EXAMPLE`: one raw row of the format, synthetic and written by you, with a call and its result;
- `convert(row) -> Trajectory`: pure; raises DataError that says what is wrong with a row, and lets KeyError and the
  like through, which are told as a bad row too. A row that is merely wrong, such as a call to a tool that is not there,
  is converted as it is: reading a file refuses it, judges find it, and a report counts it.
- `KEYS`, if rows may have keys that nothing reads: those that are read (see `wire.Keys`). `--unknown-keys drop` then
  leaves the others out before a row is converted; `convert` itself refuses them.
- `rows(path)`, if the source's files are not rows as `convert` takes them, such as dialogues whose schemas lie beside:
  each row after where it stands, from a file or a folder; read one by one, and what is no object as its text. It also
  reads a JSONL file of rows in the form of `EXAMPLE`.
- `tools(path)`, if the source lists tools that no row needs: distractors.
- `LEFT_OUT`, if the source annotates what was said: the keys whose values no trajectory has.

A row without calls whose tools do not fit answers `NO_TOOL_FITS`, one that ends without an answer `GIVE_UP`. What a
benchmark or a split wants to know of a row is in its task's reference: `services`, the names of what it is about, and
`steps`, each reply that may be asked for: where it stands (`at`), its `calls`, none for a question or a refusal, its
`services`, and for which tools a question asks (`asks_for`).

No text of a row is lost: each string in it, or what it says as JSON, is in the trajectory, but for the format's own
words for roles. Calls have ids `call_0`, `call_1`, ... where the format has none, and each tool message names the call
it answers. The id is the row's own, or "" (then reading names it `file:line`). A call that does not parse goes verbatim
into `Message.unparsed`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from rolecraft.types import Json, Trajectory

__all__ = ["GIVE_UP", "NO_TOOL_FITS", "Importer"]

NO_TOOL_FITS = "No function fits."
"""What is answered where none of the tools can help."""

GIVE_UP = "I give up."
"""What is answered where the way that was taken led nowhere; a team that can give up does so instead."""


class Importer(Protocol):
    """The contract of a file in this folder."""

    EXAMPLE: Mapping[str, Json]

    def convert(self, row: Mapping[str, Json]) -> Trajectory:
        """Return the trajectory in one raw row; raises DataError."""
        ...
