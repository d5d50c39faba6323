"""A real redis-server for tests, on a unix socket, ended by its id."""

from __future__ import annotations

import shutil
import socket
import subprocess
import tempfile
import time
from pathlib import Path

import pytest

__all__ = ["RedisServer", "needs_redis"]

WAIT_SECONDS = 30.0


def needs_redis() -> None:
    """Skip where there is no server; `make redis-server` installs it, and `.ci/run` calls that."""
    if shutil.which("redis-server") is None:
        pytest.skip("redis-server is not installed: `make redis-server`")


class RedisServer:
    """A server that keeps nothing, or everything (`keeps`), for the time of a test."""

    def __init__(self, *, keeps: bool = False, arguments: tuple[str, ...] = ()) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="dspex-redis-"))
        self.path = self.directory / "s"
        self.url = f"unix://{self.path}"
        self._keeps = keeps
        self._arguments = arguments
        self._process: subprocess.Popen[bytes] | None = None
        self.start()

    def start(self) -> None:
        keeps = ("yes", "--appendfsync", "always") if self._keeps else ("no",)
        self._process = subprocess.Popen(
            [
                *(
                    "redis-server",
                    "--port",
                    "0",
                    "--unixsocket",
                    str(self.path),
                    "--dir",
                    str(self.directory),
                ),
                *("--save", "", "--appendonly", *keeps, *self._arguments),
            ],
            stdout=subprocess.DEVNULL,
        )
        until = time.monotonic() + WAIT_SECONDS
        while not self.said(b"PING").startswith((b"+PONG", b"-NOAUTH")):
            assert time.monotonic() < until, "redis-server does not start"
            time.sleep(0.02)

    def said(self, command: bytes) -> bytes:
        """What the server says to a line, in at most 64 KiB; nothing if it is not there."""
        try:
            with socket.socket(socket.AF_UNIX) as connection:
                connection.settimeout(WAIT_SECONDS)
                connection.connect(str(self.path))
                connection.sendall(command + b"\r\n")
                return connection.recv(65536)
        except (FileNotFoundError, ConnectionError):
            return b""

    def signal(self, number: int) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    def kill(self) -> None:
        assert self._process is not None
        self._process.kill()
        self._process.wait(WAIT_SECONDS)

    def close(self) -> None:
        self.kill()
        shutil.rmtree(self.directory)
