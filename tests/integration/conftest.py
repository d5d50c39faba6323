from __future__ import annotations

from collections.abc import Iterator

import pytest
from tests.support.models import runtime, said
from tests.support.pools import chat, open_pool
from tests.support.redis_server import RedisServer, needs_redis

__all__ = ["chat", "open_pool", "redis_server", "runtime", "said"]


@pytest.fixture(scope="session")
def redis_server() -> Iterator[RedisServer]:
    """A server that keeps nothing; whoever takes it empties it first."""
    needs_redis()
    server = RedisServer()
    yield server
    server.close()
