"""Which tuned model plays which role, where each role has one of its own (alpha-UMi's three models).

A folder with `cast.json` is given wherever an adapter's is: it names, for each role of a team, a folder inside it that
tuning wrote, be it an adapter or a whole model. Not covered: models that lie elsewhere, for a folder may be moved.
"""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from rolecraft import parsing, store
from rolecraft.errors import ContractError, SettingsError
from rolecraft.settings import from_dict

FILE = "cast.json"


@dataclass(frozen=True, slots=True)
class Cast:
    """The folder of each role's model, seen from that of `cast.json`; several roles may share one."""

    roles: Mapping[str, str]


def read(folder: Path) -> Cast | None:
    """Return who plays what in a folder, None if it has no `cast.json`; raises ContractError for one that is amiss."""
    path = folder / FILE
    if not path.is_file():
        return None
    try:
        cast = from_dict(Cast, parsing.read_json(path), "cast")
    except SettingsError as error:
        raise ContractError(f"{path}: it tells no role's model ({error}); restore the file or tune again") from error
    if not cast.roles:
        raise ContractError(f"{path}: it has no roles; restore the file or tune again")
    for role, place in cast.roles.items():
        if not _is_inside(place):
            raise ContractError(f"{path}: the model of {role!r} is in {place!r}, which is no folder beside it")
    return cast


def folders(cast: Cast, folder: Path) -> dict[str, Path]:
    """Return the folder of each role's model."""
    return {role: folder / place for role, place in cast.roles.items()}


def save(cast: Cast, folder: Path) -> None:
    """Write `cast.json` into a folder, whole or not at all."""
    with store.atomic(folder / FILE) as unfinished:
        unfinished.write_text(json.dumps(dataclasses.asdict(cast), indent=2) + "\n", encoding="utf-8")


def _is_inside(place: object) -> bool:
    return isinstance(place, str) and not os.path.isabs(place) and os.path.normpath(place).split(os.sep)[0] != ".."
