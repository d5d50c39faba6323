"""Servers that benches ask, in processes of their own, so that what is counted is the client's alone."""

from __future__ import annotations

import abc
import asyncio
import json
import ssl
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import trustme

__all__ = ["Requests", "http_servers", "model_server", "serve"]


@contextmanager
def model_server(answers: Mapping[str, Any], *, delay: int = 0) -> Iterator[str]:
    """A `dspex.testing.ModelServer`; its address.

    Args:
        answers: What it answers, by what is in the prompt; `""` for everything else.
        delay: Milliseconds that each answer takes.
    """
    with tempfile.TemporaryDirectory() as folder:
        table = Path(folder) / "answers.json"
        table.write_text(json.dumps(answers))
        command = [sys.executable, "-m", "dspex.testing", "--answers", str(table), "--delay", str(delay)]
        with _running(command) as said:
            yield said[-1]


@contextmanager
def http_servers(script: str) -> Iterator[tuple[str, str, str]]:
    """Two servers of a bench's own: the ports of the plain one and of the one with TLS, and whom to trust.

    Args:
        script: The bench, which calls `serve` where it is given `--serve` and a certificate.
    """
    with tempfile.TemporaryDirectory() as folder:
        authority = trustme.CA()
        certificate, authorities = Path(folder) / "server.pem", Path(folder) / "ca.pem"
        authority.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(str(certificate))
        authority.cert_pem.write_to_path(str(authorities))
        with _running([sys.executable, script, "--serve", str(certificate)]) as (plain, secure):
            yield plain, secure, str(authorities)


async def serve(protocol: Callable[[], asyncio.Protocol], certificate: str) -> None:
    """Serve for ever, plain and with TLS, and print both ports."""
    loop = asyncio.get_running_loop()
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate)
    plain = await loop.create_server(protocol, "127.0.0.1", 0, backlog=4096)
    secure = await loop.create_server(protocol, "127.0.0.1", 0, ssl=context, backlog=4096)
    print(*(server.sockets[0].getsockname()[1] for server in (plain, secure)), flush=True)
    await asyncio.Event().wait()


class Requests(asyncio.Protocol, abc.ABC):
    """One connection; `asked` is called with the path and the body of each request."""

    transport: Any

    def __init__(self) -> None:
        self._held = b""

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self._held += data
        while (end := self._held.find(b"\r\n\r\n")) >= 0:
            head = self._held[:end]
            length = int(head.lower().partition(b"content-length:")[2].split(b"\r\n")[0])
            if len(self._held) < end + 4 + length:
                return
            body, self._held = self._held[end + 4 : end + 4 + length], self._held[end + 4 + length :]
            self.asked(head.split(b" ", 2)[1], body)

    @abc.abstractmethod
    def asked(self, path: bytes, body: bytes) -> None:
        """Answer a request."""


@contextmanager
def _running(command: list[str]) -> Iterator[list[str]]:
    """A process that has said in one line where it is to be found."""
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield process.stdout.readline().split()
        finally:
            process.terminate()
