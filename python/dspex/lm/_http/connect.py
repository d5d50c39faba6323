"""How a connection is made: the name looked up, the socket connected, the proxy asked, TLS agreed on."""

from __future__ import annotations

import asyncio
import errno
import socket
import sys
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import unquote, urlsplit

from dspex import _lm_failures as failures
from dspex._core import HttpReader
from dspex.lm._http.connection import TIMEOUTS, Connection
from dspex.lm._http.transport import Endpoint, TransportError, TransportTimeoutError

if TYPE_CHECKING:
    import ssl

    from dspex.lm._http.secure import SecureChannel

__all__ = ["Connector", "proxy_authorization"]

NAME_SECONDS: Final = 10.0
"""For which the addresses of a name hold: a burst of new connections looks it up once."""

KEEPALIVE_SECONDS: Final = 60
"""Between two signs of life on a connection that is waited on: a model may think for minutes, and routers on
the way forget connections that say nothing."""

_FULL: Final = frozenset({errno.EMFILE, errno.ENFILE})

AddressInfo = tuple[Any, Any, int, str, Any]


class Connector:
    """Makes the connections of one event loop to one server.

    Args:
        loop: The event loop.
        endpoint: The server, and the proxy on the way to it.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, endpoint: Endpoint) -> None:
        self._loop = loop
        self._endpoint = endpoint
        self._found: list[AddressInfo] = []
        self._found_until = 0.0
        self._looking: asyncio.Task[list[AddressInfo]] | None = None
        self._context: ssl.SSLContext | None = None

    async def connect(self, seconds: float) -> Connection:
        """A connection that is ready for a request.

        Args:
            seconds: How long it may take.

        Raises:
            TransportTimeoutError: If it takes longer.
            TransportError: If it fails.
        """
        sock: socket.socket | None = None
        limit = asyncio.timeout(seconds)
        try:
            async with limit:
                sock = await _open_socket(self._loop, await self._addresses())
                return await self._serve(sock)
        except BaseException as error:
            if sock is not None:
                sock.close()
            if isinstance(error, TransportError) or not isinstance(error, OSError):
                raise
            if isinstance(error, TimeoutError) and limit.expired():
                raise TransportTimeoutError(TIMEOUTS["connect"], "connect") from None
            raise _failure(error, self._endpoint) from None

    async def _serve(self, sock: socket.socket) -> Connection:
        endpoint, loop = self._endpoint, self._loop
        channel: SecureChannel | None = None
        if endpoint.secure:
            if endpoint.proxy is not None:
                await _tunnel(loop, sock, endpoint)
            if self._context is None:
                from dspex.lm._http.tls import context_of  # as below: a server next door has none

                # It reads the system's authorities the first time, which takes longer than a request.
                self._context = await loop.run_in_executor(None, context_of, endpoint.tls)
            from dspex.lm._http.secure import SecureChannel

            channel = SecureChannel(self._context, endpoint.host)
            await channel.shake_hands(loop, sock)
        _, connection = await loop.create_connection(lambda: Connection(loop, sock, channel), sock=sock)
        return connection

    async def _addresses(self) -> list[AddressInfo]:
        """The addresses to try; a name is looked up once for all who want it at once."""
        if self._found and self._loop.time() < self._found_until:
            return self._found
        if self._looking is None:
            self._looking = self._loop.create_task(self._look_up())
            # Its waiters may all have gone when it fails.
            self._looking.add_done_callback(lambda task: task.cancelled() or task.exception())
        # Who gives up waiting does not take the answer from the others.
        return await asyncio.shield(self._looking)

    async def _look_up(self) -> list[AddressInfo]:
        host, port = _first_hop(self._endpoint)
        try:
            if (literal := _literal(host, port)) is not None:
                self._found = [literal]
            else:
                self._found = list(await self._loop.getaddrinfo(host, port, type=socket.SOCK_STREAM))
        except (OSError, UnicodeError) as error:  # a name may also be none that can be looked up
            failure = failures.UNKNOWN_HOST if self._endpoint.proxy is None else failures.PROXY
            raise TransportError(failure, _words(error)) from None
        finally:
            self._looking = None
        self._found_until = self._loop.time() + NAME_SECONDS
        return self._found


def _first_hop(endpoint: Endpoint) -> tuple[str, int]:
    """Host and port to connect to: the proxy's, where there is one."""
    if endpoint.proxy is None:
        return endpoint.host, endpoint.port
    parts = urlsplit(endpoint.proxy)
    return parts.hostname or "", parts.port or 80


