"""The contract of a backend: what a pool promises holds wherever its workers run."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.support import work
from tests.support.dialled import DialledProcesses
from tests.support.pools import QUICK, Chat
from tests.support.processes import children, until

from dspex import errors
from dspex.pool import Backend, FunctionRequest, Limits, LocalProcesses, Pool, PoolSpec, State
from dspex.pool._backends.connect_back import Listener
from dspex.protocol.connect_back import GREETING

WORK = "tests.support.work:"
READERS = "tests.support.readers:"
OpenPool = Callable[..., Awaitable[Pool]]

no_ray = importlib.util.find_spec("ray") is None or not os.environ.get("DSPEX_TEST_RAY")

BACKENDS = [
    pytest.param("forkserver"),
    pytest.param("spawn"),
    pytest.param("dialled"),
    pytest.param(
        "ray",
        marks=[
            pytest.mark.skipif(no_ray, reason="a Ray cluster takes half a GiB: `make test-ray` starts one"),
            pytest.mark.timeout(120),
        ],
    ),
]


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    """A Ray cluster of this machine, for the tests that need one."""
    import ray

    environment = {"PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[2]), "python"])}
    ray.init(
        num_cpus=4,
        include_dashboard=False,
        _node_ip_address="127.0.0.1",
        runtime_env={"env_vars": environment},
        log_to_driver=False,
    )
    yield
    ray.shutdown()


SLOW_START = QUICK.replace(start=60.0)
"""A Ray cluster takes its time to find a place for the first worker."""


@pytest.fixture(params=BACKENDS)
def backend(request: pytest.FixtureRequest) -> tuple[Backend, dict[str, Any]]:
    """Where workers run, and the settings that choose it."""
    if request.param == "dialled":
        return DialledProcesses(), {}
    if request.param == "ray":
        request.getfixturevalue("cluster")
        from dspex.pool.ray import RayActors

        return RayActors(num_cpus=0.1), {}
    return LocalProcesses(), {"start": request.param}


@pytest.fixture
async def open_pool(backend: tuple[Backend, dict[str, Any]]) -> AsyncIterator[OpenPool]:
    """Opens pools on the backend, closes them, and asserts that no process of theirs is left."""
    before = {child.pid for child in children()}
    opened: list[Pool] = []
    place, choice = backend

    async def make(*, lm: dict[str, Any] | None = None, **settings: Any) -> Pool:
        spec = PoolSpec(**{"workers": 1, "timeouts": SLOW_START, **choice, **settings})
        pool = Pool(spec, lm=lm, backend=place)
        opened.append(pool)
        await pool.start()
        return pool

    yield make
    for pool in opened:
        await pool.aclose(timeout=0)
    if place.describe()["backend"] != "ray":  # Ray keeps processes of its own, for whoever comes next
        await until(lambda: not [child for child in children() if child.pid not in before])


def ready(pool: Pool) -> list[int | None]:
    return [worker.pid for worker in pool.status().workers if worker.state is State.READY]


async def test_calls_are_answered_many_at_once_by_real_dspy(open_pool: OpenPool, chat: Chat) -> None:
    pool = await open_pool(lm=chat.lm())
    calls = [pool.run(work.wait_a_moment, number) for number in range(200)]
    assert await asyncio.gather(*calls) == list(range(200))
    assert (await pool.predict("question -> answer", {"question": "sky?"}))["completions"] == [
        {"answer": "blue"}
    ]
    assert await pool.echo(b"x" * 2**22) == b"x" * 2**22


async def test_the_worker_is_another_process_and_says_how_it_is(open_pool: OpenPool) -> None:
    pool = await open_pool(env={"DSPEX_TEST_SAYS": "hello"}, limits=Limits(nice=1))
    (worker,) = pool.status().workers
    assert worker.pid == await pool.run(work.pid) != os.getpid()
    assert worker.where
    assert await pool.run(work.environment, "DSPEX_TEST_SAYS") == "hello"
    assert await pool.run(work.environment, "OMP_NUM_THREADS") is not None
    assert (await pool.run(work.niceness_and_cpus))[0] >= 1
    assert pool.status().backend["backend"] in {"local", "dialled", "ray"}
    await until(lambda: pool.status().workers[0].resident > 2**20)


async def test_streams_feeds_and_call_backs_work(open_pool: OpenPool, tmp_path: Path) -> None:
    pool = await open_pool()
    parts = pool.stream(FunctionRequest.of(WORK + "count", 500))
    assert [part async for part in parts] == list(range(500))
    doubled = pool.stream(FunctionRequest.of(READERS + "double"), input_streams={"parts": range(100)})
    assert [part async for part in doubled] == list(range(0, 200, 2))
    request = FunctionRequest.of("tests.support.programs:ask_back", "pid")
    assert await pool.call(request, host_functions={"pid": os.getpid}) == os.getpid()

    file = tmp_path / "progress"
    endless = pool.stream(FunctionRequest.of(WORK + "count_and_tell", str(file)))
    assert [await anext(endless), await anext(endless)] == [0, 1]
    await endless.aclose()
    await until(lambda: file.read_text().endswith(" closed"))


async def test_a_cancelled_call_stops_its_work_and_frees_its_place(
    open_pool: OpenPool, tmp_path: Path
) -> None:
    pool = await open_pool(max_inflight=1)
    file = tmp_path / "told"
    before = ready(pool)
    call = asyncio.ensure_future(pool.run(work.wait_and_tell, str(file)))
    await until(lambda: file.exists() and file.read_text() == "begun")
    call.cancel()
    assert await pool.run(work.add, 2, 3) == 5
    assert file.read_text() == "cancelled"
    assert ready(pool) == before


async def test_a_deadline_ends_work_that_stops_and_a_worker_that_does_not(open_pool: OpenPool) -> None:
    pool = await open_pool(timeouts=SLOW_START.replace(cancel=0.2))
    before = ready(pool)
    with pytest.raises(errors.DeadlineExceeded):
        await pool.with_options(timeout=0.3).run(work.wait_for_ever)
    assert await pool.run(work.pid) == before[0]
    with pytest.raises(errors.DeadlineExceeded):
        await pool.with_options(timeout=0.3).run(work.block)
    await until(lambda: ready(pool) not in ([], before), seconds=60)
    assert await pool.run(work.add, 2, 3) == 5


async def test_a_death_fails_what_ran_there_says_its_last_words_and_is_made_good(open_pool: OpenPool) -> None:
    pool = await open_pool()
    before = ready(pool)
    with pytest.raises(errors.WorkerDiedError, match="out of ideas") as raised:
        await pool.run(work.say_and_die, "out of ideas")
    assert raised.value.pid == before[0]
    with pytest.raises(errors.WorkerDiedError):
        await pool.with_options(timeout=60).run(work.crash_in_c)
    assert await pool.with_options(timeout=60).run(work.add, 2, 3) == 5
    assert pool.status().deaths == 2
    assert ready(pool) != before


async def test_what_hangs_as_a_whole_is_missed_and_replaced(open_pool: OpenPool) -> None:
    pool = await open_pool(timeouts=SLOW_START.replace(heartbeat=2.0))
    before = ready(pool)
    with pytest.raises(errors.WorkerDiedError, match="no heartbeat"):
        await pool.with_options(timeout=60).run(work.stop_the_process)
    assert await pool.with_options(timeout=60).run(work.pid) not in before


async def test_drain_restart_and_resize_lose_no_call(open_pool: OpenPool) -> None:
    pool = await open_pool(max_inflight=5)
    before = ready(pool)
    calls = [asyncio.ensure_future(pool.run(work.wait_a_moment, number)) for number in range(100)]
    await pool.restart()
    pool.resize(2)
    await until(lambda: len(ready(pool)) == 2, seconds=60)
    pool.resize(1)
    assert await asyncio.gather(*calls) == list(range(100))
    await until(lambda: len(pool.status().workers) == 1)
    assert set(before).isdisjoint(ready(pool))
    assert pool.status().deaths == 0


async def test_a_start_that_fails_says_why(open_pool: OpenPool) -> None:
    with pytest.raises(errors.WorkerStartError, match="the model file is missing"):
        await open_pool(preload=["tests.support.broken_start"])


async def test_a_start_that_takes_too_long_or_is_cancelled_leaves_nothing(open_pool: OpenPool) -> None:
    with pytest.raises(errors.WorkerStartError) as raised:
        await open_pool(preload=["tests.support.slow_start"], timeouts=SLOW_START.replace(start=3.0))
    assert raised.value.code == "start-timeout"
    opening = asyncio.ensure_future(open_pool())
    await asyncio.sleep(0)
    opening.cancel()
    with pytest.raises(asyncio.CancelledError):
        await opening


async def test_closing_finishes_what_it_can_and_fails_the_rest(open_pool: OpenPool) -> None:
    pool = await open_pool(max_inflight=1)
    calls = [asyncio.ensure_future(pool.run(work.add, number, 0)) for number in range(20)]
    await asyncio.sleep(0)  # each is submitted, and none can have been answered
    assert pool.status().waiting > 0
    await pool.aclose()
    assert await asyncio.gather(*calls) == list(range(20))

    pool = await open_pool(max_inflight=1)
    hanging = asyncio.ensure_future(pool.run(work.block))
    await until(lambda: pool.status().workers[0].inflight == 1)
    await pool.aclose(timeout=0)
    with pytest.raises(errors.PoolClosedError):
        await hanging
    assert pool.status().workers == ()


@pytest.mark.skipif(no_ray, reason="a Ray cluster takes half a GiB: `make test-ray` starts one")
@pytest.mark.parametrize("settings", [{"start": "forkserver"}, {"python": sys.executable}])
async def test_what_ray_decides_is_no_setting_of_its_pools(cluster: None, settings: dict[str, Any]) -> None:
    from dspex.pool.ray import RayActors

    pool = Pool(PoolSpec(name="far", **settings), backend=RayActors())
    with pytest.raises(errors.ConfigError) as refused:
        await pool.start()
    assert refused.value.path == f"pool.far.{next(iter(settings))}"
    await pool.aclose()


async def test_without_ray_its_backend_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    from dspex.pool.ray import RayActors

    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(errors.ConfigError, match=r"dspex\[ray\]") as refused:
        RayActors(num_gpus=1)
    assert refused.value.code == "no-ray"


async def test_a_switchboard_hangs_up_on_strangers() -> None:
    listener = Listener()
    connect_info = listener.expect()
    for greeting in (
        b"GET / HTTP/1.1\r\nHost: localhost\r\nAccept: text/html\r\n\r\n",  # as long as a greeting, and more
        GREETING.pack(bytes(32), 0, 1),  # another token
        GREETING.pack(connect_info.token, 9, 1),  # a role there is not
    ):
        reader, writer = await asyncio.open_connection(connect_info.host, connect_info.port)
        writer.write(greeting)
        async with asyncio.timeout(10):
            with contextlib.suppress(ConnectionResetError):
                assert await reader.read() == b""
        writer.close()
    assert str(connect_info.token) not in repr(connect_info)
    listener.forget(connect_info)
    await listener.aclose()


async def test_the_key_is_told_to_the_worker_and_shown_nowhere(open_pool: OpenPool, chat: Chat) -> None:
    pool = await open_pool(lm=chat.lm())
    said = await pool.run(work.command_line_and_environment)
    assert chat.lm()["api_key"] not in said
    assert chat.lm()["api_key"] not in repr(pool) + repr(pool.status()) + str(pool.spec)
