"""Opens what plays: one model, or one for each role where the adapter's folder has a cast."""

from __future__ import annotations

from contextlib import ExitStack
from functools import partial
from pathlib import Path

from rolecraft import bases, cast, contract
from rolecraft.cast import Cast
from rolecraft.engine.by_role import RoleEngines
from rolecraft.engine.local import LocalEngine
from rolecraft.engine.settings import Settings, check
from rolecraft.engine.weights import Choice, choose
from rolecraft.model import Dtype, folds, load, load_config


def open_local(
    base: str,
    adapter: Path | None = None,
    dtype: Dtype = "float32",
    device: str = "cpu",
    settings: Settings = Settings(),
    *,
    renderer: str | Path | None = None,
    think: bool | None = None,
) -> LocalEngine | RoleEngines:
    """Load a model, its adapter merged if it can be, and return an engine on it, which closes itself after `with`.

    A folder with a cast (`cast.json`) is opened role by role, each on the base that its own contract names, else on
    `base`. `renderer` and `think` are `model.load`'s. Workers call this, so that no model has to be sent to a process.
    Raises what `model.load` raises.
    """
    check(settings)
    open_one = partial(_open, dtype=dtype, device=device, settings=settings, renderer=renderer, think=think)
    told = None if adapter is None else cast.read(adapter)
    if adapter is None or told is None:
        return open_one(base, adapter)
    opened = dict[Path, LocalEngine]()
    with ExitStack() as stack:
        for folder in cast.folders(told, adapter).values():
            if folder not in opened:
                opened[folder] = stack.enter_context(open_one(_base_of(folder, base), folder))
        engines = RoleEngines(_by_role(told, adapter, opened), adapter)
        stack.pop_all()
    return engines


def _by_role(told: Cast, folder: Path, opened: dict[Path, LocalEngine]) -> dict[str, LocalEngine]:
    return {role: opened[place] for role, place in cast.folders(told, folder).items()}


def _base_of(folder: Path, base: str) -> str:
    made = contract.read(folder)
    return base if made is None else contract.base_of(made, folder)


def _open(
    base: str,
    adapter: Path | None,
    dtype: Dtype,
    device: str,
    settings: Settings,
    *,
    renderer: str | Path | None,
    think: bool | None,
) -> LocalEngine:
    """Load one model, its adapter merged if it can be, and return an engine on it."""
    choice = Choice(None)
    if settings.weights != "float32":
        choice = choose(
            settings.weights, load_config(bases.source(base, adapter)), settings.max_requests, dtype, device
        )
    # What is packed is read as it is stored, so that it is never held in float32; an adapter merged into it would be
    # rounded with it.
    merge = choice.kind is None and adapter is not None and folds(adapter)
    kind: Dtype = dtype if choice.kind is None else "stored"
    loaded = load(base, dtype=kind, adapter=adapter, renderer=renderer, think=think, device=device, merge=merge)
    return LocalEngine(loaded, settings, choice)
