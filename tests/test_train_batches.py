"""The plan of an epoch: every example once, steps that do not depend on how they are cut, little padding."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from rolecraft.train.batches import (
    Alike,
    Batch,
    Cut,
    Schedule,
    count_steps,
    plan_epoch,
    plan_groups,
    split_by_length,
)

LENGTHS = st.lists(st.integers(2, 300), min_size=1, max_size=60)
CUTS = st.builds(Cut, st.integers(1, 5), st.integers(1, 3), st.integers(1, 3))


def plan(lengths, cut, seed=0, epoch=0, weights=None):
    return list(plan_epoch(lengths, weights or [1.0] * len(lengths), cut, seed, epoch))


def rows_of(step) -> list[int]:
    return sorted(row for batch in step if batch.scale for row in batch.rows)


def cost(rows, lengths) -> int:
    return len(rows) * max((lengths[row] for row in rows), default=0)


@given(LENGTHS, CUTS, st.integers(0, 3))
def test_an_epoch_trains_every_example_once(lengths, cut, epoch):
    steps = plan(lengths, cut, epoch=epoch)
    assert sorted(row for step in steps for row in rows_of(step)) == list(range(len(lengths)))
    assert len(steps) == count_steps(len(lengths), cut)


@given(LENGTHS, st.sampled_from([(Cut(4), Cut(2, 2)), (Cut(4), Cut(1, 2, 2)), (Cut(6), Cut(2, 1, 3))]))
def test_a_step_trains_the_same_however_it_is_cut(lengths, cuts):
    one, other = (plan(lengths, cut) for cut in cuts)
    assert [rows_of(step) for step in one] == [rows_of(step) for step in other]
    assert [max(batch.scale for batch in step) for step in one] == [max(batch.scale for batch in s) for s in other]


@given(LENGTHS, CUTS, st.data())
def test_the_shares_of_a_step_add_up_to_one(lengths, cut, data):
    weights = data.draw(st.lists(st.floats(0.1, 50), min_size=len(lengths), max_size=len(lengths)))
    for step in plan(lengths, cut, weights=weights):
        total = sum(batch.scale * weights[row] for batch in step for row in batch.rows)
        assert math.isclose(total, 1.0)


@given(LENGTHS, CUTS)
def test_every_process_gets_as_many_batches_as_the_others(lengths, cut):
    for step in plan(lengths, cut):
        assert len(step) == cut.accumulation * cut.processes
        assert all(batch.rows for batch in step)


@given(LENGTHS, CUTS)
def test_steps_of_an_epoch_differ_by_one_example_at_most(lengths, cut):
    sizes = [len(rows_of(step)) for step in plan(lengths, cut)]
    assert max(sizes) - min(sizes) <= 1
    assert max(sizes) <= cut.step_size


@given(LENGTHS, st.integers(1, 6))
def test_no_part_costs_more_than_an_even_cut_would(lengths, parts):
    rows = range(len(lengths))
    largest = max(cost(part, lengths) for part in split_by_length(rows, lengths, parts))
    assert largest <= max(lengths) * -(-len(lengths) // parts)


def test_one_long_row_does_not_make_short_ones_be_padded():
    lengths = [10] * 9 + [90]
    assert sorted(map(len, split_by_length(range(10), lengths, 2))) == [1, 9]


def test_a_step_with_too_few_examples_is_filled_up_with_rows_that_count_nothing():
    (step,) = plan([7, 3], Cut(2, 1, 4))
    assert step == (Batch((0,), 1 / 2), Batch((1,), 1 / 2), Batch((1,), 0.0), Batch((1,), 0.0))


def test_epochs_and_seeds_have_orders_of_their_own():
    lengths = list(range(10, 50))
    orders = [plan(lengths, Cut(4), seed, epoch) for seed, epoch in ((0, 0), (0, 1), (1, 0))]
    assert orders[0] == plan(lengths, Cut(4), 0, 0)
    assert orders[0] != orders[1]
    assert orders[0] != orders[2]


@given(LENGTHS, CUTS, st.integers(0, 2))
def test_the_processes_share_out_the_plan(lengths, cut, epoch):
    shares = []
    for process in range(cut.processes):
        schedule = Schedule(lengths, [1.0] * len(lengths), cut, 0, process)
        schedule.set_epoch(epoch)
        batches = [batch for (batch,) in schedule]
        assert len(batches) == len(schedule)
        shares.append(batches)
    together = [batch for group in zip(*shares, strict=True) for batch in group]
    assert together == [batch for step in plan(lengths, cut, epoch=epoch) for batch in step]


KEYS = st.lists(st.tuples(st.sampled_from("abcde"), st.integers(2, 300)), min_size=1, max_size=60)


def grouped(rows, cut, most, epoch=0):
    lengths = [length for _, length in rows]
    alike = Alike([key for key, _ in rows], most)
    return list(plan_groups(lengths, [1.0] * len(rows), cut, alike, 0, epoch))


@given(KEYS, CUTS, st.data())
def test_groups_hold_every_row_once_and_only_rows_that_tell_the_same(rows, cut, data):
    most = data.draw(st.integers(1, cut.batch_size))
    steps = grouped(rows, cut, most)
    assert sorted(row for step in steps for row in rows_of(step)) == list(range(len(rows)))
    assert len(steps) == count_steps(len(rows), cut)
    for step in steps:
        assert len(step) == cut.accumulation * cut.processes
        assert math.isclose(sum(batch.scale * len(batch.rows) for batch in step), 1.0)
        for batch in step:
            assert batch.rows == tuple(row for group in batch.groups for row in group)
            assert all(len({rows[row][0] for row in group}) == 1 and len(group) <= most for group in batch.groups)


def test_a_step_is_a_draw_of_whole_groups_and_another_in_each_epoch():
    rows = [("abc"[place % 3], 10) for place in range(96)]
    first, second = (grouped(rows, Cut(8), 4, epoch) for epoch in (0, 1))
    assert {len(batch.rows) for step in first for batch in step} == {8}
    assert {len(group) for step in first for batch in step for group in batch.groups} == {4}
    assert first != second
    assert first == grouped(rows, Cut(8), 4)


def test_steps_of_groups_are_nearly_as_large_as_each_other():
    rows = [(key, 10) for key in "abcdefg" for _ in range(ord(key) - 88)]
    sizes = [len(rows_of(step)) for step in grouped(rows, Cut(8), 4)]
    assert max(sizes) - min(sizes) <= 4


def test_a_schedule_without_groups_is_the_plan_of_single_rows():
    lengths, weights = [9, 3, 7, 5, 8], [1.0] * 5
    assert [batch for (batch,) in Schedule(lengths, weights, Cut(2), 3)] == [
        batch for step in plan_epoch(lengths, weights, Cut(2), 3, 0) for batch in step
    ]
    alike = Alike(list("aabba"), 2)
    assert [batch for (batch,) in Schedule(lengths, weights, Cut(2), 3, alike=alike)] == [
        batch for step in plan_groups(lengths, weights, Cut(2), alike, 3, 0) for batch in step
    ]
