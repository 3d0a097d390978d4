"""When a policy has collapsed, and that one which learns has not."""

from __future__ import annotations

import pytest

from rolecraft.errors import SettingsError
from rolecraft.reinforcement import Collapse
from rolecraft.train import collapse

TOLD = Collapse(window=2)


def history(**series: list[float]) -> dict[str, list[float]]:
    return {"entropy": [0.1] * 4, "calls": [2.0] * 4, "reward": [0.5] * 4, "kl": [0.1] * 4, **series}


def test_a_policy_that_stays_or_rises_has_not_collapsed():
    assert collapse.why(history(reward=[0.1, 0.1, 0.9, 0.9]), TOLD) == ""
    assert collapse.why(history(reward=[0.5, 0.5, 0.0]), TOLD) == ""  # too early to tell


@pytest.mark.parametrize(
    ("series", "told"),
    [
        ({"entropy": [0.1, 0.1, 0.001, 0.001]}, "a token's entropy fell from 0.1 to 0.001 nats over the last 2 steps"),
        ({"calls": [2.0, 2.0, 0.1, 0.1]}, "the calls an episode fell from 2 to 0.1"),
        ({"reward": [0.5, 0.5, 0.2, 0.2]}, "below 0.25; lower training.learning_rate"),
        ({"kl": [0.1, 0.1, 9.0, 9.0]}, "9 nats a token from where it began, over the last 2 steps, above 2"),
    ],
)
def test_each_kind_of_collapse_is_told_with_its_numbers(series, told):
    assert told in collapse.why(history(**series), TOLD)


def test_a_kind_of_which_nothing_need_be_left_is_not_watched():
    off = Collapse(window=2, entropy=0.0, calls=0.0, reward=0.0, kl=0.0)
    assert collapse.why(history(reward=[1.0, 1.0, 0.0, 0.0], kl=[9.0] * 4), off) == ""


def test_bounds_below_nothing_are_refused():
    with pytest.raises(SettingsError, match=r"reinforcement\.collapse\.calls is -1"):
        Collapse(calls=-1.0)
