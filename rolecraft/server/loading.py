"""Opens the engines that a server needs: the team's, with its adapter, and the untuned base's beside it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path

from rolecraft.bases import identity
from rolecraft.engine import LocalEngine, RoleEngines
from rolecraft.memory import Folding
from rolecraft.model import Loaded
from rolecraft.server.models import LoadedEngine, OpenTools, ServedModel, served_models
from rolecraft.team import Team

OpenEngine = Callable[[Path | None], AbstractContextManager[LocalEngine | RoleEngines]]
"""Opens an engine on the base, with the adapter if there is one."""


@contextmanager
def open_models(
    base: str,
    adapter: Path | None,
    team: Team,
    open_engine: OpenEngine,
    *,
    with_base: bool = True,
    open_tools: OpenTools | None = None,
    fold: int | None = None,
) -> Iterator[tuple[ServedModel, ...]]:
    """Yield the models to serve, and close their engines afterwards.

    An adapter changes the base it is put on, so serving the base as well takes the memory of a second one; without
    `with_base` it is left out. `open_tools`: see `served_models`. `fold`: the tokens of a prompt beyond which the
    oldest observations are folded (None: never).
    """
    with ExitStack() as stack:
        tuned = _loaded(stack.enter_context(open_engine(adapter)), fold)
        untuned = tuned if adapter is None else None
        if adapter is not None and with_base:
            untuned = _loaded(stack.enter_context(open_engine(None)), fold)
        yield served_models(_name(base), team, tuned, untuned, open_tools)


def _name(base: str) -> str:
    """Return what a model is called to clients: of a folder only its name, wherever it lies."""
    folder = Path(base).expanduser()
    return folder.resolve().name if folder.is_dir() else base


def _loaded(engine: LocalEngine | RoleEngines, fold: int | None) -> LoadedEngine:
    loaded = engine.loaded
    return LoadedEngine(
        engine if fold is None else Folding(engine, fold),
        loaded.renderer,
        _fingerprint(loaded),
        tuned=loaded.adapter is not None,
        context=engine.context,
        switches=bool(loaded.switch),
        weights=loaded.weights,
    )


def _fingerprint(loaded: Loaded) -> str:
    weights = f"{loaded.weights} {identity(loaded.name, loaded.adapter)}"
    return f"fp_{hashlib.sha256(weights.encode()).hexdigest()[:12]}"
