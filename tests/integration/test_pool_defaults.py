"""Defaults that spare users known traps, each shown on the trap itself."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.support import work
from tests.support.backends import Processes
from tests.support.pools import Chat, OpenPool
from tests.support.processes import until
from tests.support.work import descriptors

from dspex.pool import FunctionRequest, PredictRequest
from dspex.pool._profiles import DEADLINES
from dspex.testing import ChatRequest

WORK = "tests.support.work:"
ASK = PredictRequest.of("question -> answer", {"question": "sky?"})


@pytest.mark.parametrize("start", ["forkserver", "spawn"])
async def test_linear_algebra_has_one_thread_unless_somebody_says_otherwise(
    open_pool: OpenPool, monkeypatch: pytest.MonkeyPatch, start: str
) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "2")  # the service's
    pool = await open_pool(start=start, env={"MKL_NUM_THREADS": "3"})  # the pool's
    names = ["OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"]
    assert [await pool.run(work.environment, name) for name in names] == ["1", "2", "3"]


@pytest.mark.parametrize("start", ["forkserver", "spawn"])
async def test_as_many_threads_of_the_default_executor_as_calls_in_flight(
    open_pool: OpenPool, start: str
) -> None:
    pool = await open_pool(start=start, max_inflight=150)
    assert await pool.with_options(timeout=30).run(work.meet, 150) == 150


@pytest.mark.parametrize("start", ["forkserver", "spawn"])
async def test_no_disk_cache_is_opened_before_a_fork_nor_after(
    open_pool: OpenPool, chat: Chat, tmp_path: Path, start: str
) -> None:
    here = Processes()
    pool = await open_pool(lm=chat.lm(), start=start, env={"DSPY_CACHEDIR": str(tmp_path)}, backend=here)
    for _ in range(2):
        assert (await pool.call(ASK))["completions"] == [{"answer": "blue"}]
    assert len(chat.bodies) == 2  # asked twice: there is no cache in memory either
    assert list(tmp_path.iterdir()) == []
    plain = ("pipe:", "socket:", "anon_inode:", "/dev/null")
    forkservers = [here.forkserver] if start == "forkserver" else []
    for pid in [*forkservers, pool.status().workers[0].pid]:
        open_here = descriptors(pid)
        assert 5 <= len(open_here) <= 16
        assert [name for name in open_here if not name.startswith(plain)] == []


@pytest.mark.parametrize(("profile", "seconds"), DEADLINES.items())
async def test_a_named_profile_is_the_calls_deadline(
    open_pool: OpenPool, profile: Any, seconds: float
) -> None:
    pool = await open_pool()
    left, _ = await pool.call(FunctionRequest.of("tests.support.programs:time_and_trace"), timeout=profile)
    assert 0.9 * seconds < left <= seconds


@pytest.mark.parametrize("start", ["forkserver", "spawn"])
@pytest.mark.parametrize("name", ["OPENAI_API_BASE", "OPENAI_BASE_URL"])
async def test_a_gateway_in_the_environment_does_not_send_dspy_through_litellm(
    open_pool: OpenPool, chat: Chat, start: str, name: str
) -> None:
    pool = await open_pool(lm=chat.lm(), start=start, env={name: "http://127.0.0.1:9/v1"})
    assert (await pool.call(ASK))["completions"] == [{"answer": "blue"}]
    assert await pool.run(work.loaded, "litellm") is False


@pytest.mark.parametrize("start", ["forkserver", "spawn"])
@pytest.mark.parametrize("env", [{}, {"no_proxy": "internal.test"}], ids=["bare", "with-exceptions"])
async def test_a_model_on_this_machine_is_not_asked_through_a_proxy(
    open_pool: OpenPool, chat: Chat, start: str, env: dict[str, str]
) -> None:
    nobody = {"http_proxy": "http://127.0.0.1:9", "HTTPS_PROXY": "http://127.0.0.1:9"}
    pool = await open_pool(lm=chat.lm(), start=start, env={**nobody, **env})
    assert (await pool.call(ASK))["completions"] == [{"answer": "blue"}]
    names = await pool.run(work.environment, "no_proxy")
    assert names == ",".join([*env.values(), "localhost,127.0.0.1,::1"])
    assert await pool.run(work.loaded, "litellm") is False


async def test_a_gateway_in_the_environment_stays_when_the_settings_name_no_address(
    open_pool: OpenPool, chat: Chat
) -> None:
    lm = chat.lm()
    gateway = {"OPENAI_API_BASE": lm.pop("api_base")}
    pool = await open_pool(lm=lm, env=gateway)
    assert (await pool.call(ASK, timeout=50))["completions"] == [{"answer": "blue"}]


async def test_calls_with_ever_new_settings_leave_no_descriptors_and_close_no_lm_in_use(
    open_pool: OpenPool, chat: Chat
) -> None:
    pool = await open_pool(lm=chat.lm())
    go = asyncio.Event()

    async def reply(request: ChatRequest) -> str:
        if "slow" in request.prompt:
            await go.wait()
        return "[[ ## answer ## ]]\nblue\n\n[[ ## completed ## ]]"

    chat.reply = reply
    slow = asyncio.ensure_future(
        pool.predict("question -> answer", {"question": "slow?"}, lm={"temperature": 0.99})
    )
    await until(lambda: len(chat.bodies) == 1)
    for number in range(150):
        await pool.call(replace(ASK, lm={"temperature": number / 1000}))
    pid = pool.status().workers[0].pid
    await until(lambda: len(descriptors(pid)) <= 64 + 16)
    go.set()
    assert (await slow)["completions"] == [{"answer": "blue"}]
