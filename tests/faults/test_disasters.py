"""The table of disasters: what the caller gets, and that the pool works afterwards.

That no process is left is asserted by the fixture that opens the pools.
"""

from __future__ import annotations

import asyncio
import os
import re
import signal
from pathlib import Path
from typing import Any

import psutil
import pytest
from tests.support import work
from tests.support.backends import Processes
from tests.support.pools import QUICK, OpenPool
from tests.support.processes import children, running, until

from dspex import errors
from dspex.pool import EchoRequest, Limits, Pool, PoolSpec, Restart, State, Timeouts
from dspex.protocol import handshake
from dspex.protocol.frames import MAX_FRAME

WORK = "tests.support.work:"


# name, the work, its arguments, what the caller gets, what the error says
DISASTERS: list[tuple[str, str, tuple[Any, ...], type[errors.DspexError], str]] = [
    *(
        (
            f"killed by {number.name}",
            "die_by",
            (int(number),),
            errors.WorkerDiedError,
            f"ended by {number.name}",
        )
        for number in (
            signal.SIGKILL,
            signal.SIGTERM,
            signal.SIGSEGV,
            signal.SIGABRT,
            signal.SIGBUS,
            signal.SIGFPE,
        )
    ),
    ("crash in C", "crash_in_c", (), errors.WorkerDiedError, "Segmentation fault"),
    ("exit with a status", "leave", (7,), errors.WorkerDiedError, "exited with status 7"),
    ("exit with status 0", "leave", (0,), errors.WorkerDiedError, "exited with status 0"),
    ("sys.exit in the program", "ask_to_exit", (), errors.RemoteError, "SystemExit: 3"),
    ("an exception", "fail", ("no such row",), errors.RemoteError, "ValueError: no such row"),
    ("an exception that cannot be told", "fail_without_words", (), errors.RemoteError, "Mute, whose text"),
    ("a result that cannot be sent", "give_unencodable", (), errors.WireError, r"\$\.rows\[1\]: object"),
    (
        "an error that cannot be sent",
        "fail_with_an_object",
        (),
        errors.WireError,
        "InputError: no such customer",
    ),
    ("garbage on the wire", "write_garbage_on_every_socket", (), errors.WorkerDiedError, "not a frame"),
    ("an unknown function", "nothing_here", (), errors.ConfigError, "nothing_here"),
]


@pytest.mark.parametrize(
    ("act", "args", "error", "says"), [row[1:] for row in DISASTERS], ids=[row[0] for row in DISASTERS]
)
async def test_a_disaster_fails_only_its_own_call_and_the_pool_carries_on(
    open_pool: OpenPool, act: str, args: tuple[Any, ...], error: type[errors.DspexError], says: str
) -> None:
    pool = await open_pool(workers=1)

    with pytest.raises(error, match=says):
        await pool.with_options(timeout=20).run(WORK + act, *args)

    assert await pool.with_options(timeout=20).run(work.add, 2, 3) == 5


async def test_a_disaster_on_a_spawned_worker_fails_only_its_own_call_too(open_pool: OpenPool) -> None:
    """The whole table on one pool, since each of its deaths costs the start of an interpreter."""
    pool = await open_pool(workers=3, start="spawn", max_inflight=1, restart=Restart(max=100))
    witness = asyncio.ensure_future(pool.run(work.wait_for_ever))
    await until(lambda: sum(worker.inflight for worker in pool.status().workers) == 1)

    rows = iter(DISASTERS)

    async def meet() -> None:
        for name, act, args, error, says in rows:
            # Who dies without an answer is replaced later and later.
            assert await pool.run(work.add, 2, 3) == 5
            end: Any
            (end,) = await asyncio.gather(pool.run(WORK + act, *args), return_exceptions=True)
            assert type(end) is error, f"{name}: {end!r}"
            assert re.search(says, str(end)), f"{name}: {end}"

    await asyncio.gather(meet(), meet())
    assert pool.status().deaths == sum(error is errors.WorkerDiedError for _, _, _, error, _ in DISASTERS)
    assert not witness.done()
    assert await pool.with_options(timeout=20).run(work.add, 2, 3) == 5
    witness.cancel()


_HARMLESS = {"SIGCHLD", "SIGCONT", "SIGURG", "SIGWINCH", "SIGSTOP", "SIGTSTP", "SIGTTIN", "SIGTTOU"}
"""What a process ignores unless it says otherwise, and what stops it: `HANGS` has that."""


