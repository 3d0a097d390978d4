"""The table of how tools were called: needless calls, missing ones, and replies that could not be read."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape

from rolecraft.scores import Scores

_HEADS = ("run", "unparsed", "over-calling", "under-calling")
_INTRO = "Percent of tasks: a reply could not be read; a call was made though none is right; none though one is."


def table(played: Mapping[str, Scores]) -> str:
    """Return the table, a row for each run by its label, as finished HTML."""
    head = "".join(f"<th{' class=n' if place else ''}>{name}</th>" for place, name in enumerate(_HEADS))
    rows = "".join(
        f'<tr><td class="name">{escape(label)}</td>'
        + "".join(
            f"<td class=n>{'-' if share is None else f'{100 * share:.1f}'}</td>"
            for share in (scores.calling.unparsed, scores.calling.over, scores.calling.under)
        )
        + "</tr>"
        for label, scores in played.items()
    )
    inner = f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>'
    return f'<p class="soft">{_INTRO}</p>{inner}'
