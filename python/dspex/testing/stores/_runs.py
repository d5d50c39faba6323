"""`RunStoreSuite`: what every `RunStore` has to do."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any, Final

import pytest

from dspex import errors
from dspex.stores import Lease, RunInfo, RunStore, StepRow
from dspex.testing.stores._suite import Stage, StoreSuite, scenario

__all__ = ["RunStoreSuite"]

NEW: Final[dict[str, Any]] = {
    "pipeline": "qa",
    "fingerprint": b"{}",
    "inputs": b"in",
    "owner": "one",
    "lease": 30.0,
}
ODD: Final = "ünï/'\"%_*?[]{}:\\ \u2028😀"
"""A name with what quoting, patterns and paths may trip over."""
BYTES: Final = bytes(range(256))
ROUNDS: Final = ((1, True), (4, False), (9, True), (2, False))
"""After how many of its writes a process is killed, and whether they are read meanwhile."""


def row(path: str, digest: bytes = b"d", outcome: bytes = b"out") -> StepRow:
    return StepRow(path, "ok", digest, b"f", outcome, 0.5)


async def paths(store: RunStore, run_id: str = "r1") -> list[str]:
    return [each.path for each in await store.steps(run_id)]


async def there(store: RunStore, run_id: str = "r1") -> RunInfo:
    info = await store.run(run_id)
    assert info is not None
    return info


def whole_writes(rows: list[StepRow]) -> int:
    """How many writes of a process there are; each must be whole, and none may be left out."""
    for place, each in enumerate(rows):
        number = place // 5
        assert (each.path, each.outcome) == (f"{number}/{place % 5}", bytes([number % 256]) * 10_000)
    assert len(rows) % 5 == 0
    return len(rows) // 5


class RunStoreSuite(StoreSuite):
    """Tests of what `dspex.stores.RunStore` says; see `StoreSuite` for what a subclass gives.

    Example:
        ```python
        class TestMyStore(RunStoreSuite):
            def make(self, place, clock=None, max_bytes=None):
                return MyStore(place / "runs", clock=clock or time.time, max_bytes=max_bytes or 1_000_000)
        ```
    """

    # -- runs and who has them ------------------------------------------------------------------------

    @scenario()
    async def test_a_run_is_begun_once_and_read_as_it_was_written(self, at: Stage[RunStore]) -> None:
        lease = await at.store.create_run("r1", **NEW)
        assert lease == Lease("r1", 1, at.clock.now + 30)
        with pytest.raises(errors.RunExists) as raised:
            await at.store.create_run("r1", **{**NEW, "inputs": b"others", "owner": "two"})
        assert raised.value.run_id == "r1"
        now = at.clock.now
        assert await at.store.run("r1") == RunInfo(
            "r1", "qa", "running", b"{}", b"in", None, now, now, 1, 0, "one", now + 30
        )

    @scenario()
    async def test_a_run_that_is_not_there_is_none_and_has_no_rows(self, at: Stage[RunStore]) -> None:
        assert await at.store.run("r1") is None
        assert await at.store.steps("r1") == []
        assert await at.store.runs() == []
        assert not await at.store.drop_run("r1")
        with pytest.raises(errors.RunNotFound) as raised:
            await at.store.claim_run("r1", owner="two", lease=30.0)
        assert raised.value.run_id == "r1"

    @scenario()
    async def test_a_run_is_another_s_only_when_its_lease_has_ended_or_it_is_taken_over(
        self, at: Stage[RunStore]
    ) -> None:
        await at.store.create_run("r1", **NEW)
        at.clock.now += 29
        with pytest.raises(errors.RunBusy) as raised:
            await at.store.claim_run("r1", owner="two", lease=30.0)
        assert (raised.value.owner, round(raised.value.seconds)) == ("one", 1)
        with pytest.raises(errors.RunBusy):
            await at.store.claim_run("r1", owner="two", lease=30.0, take_over="somebody else")
        assert (await there(at.store)).owner == "one"
        at.clock.now += 2
        info, lease = await at.store.claim_run("r1", owner="two", lease=30.0)
        assert (info.owner, info.epoch, info.resumes, lease.epoch) == ("two", 2, 1, 2)
        assert (info.lease_until, lease.until) == (at.clock.now + 30, at.clock.now + 30)
        assert await at.store.run("r1") == info
        _, third = await at.store.claim_run("r1", owner="three", lease=30.0, take_over=True)
        _, fourth = await at.store.claim_run("r1", owner="four", lease=30.0, take_over="three")
        assert (third.epoch, fourth.epoch) == (3, 4)

    @scenario()
    async def test_whoever_has_lost_a_run_writes_nothing_to_it(self, at: Stage[RunStore]) -> None:
        old = await at.store.create_run("r1", **NEW)
        await at.store.record_steps(old, [row("a")])
        _, new = await at.store.claim_run("r1", owner="two", lease=30.0, take_over=True)
        before = await there(at.store)
        at.clock.now += 1
        for write in (
            at.store.record_steps(old, [row("b")]),
            at.store.record_steps(old, [row("a", digest=b"other")]),
            at.store.record_steps(old, [row("b"), row("c")]),
            at.store.renew_lease(old, 30.0),
            at.store.forget_steps(old, ["a"]),
            at.store.update_run(old, fingerprint=b"x"),
            at.store.end_run(old, "done", b"x"),
        ):
            with pytest.raises(errors.LeaseLost):
                await write
        await at.store.release_run(old)
        assert [each.digest for each in await at.store.steps("r1")] == [b"d"]
        assert await there(at.store) == before
        await at.store.end_run(new, "done", b"outcome")

    @scenario()
    async def test_whoever_has_given_a_run_up_writes_nothing_to_it(self, at: Stage[RunStore]) -> None:
        released = await at.store.create_run("r1", **NEW)
        await at.store.release_run(released)
        ended = await at.store.create_run("r2", **NEW)
        await at.store.end_run(ended, "done", b"outcome")
        for lease in (released, ended):
            for write in (
                at.store.record_steps(lease, [row("a")]),
                at.store.renew_lease(lease, 30.0),
                at.store.end_run(lease, "failed", b"x"),
            ):
                with pytest.raises(errors.LeaseLost):
                    await write
        assert (await there(at.store, "r2")).outcome == b"outcome"
        assert await paths(at.store) == []

    @scenario()
    async def test_a_run_that_was_dropped_takes_no_writes_of_its_owner(self, at: Stage[RunStore]) -> None:
        lease = await at.store.create_run("r1", **NEW)
        await at.store.drop_run("r1")
        for write in (
            at.store.record_steps(lease, [row("a")]),
            at.store.renew_lease(lease, 30.0),
            at.store.end_run(lease, "done", b"x"),
        ):
            with pytest.raises((errors.RunNotFound, errors.LeaseLost)):
                await write
        await at.store.release_run(lease)
        assert (await at.store.run("r1"), await at.store.steps("r1")) == (None, [])

    @scenario()
    async def test_a_lease_is_renewed_from_now(self, at: Stage[RunStore]) -> None:
        lease = await at.store.create_run("r1", **NEW)
        at.clock.now += 20
        assert (await at.store.renew_lease(lease, 30.0)).until == at.clock.now + 30
        at.clock.now += 29
        with pytest.raises(errors.RunBusy):
            await at.store.claim_run("r1", owner="two", lease=30.0)

    @scenario()
    async def test_an_owner_whose_lease_has_ended_has_the_run_until_another_takes_it(
        self, at: Stage[RunStore]
    ) -> None:
        lease = await at.store.create_run("r1", **NEW)
        at.clock.now += 31
        await at.store.record_steps(lease, [row("a")])
        await at.store.renew_lease(lease, 30.0)
        with pytest.raises(errors.RunBusy):
            await at.store.claim_run("r1", owner="two", lease=30.0)

    @scenario()
    async def test_a_run_that_was_given_up_is_anybody_s_at_once(self, at: Stage[RunStore]) -> None:
        lease = await at.store.create_run("r1", **NEW)
        await at.store.release_run(lease)
        assert ((await there(at.store)).owner, (await there(at.store)).status) == (None, "running")
        info, _ = await at.store.claim_run("r1", owner="two", lease=30.0)
        assert (info.owner, info.epoch) == ("two", 2)

    @scenario()
    async def test_a_run_that_never_ends_is_resumed_so_often_and_has_failed_then(
        self, at: Stage[RunStore]
    ) -> None:
        lease = await at.store.create_run("r1", **NEW)
        for _ in range(2):
            await at.store.release_run(lease)
            _, lease = await at.store.claim_run("r1", owner="two", lease=30.0, max_resumes=2)
        await at.store.release_run(lease)
        with pytest.raises(errors.TooManyResumes) as raised:
            await at.store.claim_run("r1", owner="two", lease=30.0, max_resumes=2)
        assert raised.value.resumes == 2
        info = await there(at.store)
        assert (info.status, info.owner) == ("failed", None)
        with pytest.raises(errors.LeaseLost):
            await at.store.record_steps(lease, [row("a")])
        info, _ = await at.store.claim_run("r1", owner="two", lease=30.0, max_resumes=3)
        assert (info.status, info.resumes) == ("running", 3)

    @scenario()
    async def test_an_ended_run_has_its_outcome_and_claiming_it_counts_no_resume(
        self, at: Stage[RunStore]
    ) -> None:
        lease = await at.store.create_run("r1", **NEW)
        at.clock.now += 5
        await at.store.end_run(lease, "done", b"outcome")
        info = await there(at.store)
        assert (info.status, info.outcome, info.owner, info.updated) == (
            "done",
            b"outcome",
            None,
            at.clock.now,
        )
        info, _ = await at.store.claim_run("r1", owner="two", lease=30.0, max_resumes=0)
        assert (info.status, info.outcome, info.resumes) == ("done", b"outcome", 0)

    @scenario()
    async def test_a_run_that_has_failed_runs_again_when_it_is_claimed(self, at: Stage[RunStore]) -> None:
        lease = await at.store.create_run("r1", **NEW)
        await at.store.end_run(lease, "failed")
        assert ((await there(at.store)).status, (await there(at.store)).outcome) == ("failed", None)
        info, _ = await at.store.claim_run("r1", owner="two", lease=30.0)
        assert (info.status, info.resumes) == ("running", 1)

    @scenario()
    async def test_the_steps_of_a_pipeline_may_become_others(self, at: Stage[RunStore]) -> None:
        lease = await at.store.create_run("r1", **NEW)
        await at.store.update_run(lease, fingerprint=b"others")
        info = await there(at.store)
        assert (info.fingerprint, info.inputs, info.status) == (b"others", b"in", "running")

    # -- rows -----------------------------------------------------------------------------------------

    @scenario()
    async def test_rows_are_kept_in_their_order_and_a_row_that_is_there_stays(
        self, at: Stage[RunStore]
    ) -> None:
        lease = await at.store.create_run("r1", **NEW)
        first = at.clock.now
        await at.store.record_steps(lease, [row("b"), row("a")])
        at.clock.now += 5
        await at.store.record_steps(lease, [row("a", outcome=b"another"), row("c")])
        assert await at.store.steps("r1") == [
            row("b")._replace(at=first),
            row("a")._replace(at=first),
            row("c")._replace(at=first + 5),
        ]

    @scenario()
    async def test_a_row_of_other_inputs_takes_the_place_of_the_one_before(self, at: Stage[RunStore]) -> None:
        lease = await at.store.create_run("r1", **NEW)
        await at.store.record_steps(lease, [row("a")])
        await at.store.record_steps(lease, [row("a", digest=b"other", outcome=b"new")])
        assert [each.outcome for each in await at.store.steps("r1")] == [b"new"]
        await at.store.record_steps(lease, [row("b")])
        await at.store.record_steps(lease, [row("a", digest=b"third")])
        assert await paths(at.store) == ["a", "b"]

    @scenario()
    async def test_the_order_of_rows_holds_over_many_writes_and_owners(self, at: Stage[RunStore]) -> None:
        lease = await at.store.create_run("r1", **NEW)
        wanted = []
        for number in reversed(range(30)):
            rows = [row(f"{number}/{each}") for each in (2, 0, 1)]
            await at.store.record_steps(lease, rows)
            wanted += [each.path for each in rows]
            if number % 10 == 0:
                _, lease = await at.store.claim_run("r1", owner=f"o{number}", lease=30.0, take_over=True)
        assert await paths(at.store) == wanted
        assert await paths(at.reader()) == wanted

    @scenario()
    async def test_rows_are_forgotten_by_their_paths(self, at: Stage[RunStore]) -> None:
        lease = await at.store.create_run("r1", **NEW)
        other = await at.store.create_run("r2", **NEW)
        await at.store.record_steps(lease, [row("a"), row("b"), row("c")])
        await at.store.record_steps(other, [row("a")])
        assert await at.store.forget_steps(lease, ["a", "none", "b"]) == 2
        assert (await paths(at.store), await paths(at.store, "r2")) == (["c"], ["a"])
        await at.store.record_steps(lease, [row("a")])
        assert await paths(at.store) == ["c", "a"]

    @scenario()
    async def test_names_and_values_come_back_as_they_went(self, at: Stage[RunStore]) -> None:
        new = {**NEW, "pipeline": ODD, "fingerprint": BYTES, "inputs": BYTES, "owner": ODD}
        lease = await at.store.create_run(ODD, **new)
        other = await at.store.create_run(ODD + "b", **{**new, "inputs": b""})
        rows = [row(ODD, BYTES, BYTES), row(f"{ODD}/a", b"", b""), row("a\n\tb", outcome=b"\0")]
        await at.store.record_steps(lease, rows)
        await at.store.record_steps(other, [row("a")])
        assert [each._replace(at=0.0) for each in await at.store.steps(ODD)] == rows
        assert await at.store.forget_steps(lease, [ODD]) == 1
        await at.store.end_run(lease, "done", BYTES[::-1])
        info = await there(at.reader(), ODD)
        assert (info.run_id, info.pipeline, info.fingerprint) == (ODD, ODD, BYTES)
        assert (info.inputs, info.outcome) == (BYTES, BYTES[::-1])
        assert [each.run_id for each in await at.store.runs(pipeline=ODD, status="done")] == [ODD]
        assert await at.store.drop_run(ODD)
        assert ((await there(at.store, ODD + "b")).inputs, await paths(at.store, ODD + "b")) == (b"", ["a"])

    @scenario()
    async def test_a_value_of_some_megabytes_comes_back_whole(self, at: Stage[RunStore]) -> None:
        large = BYTES * 12_000
        lease = await at.store.create_run("r1", **{**NEW, "inputs": large})
        await at.store.record_steps(lease, [row("a", outcome=large), row("b")])
        await at.store.end_run(lease, "done", large)
        assert [each.outcome for each in await at.store.steps("r1")] == [large, b"out"]
        info = await there(at.store)
        assert (info.inputs, info.outcome) == (large, large)

    @scenario("limits")
    async def test_a_value_that_is_too_large_is_the_caller_s_mistake_and_nothing_of_it_is_written(
        self, at: Stage[RunStore]
    ) -> None:
        store = at.make(max_bytes=1_000)
        lease = await store.create_run("r1", **{**NEW, "inputs": b"x" * 1_000})
        for write in (
            store.record_steps(lease, [row("a"), row("b", outcome=b"x" * 1_001)]),
            store.end_run(lease, "done", b"x" * 1_001),
            store.create_run("r2", **{**NEW, "inputs": b"x" * 1_001}),
        ):
            with pytest.raises(errors.StoreError) as raised:
                await write
            assert (raised.value.code, raised.value.category, raised.value.retryable) == (
                "store-too-large",
                "caller",
                False,
            )
        assert await store.steps("r1") == []
        assert [each.run_id for each in await store.runs()] == ["r1"]
        await store.record_steps(lease, [row("a", outcome=b"x" * 1_000)])
        await store.end_run(lease, "done", b"x" * 1_000)

    # -- lists, and what is forgotten -----------------------------------------------------------------

    @scenario()
    async def test_runs_are_listed_last_first_and_forgotten_as_a_whole(self, at: Stage[RunStore]) -> None:
        store = at.store
        for number, status in enumerate(("done", "failed", "running")):
            at.clock.now += 10
            lease = await store.create_run(f"r{number}", **{**NEW, "pipeline": f"p{number % 2}"})
            await store.record_steps(lease, [row("a")])
            if status != "running":
                await store.end_run(lease, status)  # type: ignore[arg-type]
        assert [each.run_id for each in await store.runs()] == ["r2", "r1", "r0"]
        assert [each.run_id for each in await store.runs(limit=1)] == ["r2"]
        assert [each.run_id for each in await store.runs(pipeline="p0", status="done")] == ["r0"]
        assert [each.run_id for each in await store.runs(pipeline="p0", limit=1)] == ["r2"]
        assert await store.runs(pipeline="none") == []
        at.clock.now += 100
        assert await store.prune_runs(115.0, ["failed"]) == 0
        assert await store.prune_runs(115.0) == 1
        assert [each.run_id for each in await store.runs()] == ["r2", "r1"]
        assert await store.prune_runs(100.0) == 1
        assert (await store.steps("r0"), await store.steps("r1")) == ([], [])
        assert await store.drop_run("r2")
        assert not await store.drop_run("r2")
        assert await store.runs() == []

    @scenario()
    async def test_a_run_that_is_begun_anew_has_nothing_of_the_old_one(self, at: Stage[RunStore]) -> None:
        lease = await at.store.create_run("r1", **NEW)
        await at.store.record_steps(lease, [row("a")])
        await at.store.end_run(lease, "done", b"outcome")
        assert await at.store.drop_run("r1")
        new = await at.store.create_run("r1", **{**NEW, "inputs": b"new"})
        assert new.epoch > lease.epoch
        with pytest.raises(errors.LeaseLost):
            await at.store.record_steps(lease, [row("a")])
        info = await there(at.store)
        assert (info.status, info.inputs, info.outcome, info.resumes) == ("running", b"new", None, 0)
        assert await paths(at.store) == []

    # -- many at once ---------------------------------------------------------------------------------

    @scenario()
    async def test_a_write_that_fails_undoes_nothing_of_those_it_waits_with(
        self, at: Stage[RunStore]
    ) -> None:
        leases = [await at.store.create_run(f"r{number}", **NEW) for number in range(20)]
        stale = [lease._replace(epoch=lease.epoch + 1_000) for lease in leases[::2]]
        outcomes = await asyncio.gather(
            *(at.store.record_steps(lease, [row("a")]) for lease in (*leases, *stale)),
            return_exceptions=True,
        )
        assert outcomes[:20] == [None] * 20
        assert {type(each) for each in outcomes[20:]} == {errors.LeaseLost}
        assert [await paths(at.store, f"r{number}") for number in range(20)] == [["a"]] * 20

    @scenario()
    async def test_many_writers_of_many_runs_lose_nothing(self, at: Stage[RunStore]) -> None:
        async def write(number: int) -> None:
            lease = await at.store.create_run(f"r{number}", **NEW)
            await asyncio.gather(*(at.store.record_steps(lease, [row(f"a{each}")]) for each in range(10)))
            for each in range(10):
                await at.store.record_steps(lease, [row(f"b{each}"), row(f"c{each}")])
                await at.store.renew_lease(lease, 30.0)
            await at.store.end_run(lease, "done", b"%d" % number)

        await asyncio.gather(*(write(number) for number in range(20)))
        assert len(await at.store.runs()) == 20
        for number in range(20):
            assert (await there(at.store, f"r{number}")).outcome == b"%d" % number
            found = await paths(at.store, f"r{number}")
            assert sorted(found[:10]) == [f"a{each}" for each in range(10)]
            assert found[10:] == [f"{letter}{each}" for each in range(10) for letter in "bc"]

    @scenario()
    async def test_of_many_that_begin_or_claim_a_run_at_once_one_does(self, at: Stage[RunStore]) -> None:
        begun = await asyncio.gather(
            *(at.store.create_run("r1", **{**NEW, "owner": f"o{each}"}) for each in range(8)),
            return_exceptions=True,
        )
        assert [type(each) for each in begun].count(errors.RunExists) == 7
        (lease,) = (each for each in begun if isinstance(each, Lease))
        await at.store.release_run(lease)
        claimed = await asyncio.gather(
            *(at.store.claim_run("r1", owner=f"o{each}", lease=30.0) for each in range(8)),
            return_exceptions=True,
        )
        assert [type(each) for each in claimed].count(errors.RunBusy) == 7

    @scenario()
    async def test_a_write_whose_caller_is_cancelled_has_happened_or_not_when_that_arrives(
        self, at: Stage[RunStore]
    ) -> None:
        lease = await at.store.create_run("r1", **NEW)
        reader = at.reader()
        arrived = []
        for number in range(30):
            rows = [row(f"{number}/{each}") for each in range(3)]
            writing = asyncio.create_task(at.store.record_steps(lease, rows))
            for _ in range(number % 10):
                await asyncio.sleep(0)
            writing.cancel()
            await asyncio.gather(writing, return_exceptions=True)
            found = [path for path in await paths(reader) if path.startswith(f"{number}/")]
            assert len(found) in (0, 3)
            arrived += found
        await at.store.record_steps(lease, [row("last")])
        assert await paths(reader) == [*arrived, "last"]

    # -- closing, and loops ---------------------------------------------------------------------------

    @scenario()
    async def test_a_store_that_was_closed_can_be_used_again(self, at: Stage[RunStore]) -> None:
        lease = await at.store.create_run("r1", **NEW)
        await at.store.record_steps(lease, [row("a")])
        await at.store.close()
        await at.store.close()
        await at.store.record_steps(lease, [row("b")])
        assert await paths(at.store) == ["a", "b"]

    def test_a_store_serves_one_loop_after_the_other(self, tmp_path: Path) -> None:
        store: RunStore = self.make(tmp_path)

        async def write(name: str) -> None:
            lease = await store.create_run(name, **NEW)
            await asyncio.gather(*(store.record_steps(lease, [row(f"{each}")]) for each in range(5)))

        async def count() -> list[int]:
            found = [len(await store.steps(name)) for name in ("a", "b")]
            await store.close()
            return found

        asyncio.run(write("a"))
        asyncio.run(write("b"))
        assert asyncio.run(count()) == [5, 5]

    # -- older versions ------------------------------------------------------------------------------

    @scenario("older_versions")
    async def test_a_run_that_an_older_version_has_written_goes_on(self, at: Stage[RunStore]) -> None:
        for store in at.older():
            info = await there(store)
            assert (info.pipeline, info.status, info.fingerprint, info.inputs, info.outcome) == (
                *("qa", "running", b"{}", b"in"),
                None,
            )
            assert (info.owner, info.epoch, info.resumes, info.created) == ("one", 1, 0, at.clock.now)
            assert await store.steps("r1") == [row("a")._replace(at=at.clock.now)]
            _, lease = await store.claim_run("r1", owner="two", lease=30.0, take_over="one")
            await store.record_steps(lease, [row("b")])
            await store.close()
            assert await paths(store) == ["a", "b"]

    # -- other processes ------------------------------------------------------------------------------

    @scenario("many_processes")
    async def test_of_processes_that_claim_one_run_at_once_one_wins(self, at: Stage[RunStore]) -> None:
        store = at.own_clock()
        await store.release_run(await store.create_run("r1", **NEW))
        racing = await at.children(4, "claim_run", "r1")
        await asyncio.gather(*(child.go() for child in racing))
        said = [line for child in racing for line in await child.rest()]
        assert sorted(said) == ["2", "busy", "busy", "busy"]
        assert (await there(store)).epoch == 2

    @scenario("many_processes")
    async def test_of_processes_that_take_a_run_from_each_other_each_writes_what_it_was_told(
        self, at: Stage[RunStore]
    ) -> None:
        store = at.own_clock()
        await store.create_run("r1", **NEW)
        racing = await at.children(3, "take_over_run", "r1", "40")
        await asyncio.gather(*(child.go() for child in racing))
        said = [line for child in racing for line in await child.rest()]
        assert sorted(await paths(store)) == sorted(said)
        assert (await there(store)).epoch == 1 + 3 * 40

    @scenario("many_processes", "survives_kill")
    async def test_a_process_that_is_killed_leaves_each_write_whole_or_none_of_it(
        self, at: Stage[RunStore]
    ) -> None:
        store = at.own_clock()
        await store.release_run(await store.create_run("r1", **NEW))
        first = 0
        for writes, watched in ROUNDS:
            child = await at.child("record_steps", "r1", str(first), f"p{writes}")
            await child.go()
            if watched:
                while whole_writes(await store.steps("r1")) < first + writes:
                    assert not child.ended
                    await asyncio.sleep(0)
            acknowledged = await child.killed(first - 1, None if watched else first + writes)
            first = whole_writes(await store.steps("r1"))
            assert first - 1 in (acknowledged, acknowledged + 1)
        _, lease = await store.claim_run("r1", owner="here", lease=30.0, take_over=f"p{ROUNDS[-1][0]}")
        await store.record_steps(lease, [row("after")])
        assert len(await store.steps("r1")) == 5 * first + 1