async def test_each_signal_that_can_end_a_worker_ends_its_calls_and_nothing_else(open_pool: OpenPool) -> None:
    pool = await open_pool(workers=2, restart=Restart(max=1000))
    deadly = [number for number in signal.valid_signals() if getattr(number, "name", "") not in _HARMLESS]
    ignored = {signal.SIGPIPE, signal.SIGXFSZ}  # by the interpreter
    assert len(deadly) > 50
    for number in deadly:
        assert await pool.run(work.add, 2, 3) == 5
        if number in ignored:
            with pytest.raises(errors.DeadlineExceeded):
                await pool.with_options(timeout=0.05).run(work.die_by_async, int(number))
            continue
        with pytest.raises(errors.WorkerDiedError) as raised:
            await pool.with_options(timeout=20).run(work.die_by_async, int(number))
        assert raised.value.exit_status == -number
    await until(lambda: pool.status().deaths == len(deadly) - len(ignored))
    assert await pool.run(work.add, 2, 3) == 5


@pytest.mark.parametrize("start", ["forkserver", "spawn"])
async def test_memory_there_is_not_is_an_error_of_the_work_and_the_worker_lives(
    open_pool: OpenPool, start: str
) -> None:
    pool = await open_pool(start=start, limits=Limits(memory=512 * 2**20))
    before = await pool.run(work.pid)
    for _ in range(3):
        with pytest.raises(errors.RemoteError, match="MemoryError"):
            await pool.run(work.allocate, 2**30)
    assert await pool.run(work.pid) == before


# name, the work, whether the worker can be told to stop
HANGS = [
    ("async work", "wait_for_ever", True),
    ("a thread", "block", False),
    ("the worker's loop", "block_the_loop", False),
    ("work that catches its cancellation", "refuse_to_stop", False),
    ("a stopped process", "stop_the_process", False),
]


@pytest.mark.parametrize(("act", "stops"), [row[1:] for row in HANGS], ids=[row[0] for row in HANGS])
async def test_what_hangs_is_ended_at_the_deadline_and_its_place_is_free_again(
    open_pool: OpenPool, act: str, stops: bool
) -> None:
    pool = await open_pool(workers=1, max_inflight=1, timeouts=QUICK.replace(cancel=0.2))
    before = await pool.run(work.pid)

    with pytest.raises(errors.DeadlineExceeded):
        await pool.with_options(timeout=0.3).run(WORK + act)

    assert await pool.with_options(timeout=20).run(work.add, 2, 3) == 5
    assert (await pool.run(work.pid) == before) is stops


@pytest.mark.parametrize(("act", "stops"), [row[1:] for row in HANGS], ids=[row[0] for row in HANGS])
async def test_a_cancelled_call_frees_its_place(
    open_pool: OpenPool, tmp_path: Path, act: str, stops: bool
) -> None:
    pool = await open_pool(workers=1, max_inflight=1, timeouts=QUICK.replace(cancel=0.2))
    before = await pool.run(work.pid)
    begun = tmp_path / "begun"
    call = asyncio.ensure_future(pool.run(WORK + act, str(begun)))
    await until(begun.exists)  # what has not begun can be taken back, whatever it would have done

    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call

    assert await pool.with_options(timeout=20).run(work.add, 2, 3) == 5
    assert (await pool.run(work.pid) == before) is stops


async def test_what_hangs_on_a_spawned_worker_is_ended_at_the_deadline_too(open_pool: OpenPool) -> None:
    """The whole table on one pool, each hang on a worker of its own, at the same time."""
    pool = await open_pool(
        workers=len(HANGS), start="spawn", max_inflight=1, timeouts=QUICK.replace(cancel=0.2)
    )
    await until(lambda: [w.state for w in pool.status().workers] == [State.READY] * len(HANGS), seconds=30)
    before = {worker.pid for worker in pool.status().workers}
    kept = sum(stops for _, _, stops in HANGS)

    ends = await asyncio.gather(
        *(pool.with_options(timeout=0.3).run(WORK + act) for _, act, _ in HANGS), return_exceptions=True
    )

    assert [type(end) for end in ends] == [errors.DeadlineExceeded] * len(HANGS)
    await until(lambda: pool.status().deaths == len(HANGS) - kept)
    await until(lambda: [w.state for w in pool.status().workers] == [State.READY] * len(HANGS), seconds=30)
    between = {worker.pid for worker in pool.status().workers}
    assert len(before & between) == kept
    assert await pool.with_options(timeout=20).run(work.add, 2, 3) == 5


