from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rolecraft.engine.sampling import sample


def test_greedy_takes_the_likeliest_and_tells_how_likely():
    logits = torch.randn(5, 11)
    ids, logprobs = sample(logits, [0.0] * 5, [1.0] * 5, [0.0] * 5)
    assert ids == logits.argmax(-1).tolist()
    assert logprobs == pytest.approx(logits.log_softmax(-1).amax(-1).tolist(), abs=1e-5)


def test_logprobs_ignore_temperature_and_top_p():
    logits = torch.randn(1, 11)
    (token,), (logprob,) = sample(logits, [3.0], [0.7], [0.5])
    assert logprob == pytest.approx(float(logits.log_softmax(-1)[0, token]), abs=1e-5)


@given(st.floats(0.2, 3.0), st.floats(0.05, 1.0))
def test_points_fall_on_tokens_as_often_as_they_are_likely(temperature, top_p):
    logits = torch.tensor([[2.0, 1.0, 0.0, -1.0]])
    chances = (logits[0].double() / temperature).softmax(-1).tolist()
    kept, total = [], 0.0
    for chance in chances:
        kept.append(chance if total < top_p else 0.0)
        total += chance
    count = 400
    ids, _ = sample(logits.expand(count, 4), [temperature] * count, [top_p] * count, [i / count for i in range(count)])
    for token, chance in enumerate(kept):
        assert math.isclose(ids.count(token) / count, chance / sum(kept), abs_tol=2 / count)
        assert chance > 0 or token not in ids


def test_a_draw_does_not_depend_on_its_neighbours():
    logits = torch.randn(3, 50)
    temperatures, top_ps, points = [0.0, 1.3, 0.7], [1.0, 0.8, 1.0], [0.0, 0.93, 0.21]
    together = sample(logits, temperatures, top_ps, points)[0]
    alone = [
        sample(logits[b : b + 1], temperatures[b : b + 1], top_ps[b : b + 1], points[b : b + 1])[0][0] for b in range(3)
    ]
    assert together == alone
