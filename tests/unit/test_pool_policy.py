from __future__ import annotations

import asyncio
import weakref

import pytest

from dspex.pool import Recycling, Restart
from dspex.pool._call import Call
from dspex.pool._lifecycle import Lifecycle, State
from dspex.pool._policy import GiveUp, Respawn, after_death, due_for_recycling
from dspex.pool._queue import FairQueue

POLICY = Restart(max=3, window=60, first_delay=0.1, max_delay=5)


@pytest.mark.parametrize(
    ("deaths", "failures_in_a_row", "now", "verdict"),
    [
        ([100], 0, 100, Respawn(0.0)),
        ([98, 99, 100], 0, 100, Respawn(0.0)),
        ([100], 1, 100, Respawn(0.1)),
        ([99, 100], 2, 100, Respawn(0.2)),
        ([98, 99, 100], 3, 100, Respawn(0.4)),
        ([100], 10_000, 100, Respawn(5)),
        ([97, 98, 99, 100], 0, 100, GiveUp(4, 157)),
        ([96, 97, 98, 99, 100], 5, 100, GiveUp(5, 157)),
        ([40, 98, 99, 100], 0, 100, Respawn(0.0)),
        ([100, 97, 98, 99], 0, 100, GiveUp(4, 157)),
    ],
    ids=[
        "first", "within-budget", "silent-once", "silent-doubles", "doubles-again", "silent-has-a-ceiling",
        "beyond-budget", "waits-until-the-budget-fits", "old-deaths-are-forgotten", "order-does-not-matter",
    ],
)  # fmt: skip
def test_what_follows_a_death(
    deaths: list[float], failures_in_a_row: int, now: float, verdict: Respawn | GiveUp
) -> None:
    assert after_death(deaths, failures_in_a_row, now, POLICY) == verdict


def test_after_giving_up_the_budget_fits_when_it_says() -> None:
    deaths = [91.0, 94.0, 97.0, 98.0, 99.0]
    verdict = after_death(deaths, 0, 99.0, POLICY)
    assert isinstance(verdict, GiveUp)
    assert isinstance(after_death(deaths, 0, verdict.until - 0.01, POLICY), GiveUp)
    assert after_death(deaths, 0, verdict.until, POLICY) == Respawn(0.0)


STATES = [State.STARTING, State.READY, State.DRAINING, State.STOPPING, State.DEAD]


def test_a_life_goes_through_its_states_in_order_and_tells_each_step() -> None:
    steps: list[State] = []
    life = Lifecycle()
    life.watch(steps.append)
    for state in STATES[1:]:
        life.become(state)
    assert steps == STATES[1:]


@pytest.mark.parametrize("before", STATES)
@pytest.mark.parametrize("after", STATES)
def test_no_life_goes_backwards(before: State, after: State) -> None:
    life = Lifecycle()
    life.state = before
    if STATES.index(after) <= STATES.index(before) or (before, after) == (State.STARTING, State.DRAINING):
        with pytest.raises(AssertionError, match=f"from {before.name} to {after.name}"):
            life.become(after)
        assert life.state is before
    else:
        life.become(after)
        assert life.state is after


@pytest.fixture
def queue() -> FairQueue:
    return FairQueue()


def drain(queue: FairQueue) -> list[str]:
    return [queue.pop().op for _ in range(len(queue))]


async def call(name: str, session: str = "") -> Call:
    return Call(name, None, asyncio.get_running_loop().create_future(), 0.0, session=session)


async def test_sessions_take_turns_and_each_is_served_in_order(queue: FairQueue) -> None:
    for name in ("a1", "a2", "a3", "b1", "c1", "c2"):
        queue.push(await call(name, session=name[0]))
    assert drain(queue) == ["a1", "b1", "c1", "a2", "c2", "a3"]


async def test_a_call_put_back_comes_first_in_its_session(queue: FairQueue) -> None:
    queue.push(await call("late"))
    queue.push(await call("again"), first=True)
    assert drain(queue) == ["again", "late"]


async def test_a_discarded_call_is_neither_counted_nor_served(queue: FairQueue) -> None:
    gone, stays, last = await call("gone", "a"), await call("stays", "b"), await call("last", "a")
    for each in (gone, stays, last):
        queue.push(each)
    queue.discard(gone)
    queue.discard(gone)
    assert [each.op for each in queue] == ["last", "stays"]
    assert len(queue) == 2
    assert drain(queue) == ["last", "stays"]
    with pytest.raises(IndexError):
        queue.pop()


class Payload:
    """What a call holds; it can be asked whether anybody still does."""


async def test_what_discarded_calls_hold_is_let_go_of_before_their_turn_comes(queue: FairQueue) -> None:
    held: list[weakref.ref[Payload]] = []
    for number in range(1000):
        each = await call(f"{number}", session=f"{number % 7}")
        each.payload = Payload()
        held.append(weakref.ref(each.payload))
        queue.push(each)
        if number % 100:
            queue.discard(each)
    del each

    assert sum(payload() is not None for payload in held) < 100
    assert len(queue) == 10
    assert sorted(map(int, drain(queue))) == list(range(0, 1000, 100))
    assert [payload() for payload in held if payload() is not None] == []


async def test_the_last_call_that_is_discarded_is_let_go_of_at_once(queue: FairQueue) -> None:
    only = await call("only")
    only.payload = Payload()
    held = weakref.ref(only.payload)
    queue.push(only)
    queue.discard(only)
    del only
    assert held() is None


@pytest.mark.parametrize(
    ("age", "served", "memory", "why"),
    [
        (59.9, 99, 999, None),
        (60.0, 0, 0, "it is 60 s old"),
        (0.0, 100, 0, "it has served 100 calls"),
        (0.0, 0, 1000, "it has 1000 bytes of memory"),
    ],
)
def test_when_a_worker_is_due_for_recycling(age: float, served: int, memory: int, why: str | None) -> None:
    assert due_for_recycling(age, served, memory, Recycling(age=60, requests=100, memory=1000)) == why
    assert due_for_recycling(age, served, memory, Recycling()) is None