STARTS_OF_WORKERS = pytest.mark.parametrize("start", ["forkserver", "spawn"])


@STARTS_OF_WORKERS
async def test_a_worker_killed_from_outside_fails_its_calls_and_no_other(
    open_pool: OpenPool, start: str
) -> None:
    pool = await open_pool(workers=2, start=start)
    await until(lambda: [w.state for w in pool.status().workers] == [State.READY, State.READY])
    calls = [asyncio.ensure_future(pool.run(work.wait_for_ever)) for _ in range(6)]
    await until(lambda: [w.inflight for w in pool.status().workers] == [3, 3])
    victim = pool.status().workers[0].pid
    assert victim is not None

    os.kill(victim, signal.SIGKILL)
    await until(lambda: sum(call.done() for call in calls) == 3)

    failures = [call.exception() for call in calls if call.done()]
    assert [type(failure) for failure in failures] == [errors.WorkerDiedError] * 3
    assert len({id(failure) for failure in failures}) == 3
    for failure in failures:
        assert isinstance(failure, errors.WorkerDiedError)
        assert (failure.signal, failure.pid) == ("SIGKILL", victim)
    assert await pool.run(work.add, 1, 1) == 2
    for call in calls:
        call.cancel()


@STARTS_OF_WORKERS
async def test_all_workers_may_die_at_once(open_pool: OpenPool, start: str) -> None:
    pool = await open_pool(start=start, workers=2)
    await until(lambda: [w.state for w in pool.status().workers] == [State.READY, State.READY])
    for worker in pool.status().workers:
        assert worker.pid is not None
        os.kill(worker.pid, signal.SIGKILL)

    assert await asyncio.gather(*(retried(pool) for _ in range(20))) == [5] * 20


async def retried(pool: Pool) -> int:
    """A call may still be put on a worker whose death is not known yet: that one says so."""
    while True:
        try:
            return int(await pool.run(work.add, 2, 3))
        except errors.WorkerDiedError:
            continue


@STARTS_OF_WORKERS
async def test_the_innocent_on_a_worker_ended_for_anothers_fault_are_run_again(
    open_pool: OpenPool, start: str
) -> None:
    pool = await open_pool(start=start, workers=1, max_inflight=8, timeouts=QUICK.replace(cancel=0.2))
    guilty = asyncio.ensure_future(pool.with_options(timeout=0.3).run(work.block))
    innocent = asyncio.ensure_future(
        pool.with_options(idempotent=True).run(work.survivor_of, await pool.run(work.pid))
    )
    touchy = asyncio.ensure_future(pool.with_options(idempotent=False).run(work.wait_for_ever))

    with pytest.raises(errors.DeadlineExceeded):
        await guilty
    with pytest.raises(errors.WorkerDiedError, match="did not stop"):
        await touchy
    assert await innocent == "ran elsewhere"


@STARTS_OF_WORKERS
async def test_the_last_words_of_a_worker_are_in_the_error(open_pool: OpenPool, start: str) -> None:
    pool = await open_pool(start=start, workers=1)
    await pool.run(work.say, "the tensor has the wrong shape")

    with pytest.raises(errors.WorkerDiedError, match="the tensor has the wrong shape"):
        await pool.run(work.leave, 1)


@STARTS_OF_WORKERS
async def test_the_last_words_of_a_worker_have_no_secret_of_its_environment(
    open_pool: OpenPool, start: str
) -> None:
    token = "tok-0123456789"
    pool = await open_pool(start=start, workers=1, env={"SHOP_TOKEN": token, "SHOP_NAME": "a shop of books"})
    await pool.run(work.say, f"{token} of a shop of books")

    with pytest.raises(errors.WorkerDiedError, match=r"\*\*\* of a shop of books") as raised:
        await pool.run(work.leave, 1)
    assert token not in repr(raised.value.to_dict())


