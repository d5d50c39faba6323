"""What a store of sessions promises, for every store there is."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from tests.support.redis_server import RedisServer

from dspex import errors
from dspex.stores import Redis
from dspex.stores._sessions import Changes, Entry, NewSession, SessionLease, SessionStore, Turn, Use


class Clock:
    """The seconds since 1970, as a test says."""

    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(params=["redis"])
async def store(request: pytest.FixtureRequest, clock: Clock) -> AsyncIterator[SessionStore]:
    server: RedisServer = request.getfixturevalue("redis_server")
    server.said(b"FLUSHALL")
    made = Redis(server.url, clock=clock, max_bytes=1_000)
    yield made
    await made.close()


async def begin(store: SessionStore, name: str = "s1", **more: object) -> SessionLease:
    return await store.create_session(NewSession(name, **more), owner="one", lease=30.0)  # type: ignore[arg-type]


async def test_a_session_is_made_once_and_read_as_it_was_made(store: SessionStore, clock: Clock) -> None:
    new = NewSession("s1", "pool", "user", b"\x00set", idle_ttl=60.0, max_age=600.5)
    lease = await store.create_session(new, owner="one", lease=30.0)
    assert lease == SessionLease("s1", 1, clock.now + 30)
    with pytest.raises(errors.SessionExists) as raised:
        await begin(store)
    assert raised.value.session_id == "s1"
    info = await store.session("s1")
    assert info is not None
    assert info[:6] == tuple(new)
    assert (info.created, info.used, info.expires) == (clock.now, clock.now, clock.now + 60)
    assert (info.version, info.turns, info.size, info.epoch) == (0, 0, 0, 1)
    assert (info.owner, info.lease_until) == ("one", clock.now + 30)
    assert await store.session("s2") is None
    assert await store.session_entries("s2") == {}
    assert await store.session_turns("s2") == []


async def test_a_commit_is_written_whole_and_its_version_is_that_of_what_it_wrote(
    store: SessionStore,
) -> None:
    lease = await begin(store)
    changes = Changes({"a": b"1", "b": b"\x00\xff", "none": None}, {"a": 0}, [b"t1", b"t2"])
    info = await store.commit_session(lease, changes, seconds=30.0)
    assert (info.version, info.turns, info.size) == (1, 2, 7)
    info = await store.commit_session(lease, Changes({"a": b"22", "b": None}, {"a": 1, "b": 1}), seconds=30.0)
    assert (info.version, info.turns, info.size) == (2, 2, 6)
    assert await store.session_entries("s1") == {"a": Entry(2, b"22")}
    assert await store.session("s1") == info


async def test_an_entry_of_another_version_is_a_conflict_and_nothing_is_written(store: SessionStore) -> None:
    lease = await begin(store)
    await store.commit_session(lease, Changes({"a": b"1"}), seconds=30.0)
    before = await store.session("s1")
    for key, expected, version in (("a", 0, 1), ("a", 5, 1), ("b", 3, 0)):
        changes = Changes({"c": b"new", "a": b"other"}, {key: expected}, [b"turn"])
        with pytest.raises(errors.StateConflict) as raised:
            await store.commit_session(lease, changes, seconds=30.0)
        conflict = raised.value
        assert (conflict.key, conflict.expected, conflict.version) == (key, expected, version)
    assert await store.session("s1") == before
    assert await store.session_entries("s1") == {"a": Entry(1, b"1")}
    assert await store.session_turns("s1") == []


async def test_turns_are_appended_in_order_and_the_oldest_are_forgotten(store: SessionStore) -> None:
    lease = await begin(store)
    for number in range(4):
        await store.commit_session(lease, Changes(turns=[b"x%d" % number, b"y"]), seconds=30.0)
    turns = await store.session_turns("s1")
    assert turns == [Turn(n + 1, b"y" if n % 2 else b"x%d" % (n // 2)) for n in range(8)]
    info = await store.commit_session(lease, Changes(turns=[b"last"], forget_to=7), seconds=30.0)
    assert await store.session_turns("s1") == [Turn(8, b"y"), Turn(9, b"last")]
    assert (info.turns, info.size) == (2, 5)
    info = await store.commit_session(lease, Changes(forget_to=100), seconds=30.0)
    assert (info.turns, info.size) == (0, 0)
    await store.commit_session(lease, Changes(turns=[b"next"], forget_to=3), seconds=30.0)
    assert await store.session_turns("s1") == [Turn(10, b"next")]


async def test_a_session_is_another_s_only_when_its_lease_has_ended_or_it_is_taken_over(
    store: SessionStore, clock: Clock
) -> None:
    lease = await begin(store)
    await store.commit_session(lease, Changes({"a": b"1"}, turns=[b"t"]), seconds=30.0)
    clock.now += 29
    with pytest.raises(errors.SessionBusy) as raised:
        await store.claim_session("s1", owner="two", lease=30.0)
    assert (raised.value.owner, raised.value.seconds) == ("one", 1)
    with pytest.raises(errors.SessionBusy):
        await store.claim_session("s1", owner="two", lease=30.0, take_over="somebody else")
    clock.now += 2
    claimed = await store.claim_session("s1", owner="two", lease=30.0)
    assert claimed.lease == SessionLease("s1", 2, clock.now + 30)
    assert (claimed.info.owner, claimed.info.epoch, claimed.info.used) == ("two", 2, clock.now)
    assert (claimed.entries, claimed.turns) == ({"a": Entry(1, b"1")}, [Turn(1, b"t")])
    third = await store.claim_session("s1", owner="three", lease=30.0, take_over=True)
    fourth = await store.claim_session("s1", owner="four", lease=30.0, take_over="three")
    assert (third.lease.epoch, fourth.lease.epoch) == (3, 4)
    with pytest.raises(errors.SessionNotFound):
        await store.claim_session("s2", owner="two", lease=30.0)


async def test_whoever_has_lost_a_session_writes_nothing_to_it(store: SessionStore) -> None:
    old = await begin(store)
    new = (await store.claim_session("s1", owner="two", lease=30.0, take_over=True)).lease
    before = await store.session("s1")
    with pytest.raises(errors.SessionMoved):
        await store.commit_session(old, Changes({"a": b"1"}, {"a": 9}), seconds=30.0)
    assert await store.renew_sessions([Use(old, 0.0)], 99.0) == ["s1"]
    await store.release_session(old)
    assert await store.session("s1") == before
    await store.release_session(new)
    with pytest.raises(errors.SessionMoved):
        await store.commit_session(new, Changes({"a": b"1"}), seconds=30.0)
    assert (await store.claim_session("s1", owner="three", lease=30.0)).lease.epoch == 3
    await store.drop_session("s1")
    with pytest.raises(errors.SessionNotFound):
        await store.commit_session(new, Changes({"a": b"1"}), seconds=30.0)


async def test_renewing_keeps_what_is_the_caller_s_and_says_what_is_not(
    store: SessionStore, clock: Clock
) -> None:
    mine, given_up, gone = [await begin(store, name, idle_ttl=100.0) for name in ("mine", "given up", "gone")]
    await store.release_session(given_up)
    await store.drop_session("gone")
    clock.now += 20
    uses = [Use(mine, 5.0), Use(given_up, 0.0), Use(gone, 0.0)]
    assert sorted(await store.renew_sessions(uses, 50.0)) == ["given up", "gone"]
    info = await store.session("mine")
    assert info is not None
    assert (info.used, info.expires, info.lease_until) == (clock.now - 5, clock.now + 95, clock.now + 50)
    await store.renew_sessions([Use(mine, 15.0)], 50.0)
    info = await store.session("mine")
    assert info is not None
    assert info.used == clock.now - 5


@pytest.mark.parametrize("times", [{"idle_ttl": 100.0}, {"max_age": 100.0}])
async def test_a_session_whose_time_is_over_is_gone_for_every_method_at_once(
    store: SessionStore, clock: Clock, times: dict[str, float]
) -> None:
    lease = await begin(store, **{"pool": "p", "user": "u", **times})  # type: ignore[arg-type]
    await store.commit_session(lease, Changes({"a": b"1"}, turns=[b"t"]), seconds=1e6)
    clock.now += 99.5
    assert await store.session("s1") is not None
    assert await store.expire_sessions() == []
    clock.now += 0.5
    assert await store.session("s1") is None
    assert await store.session_entries("s1") == {}
    assert await store.session_turns("s1") == []
    assert await store.sessions() == []
    with pytest.raises(errors.SessionNotFound):
        await store.claim_session("s1", owner="two", lease=30.0, take_over=True)
    with pytest.raises(errors.SessionNotFound):
        await store.commit_session(lease, Changes({"a": b"1"}), seconds=30.0)
    assert await store.renew_sessions([Use(lease, 0.0)], 30.0) == ["s1"]
    assert not await store.drop_session("s1")
    await begin(store)
    assert await store.session_entries("s1") == {}


async def test_use_puts_the_end_off_but_not_beyond_the_greatest_age(
    store: SessionStore, clock: Clock
) -> None:
    lease = await begin(store, idle_ttl=100.0, max_age=150.0)
    clock.now += 90
    info = await store.commit_session(lease, Changes(), seconds=1e6)
    assert info.expires == 1_000_150.0
    clock.now += 59
    assert await store.session("s1") is not None
    clock.now += 1
    assert await store.expire_sessions() == ["s1"]
    assert await store.expire_sessions() == []


async def test_at_most_so_many_are_removed_at_once(store: SessionStore, clock: Clock) -> None:
    for number in range(5):
        await begin(store, f"s{number}", max_age=10.0)
    clock.now += 10
    found = [await store.expire_sessions(2) for _ in range(4)]
    assert [len(each) for each in found] == [2, 2, 1, 0]
    assert sorted(name for each in found for name in each) == [f"s{number}" for number in range(5)]


async def test_pools_and_users_have_no_more_sessions_than_they_may(store: SessionStore, clock: Clock) -> None:
    async def more(name: str, pool: str, user: str, age: float | None = None) -> None:
        new = NewSession(name, pool, user, max_age=age)
        await store.create_session(new, owner="one", lease=30.0, most_of_pool=2, most_of_user=1)

    await more("a", "p", "u", 50.0)
    with pytest.raises(errors.SessionQuotaExceeded) as raised:
        await more("b", "q", "u")
    assert (raised.value.quota, raised.value.most) == ("user", 1)
    await more("c", "p", "")
    with pytest.raises(errors.SessionQuotaExceeded) as raised:
        await more("d", "p", "")
    assert (raised.value.quota, raised.value.most) == ("pool", 2)
    await more("e", "q", "")
    assert await store.session("d") is None
    clock.now += 50  # a's time is over, and nothing has removed it
    await more("f", "p", "u")
    await store.drop_session("f")
    await more("g", "p", "u")


async def test_sessions_whose_time_is_over_do_not_count_however_many(
    store: SessionStore, clock: Clock
) -> None:
    for number in range(25):
        await begin(store, f"s{number}", pool="p", user="u", max_age=10.0)
    clock.now += 10
    new = NewSession("new", "p", "u")
    await store.create_session(new, owner="one", lease=30.0, most_of_pool=1, most_of_user=1)


async def test_one_turn_is_forgotten_as_many_are(store: SessionStore) -> None:
    lease = await begin(store)
    info = await store.commit_session(lease, Changes(turns=[b"a", b"b"], forget_to=1), seconds=30.0)
    assert (info.turns, info.size) == (1, 1)
    assert await store.session_turns("s1") == [Turn(2, b"b")]


async def test_of_many_that_are_made_at_once_no_more_than_the_quota_are(store: SessionStore) -> None:
    async def more(number: int) -> None:
        new = NewSession(f"s{number}", "p")
        await store.create_session(new, owner="one", lease=30.0, most_of_pool=5)

    outcomes = await asyncio.gather(*(more(number) for number in range(40)), return_exceptions=True)
    assert sum(each is None for each in outcomes) == 5
    assert len(await store.sessions(pool="p")) == 5


async def test_sessions_are_listed_by_their_last_use(store: SessionStore, clock: Clock) -> None:
    leases = []
    for number in range(3):
        clock.now += 1
        leases.append(await begin(store, f"s{number}", pool=f"p{number % 2}", user=f"u{number}"))
    assert [each.session_id for each in await store.sessions()] == ["s2", "s1", "s0"]
    clock.now += 1
    await store.commit_session(leases[0], Changes(), seconds=30.0)
    assert [each.session_id for each in await store.sessions(limit=2)] == ["s0", "s2"]
    assert [each.session_id for each in await store.sessions(pool="p0")] == ["s0", "s2"]
    assert [each.session_id for each in await store.sessions(pool="p0", user="u2")] == ["s2"]
    assert await store.sessions(pool="") == []


async def test_a_dropped_session_leaves_nothing_to_one_of_its_name(store: SessionStore) -> None:
    lease = await begin(store)
    await store.commit_session(lease, Changes({"a": b"1"}, turns=[b"t"]), seconds=30.0)
    assert await store.drop_session("s1")
    assert not await store.drop_session("s1")
    await begin(store)
    claimed = await store.claim_session("s1", owner="two", lease=30.0, take_over=True)
    assert (claimed.entries, claimed.turns, claimed.info.version, claimed.info.size) == ({}, [], 0, 0)


async def test_a_value_that_is_too_large_is_the_caller_s_mistake(store: SessionStore) -> None:
    lease = await begin(store)
    for changes in (Changes({"a": b"x", "b": b"x" * 1_001}), Changes({"a": b"x"}, turns=[b"x" * 1_001])):
        with pytest.raises(errors.StoreError) as raised:
            await store.commit_session(lease, changes, seconds=30.0)
        assert (raised.value.code, raised.value.category) == ("store-too-large", "caller")
    assert await store.session_entries("s1") == {}


async def test_of_many_claims_at_once_one_wins(store: SessionStore) -> None:
    await store.release_session(await begin(store))
    outcomes = await asyncio.gather(
        *(store.claim_session("s1", owner=f"o{number}", lease=30.0) for number in range(20)),
        return_exceptions=True,
    )
    assert sorted(type(each).__name__ for each in outcomes) == ["Claimed"] + ["SessionBusy"] * 19


async def test_a_commit_whose_caller_is_cancelled_has_happened_when_that_arrives(store: SessionStore) -> None:
    lease = await begin(store)
    for number in range(20):
        writing = asyncio.create_task(store.commit_session(lease, Changes({f"k{number}": b""}), seconds=30.0))
        await asyncio.sleep(0)
        writing.cancel()
        await asyncio.gather(writing, return_exceptions=True)
        assert f"k{number}" in await store.session_entries("s1")
