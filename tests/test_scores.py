"""Scores carry honest intervals, and two runs are compared on the tasks they share."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import pytest
from episodes import FIND, READ, episode
from hypothesis import given, settings
from hypothesis import strategies as st

from rolecraft import scores
from rolecraft.errors import DataError
from rolecraft.types import Message, Task, Trajectory, Usage, Verdict


def run(*values, family="hop"):
    return [episode(FIND, READ, "17", score=v, name=f"t{i}", family=family) for i, v in enumerate(values)]


def test_wilson_agrees_with_the_published_example():
    # Newcombe (1998), table I: 81 of 263, method 3
    assert scores.wilson(81, 263) == pytest.approx((0.2553, 0.3662), abs=5e-5)


@pytest.mark.parametrize(("successes", "bounds"), [(0, (0.0, 0.2775)), (10, (0.7225, 1.0))])
def test_wilson_has_width_at_the_ends(successes, bounds):
    assert scores.wilson(successes, 10) == pytest.approx(bounds, abs=5e-5)


@settings(deadline=None)
@given(st.integers(1, 500).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_holds_the_share_and_stays_in_bounds(case):
    successes, n = case
    low, high = scores.wilson(successes, n)
    assert 0 <= low <= successes / n <= high <= 1


@pytest.mark.parametrize(("successes", "n"), [(1, 0), (3, 2), (-1, 2)])
def test_wilson_refuses_impossible_counts(successes, n):
    with pytest.raises(ValueError, match="successes must be"):
        scores.wilson(successes, n)


def test_the_bootstrap_is_the_same_each_time_and_near_the_normal_interval():
    values = [i % 10 / 10 for i in range(200)]
    low, high = scores.bootstrap(values)
    half = 1.96 * math.sqrt(0.0825 / 200)
    assert (low, high) == scores.bootstrap(values)
    assert (low, high) == pytest.approx((0.45 - half, 0.45 + half), abs=0.01)


def test_scores_of_zero_and_one_get_wilson_and_others_the_bootstrap():
    assert scores.score(run(0, 1, 1)).interval == scores.wilson(2, 3)
    assert scores.score(run(0, 0.5, 1)).interval == scores.bootstrap([0, 0.5, 1])


def test_each_family_has_its_own_score():
    found = scores.score(run(1, 1, family="calc") + run(0, 1, 0, family="hub"), seed=7)
    assert found.score == pytest.approx(0.6)
    assert {name: (f.score, f.n) for name, f in found.families.items()} == {"calc": (1, 2), "hub": (1 / 3, 3)}
    assert found.families["calc"].interval == scores.wilson(2, 2)
    assert found.seed == 7


def test_costs_are_means_over_tasks():
    usage = Usage(prompt=100, cached=60, completion=10, seconds=0.5)
    found = scores.score([episode(FIND, "17", usage=usage), episode("17", usage=usage)]).cost
    assert (found.prompt, found.computed, found.completion) == (150, 60, 15)
    assert (found.seconds, found.model_calls, found.tool_calls) == (0.75, 1.5, 0.5)


def test_failures_and_stops_are_counted_in_their_order():
    found = scores.score([episode(FIND, READ, "17"), episode("17"), episode(FIND, stop="max_turns"), *run(1)])
    assert list(found.failures.items()) == [("ran out", 1), ("gave up early", 1), ("wrong answer", 1)]
    assert found.stops == {"answered": 3, "max_turns": 1}


@pytest.mark.parametrize(
    ("trajectories", "reason"),
    [([], "no trajectories"), (run(None), "'t0' has no verdict"), (run(1.5), "1.5"), (run(math.nan), "nan")],
)
def test_what_cannot_be_scored_is_told(trajectories, reason):
    with pytest.raises(DataError, match=reason):
        scores.score(trajectories)


@pytest.mark.parametrize(
    ("better", "worse", "p"),
    # twice the tail of a fair coin, from its binomial coefficients
    [(0, 0, 1.0), (5, 0, 2 / 32), (1, 9, 2 * 11 / 1024), (4, 4, 1.0), (200, 0, 2 / 2**200)],
)
def test_mcnemar_is_the_exact_binomial(better, worse, p):
    assert scores.mcnemar(better, worse) == pytest.approx(p, rel=1e-12)


def test_a_paired_test_on_zeros_and_ones_is_mcnemars():
    found = scores.paired(run(0, 0, 0, 0, 0, 0, 1, 1), run(1, 1, 1, 1, 1, 1, 1, 0))
    assert (found.difference, found.better, found.worse, found.n) == (0.625, 6, 1, 8)
    assert (found.test, found.p) == ("exact McNemar", scores.mcnemar(6, 1))
    assert found.interval[0] <= 0.625 <= found.interval[1]


def test_a_paired_test_on_fractions_flips_signs():
    found = scores.paired(run(*[0.2] * 12), run(*[0.4] * 12))
    assert found.test == "sign-flip permutation"
    assert 0 < found.p < 0.005


@settings(deadline=None, max_examples=25)
@given(st.lists(st.sampled_from([0.0, 0.25, 0.5, 1.0]), min_size=1, max_size=6))
def test_a_run_does_not_differ_from_itself(values):
    found = scores.paired(run(*values), run(*values))
    assert (found.difference, found.interval, found.p) == (0, (0, 0), 1)


def test_turning_a_comparison_round_changes_only_its_signs():
    a, b = run(0.1, 0.9, 0.4, 1), run(0.6, 0.8, 0.9, 1)
    there, back = scores.paired(a, b), scores.paired(b, a)
    assert (there.difference, there.p, there.better) == (-back.difference, back.p, back.worse)


def test_only_shared_tasks_are_compared_and_repeats_count_as_their_mean():
    found = scores.paired([*run(0, 1, 1), *run(1)], run(1, 1))
    assert (found.difference, found.n, found.unpaired) == (0.25, 2, 1)


def test_runs_without_a_shared_task_are_refused():
    with pytest.raises(DataError, match="share no task"):
        scores.paired(run(1), [episode(name="other", score=1)])


def test_an_interval_over_seeds_is_students():
    # mean 2, standard deviation 1, three values: t = 4.303
    assert scores.over_seeds([1.0, 2.0, 3.0]) == pytest.approx((2 - 4.303 / math.sqrt(3), 2 + 4.303 / math.sqrt(3)))
    assert scores.over_seeds([0.5, 0.5]) == (0.5, 0.5)
    assert scores.over_seeds([0.5]) is None


def test_many_seeds_have_the_normal_interval():
    low, high = scores.over_seeds([0.0, 1.0] * 50) or pytest.fail("no interval")
    assert high - low == pytest.approx(2 * 1.96 * math.sqrt(0.25 * 100 / 99 / 100), rel=1e-3)


def test_tasks_at_several_seeds_are_not_more_tasks():
    once = scores.over_tasks([[1, 0, 1, 0]])
    thrice = scores.over_tasks([[1, 0, 1, 0]] * 3)
    mixed = scores.over_tasks([[1, 0, 1, 0], [0, 0, 1, 1]])
    assert once == thrice
    assert (mixed.score, mixed.n) == (0.5, 4)


def test_a_pooled_comparison_counts_each_seeds_pairs_and_draws_whole_tasks():
    found = scores.pooled([[0, 0, 1], [0, 1, 1]], [[1, 0, 1], [1, 0, 1]])
    assert (found.better, found.worse, found.n, found.test) == (2, 1, 6, "exact sign flips")
    assert found.p == 1  # the sums are 2, -1 and 0: no flip brings them nearer to 0
    assert found.difference == pytest.approx(1 / 6)
    assert found.interval == scores.bootstrap([1.0, -0.5, 0.0])


def test_the_same_seed_again_makes_nothing_more_certain():
    a, b = [0, 0, 0, 0, 0, 1], [1, 1, 1, 1, 0, 0]
    once, thrice = scores.pooled([a], [b]), scores.pooled([a] * 3, [b] * 3)
    assert once.p == thrice.p == scores.mcnemar(4, 1)


@pytest.mark.parametrize("differences", [[1, -1, 1], [2, 1, -1, 0, 3], [], [-2, -2, -2]])
def test_exact_sign_flips_are_all_of_them(differences):
    flips = list(itertools.product((1, -1), repeat=len(differences)))
    sums = [abs(sum(sign * one for sign, one in zip(flip, differences, strict=True))) for flip in flips]
    assert scores.exact_sign_flip(differences) == sum(one >= abs(sum(differences)) for one in sums) / len(flips)


def test_a_pooled_comparison_of_one_seed_is_the_paired_one():
    assert scores.pooled([[0, 0, 1, 1]], [[1, 1, 1, 0]]) == scores.paired(run(0, 0, 1, 1), run(1, 1, 1, 0))


@pytest.mark.parametrize(("a", "b"), [([], []), ([[1]], [[1], [0]]), ([[1, 0]], [[1]])])
def test_other_shapes_are_not_pooled(a, b):
    with pytest.raises(DataError, match="only the same tasks"):
        scores.pooled(a, b)


def test_the_score_of_the_strict_reading_stands_beside():
    strict, lenient = episode(FIND, "17", score=1.0), episode(FIND, "17", score=1.0, name="u")
    message = replace(lenient.messages[1], strict=Message("assistant", "find_owner(...)"))
    verdict = Verdict(1.0, "", {"strict": 0.0})
    lenient = replace(lenient, messages=(lenient.messages[0], message, *lenient.messages[2:]), verdict=verdict)
    found = scores.score([strict, lenient])
    assert (found.score, found.lenient, found.strict and found.strict.score) == (1.0, 1, 0.5)
    assert scores.score([strict]).strict is None


@pytest.mark.parametrize(
    ("other", "differ"), [("2 + 3?", 1), ("2 + 2?", 0), ("2 + 2?\n\nSay it in words.", 0), ("2 + 2?5", 1)]
)
def test_a_comparison_tells_how_many_tasks_ask_something_else(other, differ):
    def run(text):
        task = Task("t", (Message("system", text), Message("user", text)))
        return [Trajectory("t", task, task.messages, stop="answered", verdict=Verdict(1.0))]

    assert scores.paired(run("2 + 2?"), run(other)).otherwise == differ
