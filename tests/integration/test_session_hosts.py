"""Sessions on a Redis server: several runtimes, as on several machines."""

from __future__ import annotations

import asyncio

import pytest
from tests.support.redis_server import RedisServer

import dspex
from dspex.cli import main
from dspex.errors import SessionBusy, SessionMoved, StoreError
from dspex.sessions import SessionSettings
from dspex.testing import ScriptedLM

REPLY = "[[ ## answer ## ]]\na\n\n[[ ## completed ## ]]"


async def test_a_session_goes_from_host_to_host_by_way_of_redis(redis_server: RedisServer) -> None:
    redis_server.said(b"FLUSHALL")
    chat = dspex.Predict("question, history: dspy.History -> answer")
    one = dspex.Runtime(ScriptedLM(REPLY), sessions=redis_server.url)
    two = dspex.Runtime(ScriptedLM(REPLY), sessions=SessionSettings(store=redis_server.url))
    async with one, two:
        async with one.session() as s:
            await s.call(chat, question="q1")
            s.state["n"] = 1
        again = await two.session(id=s.id)
        await again.call(chat, question="q2")
        assert ([turn["question"] for turn in again.history], again.state["n"]) == (["q1", "q2"], 1)
        with pytest.raises(SessionBusy):
            await s.call(chat, question="q3")
        taken = await one.session(id=s.id, take_over=True)
        with pytest.raises(SessionMoved):
            await again.state.set("n", 2)
        await taken.end()


async def test_a_server_that_is_away_is_an_error_and_the_session_goes_on_when_it_is_back() -> None:
    server = RedisServer(keeps=True)
    try:
        async with dspex.Runtime(ScriptedLM(REPLY), sessions=server.url) as runtime:
            s = await runtime.session()
            await s.state.set("n", 1)
            server.kill()
            with pytest.raises(StoreError) as away:
                await s.state.set("n", 2)
            assert (away.value.code, away.value.retryable) == ("store-unreachable", True)
            server.start()
            assert await s.state.update("n", lambda n: n + 10) == 11
    finally:
        server.close()


async def test_the_command_looks_at_a_server(
    redis_server: RedisServer, capsys: pytest.CaptureFixture[str]
) -> None:
    redis_server.said(b"FLUSHALL")
    runtime = dspex.Runtime(ScriptedLM(REPLY), sessions=redis_server.url)
    async with runtime, runtime.session(id="s1", create=True) as s:
        s.state["n"] = 1
    assert await asyncio.to_thread(main, ["sessions", "list", "--store", redis_server.url]) == 0
    assert "s1" in capsys.readouterr().out
