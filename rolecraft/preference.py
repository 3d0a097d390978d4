"""What a recipe is told of preferences: pairs of actions from one state, of which the better is to become likelier.

Not covered: the loss (`policy_losses.dpo`), and where pairs come from (`train.pairs`, or a data file).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rolecraft.errors import SettingsError
from rolecraft.settings import from_dict


@dataclass(frozen=True, slots=True)
class PreferenceSettings:
    """Direct preference optimisation (DPO, arXiv 2305.18290): what is preferred gains on what is not.

    `beta` holds the policy near where it began: the larger, the nearer. With `by_length` a reply's log-ratio is its
    tokens' mean, so that no reply gains by being short or long (`beta` is then ten times as large or more).
    `likelihood` weighs the mean cross-entropy of preferred replies beside the loss, which alone lets both become less
    likely (arXiv 2404.19733).
    """

    beta: float = 0.1
    by_length: bool = False
    likelihood: float = 0.0

    def __post_init__(self) -> None:
        """Refuse what prefers nothing."""
        if not self.beta > 0:
            raise SettingsError(f"preference.beta is {self.beta}; it must be above 0")
        if not self.likelihood >= 0:
            raise SettingsError(f"preference.likelihood is {self.likelihood}; it must be at least 0")


def read_preference(sections: Mapping[str, Any], where: str) -> PreferenceSettings | None:
    """Return the section of a recipe's sections, which may be empty; None where there is none.

    An experience whose update is preference implies it. Raises SettingsError for data that are no pairs.
    """
    played = sections.get("experience") or {}
    prefers = played.get("update") == "preference"
    if "preference" not in sections and not prefers:
        return None
    if played and not prefers:
        raise SettingsError(
            f"{where} has preference, and its experience.update is {played.get('update', 'supervised')!r}; set that to "
            "preference, or leave the section preference out"
        )
    _require_pairs(sections, where, prefers)
    return from_dict(PreferenceSettings, sections.get("preference"), "preference")


def _require_pairs(sections: Mapping[str, Any], where: str, played: bool) -> None:
    data = sections.get("data") or {}
    for name in ("importer", "sources", "without") + (() if played else ("benchmark",)):
        if data.get(name):
            raise SettingsError(
                f"{where} has preference, and data.{name}, which gives no pairs; name a file of pairs in data.path"
            )
    for name, most in (("group", 1), ("validation", 0)):
        if data.get(name, most) > most:
            raise SettingsError(f"{where} has preference, which takes no data.{name}; leave it out")
