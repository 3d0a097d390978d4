"""The sandbox's contract: limits that bound something, back ends found by name."""

from __future__ import annotations

import pytest

from rolecraft import sandbox
from rolecraft.errors import NotFound, SettingsError
from rolecraft.sandbox import Limits


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("seconds", 0),
        ("seconds", float("nan")),
        ("memory_mb", 0),
        ("output_bytes", 0),
        ("file_mb", -1),
        ("processes", -1),
    ],
)
def test_limits_that_bound_nothing_are_refused(name: str, value: float):
    with pytest.raises(SettingsError, match=rf"Limits\.{name} is {value!r}"):
        Limits(**{name: value})


def test_limits_beyond_reason_are_refused():
    with pytest.raises(SettingsError, match=r"Limits\.memory_mb is 1099511627776; it must lie in 8 to"):
        Limits(memory_mb=1 << 40)


def test_an_unknown_back_end_is_told():
    with pytest.raises(NotFound, match=r"no 'proces' in sandbox/: it has process\. Did you mean 'process'\?"):
        sandbox.open_session(backend="proces")


def test_layers_are_named():
    assert set(sandbox.layers()) >= {"userns", "mounts", "landlock", "seccomp", "rlimits"}
    assert all(isinstance(held, bool) for held in sandbox.layers().values())
