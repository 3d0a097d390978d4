"""Turns run folders into one self-contained HTML page: scores, curves, failures, costs and every trajectory.

The page asks nothing of the network. Text written by models and tools is hostile: in the page it is JSON that cannot
end its script element, it reaches the screen through text nodes only, and a policy in the page forbids other scripts.
Not covered: pages for more than some ten thousand trajectories (`limit` bounds them), and comparisons over time.
"""

from __future__ import annotations

import base64
import hashlib
import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from html import escape
from importlib.resources import files
from pathlib import Path
from urllib.parse import quote

import yaml

from rolecraft.errors import NotFound
from rolecraft.judges import failures, replies
from rolecraft.report import calling, charts, classes, columns, figures
from rolecraft.report.columns import Played
from rolecraft.scores import Scores, family, paired
from rolecraft.store import Run, atomic
from rolecraft.types import Json, Message, ToolSpec, Trajectory, Turn, Verdict

_TEXT = 20_000  # characters of one message that the page carries; a cut is told
_SHOWN = 600  # characters of one value of a reference: what opens and judges a task can be long
_COSTS = {
    "prompt": "tokens read",
    "computed": "of them computed",
    "completion": "tokens written",
    "seconds": "seconds",
    "model_calls": "model calls",
    "tool_calls": "tool calls",
}


def write(folders: Sequence[Path], path: Path, *, title: str = "", limit: int = 10_000) -> Path:
    """Write the page about all runs in `folders` and below them to `path`, and return `path`.

    The page carries at most `limit` trajectories of each run, and says so where it left some out; scores count all.
    Raises NotFound when no folder holds a run.
    """
    runs = [Run(found) for folder in folders for found in _run_folders(folder)]
    if not runs:
        raise NotFound(f"no run in {', '.join(repr(str(f)) for f in folders)}; give a folder that a command wrote")
    played = columns.distinct([(run, p) for run in runs if (p := columns.read(run)) is not None])
    template = files("rolecraft.report").joinpath("report.html.in").read_text(encoding="utf-8")
    script = files("rolecraft.report").joinpath("report.js").read_text(encoding="utf-8")
    sections = [s for s in (*_results(played), _training(runs)) if s.html]
    tail = _origins(runs)
    linked = [*sections, _Section("trajectories", "Trajectories", ""), tail]
    title = title or f"Rolecraft: {folders[0].resolve().name}"
    parts = {
        "TITLE": escape(title),
        "HEAD": _head(runs, played),
        "NAV": "".join(f'<li><a href="#{s.id}">{s.title}</a></li>' for s in linked),
        "BODY": "\n".join(section.page() for section in sections),
        "TAIL": tail.page(),
        "FOOT": _left_out(played, limit),
        "DATA": _script_safe(_data(played, limit)),
        "SCRIPT": script,
        "SCRIPT_HASH": base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
    }
    # one pass, so that a text which holds a placeholder is not filled in again
    page = re.sub(r"@@([A-Z_]+)@@", lambda match: parts[match[1]], template)
    with atomic(path) as unfinished:
        unfinished.write_bytes(page.encode("utf-8", "replace"))
    return path


@dataclass(frozen=True, slots=True)
class _Section:
    """A part of the page; `html` is finished."""

    id: str
    title: str
    html: str

    def page(self) -> str:
        heading = f'<h2 id="h-{self.id}">{self.title}</h2>'
        return f'<section id="{self.id}" aria-labelledby="h-{self.id}">{heading}{self.html}</section>'


def _run_folders(folder: Path) -> list[Path]:
    """Return the folders at and below `folder` that hold a run, in the order they were made."""
    marks = ("trajectories.jsonl", "metrics.jsonl")
    found = {path.parent: path.stat().st_mtime for mark in marks for path in folder.rglob(mark)}
    return sorted(found, key=lambda path: (found[path], path))


def _head(runs: Sequence[Run], played: Sequence[Played]) -> str:
    n = sum(len(p.trajectories) for p in played)
    said = f'<p class="soft">Trajectories: {n:,}. Runs: {len(runs)}.</p>'
    commands = list(dict.fromkeys(str(run.lineage().get("command", "")) for run in runs))
    made = "".join(f'<pre class="command">{escape(command)}</pre>' for command in commands if command)
    return said + made + _tiles(played)


