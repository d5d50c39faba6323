"""`SessionStoreSuite`: what every `SessionStore` has to do."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, Final

import pytest

from dspex import errors
from dspex.stores import (
    Changes,
    Entry,
    NewSession,
    SessionInfo,
    SessionLease,
    SessionStore,
    Turn,
    Use,
)
from dspex.testing.stores._suite import Stage, StoreSuite, scenario

__all__ = ["SessionStoreSuite"]

ODD: Final = "ünï/'\"%_*?[]{}:\\ \u2028😀"
"""A name with what quoting, patterns and paths may trip over."""
BYTES: Final = bytes(range(256))
ROUNDS: Final = ((1, True), (4, False), (9, True), (2, False))
"""After how many of its commits a process is killed, and whether they are read meanwhile."""


async def create(store: SessionStore, session_id: str = "s1", **new: Any) -> SessionLease:
    return await store.create_session(NewSession(session_id, **new), owner="one", lease=30.0)


async def commit(
    store: SessionStore, lease: SessionLease, entries: Any = None, *turns: bytes, **changes: Any
) -> SessionInfo:
    return await store.commit_session(lease, Changes(entries or {}, turns=turns, **changes), seconds=30.0)


async def there(store: SessionStore, session_id: str = "s1") -> SessionInfo:
    info = await store.session(session_id)
    assert info is not None
    return info


async def whole(
    store: SessionStore, session_id: str = "s1"
) -> tuple[SessionInfo | None, dict[str, Entry], list[Turn]]:
    """All that a session has."""
    return (
        await store.session(session_id),
        await store.session_entries(session_id),
        await store.session_turns(session_id),
    )


def turns_of(*values: bytes, first: int = 1) -> list[Turn]:
    return [Turn(number, value) for number, value in enumerate(values, first)]


async def whole_commits(store: SessionStore) -> int:
    """How many commits of a process there are; each must be whole, and none may be left out."""
    info = await there(store)
    assert info.turns == 5 * info.version
    entries = await store.session_entries("s1")
    version = max((each.version for each in entries.values()), default=0)
    value = b"%d" % version
    wanted = {"first": value, "second": value * 1_000, f"old {version}": value}
    assert entries == ({key: Entry(version, each) for key, each in wanted.items()} if version else {})
    history = await store.session_turns("s1")
    assert len(history) % 5 == 0
    assert history == turns_of(*(b"%d/%d" % divmod(place, 5) for place in range(5, 5 + len(history))))
    return info.version


NOTHING: Final[tuple[None, dict[str, Entry], list[Turn]]] = (None, {}, [])


class SessionStoreSuite(StoreSuite):
    """Tests of what `dspex.stores.SessionStore` says; see `StoreSuite` for what a subclass gives.

    Example:
        ```python
        class TestMyStore(SessionStoreSuite):
            def make(self, place, clock=None, max_bytes=None):
                return MyStore(place / "sessions", clock=clock or time.time, max_bytes=max_bytes or 1_000_000)
        ```
    """

    # -- making ---------------------------------------------------------------------------------------

    @scenario()
    async def test_a_session_is_made_once_and_read_as_it_was_written(self, at: Stage[SessionStore]) -> None:
        now = at.clock.now
        new = NewSession("s1", "a", "ada", BYTES, 60.0, 600.0)
        lease = await at.store.create_session(new, owner="one", lease=30.0)
        assert lease == SessionLease("s1", lease.epoch, now + 30)
        assert lease.epoch >= 1
        with pytest.raises(errors.SessionExists) as raised:
            await create(at.store, pool="b")
        assert raised.value.session_id == "s1"
        info = SessionInfo(*new, now, now, now + 60, 0, 0, 0, lease.epoch, "one", now + 30)
        assert await whole(at.store) == (info, {}, [])

    @scenario()
    async def test_a_session_that_is_not_there_has_nothing(self, at: Stage[SessionStore]) -> None:
        lease = SessionLease("s1", 1, at.clock.now + 30)
        assert await whole(at.store) == NOTHING
        assert await at.store.sessions() == []
        assert await at.store.expire_sessions() == []
        assert not await at.store.drop_session("s1")
        assert await at.store.renew_sessions([], 30.0) == []
        assert await at.store.renew_sessions([Use(lease, 0.0)], 30.0) == ["s1"]
        await at.store.release_session(lease)
        with pytest.raises(errors.SessionNotFound) as raised:
            await at.store.claim_session("s1", owner="two", lease=30.0)
        assert raised.value.session_id == "s1"
        with pytest.raises(errors.SessionNotFound):
            await commit(at.store, lease, {"a": b"1"}, b"turn")
        assert await whole(at.store) == NOTHING

    @scenario()
    async def test_a_pool_has_no_more_sessions_than_it_may(self, at: Stage[SessionStore]) -> None:
        async def make(name: str, pool: str, most: int | None = 2) -> None:
            new = NewSession(name, pool=pool)
            await at.store.create_session(new, owner="one", lease=30.0, most_of_pool=most)

        for name in ("a1", "a2"):
            await make(name, "a")
        with pytest.raises(errors.SessionQuotaExceeded) as raised:
            await make("a3", "a")
        assert (raised.value.quota, raised.value.most, raised.value.session_id) == ("pool", 2, "a3")
        assert await whole(at.store, "a3") == NOTHING
        await make("b1", "b")
        await make("a3", "a", most=None)
        await make("a4", "a", most=4)
        assert await at.store.drop_session("a1")
        with pytest.raises(errors.SessionQuotaExceeded):
            await make("a5", "a", most=3)
        await make("a5", "a", most=4)

    @scenario()
    async def test_a_user_has_no_more_sessions_than_they_may_in_all_pools(
        self, at: Stage[SessionStore]
    ) -> None:
        async def make(name: str, user: str, pool: str) -> None:
            new = NewSession(name, user=user, pool=pool)
            await at.store.create_session(new, owner="one", lease=30.0, most_of_user=2)

        await make("s1", "ada", "a")
        await make("s2", "ada", "b")
        with pytest.raises(errors.SessionQuotaExceeded) as raised:
            await make("s3", "ada", "c")
        assert (raised.value.quota, raised.value.most) == ("user", 2)
        await make("s3", "bob", "a")
        for number in range(4):
            await make(f"nobody's {number}", "", "a")
        assert len(await at.store.sessions()) == 7

    @scenario()
    async def test_sessions_whose_time_is_over_count_for_no_quota(self, at: Stage[SessionStore]) -> None:
        async def make(name: str) -> None:
            new = NewSession(name, "a", "ada", idle_ttl=10.0)
            await at.store.create_session(new, owner="one", lease=30.0, most_of_pool=1, most_of_user=1)

        await make("s1")
        with pytest.raises(errors.SessionQuotaExceeded):
            await make("s2")
        at.clock.now += 10
        await make("s2")
        with pytest.raises(errors.SessionQuotaExceeded):
            await make("s1")

    # -- who has it -----------------------------------------------------------------------------------

    @scenario()
    async def test_a_session_is_another_s_only_when_its_lease_has_ended_or_it_is_taken_over(
        self, at: Stage[SessionStore]
    ) -> None:
        store = at.store
        first = await create(store)
        at.clock.now += 29
        with pytest.raises(errors.SessionBusy) as raised:
            await store.claim_session("s1", owner="two", lease=30.0)
        assert (raised.value.owner, round(raised.value.seconds)) == ("one", 1)
        with pytest.raises(errors.SessionBusy):
            await store.claim_session("s1", owner="two", lease=30.0, take_over="somebody else")
        assert (await there(store)).owner == "one"
        at.clock.now += 2
        info, second, _, _ = await store.claim_session("s1", owner="two", lease=30.0)
        assert (info.owner, info.epoch, info.lease_until) == ("two", second.epoch, at.clock.now + 30)
        assert second.until == at.clock.now + 30
        assert await store.session("s1") == info
        _, third, _, _ = await store.claim_session("s1", owner="three", lease=30.0, take_over=True)
        _, fourth, _, _ = await store.claim_session("s1", owner="four", lease=30.0, take_over="three")
        epochs = [first.epoch, second.epoch, third.epoch, fourth.epoch]
        assert epochs == sorted(set(epochs))

    @scenario()
    async def test_whoever_claims_a_session_gets_all_that_it_has(self, at: Stage[SessionStore]) -> None:
        lease = await create(at.store, settings=b"settings")
        await commit(at.store, lease, {"b": b"1", "a": b"2"}, b"first", b"second")
        await commit(at.store, lease, {"b": b"3"}, b"third", forget_to=1)
        claimed = await at.store.claim_session("s1", owner="two", lease=30.0, take_over=True)
        assert claimed.entries == {"a": Entry(1, b"2"), "b": Entry(2, b"3")}
        assert claimed.turns == turns_of(b"second", b"third", first=2)
        assert (claimed.info.version, claimed.info.turns, claimed.info.settings) == (2, 3, b"settings")
        assert await whole(at.reader()) == (claimed.info, claimed.entries, claimed.turns)

    @scenario()
    async def test_a_claim_counts_as_a_use(self, at: Stage[SessionStore]) -> None:
        await create(at.store, idle_ttl=60.0)
        at.clock.now += 50
        info = (await at.store.claim_session("s1", owner="two", lease=30.0)).info
        assert (info.used, info.expires) == (at.clock.now, at.clock.now + 60)

    @scenario()
    async def test_whoever_has_lost_a_session_writes_nothing_to_it(self, at: Stage[SessionStore]) -> None:
        old = await create(at.store, idle_ttl=60.0)
        await commit(at.store, old, {"a": b"1"}, b"turn")
        await at.store.claim_session("s1", owner="two", lease=30.0, take_over=True)
        before = await whole(at.store)
        at.clock.now += 1
        for changes in (
            Changes({"a": b"2"}),
            Changes({"a": None}, expected={"a": 7}),
            Changes(turns=[b"more"]),
            Changes(forget_to=1),
            Changes(),
        ):
            with pytest.raises(errors.SessionMoved) as raised:
                await at.store.commit_session(old, changes, seconds=300.0)
            assert raised.value.session_id == "s1"
        assert await at.store.renew_sessions([Use(old, 0.0)], 300.0) == ["s1"]
        await at.store.release_session(old)
        assert await whole(at.store) == before

    @scenario()
    async def test_an_owner_whose_lease_has_ended_has_the_session_until_another_takes_it(
        self, at: Stage[SessionStore]
    ) -> None:
        lease = await create(at.store)
        at.clock.now += 31
        assert (await commit(at.store, lease, {"a": b"1"})).version == 1
        with pytest.raises(errors.SessionBusy):
            await at.store.claim_session("s1", owner="two", lease=30.0)
        at.clock.now += 31
        assert await at.store.renew_sessions([Use(lease, 0.0)], 30.0) == []
        with pytest.raises(errors.SessionBusy):
            await at.store.claim_session("s1", owner="two", lease=30.0)

    @scenario()
    async def test_a_session_that_was_given_up_is_anybody_s_at_once_and_its_owner_s_no_longer(
        self, at: Stage[SessionStore]
    ) -> None:
        lease = await create(at.store, idle_ttl=60.0)
        await commit(at.store, lease, {"a": b"1"}, b"turn")
        at.clock.now += 20
        await at.store.release_session(lease, idle=5.0)
        info = await there(at.store)
        assert (info.owner, info.used, info.expires) == (None, at.clock.now - 5, at.clock.now + 55)
        with pytest.raises(errors.SessionMoved):
            await commit(at.store, lease, {"a": b"2"})
        assert await at.store.renew_sessions([Use(lease, 0.0)], 30.0) == ["s1"]
        await at.store.release_session(lease)
        assert await there(at.store) == info
        claimed = await at.store.claim_session("s1", owner="two", lease=30.0)
        assert (claimed.info.owner, claimed.entries) == ("two", {"a": Entry(1, b"1")})
        assert claimed.lease.epoch > lease.epoch

    @scenario()
    async def test_leases_are_renewed_from_now_and_those_that_are_lost_are_named(
        self, at: Stage[SessionStore]
    ) -> None:
        store = at.store
        kept, moved, dropped, given_up, over = [
            await create(store, name, idle_ttl=60.0 if name != "over" else 10.0)
            for name in ("kept", "moved", "dropped", "given up", "over")
        ]
        await store.claim_session("moved", owner="two", lease=30.0, take_over=True)
        theirs = await there(store, "moved")
        await store.drop_session("dropped")
        await store.release_session(given_up)
        at.clock.now += 20
        uses = [Use(lease, 4.0) for lease in (moved, dropped, kept, given_up, over)]
        assert sorted(await store.renew_sessions(uses, 30.0)) == ["dropped", "given up", "moved", "over"]
        info = await there(store, "kept")
        assert (info.lease_until, info.used, info.expires) == (
            at.clock.now + 30,
            at.clock.now - 4,
            at.clock.now + 56,
        )
        assert (info.owner, info.version) == ("one", 0)
        assert await there(store, "moved") == theirs
        assert await whole(store, "dropped") == NOTHING
        assert await whole(store, "over") == NOTHING

    # -- commits --------------------------------------------------------------------------------------

    @scenario()
    async def test_an_entry_has_the_version_of_the_commit_that_wrote_it(
        self, at: Stage[SessionStore]
    ) -> None:
        lease = await create(at.store)
        assert (await commit(at.store, lease, {"a": b"1", "b": b"1"})).version == 1
        assert (await commit(at.store, lease, {"b": b"2"})).version == 2
        assert (await commit(at.store, lease)).version == 3
        info = await commit(at.store, lease, {"c": b"4"})
        assert await whole(at.store) == (
            info,
            {"a": Entry(1, b"1"), "b": Entry(2, b"2"), "c": Entry(4, b"4")},
            [],
        )
        assert info.version == 4

    @scenario()
    async def test_an_entry_is_removed_by_none(self, at: Stage[SessionStore]) -> None:
        lease = await create(at.store)
        await commit(at.store, lease, {"a": b"1", "b": b"1"})
        info = await commit(at.store, lease, {"a": None, "never there": None})
        assert (await at.store.session_entries("s1"), info.version) == ({"b": Entry(1, b"1")}, 2)
        await commit(at.store, lease, {"a": b"again"}, expected={"a": 0})
        assert (await at.store.session_entries("s1"))["a"] == Entry(3, b"again")

    @scenario()
    async def test_a_commit_that_expects_the_versions_that_are_there_is_written(
        self, at: Stage[SessionStore]
    ) -> None:
        lease = await create(at.store)
        await commit(at.store, lease, {"a": b"1", "b": b"1"}, expected={"a": 0, "b": 0, "none": 0})
        await commit(at.store, lease, {"a": b"2"}, expected={"a": 1, "b": 1})
        info = await commit(at.store, lease, {"b": None}, expected={"a": 2, "b": 1})
        assert (info.version, await at.store.session_entries("s1")) == (3, {"a": Entry(2, b"2")})

    @scenario()
    async def test_a_commit_that_expects_another_version_is_told_both_and_writes_nothing(
        self, at: Stage[SessionStore]
    ) -> None:
        lease = await create(at.store, idle_ttl=60.0)
        await commit(at.store, lease, {"a": b"1", "gone": b"1"}, b"turn")
        await commit(at.store, lease, {"a": b"2", "gone": None})
        before = await whole(at.store)
        at.clock.now += 5
        for key, expected, version in (("a", 1, 2), ("a", 0, 2), ("a", 3, 2), ("none", 2, 0), ("gone", 1, 0)):
            changes = Changes(
                {"0": b"x", "z": b"x", "a": b"x", key: b"x"}, {key: expected}, [b"more"], forget_to=1
            )
            with pytest.raises(errors.StateConflict) as raised:
                await at.store.commit_session(lease, changes, seconds=300.0)
            error = raised.value
            assert (error.key, error.expected, error.version) == (key, expected, version)
            assert error.session_id == "s1"
            assert await whole(at.reader()) == before
        with pytest.raises(errors.StateConflict):  # of a key that the commit does not write
            await commit(at.store, lease, {"b": b"x"}, expected={"a": 1})
        assert await whole(at.store) == before
        assert (await commit(at.store, lease, {"b": b"x"}, b"more")).version == 3

    @scenario()
    async def test_turns_are_appended_in_order_over_many_commits_and_owners(
        self, at: Stage[SessionStore]
    ) -> None:
        lease, wanted = await create(at.store), []
        for number in range(30):
            values = [b"%d/%d" % (number, each) for each in range(number % 4)]
            info = await commit(at.store, lease, {}, *values)
            wanted += values
            assert info.turns == len(wanted)
            if number % 10 == 9:
                claimed = await at.store.claim_session("s1", owner=f"o{number}", lease=30.0, take_over=True)
                assert claimed.turns == turns_of(*wanted)
                lease = claimed.lease
        assert await at.store.session_turns("s1") == turns_of(*wanted)
        assert await at.reader().session_turns("s1") == turns_of(*wanted)

    @scenario()
    async def test_the_oldest_turns_are_forgotten_and_the_next_are_counted_on(
        self, at: Stage[SessionStore]
    ) -> None:
        lease = await create(at.store)
        await commit(at.store, lease, {}, b"1", b"2", b"3")
        info = await commit(at.store, lease, {}, b"4", forget_to=2)
        assert (info.turns, info.size) == (4, 2)
        assert await at.store.session_turns("s1") == turns_of(b"3", b"4", first=3)
        await commit(at.store, lease, forget_to=2)
        assert await at.store.session_turns("s1") == turns_of(b"3", b"4", first=3)
        info = await commit(at.store, lease, forget_to=4)
        assert (info.turns, info.size, await at.store.session_turns("s1")) == (4, 0, [])
        info = await commit(at.store, lease, {}, b"5", b"6", b"7", forget_to=6)
        assert (info.turns, info.size) == (7, 1)
        assert await at.store.session_turns("s1") == turns_of(b"7", first=7)
        assert (await at.store.claim_session("s1", owner="two", lease=1.0, take_over=True)).info.turns == 7

    @scenario()
    async def test_the_size_of_a_session_is_that_of_its_entries_and_turns(
        self, at: Stage[SessionStore]
    ) -> None:
        lease = await create(at.store, settings=b"these do not count")
        for entries, turns, forget_to, size in (
            ({"a": b"123", "b": b"12"}, [b"1234"], 0, 9),
            ({"a": b"1"}, [], 0, 7),
            ({"b": None, "none": None}, [b"12"], 0, 7),
            ({"a": b"12", "c": b""}, [], 1, 4),
            ({"a": None, "c": None}, [], 2, 0),
        ):
            changes = Changes(entries, turns=turns, forget_to=forget_to)
            assert (await at.store.commit_session(lease, changes, seconds=30.0)).size == size
            assert (await there(at.store)).size == size

    @scenario()
    async def test_a_commit_counts_as_a_use_and_keeps_the_session(self, at: Stage[SessionStore]) -> None:
        lease = await create(at.store, idle_ttl=60.0)
        at.clock.now += 29
        changes = Changes({"a": b"1"})
        info = await at.store.commit_session(lease, changes, seconds=45.0)
        now = at.clock.now
        assert (info.used, info.expires, info.lease_until) == (now, now + 60, now + 45)
        assert (info.owner, info.epoch, info.created) == ("one", lease.epoch, now - 29)
        assert await there(at.store) == info
        at.clock.now += 44
        with pytest.raises(errors.SessionBusy):
            await at.store.claim_session("s1", owner="two", lease=30.0)

    @scenario("limits")
    async def test_a_commit_with_a_value_that_is_too_large_is_the_caller_s_mistake_and_writes_nothing(
        self, at: Stage[SessionStore]
    ) -> None:
        store = at.make(max_bytes=1_000)
        lease = await create(store, settings=b"x" * 1_000, idle_ttl=60.0)
        await commit(store, lease, {"a": b"x" * 1_000}, b"x" * 1_000)
        before = await whole(store)
        at.clock.now += 5
        large = b"x" * 1_001
        writes: list[Coroutine[Any, Any, object]] = [
            commit(store, lease, {"a": b"1", "b": large}, b"more"),
            commit(store, lease, {"a": b"1"}, b"more", large),
            create(store, "s2", settings=large),
        ]
        for write in writes:
            with pytest.raises(errors.StoreError) as raised:
                await write
            assert (raised.value.code, raised.value.category, raised.value.retryable) == (
                "store-too-large",
                "caller",
                False,
            )
        assert await whole(store) == before
        assert await whole(store, "s2") == NOTHING

    @scenario()
    async def test_names_and_values_of_a_session_come_back_as_they_went(
        self, at: Stage[SessionStore]
    ) -> None:
        new = NewSession(ODD, ODD + "pool", ODD + "user", BYTES)
        lease = await at.store.create_session(new, owner=ODD, lease=30.0)
        other = await create(at.store, ODD + "b")
        entries = {ODD: BYTES, "": b"of no name", "a\n\tb": b"", "\u00e9": b"1", "e\u0301": b"2"}
        turns = [BYTES, b"", b"\0", "ünï".encode()]
        await commit(at.store, lease, entries, *turns)
        await commit(at.store, other, {ODD: b"other"}, b"other")
        info, found, history = await whole(at.reader(), ODD)
        assert info is not None
        assert (info.session_id, info.pool, info.user, info.settings, info.owner) == (*new[:4], ODD)
        assert found == {key: Entry(1, value) for key, value in entries.items()}
        assert history == turns_of(*turns)
        assert [each.session_id for each in await at.store.sessions(pool=new.pool, user=new.user)] == [ODD]
        assert await at.store.drop_session(ODD)
        assert await whole(at.store, ODD) == NOTHING
        assert (await whole(at.store, ODD + "b"))[1:] == ({ODD: Entry(1, b"other")}, turns_of(b"other"))

    @scenario()
    async def test_much_comes_back_whole(self, at: Stage[SessionStore]) -> None:
        large = BYTES * 12_000
        lease = await create(at.store)
        entries = {f"k{number}": b"%d" % number for number in range(2_000)}
        turns = [b"%d" % number for number in range(2_000)]
        info = await commit(at.store, lease, {**entries, "large": large}, *turns, large)
        assert info.size == sum(map(len, (*entries.values(), *turns))) + 2 * len(large)
        claimed = await at.store.claim_session("s1", owner="two", lease=30.0, take_over=True)
        assert claimed.entries == {key: Entry(1, value) for key, value in {**entries, "large": large}.items()}
        assert claimed.turns == turns_of(*turns, large)

    # -- the end of a session -------------------------------------------------------------------------

    @scenario()
    async def test_a_session_ends_so_long_after_its_last_use_and_after_it_was_made(
        self, at: Stage[SessionStore]
    ) -> None:
        start = at.clock.now
        leases = {
            "idle": await create(at.store, "idle", idle_ttl=10.0),
            "age": await create(at.store, "age", max_age=25.0),
            "both": await create(at.store, "both", idle_ttl=10.0, max_age=25.0),
            "never": await create(at.store, "never"),
        }
        for _ in range(3):
            at.clock.now += 8
            for lease in leases.values():
                await commit(at.store, lease, {"a": b"1"})
        ends = {name: (await there(at.store, name)).expires for name in leases}
        assert ends == {"idle": start + 34, "age": start + 25, "both": start + 25, "never": None}
        at.clock.now = start + 24.5
        assert await at.store.renew_sessions([Use(lease, 0.0) for lease in leases.values()], 30.0) == []
        assert (await there(at.store, "both")).expires == start + 25
        at.clock.now = start + 25
        assert sorted(each.session_id for each in await at.store.sessions()) == ["idle", "never"]
        at.clock.now = start + 34.5
        assert sorted(await at.store.expire_sessions()) == ["age", "both", "idle"]
        at.clock.now += 1e9
        assert [each.session_id for each in await at.store.sessions()] == ["never"]

    @scenario()
    async def test_a_session_whose_time_is_over_is_gone_for_every_method_before_its_rows_are(
        self, at: Stage[SessionStore]
    ) -> None:
        lease = await create(at.store, pool="a", user="ada", idle_ttl=10.0)
        await commit(at.store, lease, {"a": b"1"}, b"turn")
        at.clock.now += 10
        reader = at.reader()
        assert await whole(reader) == NOTHING
        assert await reader.sessions() == []
        assert await reader.sessions(pool="a", user="ada") == []
        for take_over in (False, True, "one"):
            with pytest.raises(errors.SessionNotFound):
                await at.store.claim_session("s1", owner="two", lease=30.0, take_over=take_over)
        for changes in (Changes({"a": b"2"}), Changes({"a": b"2"}, {"a": 7}), Changes()):
            with pytest.raises(errors.SessionNotFound):
                await at.store.commit_session(lease, changes, seconds=30.0)
        assert await at.store.renew_sessions([Use(lease, 0.0)], 30.0) == ["s1"]
        await at.store.release_session(lease)
        assert await whole(at.store) == NOTHING
        assert not await at.store.drop_session("s1")
        assert await whole(at.store) == NOTHING

    @scenario()
    async def test_a_session_of_the_name_of_one_that_is_over_has_nothing_of_it_and_stays(
        self, at: Stage[SessionStore]
    ) -> None:
        old = await create(at.store, idle_ttl=10.0, user="ada")
        await commit(at.store, old, {"a": b"1", "b": b"1"}, b"turn")
        at.clock.now += 11
        new = await create(at.store, idle_ttl=100.0, user="bob")
        info = await there(at.store)
        assert (info.version, info.turns, info.size, info.user) == (0, 0, 0, "bob")
        assert (await whole(at.store))[1:] == ({}, [])
        info = await commit(at.store, new, {"b": b"2"}, b"first")
        wanted = (info, {"b": Entry(1, b"2")}, turns_of(b"first"))
        assert await whole(at.store) == wanted
        await self._refuses(at.store, old)
        assert await at.store.expire_sessions() == []
        at.clock.now += 50
        assert await at.store.expire_sessions() == []
        assert await whole(at.reader()) == wanted

    @scenario()
    async def test_a_session_that_was_dropped_is_gone_as_a_whole_and_its_owner_writes_nothing(
        self, at: Stage[SessionStore]
    ) -> None:
        old = await create(at.store)
        await commit(at.store, old, {"a": b"1"}, b"turn")
        assert await at.store.drop_session("s1")
        assert not await at.store.drop_session("s1")
        assert await whole(at.store) == NOTHING
        with pytest.raises(errors.SessionNotFound):
            await commit(at.store, old, {"a": b"2"})
        assert await whole(at.store) == NOTHING
        new = await create(at.store)
        assert new.epoch > old.epoch
        assert (await whole(at.store))[1:] == ({}, [])
        await self._refuses(at.store, old)

    async def _refuses(self, store: SessionStore, old: SessionLease) -> None:
        """The lease of a session that is gone writes nothing to the new one of its name."""
        before = await whole(store)
        with pytest.raises(errors.SessionMoved):
            await commit(store, old, {"a": b"of the old"}, b"of the old")
        assert await store.renew_sessions([Use(old, 0.0)], 300.0) == ["s1"]
        await store.release_session(old)
        assert await whole(store) == before

    @scenario()
    async def test_what_is_over_is_removed_at_most_so_many_at_once_and_nothing_else_is(
        self, at: Stage[SessionStore]
    ) -> None:
        for number in range(5):
            lease = await create(at.store, f"over {number}", idle_ttl=10.0)
            await commit(at.store, lease, {"a": b"1"}, b"turn")
        lease = await create(at.store, "alive", idle_ttl=11.0)
        info = await commit(at.store, lease, {"a": b"1"}, b"turn")
        await create(at.store, "for ever")
        at.clock.now += 10
        first = await at.store.expire_sessions(2)
        rest = await at.store.expire_sessions()
        assert (len(first), len(rest)) == (2, 3)
        assert sorted(first + rest) == [f"over {number}" for number in range(5)]
        assert await at.store.expire_sessions() == []
        assert await whole(at.store, "alive") == (info, {"a": Entry(1, b"1")}, turns_of(b"turn"))
        assert len(await at.store.sessions()) == 2

    @scenario()
    async def test_a_use_before_its_end_keeps_a_session(self, at: Stage[SessionStore]) -> None:
        lease = await create(at.store, idle_ttl=10.0)
        await commit(at.store, lease, {"a": b"1"}, b"turn")
        for _ in range(3):
            at.clock.now += 9
            assert await at.store.renew_sessions([Use(lease, 0.0)], 30.0) == []
            at.clock.now += 9
            await commit(at.store, lease, {"b": b"1"})
            at.clock.now += 9
            claimed = await at.store.claim_session("s1", owner="one", lease=30.0, take_over=True)
            lease = claimed.lease
            at.clock.now += 9
            assert await at.store.expire_sessions() == []
            await commit(at.store, lease)
        assert (await at.store.session_entries("s1"))["a"] == Entry(1, b"1")
        assert await at.store.session_turns("s1") == turns_of(b"turn")

    # -- lists ----------------------------------------------------------------------------------------

    @scenario()
    async def test_sessions_are_listed_by_their_last_use_and_by_pool_and_user(
        self, at: Stage[SessionStore]
    ) -> None:
        leases = {}
        for name, pool, user in (("s1", "a", "ada"), ("s2", "a", "bob"), ("s3", "b", "ada"), ("s4", "b", "")):
            at.clock.now += 1
            leases[name] = await create(at.store, name, pool=pool, user=user)
        at.clock.now += 1
        await commit(at.store, leases["s1"], {"a": b"1"})

        async def listed(**chosen: Any) -> list[str]:
            return [each.session_id for each in await at.store.sessions(**chosen)]

        assert await listed() == ["s1", "s4", "s3", "s2"]
        assert await listed(limit=2) == ["s1", "s4"]
        assert await listed(pool="a") == ["s1", "s2"]
        assert await listed(user="ada") == ["s1", "s3"]
        assert await listed(pool="b", user="ada") == ["s3"]
        assert await listed(pool="b", limit=1) == ["s4"]
        assert await listed(user="") == ["s4"]
        assert await listed(pool="none") == []
        await at.store.drop_session("s4")
        assert await listed() == ["s1", "s3", "s2"]
        assert (await at.store.sessions(limit=1))[0] == await at.store.session("s1")

    # -- many at once ---------------------------------------------------------------------------------

    @scenario()
    async def test_commits_at_once_are_each_whole_and_one_after_the_other(
        self, at: Stage[SessionStore]
    ) -> None:
        lease = await create(at.store)
        infos = await asyncio.gather(
            *(
                commit(at.store, lease, {"last": b"%d" % each, f"k{each}": b""}, *[b"%d" % each] * 3)
                for each in range(20)
            )
        )
        assert sorted(info.version for info in infos) == list(range(1, 21))
        history = await at.store.session_turns("s1")
        assert [turn.number for turn in history] == list(range(1, 61))
        written = [history[3 * each].value for each in range(20)]
        assert [turn.value for turn in history] == [value for value in written for _ in range(3)]
        assert sorted(written) == sorted(b"%d" % each for each in range(20))
        entries = await at.store.session_entries("s1")
        assert entries["last"] == Entry(20, written[-1])
        for each, info in enumerate(infos):
            assert entries[f"k{each}"].version == info.version
            assert written[info.version - 1] == b"%d" % each

    @scenario()
    async def test_of_commits_that_expect_the_same_version_at_once_one_is_written(
        self, at: Stage[SessionStore]
    ) -> None:
        lease = await create(at.store)
        await commit(at.store, lease, {"a": b"1"})
        outcomes = await asyncio.gather(
            *(commit(at.store, lease, {"a": b"%d" % each}, expected={"a": 1}) for each in range(8)),
            return_exceptions=True,
        )
        assert [type(each) for each in outcomes].count(errors.StateConflict) == 7
        ((number, _),) = ((n, each) for n, each in enumerate(outcomes) if isinstance(each, SessionInfo))
        assert await at.store.session_entries("s1") == {"a": Entry(2, b"%d" % number)}

    @scenario()
    async def test_a_commit_that_fails_undoes_nothing_of_those_it_waits_with(
        self, at: Stage[SessionStore]
    ) -> None:
        leases = [await create(at.store, f"s{number}") for number in range(20)]
        stale = [lease._replace(epoch=lease.epoch + 1_000) for lease in leases[::2]]
        writes = [commit(at.store, lease, {"a": b"1"}, b"turn") for lease in (*leases, *stale)]
        wrong = [commit(at.store, lease, {"a": b"2"}, b"no", expected={"a": 7}) for lease in leases[::2]]
        outcomes = await asyncio.gather(*writes, *wrong, return_exceptions=True)
        assert [type(each) for each in outcomes] == [
            *[SessionInfo] * 20,
            *[errors.SessionMoved] * 10,
            *[errors.StateConflict] * 10,
        ]
        for number in range(20):
            assert (await whole(at.store, f"s{number}"))[1:] == ({"a": Entry(1, b"1")}, turns_of(b"turn"))

    @scenario()
    async def test_of_many_that_make_or_claim_a_session_at_once_one_does(
        self, at: Stage[SessionStore]
    ) -> None:
        made = await asyncio.gather(*(create(at.store) for _ in range(8)), return_exceptions=True)
        assert [type(each) for each in made].count(errors.SessionExists) == 7
        (lease,) = (each for each in made if isinstance(each, SessionLease))
        await at.store.release_session(lease)
        claimed = await asyncio.gather(
            *(at.store.claim_session("s1", owner=f"o{each}", lease=30.0) for each in range(8)),
            return_exceptions=True,
        )
        assert [type(each) for each in claimed].count(errors.SessionBusy) == 7

    @scenario()
    async def test_a_commit_whose_caller_is_cancelled_has_happened_or_not_when_that_arrives(
        self, at: Stage[SessionStore]
    ) -> None:
        lease = await create(at.store)
        reader = at.reader()
        version = 0
        for number in range(30):
            large = b"x" * (100_000 if number % 2 else 10)
            writing = asyncio.create_task(commit(at.store, lease, {"a": b"%d" % number}, large, b"second"))
            for _ in range(number % 10):
                await asyncio.sleep(0)
            writing.cancel()
            await asyncio.gather(writing, return_exceptions=True)
            info, entries, history = await whole(reader)
            assert info is not None
            assert info.version in (version, version + 1)
            if info.version > version:
                assert entries["a"] == Entry(info.version, b"%d" % number)
            version = info.version
            assert len(history) == 2 * version
        assert (await commit(at.store, lease)).version == version + 1

    # -- closing, and loops ---------------------------------------------------------------------------

    @scenario()
    async def test_a_store_of_sessions_that_was_closed_can_be_used_again(
        self, at: Stage[SessionStore]
    ) -> None:
        lease = await create(at.store)
        await commit(at.store, lease, {"a": b"1"}, b"turn")
        await at.store.close()
        await at.store.close()
        info = await commit(at.store, lease, {"b": b"2"})
        assert await whole(at.store) == (
            info,
            {"a": Entry(1, b"1"), "b": Entry(2, b"2")},
            turns_of(b"turn"),
        )

    def test_a_store_of_sessions_serves_one_loop_after_the_other(self, tmp_path: Path) -> None:
        store: SessionStore = self.make(tmp_path)

        async def make() -> SessionLease:
            lease = await create(store)
            await asyncio.gather(*(commit(store, lease, {}, b"turn") for _ in range(5)))
            return lease

        async def go_on(lease: SessionLease) -> int:
            await asyncio.gather(*(commit(store, lease, {}, b"turn") for _ in range(5)))
            return len(await store.session_turns("s1"))

        lease = asyncio.run(make())
        assert asyncio.run(go_on(lease)) == 10
        asyncio.run(store.close())

    # -- older versions ------------------------------------------------------------------------------

    @scenario("older_versions")
    async def test_what_an_older_version_has_written_takes_sessions(self, at: Stage[SessionStore]) -> None:
        for store in at.older():
            lease = await create(store)
            info = await commit(store, lease, {"a": b"1"}, b"turn")
            await store.close()
            assert await whole(store) == (info, {"a": Entry(1, b"1")}, turns_of(b"turn"))

    # -- other processes ------------------------------------------------------------------------------

    @scenario("many_processes")
    async def test_of_processes_that_claim_one_session_at_once_one_wins(
        self, at: Stage[SessionStore]
    ) -> None:
        store = at.own_clock()
        await store.release_session(await create(store))
        racing = await at.children(4, "claim_session", "s1")
        await asyncio.gather(*(child.go() for child in racing))
        said = [line for child in racing for line in await child.rest()]
        assert sorted(said)[1:] == ["busy", "busy", "busy"]
        assert (await there(store)).epoch == int(min(said))

    @scenario("many_processes")
    async def test_of_processes_that_take_a_session_from_each_other_none_loses_a_commit(
        self, at: Stage[SessionStore]
    ) -> None:
        store = at.own_clock()
        await commit(store, await create(store), {"count": b"0"})
        racing = await at.children(3, "take_over_session", "s1", "40")
        await asyncio.gather(*(child.go() for child in racing))
        said = [line for child in racing for line in await child.rest()]
        info, entries, history = await whole(store)
        assert info is not None
        assert (info.version, info.turns) == (1 + len(said), len(said))
        assert entries == {"count": Entry(info.version, b"%d" % len(said))}
        assert [turn.number for turn in history] == list(range(1, len(said) + 1))
        assert sorted(turn.value.decode() for turn in history) == sorted(said)

    @scenario("many_processes")
    async def test_processes_that_make_sessions_at_once_make_no_more_than_there_may_be(
        self, at: Stage[SessionStore]
    ) -> None:
        store = at.own_clock()
        racing = await at.children(4, "create_sessions", "20", "15")
        await asyncio.gather(*(child.go() for child in racing))
        said = [line for child in racing for line in await child.rest()]
        assert len(said) == 15
        assert sorted(each.session_id for each in await store.sessions()) == sorted(said)

    @scenario("many_processes", "survives_kill")
    async def test_a_process_that_is_killed_leaves_each_commit_whole_or_none_of_it(
        self, at: Stage[SessionStore]
    ) -> None:
        store = at.own_clock()
        await store.release_session(await create(store))
        version = 0
        for commits, watched in ROUNDS:
            child = await at.child("commit_session", "s1", f"p{commits}")
            await child.go()
            if watched:
                while await whole_commits(store) < version + commits:
                    assert not child.ended
                    await asyncio.sleep(0)
            acknowledged = await child.killed(version, None if watched else version + commits)
            version = await whole_commits(store)
            assert version in (acknowledged, acknowledged + 1)
            info, entries, history = await whole(store)
            assert info is not None
            assert (info.version, entries["first"].version, len(history)) == (version, version, 5 * version)
            size = sum(len(each.value) for each in history)
            assert info.size == size + sum(len(each.value) for each in entries.values())
        claimed = await store.claim_session("s1", owner="here", lease=30.0, take_over=f"p{ROUNDS[-1][0]}")
        assert (await commit(store, claimed.lease, {}, b"after")).version == version + 1
