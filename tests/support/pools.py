"""Fixtures of the tests that start workers. A conftest imports them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from tests.support.chat import ChatServer
from tests.support.processes import children, until

from dspex.pool import Pool, PoolSpec

OpenPool = Callable[..., Awaitable[Pool]]


@pytest.fixture
async def chat() -> AsyncIterator[ChatServer]:
    server = ChatServer()
    await server.start()
    yield server
    await server.stop()


@pytest.fixture
async def open_pool() -> AsyncIterator[OpenPool]:
    """Opens pools and, afterwards, closes them and asserts that no process of theirs is left."""
    before = {child.pid for child in children()}
    opened: list[Pool] = []

    async def make(*, lm: dict[str, Any] | None = None, **settings: Any) -> Pool:
        pool = Pool(PoolSpec(**{"workers": 1, "stop_timeout": 2.0, **settings}), lm=lm)
        opened.append(pool)
        await pool.start()
        return pool

    yield make
    for pool in opened:
        await pool.aclose(timeout=0)
    await until(lambda: not [child for child in children() if child.pid not in before])
