"""First come, first served, and nobody beyond the bounds."""

from __future__ import annotations

import asyncio

import pytest

from rolecraft.server.admission import Admission
from rolecraft.server.errors import Refused


async def holding(admission: Admission, places: int = 1) -> tuple[asyncio.Task, asyncio.Event]:
    """Return a task that has asked for places, and the event that lets it go."""
    leave = asyncio.Event()

    async def hold():
        async with admission.enter(places):
            await leave.wait()

    task = asyncio.create_task(hold())
    await asyncio.sleep(0)
    return task, leave


async def through(admission: Admission) -> None:
    async with admission.enter(1):
        pass


def test_places_are_given_in_the_order_of_asking():
    async def run():
        admission, order = Admission(2, 8), []

        async def one(number, places):
            async with admission.enter(places):
                order.append(number)
                await asyncio.sleep(0.001)

        await asyncio.gather(*(one(number, places) for number, places in enumerate([1, 2, 1, 1, 2, 1])))
        return order, admission.busy

    assert asyncio.run(run()) == (list(range(6)), (0, 0))


def test_never_more_than_the_places_are_taken():
    async def run():
        admission, now, most = Admission(3, 50), 0, 0

        async def one(places):
            nonlocal now, most
            async with admission.enter(places):
                now += places
                most = max(most, now)
                await asyncio.sleep(0)
                now -= places

        await asyncio.gather(*(one(1 + number % 3) for number in range(40)))
        return most, admission.busy

    assert asyncio.run(run()) == (3, (0, 0))


def test_who_would_wait_behind_a_full_queue_is_told_when_to_come_back():
    async def run():
        admission = Admission(1, 1)
        holders = [await holding(admission), await holding(admission)]
        with pytest.raises(Refused) as caught:
            await through(admission)
        for _, leave in holders:
            leave.set()
        await asyncio.gather(*(task for task, _ in holders))
        return caught.value.status, caught.value.wait

    status, wait = asyncio.run(run())
    assert (status, 1 <= wait <= 60) == (429, True)


def test_more_choices_than_places_are_refused_at_once():
    async def run():
        async with Admission(2, 8).enter(3):
            pass

    with pytest.raises(Refused, match="at most 2") as caught:
        asyncio.run(run())
    assert (caught.value.status, caught.value.param) == (400, "n")


def test_one_who_leaves_the_queue_leaves_no_trace():
    async def run():
        admission = Admission(1, 8)
        first, leave = await holding(admission)
        second, _ = await holding(admission)
        third, go = await holding(admission)
        second.cancel()
        leave.set()
        go.set()
        await asyncio.gather(first, third)
        return second.cancelled(), admission.busy

    assert asyncio.run(run()) == (True, (0, 0))


def test_a_large_one_that_leaves_lets_a_small_one_behind_it_in():
    async def run():
        admission = Admission(2, 8)
        first, leave = await holding(admission)
        large, _ = await holding(admission, 2)
        small, go = await holding(admission)
        waiting = admission.busy
        large.cancel()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        let_in = admission.busy
        leave.set()
        go.set()
        await asyncio.gather(first, small)
        return waiting, let_in

    assert asyncio.run(run()) == ((1, 2), (2, 0))


def test_one_cancelled_while_it_is_let_in_gives_its_place_back():
    async def run():
        admission = Admission(1, 8)
        first, leave = await holding(admission)
        second, _ = await holding(admission)
        leave.set()
        await first
        second.cancel()
        await asyncio.gather(second, return_exceptions=True)
        return admission.busy

    assert asyncio.run(run()) == (0, 0)


def test_stopping_sends_the_waiting_away_and_lets_the_others_finish():
    async def run():
        admission = Admission(1, 8)
        first, leave = await holding(admission)
        second, _ = await holding(admission)
        admission.stop()
        with pytest.raises(Refused) as waited:
            await second
        with pytest.raises(Refused) as new:
            await through(admission)
        leave.set()
        await first
        return waited.value.status, new.value.status, admission.busy

    assert asyncio.run(run()) == (503, 503, (0, 0))
