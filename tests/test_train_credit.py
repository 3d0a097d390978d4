"""What replies earned, worked out by hand: by trajectory, by role, by turn, and by states that were met again."""

from __future__ import annotations

import math

import pytest

from rolecraft.advantages import EPSILON
from rolecraft.reinforcement import ReinforcementSettings
from rolecraft.train import credit
from rolecraft.train.credit import Try
from rolecraft.types import Message, Task, Trajectory, Turn, Verdict


def tried(group: int, reward: float, *speakers: str, states: tuple[str, ...] = ()) -> Try:
    turns = tuple(Turn(Message("assistant", "x", speaker=who), who) for who in speakers)
    verdict = Verdict(reward, parts={"task": reward})
    return Try(Trajectory("t", Task("t", ()), (), turns, verdict=verdict), group, reward, states)


def told(**changes) -> ReinforcementSettings:
    return ReinforcementSettings(**{"normalise": "sum", **changes})


NORMAL = 0.5 / (math.sqrt(0.5) + EPSILON)
"""The advantage of 1 beside 0."""


def test_every_reply_of_a_try_has_its_advantage():
    tries = [tried(0, 1.0, "a", "b"), tried(0, 0.0, "a"), tried(1, 0.5, "a"), tried(1, 0.5, "a", "b", "b")]
    found = credit.earned(tries, told())
    assert found == [[pytest.approx(NORMAL)] * 2, [pytest.approx(-NORMAL)], [0.0], [0.0] * 3]
    assert credit.flat(tries) == {1}


def test_a_role_is_compared_with_the_same_role_only():
    tries = [tried(0, 1.0, "a", "b"), tried(0, 0.0, "a"), tried(0, 1.0, "b")]
    found = credit.earned(tries, told(per="role"))
    assert found == [[pytest.approx(NORMAL), 0.0], [pytest.approx(-NORMAL)], [0.0]]


def test_a_turn_is_compared_with_the_same_role_s_same_reply():
    tries = [tried(0, 1.0, "a", "b", "a"), tried(0, 0.0, "a", "b")]
    found = credit.earned(tries, told(per="turn"))
    assert found == [[pytest.approx(NORMAL), pytest.approx(NORMAL), 0.0], [pytest.approx(-NORMAL)] * 2]


def test_gigpo_adds_how_a_reply_fared_among_those_of_its_state():
    """Both begin in s; one goes by u, the other by v, where nobody else was; rewards 1 and 0, discounted by half."""
    tries = [tried(0, 1.0, "a", "a", states=("s", "u")), tried(0, 0.0, "a", "a", states=("s", "v"))]
    found = credit.earned(tries, told(objective="gigpo", step_weight=2.0, step_gamma=0.5))
    own = 0.25 / (math.sqrt(0.125) + EPSILON)  # 0.5 beside 0
    assert found[0] == [pytest.approx(NORMAL + 2 * own), pytest.approx(NORMAL)]
    assert found[1] == [pytest.approx(-NORMAL - 2 * own), pytest.approx(-NORMAL)]


@pytest.mark.parametrize(("scale", "own"), [("none", 0.25), ("batch", 0.25 / (math.sqrt(2.75 / 12) + EPSILON))])
def test_what_replies_earn_is_divided_as_what_episodes_earn(scale, own):
    """What follows the four replies is 0.5, 1, 0 and 0: in all they deviate by the root of 2.75 / 12."""
    tries = [tried(0, 1.0, "a", "a", states=("s", "u")), tried(0, 0.0, "a", "a", states=("s", "v"))]
    found = credit.earned(tries, told(objective="gigpo", scale=scale, step_gamma=0.5))
    assert found[0][0] - found[0][1] == pytest.approx(own)


def test_layers_are_normalised_each_by_itself():
    """A layer whose differences are tiny says as much as one whose are large, times its weight."""
    tries = []
    for form, done in ((0.5, 1.0), (0.51, 0.0)):
        one = tried(0, done, "a")
        verdict = Verdict(done, parts={"format": form, "task": done})
        tries.append(Try(Trajectory("t", Task("t", ()), (), one.episode.turns, verdict=verdict), 0, done))
    (first,), (second,) = credit.earned(tries, ReinforcementSettings())
    assert first > 0 > second  # the task weighs more than the form
    assert first == pytest.approx(-second)
