"""Tell what a recipe's or a file's rows are, and what they share with the tasks that measure a training."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rolecraft.commands import _overrides

if TYPE_CHECKING:
    from rich.table import Table

    from rolecraft.curate import Told
    from rolecraft.leakage import Found
    from rolecraft.recipe import DataSettings

GROUP = "tuning"

_ROWS = (".jsonl", ".json")
_NAMES = 40  # shown; all of them with --json


def options(parser: argparse.ArgumentParser) -> None:
    """Add the verb's options."""
    parser.add_argument("data", help="a recipe, or a JSONL or JSON file or a folder of rows")
    _overrides.add(parser, "SECTION.KEY=VALUE", "change a setting of the recipe", beside="data")
    text = "the format of a file's rows: openai, glaive, sgd, ... (default: openai)"
    parser.add_argument("--importer", metavar="FORMAT", help=text)
    text = "look for what the rows share with tasks, such as sgd:test+ask; may be repeated; exit code 1 if they leak"
    parser.add_argument("--against", metavar="BENCHMARK:SPLIT", action="append", default=[], help=text)
    parser.add_argument(
        "--output", type=Path, metavar="FILE", help="write the rows as JSONL, to look at or to train on"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object as the last line")


def run(options: argparse.Namespace) -> int:
    """Print a table of the rows by source, and one of what leaks."""
    from rich.console import Console

    from rolecraft import curate, leakage, store, wire

    console = Console(stderr=options.json)
    data = _data(options)
    curate.check(data.sources, data.without)
    columns = [curate.column(name) for named in options.against for name in _splits(named)]
    rows, told = curate.mix(data.sources, data.size, data.seed, data.without, data.group)
    console.print(_rows_table(told))
    found = leakage.check(rows, columns)
    if columns:
        console.print(_leak_table(found))
        for line in _lines(found):
            console.print(line, markup=False, soft_wrap=True)
    if options.output:
        written = store.write_jsonl(options.output, (wire.trajectory_to_json(row) for row in rows))
        console.print(f"{written:,} rows: {options.output}", markup=False)
    if options.json:
        print(json.dumps({"sources": list(map(_plain, told)), "columns": list(map(_plain, found))}))
    return int(any(one.counts for one in found))


def _plain(counted: Told | Found) -> dict[str, Any]:
    return {one.name: getattr(counted, one.name) for one in fields(counted)}


def _splits(named: str) -> list[str]:
    name, _, splits = named.partition(":")
    return [f"{name}:{split}" for split in splits.split("+")]


def _data(options: argparse.Namespace) -> DataSettings:
    """Return a recipe's sources with all that is told of them, or those of one file."""
    from rolecraft import curate, recipe
    from rolecraft.errors import SettingsError

    path = Path(options.data)
    if path.is_dir() or path.suffix in _ROWS:
        if options.set:
            raise SettingsError(f"{options.set[0]!r} changes a recipe, and {options.data!r} is a file of rows")
        return recipe.DataSettings(sources=(curate.Source(options.data, options.importer),))
    data = recipe.load_data(recipe.find_recipe(options.data), options.set)
    if data.sources:
        return data
    if not data.path:
        raise SettingsError(f"{options.data!r} names no file or sources of rows; a benchmark makes its own by playing")
    importer = str(data.importer) if data.importer else None
    return recipe.DataSettings(sources=(curate.Source(data.path, importer, on_bad_row=data.on_bad_row),))


def _rows_table(told: Iterable[Told]) -> Table:
    from rich.table import Table

    table = Table(title="rows by source", title_justify="left")
    for name in ("source", "rows", "kept", "calls", "tools", "drawn", "dropped", "why"):
        table.add_column(name, justify="left" if name in ("source", "why") else "right", overflow="fold")
    for one in told:
        dropped = one.dropped.most_common() or [("", 0)]
        counts = [f"{number:,}" for number in (one.rows, one.kept, one.calls, one.tools, one.drawn)]
        for place, (reason, count) in enumerate(dropped):
            cells = [one.name, *counts] if place == 0 else [""] * 6
            table.add_row(*cells, f"{count:,}", reason)
    return table


def _leak_table(found: Iterable[Found]) -> Table:
    from rich.table import Table

    from rolecraft.leakage import KINDS

    table = Table(title="on both sides (of columns that are seen, requests alone)", title_justify="left")
    for name in ("column", "tasks", *KINDS):
        table.add_column(name, justify="left" if name == "column" else "right")
    for one in found:
        table.add_row(one.column, f"{one.tasks:,}", *(f"{one.counts[kind]:,}" for kind in KINDS))
    return table


def _lines(found: Iterable[Found]) -> Iterable[str]:
    """Yield the first of each kind, and the names that recur."""
    for one in found:
        for kind, first in one.first.items():
            more = one.counts[kind] - len(first)
            yield f"{one.column}: {kind}: {'; '.join(first)}{f'; and {more:,} more' if more else ''}"
        names: dict[str, Any] = {"tool names that recur": one.tools, "parameter names that recur": one.parameters}
        for what, recurring in names.items():
            if recurring:
                more = len(recurring) - _NAMES
                yield (
                    f"{one.column}: {what} (no leak): {', '.join(recurring[:_NAMES])}"
                    f"{f' and {more:,} more' if more > 0 else ''}"
                )