def _tiles(played: Sequence[Played]) -> str:
    """Show large the row with the best mean score, split by split, beside the best of the others."""
    rows = columns.rows(played)
    if not rows:
        return ""
    best = columns.best(rows)
    tiles = []
    for split, scores in rows[best].items():
        low, high = scores.interval
        others = [row[split].score for name, row in rows.items() if name != best and split in row]
        lead = f"{100 * (scores.score - max(others)):+.1f} points on the best other" if others else ""
        tiles.append(
            f'<div class="card tile"><span>{escape(f"{best}, {split}" if split else best)}</span>'
            f"<b>{100 * scores.score:.1f}<small> %</small></b>"
            f'<span class="small soft">{100 * low:.1f} to {100 * high:.1f} (95 %), n {scores.n}</span>'
            f'<span class="small soft">{lead}</span></div>'
        )
    return f'<div class="tiles">{"".join(tiles)}</div>'


def _results(played: Sequence[Played]) -> Iterable[_Section]:
    rows = columns.rows(played)
    if not rows:
        return
    colours = {name: i % 6 for i, name in enumerate(rows)}
    splits = list(dict.fromkeys(split for row in rows.values() for split in row))
    yield _Section("scores", "Scores", _score_cards(rows, splits, colours) + _comparisons(played))
    families = "".join(_family_cards(rows, split, colours, unfolded=split == splits[0]) for split in splits)
    yield _Section("families", "Families", families)
    yield _Section("failures", "Why tasks failed", _failure_cards(played, rows))
    yield _Section("calling", "How tools were called", calling.table({p.label: p.scores for p in played if p.scores}))
    yield _Section("costs", "Tokens and time per task", _cost_table(played))


def _score_cards(rows: Mapping[str, Mapping[str, Scores]], splits: Sequence[str], colours: Mapping[str, int]) -> str:
    found = {split: {name: row[split] for name, row in rows.items() if split in row} for split in splits}
    cards = [charts.score_card(split or "all tasks", row, colours) for split, row in found.items()]
    intro = "Share of tasks solved, in percent; the line is the 95 % interval."
    return f'<p class="soft">{intro}</p><div class="grid">{"".join(cards)}</div>'


def _family_cards(
    rows: Mapping[str, Mapping[str, Scores]], split: str, colours: Mapping[str, int], *, unfolded: bool
) -> str:
    row = {name: found[split] for name, found in rows.items() if split in found}
    names = sorted({family for scores in row.values() for family in scores.families})
    cards = [
        charts.score_card(family, {n: s.families[family] for n, s in row.items() if family in s.families}, colours)
        for family in names
    ]
    grid = f'<div class="grid">{"".join(cards)}</div>'
    return charts.fold(split, grid, unfolded=unfolded) if split else grid


def _failure_cards(played: Sequence[Played], rows: Mapping[str, Mapping[str, Scores]]) -> str:
    """Return one card for each run, folded by row; only the best row, whose failures are the ones to study, is open."""
    folds = []
    for name in rows:
        cards = "".join(_failure_card(p.label, p.scores) for p in played if p.name == name and p.scores is not None)
        folds.append(charts.fold(name, f'<div class="grid">{cards}</div>', unfolded=name == columns.best(rows)))
    meanings = "".join(f"<dt><b>{name}</b></dt><dd>It {meaning}.</dd>" for name, meaning in failures.CLASSES.items())
    legend = charts.fold("What the classes mean", f'<dl class="small">{meanings}</dl>')
    intro = "Each failed task is in exactly one class; choose one to read its trajectories."
    together = classes.table({p.label: p.scores for p in played if p.scores is not None})
    return f'<p class="soft">{intro}</p>{"".join(folds)}{together}{legend}'


def _failure_card(label: str, scores: Scores) -> str:
    failed, here = sum(scores.failures.values()), f"#run={quote(label, errors='replace')}&class="
    most_first = sorted(scores.failures.items(), key=lambda item: -item[1])
    bars = [charts.Bar(name, n / failed, str(n), 6, href=here + quote(name)) for name, n in most_first]
    return charts.bar_card(f"{label}: {failed} of {scores.n} failed", bars)


