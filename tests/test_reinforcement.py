"""What reinforcement is told: settings that cannot be meant are refused."""

from __future__ import annotations

from typing import Any

import pytest

from rolecraft.errors import SettingsError
from rolecraft.reinforcement import read_reinforcement


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"values": {"gamma": 2.0}}, "values.gamma is 2.0; it must be from 0 to 1"),
        ({"values": {"lam": 7.0}}, "values.lam is 7.0; it must be from 0 to 1"),
        ({"values": {"clip": -1.0}}, "values.clip is -1.0; it must be at least 0"),
        ({"step_gamma": -3.0}, "step_gamma is -3.0; it must be from 0 to 1"),
        ({"keep": 5.0}, "keep is 5.0; it must be from 0 to 1"),
        ({"clip_low": 2.0}, "clip_low is 2.0; it must be above 0 and at most 1"),
        ({"clip_high": 0.0}, "clip_high is 0.0; it must be above 0"),
        ({"objective": "ppo", "resample": 1}, "resample is 1; ppo compares no groups"),
        ({"objective": "rejection", "resample": 1}, "resample is 1; rejection compares no groups"),
    ],
)
def test_a_setting_that_cannot_be_meant_is_refused_by_name(changes: dict[str, Any], told: str):
    with pytest.raises(SettingsError) as caught:
        read_reinforcement({"reinforcement": changes})
    assert told in str(caught.value)


def test_the_bounds_themselves_are_taken():
    bounds = {"clip_low": 1.0, "keep": 0.0, "step_gamma": 0.0, "values": {"gamma": 1.0, "lam": 0.0, "clip": 0.0}}
    assert read_reinforcement({"reinforcement": bounds}) is not None
