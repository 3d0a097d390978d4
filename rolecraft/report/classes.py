"""Why tasks failed, several ways of playing side by side: the share of tasks in each class, the listed ones first."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape

from rolecraft.judges import failures
from rolecraft.scores import Scores

Counted = Mapping[str, tuple[Mapping[str, int], int]]
"""By name the number of failed tasks in each class, and of all tasks."""


def shares(counted: Counted) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Return a table's heading and rows: by name the share of failed tasks, and that in each class, in percent of all.

    The classes of LISTED are always there, those of other failures where there are any.
    """
    seen = {name for counts, _ in counted.values() for name, count in counts.items() if count}
    classes = [*failures.LISTED, *(name for name in failures.CLASSES if name in seen - failures.LISTED.keys())]
    rows = []
    for name, (counts, n) in counted.items():
        parts = [sum(counts.values()), *(counts.get(one, 0) for one in classes)]
        rows.append((name, str(n), *(f"{100 * part / n:.1f}" if n else "-" for part in parts)))
    return ("tasks", "failed", *classes), rows


def table(played: Mapping[str, Scores]) -> str:
    """Return the table, a row for each run by its label, as finished HTML; nothing for a single run."""
    if len(played) < 2:
        return ""
    heading, rows = shares({label: (scores.failures, scores.n) for label, scores in played.items()})
    head = "".join(f"<th class=n>{escape(name)}</th>" for name in heading)
    body = "".join(
        f'<tr><td class="name">{escape(label)}</td>{"".join(f"<td class=n>{one}</td>" for one in cells)}</tr>'
        for label, *cells in rows
    )
    inner = f"<thead><tr><th>run</th>{head}</tr></thead><tbody>{body}</tbody>"
    return f'<h3>Side by side, % of all tasks</h3><div class="scroll"><table>{inner}</table></div>'
