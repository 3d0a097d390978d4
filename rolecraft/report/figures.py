"""The training part of a report: curves of what a run logged, and which LoRAs its routers chose."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from rolecraft import adapters, parsing
from rolecraft.report.charts import curve, fold, heat_map, series
from rolecraft.store import Run

_PLACE = re.compile(r"\.(\d+)\.(?:.*\.)?(\w+)$")
"""A layer's number and the name of the projection in it, as in `model.layers.3.self_attn.q_proj`."""


def of(run: Run) -> list[str]:
    """Return the finished HTML of a run's figures, none for a run that logged nothing."""
    metrics = series(run.metrics())
    losses = {name: points for name, points in metrics.items() if "loss" in name and len(points) > 1}
    others = {name: points for name, points in metrics.items() if name not in losses and len(points) > 1}
    found = [f'<div class="card">{curve(f"{run.path.name}: loss by step", losses)}</div>'] if losses else []
    found += _router_loads(run)
    small = "".join(f'<div class="card">{curve(name, {name: points})}</div>' for name, points in others.items())
    if small:
        found.append(fold(f"Other metrics of {run.path.name}", f'<div class="grid">{small}</div>'))
    return found


def _router_loads(run: Run) -> list[str]:
    """Return a heat map for each role: rows are layers, cells the share of the role's tokens that chose each LoRA."""
    path = run.path / adapters.ROUTER_LOAD
    if not path.is_file():
        return []
    maps: dict[str, dict[str, dict[str, Sequence[float]]]] = {}
    loads: Mapping[str, Mapping[str, Sequence[float]]] = parsing.read_json(path)
    for layer, roles in loads.items():
        match = _PLACE.search(layer)
        row, cell = (f"layer {match[1]}", match[2]) if match else (layer, "")
        for role, shares in roles.items():
            maps.setdefault(role, {}).setdefault(row, {})[cell] = shares
    return [
        f'<div class="card">{heat_map(f"{run.path.name}: load of the routed LoRAs of the {role}", rows)}</div>'
        for role, rows in maps.items()
    ]
