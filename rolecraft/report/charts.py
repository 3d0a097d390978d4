"""Draws bars and curves as inline SVG that follows the page's colours and width; labels are HTML beside the drawing.

Not covered: interaction, and anything that would need a chart library.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape

from rolecraft.scores import Score, Scores
from rolecraft.types import Json

Points = list[tuple[float, float]]
"""(step, value) pairs in the order of steps."""

_POINTS = 400  # points of one curve; more would be finer than the screen
_DRAWN = 1e100  # what is larger would overflow the axis, and spans below its inverse underflow
_COLOURS = {"reasoner": 0, "assistant": 0, "executor": 1, "caller": 1, "summarizer": 2, "planner": 4, "checker": 5}


@dataclass(frozen=True, slots=True)
class Bar:
    """One bar: `share` and `interval` are of the full width, 0..1; `value` is printed beside it."""

    label: str
    share: float
    value: str
    colour: int = 0
    interval: tuple[float, float] | None = None
    href: str = ""

    def html(self) -> str:
        """Return the bar as a row of a `bars` grid: label, drawing, value."""
        label = f'<a href="{escape(self.href)}">{escape(self.label)}</a>' if self.href else escape(self.label)
        drawn = f'<rect class="k{self.colour}" width="{_percent(self.share)}" y="3" height="10" rx="3"/>'
        if self.interval is not None:
            low, high = map(_percent, self.interval)
            drawn += f'<line class="whisker" x1="{low}" x2="{high}" y1="8" y2="8"/>'
            drawn += "".join(f'<line class="whisker" x1="{x}" x2="{x}" y1="4" y2="12"/>' for x in (low, high))
        svg = f'<svg aria-hidden="true"><rect class="track" width="100%" y="3" height="10" rx="3"/>{drawn}</svg>'
        cells = (("label", label), ("bar", svg), ("value", escape(self.value)))
        return '<div class="row">' + "".join(f'<div class="{name}">{cell}</div>' for name, cell in cells) + "</div>"


def bar_card(title: str, bars: Sequence[Bar]) -> str:
    """Return bars under a title."""
    drawn = "".join(bar.html() for bar in bars)
    return f'<div class="card"><h3>{escape(title)}</h3><div class="bars">{drawn}</div></div>'


def score_card(title: str, found: Mapping[str, Score | Scores], colours: Mapping[str, int]) -> str:
    """Return the card that compares rows; n stands in its title, or beside the rows where they differ."""
    sizes = {f.n for f in found.values()}
    same = f", n {sizes.pop()}" if len(sizes) == 1 else ""
    bars = [_score_bar(name if same else f"{name}, n {f.n}", f, colours[name]) for name, f in found.items()]
    return bar_card(title + same, bars)


def _score_bar(name: str, found: Score | Scores, colour: int) -> Bar:
    low, high = found.interval
    value = f"{100 * found.score:.1f} ({100 * low:.0f}\u2013{100 * high:.0f})"
    return Bar(name, found.score, value, colour, found.interval)


def heat_map(title: str, rows: Mapping[str, Mapping[str, Sequence[float]]]) -> str:
    """Draw shares in 0..1 as shaded cells: a row for each key, in it a group of cells for each key of the row."""
    groups = list(dict.fromkeys(name for row in rows.values() for name in row))
    widths = {name: max(len(row.get(name, ())) for row in rows.values()) for name in groups}
    head = "".join(f'<th colspan="{widths[name]}" scope="colgroup">{escape(name)}</th>' for name in groups)
    body = "".join(
        f'<tr><th scope="row">{escape(label)}</th>'
        + "".join(_heat_cells(f"{label}, {name}", row.get(name, ()), widths[name]) for name in groups)
        + "</tr>"
        for label, row in rows.items()
    )
    return (
        f'<figure><figcaption>{escape(title)}</figcaption><div class="wide"><table class="heat">'
        f"<thead><tr><td></td>{head}</tr></thead><tbody>{body}</tbody></table></div></figure>"
    )


def _heat_cells(where: str, values: Sequence[float], width: int) -> str:
    told = [
        f'<td style="--v:{100 * min(1.0, max(0.0, value)):.0f}%" title="{escape(where)}, LoRA {place}: {value:.2f}">'
        f"<span>{value:.2f}</span></td>"
        for place, value in enumerate(values)
    ]
    return "".join(told) + "<td></td>" * (width - len(told))


def fold(title: str, html: str, *, unfolded: bool = False) -> str:
    """Return `html` behind a heading that opens it."""
    return f"<details{' open' * unfolded}><summary>{escape(title)}</summary>{html}</details>"


def series(rows: Iterable[Mapping[str, Json]]) -> dict[str, Points]:
    """Return each numeric metric as (step, value) points; nested ones get joined names, NaN no point."""
    found: dict[str, Points] = {}
    for index, row in enumerate(rows):
        step = dict(_flat(row)).get("step", float(index))
        for name, value in _flat(row):
            if name not in ("step", "epoch", "time") and abs(value) < _DRAWN:  # not so for NaN
                found.setdefault(name, []).append((step, value))
    return found


def _flat(row: Mapping[str, Json], prefix: str = "") -> Iterable[tuple[str, float]]:
    for name, value in row.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}/")
        elif isinstance(value, int | float) and not isinstance(value, bool):
            yield f"{prefix}{name}", float(value)


def curve(title: str, series: Mapping[str, Points]) -> str:
    """Draw series over one pair of axes; each as its own faint points and, where there are many, a smoothed line."""
    xs = [x for points in series.values() for x, _ in points]
    ys = [y for points in series.values() for _, y in points]
    left, right = min(xs), max(xs) if max(xs) > min(xs) else min(xs) + 1
    low, high = min(0.0, *ys), max(0.0, *ys) * 1.05
    high = high if high - low > 1 / _DRAWN else low + 1
    ticks = _ticks(low, high)
    lines = "".join(f'<line x1="0" x2="1000" y1="{_place(t, high, low)}" y2="{_place(t, high, low)}"/>' for t in ticks)
    legend = []
    for i, (name, points) in enumerate(sorted(series.items(), key=lambda item: (len(item[0]), item[0]))):
        colour = _series_colour(name, i)
        thin = [(_place(x, left, right), _place(y, high, low)) for x, y in _thinned(points)]
        smooth = _smoothed(thin)
        if smooth != thin:
            lines += f'<polyline class="raw k{colour}" style="fill:none" points="{_path(thin)}"/>'
        lines += f'<polyline class="k{colour}" style="fill:none" points="{_path(smooth)}"/>'
        swatch = f'<svg aria-hidden="true"><rect class="k{colour}" width="18" height="4" y="3" rx="2"/></svg>'
        legend.append(f"<li>{swatch}{escape(name)} <b>{number(points[-1][1])}</b> at the end</li>")
    return (
        f'<figure><figcaption>{escape(title)}</figcaption><ul class="legend">{"".join(legend)}</ul>'
        f'<div class="curve"><div class="axis y">{_labels(ticks, "top", high, low)}</div>'
        '<div class="plot"><svg viewBox="0 0 1000 1000" preserveAspectRatio="none" aria-hidden="true">'
        f"{lines}</svg></div>"
        f'<div class="axis x">{_labels(_ticks(left, right), "left", left, right)}</div></div></figure>'
    )


def _labels(ticks: Sequence[float], side: str, start: float, end: float) -> str:
    return "".join(f'<span style="{side}:{_place(t, start, end) / 10:.2f}%">{number(t)}</span>' for t in ticks)


def _series_colour(name: str, index: int) -> int:
    """Give roles the colour they have in the conversations, the whole the colour of ink."""
    if name in ("loss", "train_loss"):
        return 9
    return next((colour for role, colour in _COLOURS.items() if role in name), index % 6)


def _place(value: float, start: float, end: float) -> float:
    """Return where `value` lies between `start` (0) and `end` (1000)."""
    return round(1000 * (value - start) / (end - start), 1) if end != start else 500.0


def _path(points: Points) -> str:
    return " ".join(f"{x:g},{y:g}" for x, y in points)


def _thinned(points: Points) -> Points:
    """Return at most _POINTS points, each the mean of its stretch."""
    size = math.ceil(len(points) / _POINTS)
    stretches = [points[i : i + size] for i in range(0, len(points), size)]
    return [(sum(x for x, _ in s) / len(s), sum(y for _, y in s) / len(s)) for s in stretches]


def _smoothed(points: Points) -> Points:
    """Return the mean over about a twentieth of the points around each; few points stay as they are."""
    reach = len(points) // 40
    windows = [points[max(0, i - reach) : i + reach + 1] for i in range(len(points))]
    return [(x, round(sum(y for _, y in w) / len(w), 1)) for (x, _), w in zip(points, windows, strict=True)]


def _ticks(low: float, high: float) -> list[float]:
    """Return up to six round numbers within low..high."""
    span = high - low
    power = 10.0 ** math.floor(math.log10(span / 4))
    step = next(power * m for m in (1, 2, 5, 10) if span / (power * m) <= 5)
    return [round(i * step, 12) for i in range(math.ceil(low / step), math.floor(high / step) + 1)]


def _percent(share: float) -> str:
    return f"{100 * min(1.0, max(0.0, share)):.2f}%"


def number(value: float) -> str:
    """Return a number as people read it, to three digits."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
