"""Redis does what the suites of stores say, on a real server."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.support.redis_server import RedisServer

from dspex.stores import Redis
from dspex.testing.stores import RunStoreSuite, SessionStoreSuite

SERVER = "DSPEX_TEST_REDIS"
"""Where other processes of a test find its server."""


@pytest.fixture(autouse=True)
def _server(redis_server: RedisServer) -> Iterator[None]:
    os.environ[SERVER] = redis_server.url
    yield
    del os.environ[SERVER]


class TestRedis(RunStoreSuite, SessionStoreSuite):
    def make(
        self, place: Path, clock: Callable[[], float] | None = None, max_bytes: int | None = None
    ) -> Redis:
        given: dict[str, Any] = {} if max_bytes is None else {"max_bytes": max_bytes}
        if clock is not None:
            given["clock"] = clock
        name = hashlib.sha256(str(place).encode()).hexdigest()[:32]
        return Redis(os.environ[SERVER], prefix=f"{name}:", **given)