async def test_what_the_work_prints_does_not_touch_the_wire(open_pool: OpenPool) -> None:
    pool = await open_pool(workers=1)
    await asyncio.gather(*(pool.run(work.say, "x" * 100_000) for _ in range(20)))
    assert await pool.run(work.add, 2, 3) == 5


# name, the module preloaded, more settings, the code of the error, what it says
STARTS: list[tuple[str, str, dict[str, Any], str, str]] = [
    (
        "hangs",
        "tests.support.slow_start",
        {"timeouts": QUICK.replace(start=1.0)},
        "start-timeout",
        "READY within 1 s",
    ),
    ("fails", "tests.support.broken_start", {}, "worker-start", "the model file is missing"),
    ("dies", "tests.support.dying_start", {}, "forkserver-died", "SIGSEGV"),
    ("preloads what is not there", "no_such_module_here", {}, "worker-start", "no_such_module_here"),
    ("is no python", "tests.support.work", {"python": "/bin/false"}, "start-exit", "exited with status 1"),
    (
        "starts a thread",
        "tests.support.threaded_start",
        {},
        "forkserver-not-single-threaded",
        "threaded_start left 1 thread",
    ),
    (
        "hangs, spawned",
        "tests.support.slow_start",
        {"timeouts": QUICK.replace(start=1.0), "start": "spawn"},
        "start-timeout",
        "READY within 1 s",
    ),
    (
        "fails, spawned",
        "tests.support.broken_start",
        {"start": "spawn"},
        "worker-start",
        "the model file is missing",
    ),
    ("dies, spawned", "tests.support.dying_start", {"start": "spawn"}, "start-exit", "SIGSEGV"),
]


@pytest.mark.parametrize(
    ("module", "settings", "code", "says"), [row[1:] for row in STARTS], ids=[row[0] for row in STARTS]
)
async def test_a_start_that_fails_says_why(
    open_pool: OpenPool, module: str, settings: dict[str, Any], code: str, says: str
) -> None:
    with pytest.raises(errors.WorkerStartError, match=says) as raised:
        await open_pool(preload=[module], **settings)
    assert raised.value.code == code


@pytest.mark.parametrize("start", ["forkserver", "spawn"])
async def test_starts_that_fail_in_a_loop_spend_the_budget_and_tell_the_first_cause(
    open_pool: OpenPool, tmp_path: Path, start: str
) -> None:
    broken = tmp_path / "broken"
    settings = {"env": {"DSPEX_TEST_BROKEN": str(broken)}, "preload": ["tests.support.fragile_start"]}
    here = Processes()
    pool = await open_pool(start=start, restart=Restart(max=2), backend=here, **settings)
    broken.touch()
    if here.forkserver is not None:  # it has imported the module, and would not again
        os.kill(here.forkserver, signal.SIGKILL)
        await until(lambda: here.forkserver is None)
    with pytest.raises(errors.WorkerDiedError):
        await pool.run(work.say_and_die, "farewell")

    with pytest.raises(errors.WorkerStartError) as raised:
        await pool.with_options(timeout=20).run(work.add, 2, 3)
    assert raised.value.code == "restart-budget"
    assert "restart.max=2" in raised.value.message
    assert "farewell" in str(raised.value)  # the first cause, with its last lines


async def test_the_queue_is_bounded_and_a_cancelled_caller_leaves_it(open_pool: OpenPool) -> None:
    pool = await open_pool(workers=1, max_inflight=1, queue=2)
    running = asyncio.ensure_future(pool.run(work.wait_for_ever))
    waiting = [asyncio.ensure_future(pool.run(work.add, i, 0)) for i in range(2)]
    await until(lambda: pool.status().waiting == 2)

    with pytest.raises(errors.PoolSaturated, match="2 calls wait already"):
        await pool.run(work.add, 0, 0)
    waiting[0].cancel()
    await until(lambda: pool.status().waiting == 1)
    another = asyncio.ensure_future(pool.run(work.add, 7, 0))
    await until(lambda: pool.status().waiting == 2)
    running.cancel()

    assert await waiting[1] == 1
    assert await another == 7


async def test_a_deadline_counts_the_time_in_the_queue(open_pool: OpenPool) -> None:
    pool = await open_pool(workers=1, max_inflight=1)
    running = asyncio.ensure_future(pool.run(work.wait_for_ever))
    await until(lambda: pool.status().workers[0].inflight == 1)

    with pytest.raises(errors.DeadlineExceeded, match="in the queue"):
        await pool.with_options(timeout=0.2).run(work.add, 2, 3)

    assert pool.status().waiting == 0
    running.cancel()