def _comparisons(played: Sequence[Played]) -> str:
    """Return the table that pairs the best row with every other one, on the tasks that both played."""
    rows = []
    for split in dict.fromkeys(p.split for p in played):
        there = [p for p in played if p.split == split and p.scores is not None]
        best = max(there, key=lambda p: p.scores.score if p.scores else 0.0, default=None)
        rows += [_comparison(other, best) for other in there if best is not None and other is not best]
    if not any(rows):
        return ""
    head = "<th>split</th><th>compared</th><th class=n>difference</th><th class=n>95 %</th><th class=n>p</th>"
    head += "<th class=n>better / worse / n</th><th>test</th>"
    return f"<h3>Paired on the same tasks</h3>{_table(head, rows)}"


def _comparison(other: Played, best: Played) -> str:
    judged = [[t for t in p.trajectories if t.verdict is not None] for p in (other, best)]
    if {t.task.id for t in judged[0]}.isdisjoint(t.task.id for t in judged[1]):
        return ""
    found = paired(*judged)
    low, high = found.interval
    p = "&lt; .0001" if found.p < 1e-4 else f"{found.p:.4f}"
    return (
        f"<tr><td>{escape(best.split or 'all')}</td><td>{escape(best.name)} against {escape(other.name)}</td>"
        f"<td class=n>{100 * found.difference:+.1f}</td><td class=n>{100 * low:+.1f} to {100 * high:+.1f}</td>"
        f"<td class=n>{p}</td><td class=n>{found.better} / {found.worse} / {found.n}</td><td>{found.test}</td></tr>"
    )


def _cost_table(played: Sequence[Played]) -> str:
    scored = [(p.label, asdict(p.scores.cost)) for p in played if p.scores is not None]
    head = "<th>run</th>" + "".join(f"<th class=n>{title}</th>" for title in _COSTS.values())
    rows = [
        f'<tr><td class="name">{escape(label)}</td>'
        + "".join(f"<td class=n>{charts.number(cost[key])}</td>" for key in _COSTS)
        + "</tr>"
        for label, cost in scored
    ]
    cards = ""
    for key in ("completion", "seconds"):
        most = max(cost[key] for _, cost in scored) or 1.0
        bars = [charts.Bar(label, cost[key] / most, charts.number(cost[key]), 6) for label, cost in scored]
        cards += charts.bar_card(_COSTS[key], bars)
    intro = "Means over tasks. Seconds add up a task's model calls; tasks played at once overlap."
    return f'<p class="soft">{intro}</p><div class="grid">{cards}</div>{_table(head, rows)}'


def _training(runs: Sequence[Run]) -> _Section:
    return _Section("training", "Training", "".join(figure for run in runs for figure in figures.of(run)))


def _origins(runs: Sequence[Run]) -> _Section:
    parts = []
    for run in runs:
        settings, lineage = run.settings(), run.lineage()
        found = [(name, value) for name, value in (("Settings", settings), ("Lineage", lineage)) if value]
        blocks = "".join(
            f"<h3>{name}</h3><pre>{escape(yaml.safe_dump(value, sort_keys=False, allow_unicode=True))}</pre>"
            for name, value in found
        )
        if blocks:
            parts.append(f'<details class="card slim"><summary>{escape(str(run.path))}</summary>{blocks}</details>')
    return _Section("origins", "Settings and lineage", "".join(parts) or '<p class="soft">None recorded.</p>')


def _data(played: Sequence[Played], limit: int) -> dict[str, Json]:
    """Return what the browser script reads; tools are stored once and named by their place."""
    tools: dict[str, tuple[int, ToolSpec]] = {}
    items = [
        {"run": number, **_item(trajectory, tools)}
        for number, p in enumerate(played)
        for trajectory in p.trajectories[:limit]
    ]
    runs = [p.label for p in played]
    shown = [[spec.name, spec.description, _text(spec.parameters)] for _, spec in tools.values()]
    return {"runs": runs, "classes": dict(failures.CLASSES), "tools": shown, "items": items}


