"""Tables of a claim: text in rows, for the terminal and as Markdown."""

from __future__ import annotations

from dataclasses import dataclass

from rich.table import Table

from rolecraft.report import classes


@dataclass(frozen=True, slots=True)
class Grid:
    """A table's text: a title, a heading for each column, and rows."""

    title: str
    heading: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def to_table(grid: Grid) -> Table:
    """Return a grid for the terminal."""
    table = Table(title=grid.title, title_justify="left")
    for place, column in enumerate(grid.heading):
        table.add_column(column, justify="right" if place else "left")
    for row in grid.rows:
        table.add_row(*(text.replace(" (", "\n(") for text in row))
    return table


def to_markdown(grid: Grid) -> str:
    """Return a grid as a Markdown table under its title."""
    lines = [grid.heading, tuple("---" for _ in grid.heading), *grid.rows]
    return f"{grid.title[0].upper()}{grid.title[1:]}:\n\n" + "\n".join(f"| {' | '.join(line)} |" for line in lines)


def of_failures(counted: classes.Counted, over: str = "") -> list[Grid]:
    """Return the table of why tasks failed, by way of tuning or of playing; none where nothing was played.

    `over` says what was played, if not all that the claim asks.
    """
    heading, rows = classes.shares({name: told for name, told in counted.items() if told[1]})
    title = f"why tasks failed{over}, % of the tasks that an arm played, by class"
    return [Grid(title, ("arm", *heading), tuple(rows))] if rows else []