async def test_closing_fails_what_does_not_finish_and_refuses_what_comes_after(open_pool: OpenPool) -> None:
    pool = await open_pool(workers=1, max_inflight=1)
    running = asyncio.ensure_future(pool.run(work.block))
    await until(lambda: pool.status().workers[0].inflight == 1)
    waiting = asyncio.ensure_future(pool.run(work.add, 1, 1))
    await until(lambda: pool.status().waiting == 1)

    await pool.aclose(timeout=0)
    await pool.aclose()

    for call in (running, waiting):
        with pytest.raises(errors.PoolClosedError):
            await call
    with pytest.raises(errors.PoolClosedError, match="it has been closed"):
        await pool.run(work.add, 1, 1)
    assert pool.state is State.DEAD


async def test_closing_lets_calls_finish_within_its_time(open_pool: OpenPool) -> None:
    pool = await open_pool(workers=1, max_inflight=1)
    calls = [asyncio.ensure_future(pool.run(work.add, i, 0)) for i in range(50)]
    await asyncio.sleep(0)  # each is submitted, and none can have been answered
    assert pool.status().waiting > 0

    await pool.aclose()

    assert await asyncio.gather(*calls) == list(range(50))


async def test_a_start_that_is_cancelled_leaves_nothing(open_pool: OpenPool) -> None:
    opening = asyncio.ensure_future(open_pool(preload=["tests.support.slow_start"]))
    await asyncio.sleep(0)
    opening.cancel()
    with pytest.raises(asyncio.CancelledError):
        await opening


@pytest.mark.parametrize("timeout", [0, -1, float("nan"), float("inf"), "soon"])
async def test_a_timeout_that_is_none_is_refused(open_pool: OpenPool, timeout: Any) -> None:
    pool = await open_pool(workers=1)
    with pytest.raises(errors.ConfigError):
        await pool.call(EchoRequest(None), timeout=timeout)


