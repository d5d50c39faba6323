"""Places that are taken several at once."""

from __future__ import annotations

import asyncio
import random

from dspex._room import Room


async def turns(count: int = 5) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


async def test_as_many_places_are_taken_as_are_free_and_no_more_than_are_wanted() -> None:
    room = Room(10)
    assert [await room.take(), await room.take(4), await room.take(99)] == [1, 4, 5]
    room.give_back(3)
    assert await room.take(2) == 2
    assert await room.take(2) == 1


async def test_who_waits_longest_is_called_first_and_calls_the_next() -> None:
    room, order = Room(1), []
    await room.take()

    async def wait(number: int, most: int) -> None:
        order.append((number, await room.take(most)))

    waiting = [asyncio.create_task(wait(number, most)) for number, most in enumerate((2, 2, 1, 1))]
    await turns()
    assert order == []
    room.give_back(3)
    await turns()
    assert order == [(0, 2), (1, 1)]
    room.give_back(2)
    await asyncio.gather(*waiting)
    assert order == [(0, 2), (1, 1), (2, 1), (3, 1)]


async def test_a_place_does_not_get_lost_with_who_was_called_for_it() -> None:
    for late in (False, True):
        room = Room(1)
        await room.take()
        first, second = (asyncio.create_task(room.take()) for _ in range(2))
        await turns()
        if late:  # it has been called, and has not run
            room.give_back()
            first.cancel()
        else:
            first.cancel()
            room.give_back()
        assert await second == 1
        assert first.cancelled()
        assert not room._waiting


async def test_no_more_are_inside_than_there_are_places_whoever_is_cancelled() -> None:
    choose = random.Random(0)
    room, inside, most_inside, ended = Room(7), 0, 0, 0

    async def visit(most: int, stays: int) -> None:
        nonlocal inside, most_inside, ended
        taken = await room.take(most)
        inside += taken
        most_inside = max(most_inside, inside)
        try:
            await turns(stays)
        finally:
            inside -= taken
            room.give_back(taken)
            ended += 1

    visits = [asyncio.create_task(visit(choose.randint(1, 4), choose.randint(0, 3))) for _ in range(500)]
    cancelled = 0
    while not all(each.done() for each in visits):
        cancelled += choose.choice(visits).cancel()
        await asyncio.sleep(0)
    await asyncio.gather(*visits, return_exceptions=True)
    assert cancelled > 10
    assert ended >= 500 - cancelled
    assert most_inside == 7
    assert inside == 0
    assert await room.take(99) == 7
