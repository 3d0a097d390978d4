from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rolecraft.engine.sampling import Draw, _open, chances, likeliest, sample

LOGITS = torch.tensor([[2.0, 1.0, 0.0, -1.0]])


def drawn(draw: Draw, count: int = 400) -> list[int]:
    """Return the tokens that evenly spread points fall on."""
    return sample(LOGITS.expand(count, 4), [replace(draw, point=i / count) for i in range(count)])[0]


def test_greedy_takes_the_likeliest_and_tells_how_likely():
    logits = torch.randn(5, 11)
    ids, logprobs = sample(logits, [Draw()] * 5)
    assert ids == logits.argmax(-1).tolist()
    assert logprobs == pytest.approx(logits.log_softmax(-1).amax(-1).tolist(), abs=1e-5)


def test_logprobs_ignore_temperature_cuts_and_penalties():
    logits = torch.randn(1, 11)
    draw = Draw(3.0, 0.7, top_k=5, min_p=0.1, presence_penalty=2.0, point=0.5, written=(1, 2))
    (token,), (logprob,) = sample(logits, [draw])
    assert logprob == pytest.approx(float(logits.log_softmax(-1)[0, token]), abs=1e-5)


@given(st.floats(0.2, 3.0), st.floats(0.05, 1.0))
def test_points_fall_on_tokens_as_often_as_they_are_likely(temperature, top_p):
    chances = (LOGITS[0].double() / temperature).softmax(-1).tolist()
    kept, total = [], 0.0
    for chance in chances:
        kept.append(chance if total < top_p else 0.0)
        total += chance
    ids = drawn(Draw(temperature, top_p))
    for token, chance in enumerate(kept):
        assert math.isclose(ids.count(token) / len(ids), chance / sum(kept), abs_tol=2 / len(ids))
        assert chance > 0 or token not in ids


@pytest.mark.parametrize("temperature", [5e-324, 1e-320, 1e-300, 1e-7])
def test_a_temperature_near_0_takes_the_likeliest_of_what_is_allowed(temperature):
    draws = [Draw(temperature, point=0.999), Draw(temperature, top_k=2, point=0.999)]
    allowed = torch.tensor([[False, True, True, True]] * 2)
    assert sample(LOGITS.expand(2, 4), draws, allowed)[0] == [1, 1]
    assert all(map(math.isfinite, chances(LOGITS.expand(2, 4), [1, 1], draws, allowed)))


@pytest.mark.parametrize(
    ("draw", "kept"),
    [
        (Draw(1.0), {0, 1, 2, 3}),
        (Draw(1.0, top_k=1), {0}),
        (Draw(1.0, top_k=3), {0, 1, 2}),
        (Draw(1.0, top_k=9), {0, 1, 2, 3}),
        (Draw(1.0, min_p=1.0), {0}),
        (Draw(1.0, min_p=0.1), {0, 1, 2}),
        (Draw(1.0, top_p=0.0), {0}),
        (Draw(1.0, top_k=3, min_p=0.3), {0, 1}),
    ],
)
def test_what_is_cut_off_is_never_drawn_and_all_else_is(draw, kept):
    assert set(drawn(draw)) == kept


def test_penalties_lower_what_was_written_once_or_for_each_time():
    present, frequent = Draw(presence_penalty=1.5, written=(0, 0)), Draw(frequency_penalty=0.6, written=(0, 0))
    assert sample(LOGITS.expand(2, 4), [present, frequent])[0] == [1, 1]
    assert sample(LOGITS, [replace(frequent, written=(0,))])[0] == [0]
    assert sample(LOGITS, [Draw(presence_penalty=-2.0, written=(1,))])[0] == [1]


def test_a_draw_does_not_depend_on_its_neighbours():
    logits = torch.randn(6, 50)
    draws = [
        Draw(),
        Draw(1.3, 0.8, point=0.93),
        Draw(0.7, point=0.21),
        Draw(1.1, top_k=4, point=0.6),
        Draw(1.2, min_p=0.2, point=0.7),
        Draw(0.9, presence_penalty=1.0, frequency_penalty=0.5, point=0.4, written=tuple(range(30))),
    ]
    together = sample(logits, draws)[0]
    alone = [sample(logits[b : b + 1], [draw])[0][0] for b, draw in enumerate(draws)]
    assert together == alone
    assert sample(logits[:1], draws[:1])[0] == [int(logits[0].argmax())]


def test_the_likeliest_tokens_come_in_order():
    (first, chance), (second, _) = likeliest(LOGITS[0], 2)
    assert (first, second) == (0, 1)
    assert chance == pytest.approx(float(LOGITS.log_softmax(-1)[0, 0]))
    assert len(likeliest(LOGITS[0], 20)) == 4


def test_tokens_that_mean_the_same_are_drawn_as_one_and_as_often_as_they_are_likely_together():
    logits = torch.tensor([[1.0, 0.9, 0.9, -9.0]])
    meant = torch.tensor([False, True, True, True])
    allowed = torch.tensor([[True, False, False, True]])
    assert sample(logits, [Draw()], allowed)[0] == [0]
    (token,), (logprob,) = sample(logits, [Draw()], allowed, {0: (3, meant)})
    assert token == 3
    assert logprob == pytest.approx(float(logits.log_softmax(-1)[0, 3]), abs=1e-5)
    likely = float(logits.softmax(-1)[0, 0])
    drawn = [sample(logits, [Draw(1.0, point=i / 400)], allowed, {0: (3, meant)})[0][0] for i in range(400)]
    assert drawn.count(0) / 400 == pytest.approx(likely, abs=0.01)


def kept_by_sorting_all(chances_V, top_p, top_k):
    sorted_V, order_V = chances_V.sort(descending=True, stable=True)
    beyond_V = (sorted_V.cumsum(-1) - sorted_V >= top_p) & (top_p < 1)
    if top_k:
        beyond_V[top_k:] = True
    beyond_V[0] = False
    return sorted(order_V[~beyond_V].tolist())


@pytest.mark.parametrize("uncut", [True, False])
@pytest.mark.parametrize("vocabulary", [5, 64, 65, 500])
@pytest.mark.parametrize("sharpness", [0.0, 0.1, 3.0, 30.0])
def test_what_is_drawn_from_is_what_sorting_the_whole_vocabulary_leaves(vocabulary, sharpness, uncut):
    generator = torch.Generator().manual_seed(vocabulary)
    cuts = [(0.8, 0), (0.99, 0), (1.0, 3), (0.5, 70), (1e-9, 0), *([(1.0, 0)] if uncut else [])]
    logits_BV = (sharpness * torch.randn(len(cuts), vocabulary, generator=generator)).round(
        decimals=1
    )  # many are equal
    chances_BV = logits_BV.double().softmax(-1)
    draws = [Draw(1.0, top_p, top_k) for top_p, top_k in cuts]
    top_p_B1 = torch.tensor([[top_p] for top_p, _ in cuts], dtype=torch.float64)
    ids_BK, chances_BK = _open(chances_BV, draws, top_p_B1)
    if ids_BK is None:
        ids_BK = torch.arange(vocabulary).expand(len(cuts), -1)
    for row, (top_p, top_k) in enumerate(cuts):
        expected = kept_by_sorting_all(chances_BV[row], top_p, top_k)
        assert ids_BK[row][chances_BK[row] > 0].tolist() == expected
        assert torch.equal(chances_BK[row][chances_BK[row] > 0], chances_BV[row][expected])