async def test_a_pool_is_not_for_another_loop_nor_for_a_fork(
    open_pool: OpenPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool = await open_pool(workers=1)

    with pytest.raises(errors.PoolClosedError, match="another event loop"):
        await asyncio.to_thread(lambda: asyncio.run(pool.echo(None)))

    with monkeypatch.context() as fork:
        fork.setattr(pool._residence._owner, "is_elsewhere", True)
        with pytest.raises(errors.PoolClosedError, match="a fork of it"):
            await pool.echo(None)
        await pool.aclose()
    assert await pool.echo(1) == 1


@pytest.mark.parametrize("start", ["forkserver", "spawn"])
def test_a_loop_that_ends_takes_its_pool_along(start: Any) -> None:
    """Nobody has closed the pool, and the process goes on."""
    before = {child.pid for child in children()}
    kept: list[asyncio.Future[Any]] = []

    async def main() -> Pool:
        pool = Pool(PoolSpec(workers=2, start=start, timeouts=Timeouts(stop=60)))
        await pool.start()
        for act in ("block", "wait_for_ever", "block_the_loop"):  # whatever its workers do
            kept.append(asyncio.ensure_future(pool.run(WORK + act)))
        await until(lambda: sum(worker.inflight for worker in pool.status().workers) == 3)
        return pool

    pool = asyncio.run(main())

    assert pool.state is State.DEAD
    assert [child for child in children() if child.pid not in before] == []
    assert all(call.done() for call in kept)
    with pytest.raises(errors.PoolClosedError):
        asyncio.run(pool.echo(1))
    asyncio.run(pool.aclose())


async def test_a_pool_starts_once(open_pool: OpenPool) -> None:
    pool = await open_pool(workers=1)
    with pytest.raises(errors.PoolClosedError, match="before"):
        await pool.start()


async def test_a_worker_may_be_spawned_where_a_forkserver_cannot_be(open_pool: OpenPool) -> None:
    pool = await open_pool(workers=1, start="spawn", preload=["tests.support.threaded_start"])
    with pytest.raises(errors.WorkerDiedError, match="SIGKILL"):
        await pool.run(work.die_by, int(signal.SIGKILL))
    assert await pool.run(work.add, 2, 3) == 5


async def test_workers_outlive_their_forkserver_and_the_next_one_is_made(open_pool: OpenPool) -> None:
    here = Processes()
    pool = await open_pool(workers=1, backend=here)
    assert here.forkserver is not None
    first = await pool.run(work.pid)
    call = asyncio.ensure_future(pool.run(work.wait_for_ever))
    os.kill(here.forkserver, signal.SIGKILL)
    await until(lambda: here.forkserver is None)

    assert await pool.run(work.pid) == first
    assert not call.done()
    with pytest.raises(errors.WorkerDiedError, match="ended with an unknown status"):
        await pool.run(work.leave, 1)
    with pytest.raises(errors.WorkerDiedError):
        await call
    assert await pool.run(work.pid) != first
    assert here.forkserver is not None


async def test_forkserver_and_workers_that_die_leave_no_descriptor(open_pool: OpenPool) -> None:
    here = Processes()
    pool = await open_pool(workers=1, restart=Restart(max=1000), backend=here)
    assert await pool.run(work.add, 2, 3) == 5
    before = psutil.Process().num_fds()
    for _ in range(3):
        assert here.forkserver is not None
        os.kill(here.forkserver, signal.SIGKILL)
        await until(lambda: here.forkserver is None)
        with pytest.raises(errors.WorkerDiedError):
            await pool.run(work.leave, 1)
        assert await pool.run(work.add, 2, 3) == 5
    await until(lambda: psutil.Process().num_fds() == before)


@pytest.mark.parametrize("start", ["forkserver", "spawn"])
async def test_a_worker_of_another_version_is_refused_at_the_hand_shake(
    start: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(handshake._VERSIONS, "dspex", "0.0.0-other")
    pool = Pool(PoolSpec(workers=1, start=start))  # type: ignore[arg-type]
    with pytest.raises(errors.WorkerStartError, match=r"0\.0\.0-other") as raised:
        await pool.start()
    assert raised.value.code == "version-mismatch"
    assert pool.state is State.DEAD


@STARTS_OF_WORKERS
async def test_a_worker_that_stops_reading_is_ended_at_the_deadline(open_pool: OpenPool, start: str) -> None:
    pool = await open_pool(start=start, workers=1, timeouts=QUICK.replace(cancel=0.2))
    pid = await pool.run(work.pid)
    os.kill(pid, signal.SIGSTOP)

    with pytest.raises(errors.DeadlineExceeded):  # 16 MB: far more than the socket holds
        await pool.call(EchoRequest(b"x" * 2**24), timeout=0.5)

    assert await pool.call(EchoRequest(b"x" * 2**24), timeout=20) == b"x" * 2**24


async def test_a_payload_or_an_answer_beyond_the_limit_of_a_frame_is_refused(open_pool: OpenPool) -> None:
    pool = await open_pool(workers=1)
    text = "x" * (MAX_FRAME + 1)  # bytes of this size go by shared memory
    with pytest.raises(errors.WireError, match="limit"):
        await pool.echo(text)
    with pytest.raises(errors.WireError, match="limit"):
        await pool.run("builtins:format", "", f">{MAX_FRAME + 1}")
    assert await pool.run(work.add, 2, 3) == 5


async def test_a_full_disk_does_not_stop_a_worker(open_pool: OpenPool) -> None:
    pool = await open_pool(workers=1, env={"TMPDIR": "/dev/full", "DSPY_CACHEDIR": "/dev/full/cache"})
    assert await pool.run(work.add, 2, 3) == 5
    with pytest.raises(errors.RemoteError, match="No space left"):
        await pool.run(work.write_to_a_full_disk)
    assert await pool.run(work.add, 2, 3) == 5


@pytest.mark.parametrize("start", ["forkserver", "spawn"])
async def test_what_the_work_has_started_ends_with_its_worker(open_pool: OpenPool, start: str) -> None:
    pool = await open_pool(workers=1, start=start)
    first = psutil.Process(await pool.run(work.start_a_child, "live"))
    with pytest.raises(errors.WorkerDiedError, match="SIGKILL") as raised:
        await pool.run(work.start_a_child, "die")
    second = int(raised.value.output.split()[-1])

    await until(lambda: not running(first) and not psutil.pid_exists(second))

    third = psutil.Process(await pool.run(work.start_a_child, "live"))
    await pool.aclose()
    await until(lambda: not running(third))
