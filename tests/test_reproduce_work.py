"""What a tuning computes follows from the numbers that take part in it."""

from __future__ import annotations

import pytest

from rolecraft.recipe import read_recipe
from rolecraft.reproduce import work

NANO = 5 * (4 * 128 * 128 + 3 * 128 * 352)
"""The numbers of the base nano's matrices; its norms have few."""
ROLES = {"roles": {"reasoner": 1, "executor": 1, "summarizer": 1}, "router": False, "r": 16}
ROLES["top_k"] = {"reasoner": 0, "executor": 0, "summarizer": 0}


def lora(r: int) -> int:
    return r * 5 * (4 * 256 + 3 * (128 + 352))


def per_token(**adapter) -> float:
    return work.per_token(read_recipe({"adapter": adapter}))


def test_full_tuning_is_six_operations_for_each_number():
    assert per_token(name="full") == pytest.approx(6 * NANO, rel=0.15)  # embeddings get gradients too


def test_a_lora_adds_its_own_and_spares_the_base_s_gradients():
    assert per_token(name="lora", r=16) == pytest.approx(4 * NANO + 6 * lora(16), rel=0.02)


def test_of_role_loras_one_is_active_for_a_token():
    assert per_token(name="mor", **ROLES) == pytest.approx(per_token(name="lora", r=16))


def test_of_a_mixture_those_are_active_that_the_router_chooses():
    mixture = read_recipe({"adapter": {"name": "mor", "r": 4}})
    assert work.active(mixture) == pytest.approx((4 + 4 + 3) / 3 / 14)