def proxy_authorization(proxy: str) -> bytes:
    """The field with which a proxy wants to be asked; empty where its address has no user."""
    parts = urlsplit(proxy)
    if parts.username is None:
        return b""
    from base64 import b64encode  # few have one

    user = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
    return b"Proxy-Authorization: Basic " + b64encode(user.encode()) + b"\r\n"


async def _open_socket(loop: asyncio.AbstractEventLoop, addresses: list[AddressInfo]) -> socket.socket:
    if len(addresses) > 1:
        # IPv6 and IPv4 of one host: the first that answers, as RFC 8305 has it.
        from aiohappyeyeballs import start_connection

        sock = await start_connection(addresses, happy_eyeballs_delay=0.25, interleave=1, loop=loop)
    else:
        family, kind, protocol, _, address = addresses[0]
        sock = socket.socket(family, kind, protocol)
        try:
            sock.setblocking(False)
            await loop.sock_connect(sock, address)
        except BaseException:
            sock.close()
            raise
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    if sys.platform == "linux":
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, KEEPALIVE_SECONDS)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, KEEPALIVE_SECONDS)
    return sock


async def _tunnel(loop: asyncio.AbstractEventLoop, sock: socket.socket, endpoint: Endpoint) -> None:
    """Have the proxy connect to the server, and hand its bytes on from there."""
    host = f"[{endpoint.host}]" if ":" in endpoint.host else endpoint.host
    target = f"{host}:{endpoint.port}".encode()
    assert endpoint.proxy is not None  # noqa: S101 - or there would be no tunnel
    request = (
        b"CONNECT " + target + b" HTTP/1.1\r\nHost: " + target + b"\r\n"
        + proxy_authorization(endpoint.proxy) + b"\r\n"
    )  # fmt: skip
    await loop.sock_sendall(sock, request)
    reader = HttpReader()
    reader.begin(0)
    while not reader.status:
        # Byte by byte near the end: what follows the head is the server's, and TLS reads it from the socket.
        data = await loop.sock_recv(sock, 1)
        if not data:
            raise TransportError(failures.PROXY, "it closed the connection")
        if reader.feed(data) == 3 and not reader.status:
            raise TransportError(failures.PROXY, "it sent something that is not HTTP")
    if not 200 <= reader.status < 300:
        raise TransportError(failures.PROXY, f"it answered with HTTP {reader.status}")


def _literal(host: str, port: int) -> AddressInfo | None:
    """The address that a host is itself; None if it is a name."""
    for family, rest in ((socket.AF_INET, ()), (socket.AF_INET6, (0, 0))):
        try:
            socket.inet_pton(family, host)
        except (OSError, ValueError):
            continue
        return family, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", (host, port, *rest)
    return None


def _failure(error: OSError, endpoint: Endpoint) -> TransportError:
    if error.errno in _FULL:
        return TransportError(failures.DESCRIPTORS)
    import ssl

    if isinstance(error, ssl.SSLCertVerificationError):
        return TransportError(failures.CERTIFICATE, error.verify_message)
    if isinstance(error, ssl.SSLError):
        return TransportError(failures.NOT_TLS, error.reason or "")
    if endpoint.proxy is not None:
        return TransportError(failures.PROXY, _words(error))
    return TransportError(failures.UNREACHABLE, _words(error))


def _words(error: BaseException) -> str:
    return getattr(error, "strerror", None) or type(error).__name__
