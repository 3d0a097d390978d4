"""Checks what several strategies ask of their settings."""

from __future__ import annotations

from rolecraft.errors import SettingsError


def require(strategy: str, *, least: dict[str, tuple[float, float]]) -> None:
    """Raise SettingsError for a setting of the strategy (its value and the least it may be) that is too small."""
    for name, (value, bound) in least.items():
        if not value >= bound:
            raise SettingsError(f"{strategy}.{name} is {value!r}; it must be at least {bound:g}")