def _item(trajectory: Trajectory, tools: dict[str, tuple[int, ToolSpec]]) -> dict[str, Json]:
    """Return what the page shows of a trajectory, its values as text already: a browser would round long numbers."""
    task, verdict = trajectory.task, trajectory.verdict or Verdict(math.nan)
    reference = {key: _text(value) for key, value in task.reference.items() if key != "calls"}
    calls = task.reference.get("calls")
    listed = calls if isinstance(calls, list | tuple) else ()
    places = [place for place, _ in replies(trajectory)]
    return {
        "id": trajectory.id,
        "family": family(trajectory),
        "score": _finite(verdict.score),
        "class": failures.failure(trajectory),
        "why": verdict.reason,
        "parts": [[name, _finite(value)] for name, value in verdict.parts.items()],
        "seed": str(trajectory.seed),
        "stop": trajectory.stop,
        "lineage": list(trajectory.lineage),
        "ask": next((m.content[:300] for m in reversed(task.messages) if m.role == "user"), ""),
        "messages": [_message(m) for m in trajectory.messages],
        "turns": [_turn(place, turn) for place, turn in zip(places, trajectory.turns, strict=False)],
        "tools": [tools.setdefault(_key(spec), (len(tools), spec))[0] for spec in task.tools],
        "calls": [_call(call.get("name"), call.get("arguments")) for call in listed if isinstance(call, Mapping)],
        "expected": [[key, text] for key, text in reference.items() if len(text) <= _SHOWN],
        "state": _cut(_text(trajectory.final_state)) if trajectory.final_state else "",
    }


def _message(message: Message) -> dict[str, Json]:
    calls = [_call(call.name, call.arguments) for call in message.tool_calls]
    unparsed = None if message.unparsed is None else _cut(message.unparsed)
    found: dict[str, Json] = {"speaker": message.speaker, "name": message.name, "calls": calls or None}
    found |= {"unparsed": unparsed, "failed": message.failed or None, "lenient": message.strict is not None or None}
    kept = {key: value for key, value in found.items() if value is not None}
    return {"role": message.role, "text": _cut(message.content), **kept}


def _call(name: Json, arguments: Json) -> list[Json]:
    """Return [name, [[parameter, value as text], ...]]; text of several lines stands as it is, else as JSON."""
    given = arguments if isinstance(arguments, Mapping) else {"arguments": arguments}
    lines = [isinstance(value, str) and "\n" in value for value in given.values()]
    texts = [str(v) if plain else _text(v) for v, plain in zip(given.values(), lines, strict=True)]
    return [str(name), [[str(key), _cut(text)] for key, text in zip(given, texts, strict=True)]]


def _key(spec: ToolSpec) -> str:
    return "\n".join((spec.name, spec.description, _text(spec.parameters, indent=None)))


def _turn(place: int, turn: Turn) -> list[Json]:
    used = turn.usage
    return [place, used.prompt, used.cached, used.completion or len(turn.token_ids), round(used.seconds, 4), turn.stop]


def _text(value: Json, indent: int | None = 2) -> str:
    nested = isinstance(
        value, Mapping | list | tuple
    )  # for others Python's slow writer, the one that indents, is waste
    try:
        return json.dumps(value, indent=indent if nested else None, ensure_ascii=False, default=str)
    except RecursionError:
        return "(nested too deep to show)"


def _cut(text: str) -> str:
    more = len(text) - _TEXT
    return text if more <= 0 else f"{text[:_TEXT]}\n[{more:,} more characters are in the run folder]"


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _script_safe(data: Json) -> str:
    """Return JSON that no HTML parser takes for markup, whatever text it holds."""
    text = json.dumps(data, separators=(",", ":"), allow_nan=False)
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")


def _left_out(played: Sequence[Played], limit: int) -> str:
    cut = sum(max(0, len(p.trajectories) - limit) for p in played)
    note = f" {cut} trajectories beyond the first {limit} of a run are left out of the browser." if cut else ""
    return f"Made by Rolecraft. This file is complete in itself and contacts nobody.{note}"


def _table(head: str, rows: Sequence[str]) -> str:
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{"".join(rows)}</tbody></table></div>'
