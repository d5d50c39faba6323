"""Fixtures of the tests that start workers. A conftest imports them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from tests.support.processes import children, until

from dspex.pool import Backend, Pool, PoolSpec, Timeouts
from dspex.testing import ChatRequest, ModelServer

OpenPool = Callable[..., Awaitable[Pool]]

QUICK = Timeouts(stop=2.0)
"""What the pools of tests have, so that none waits long for a worker that does not go."""

KEY = "sk-test-not-a-real-key"


class Chat:
    """The project's model server, with an answer that a test may change as it goes."""

    def __init__(self) -> None:
        self.reply: Callable[[ChatRequest], Any] = lambda _: (
            "[[ ## answer ## ]]\nblue\n\n[[ ## completed ## ]]"
        )
        self.server = ModelServer(lambda request: self.reply(request))

    @property
    def bodies(self) -> list[dict[str, Any]]:
        return [request.body for request in self.server.requests]

    def lm(self, **settings: Any) -> dict[str, Any]:
        return {"model": "openai/test", "api_base": self.server.api_base, "api_key": KEY, **settings}


@pytest.fixture
async def chat() -> AsyncIterator[Chat]:
    chat = Chat()
    async with chat.server:
        yield chat


@pytest.fixture
async def open_pool() -> AsyncIterator[OpenPool]:
    """Opens pools and, afterwards, closes them and asserts that no process of theirs is left."""
    before = {child.pid for child in children()}
    opened: list[Pool] = []

    async def make(
        *, lm: dict[str, Any] | None = None, backend: Backend | None = None, **settings: Any
    ) -> Pool:
        spec = PoolSpec(**{"workers": 1, "timeouts": QUICK, **settings})
        pool = Pool(spec, lm=lm, backend=backend)
        opened.append(pool)
        await pool.start()
        return pool

    yield make
    for pool in opened:
        await pool.aclose(timeout=0)
    await until(lambda: not [child for child in children() if child.pid not in before])
