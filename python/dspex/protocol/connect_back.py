"""Connecting back over TCP: what a worker gets to know, and how its connections introduce themselves.

The worker's end is `dspex.worker.connect_back`, the service's `dspex.pool._backends.connect_back`.
"""

from __future__ import annotations

import struct
from typing import Final, NamedTuple

__all__ = ["GREETING", "ROLES", "TOKEN_SIZE", "ConnectInfo"]

TOKEN_SIZE: Final = 32
"""Bytes of the token that shows that a connection is from a worker that was asked for."""

GREETING: Final = struct.Struct(f"!{TOKEN_SIZE}sBI")
"""What each connection begins with: the token, the connection's role, the worker's process id."""

ROLES: Final = (0, 1, 2)
"""Frames, life and output, in this order."""


class ConnectInfo(NamedTuple):
    """Where a worker is to connect, and what shows that it was asked to."""

    host: str
    port: int
    token: bytes

    def __repr__(self) -> str:
        return f"ConnectInfo({self.host!r}, {self.port})"  # the token is a secret
