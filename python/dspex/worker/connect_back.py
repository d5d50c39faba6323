"""A worker that connects back to its service over TCP. The other end: `dspex.pool._backends.connect_back`."""

from __future__ import annotations

import asyncio
import os
import socket
import sys
from typing import Final, NoReturn

from dspex.protocol.connect_back import GREETING, ROLES, ConnectInfo
from dspex.worker.parent_watch import Descriptors, watch_parent

__all__ = ["connect_back"]

_CONNECT_SECONDS: Final = 10.0

_UNHEARD_MS: Final = 30_000
"""After this time without an answer from the other machine, heartbeats fail, and the worker ends."""


def connect_back(connect_info: ConnectInfo) -> NoReturn:
    """Connect, and serve until the service sends STOP or hangs up. The process does not survive it.

    Raises:
        OSError: If the service cannot be reached.
    """
    lines = [_connect(connect_info, role) for role in ROLES]
    frames, life, output = (line.detach() for line in lines)
    sys.stdout.flush()
    sys.stderr.flush()
    os.dup2(output, 1)
    os.dup2(output, 2)
    os.close(output)
    # One connection is both: heartbeats go out on it, and nothing but its end comes in.
    descriptors = Descriptors(frames, lifeline=life, heartbeat=life)
    watch_parent(descriptors, service=None)
    asyncio.set_event_loop_policy(None)  # whose process this was may have set one, as Ray does

    from dspex.worker.server import serve

    serve(descriptors)
    os._exit(0)


def _connect(connect_info: ConnectInfo, role: int) -> socket.socket:
    line = socket.create_connection((connect_info.host, connect_info.port), timeout=_CONNECT_SECONDS)
    line.sendall(GREETING.pack(connect_info.token, role, os.getpid()))
    line.settimeout(None)
    if hasattr(socket, "TCP_USER_TIMEOUT"):
        line.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, _UNHEARD_MS)
    return line
