"""`SecureChannel`: TLS between a connection's bytes and those of its socket.

Python's `ssl` does the work on buffers in memory. asyncio could put it around the transport itself, at the
cost of a buffer of 256 KiB for each connection and of another layer for each piece.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from typing import Final

__all__ = ["SecureChannel"]

_PIECE: Final = 64 * 1024


class SecureChannel:
    """One side of a TLS connection.

    Args:
        context: Whom to trust, and who we are.
        host: The server's name, which its certificate must have.

    Attributes:
        closed: Whether the server has said that it sends no more; an end without that is a cut.
    """

    __slots__ = ("_incoming", "_outgoing", "_tls", "closed")

    def __init__(self, context: ssl.SSLContext, host: str) -> None:
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_hostname=host)
        self.closed = False

    async def shake_hands(self, loop: asyncio.AbstractEventLoop, sock: socket.socket) -> None:
        """Agree with the server on a connected socket.

        Raises:
            ssl.SSLError: If that fails; an `SSLCertVerificationError` if the certificate is not trusted.
            OSError: If the connection breaks.
        """
        while True:
            try:
                self._tls.do_handshake()
            except ssl.SSLWantReadError:
                await self._send(loop, sock)
                data = await loop.sock_recv(sock, _PIECE)
                if not data:
                    raise ssl.SSLEOFError(ssl.SSL_ERROR_EOF, "the connection was closed") from None
                self._incoming.write(data)
                continue
            except ssl.SSLError:
                await self._send(loop, sock)  # the alert that says why
                raise
            await self._send(loop, sock)
            return

    def encrypt(self, data: bytes) -> bytes:
        """What to send for these bytes."""
        self._tls.write(data)
        return self._outgoing.read()

    def decrypt(self, data: bytes) -> tuple[bytes, bytes]:
        """The bytes in what has come, and what TLS itself has to answer.

        Raises:
            ssl.SSLError: If it was tampered with.
        """
        self._incoming.write(data)
        parts = []
        try:
            while part := self._tls.read(_PIECE):
                parts.append(part)
            self.closed = True
        except ssl.SSLWantReadError:
            pass
        return (parts[0] if len(parts) == 1 else b"".join(parts)), self._outgoing.read()

    async def _send(self, loop: asyncio.AbstractEventLoop, sock: socket.socket) -> None:
        if data := self._outgoing.read():
            await loop.sock_sendall(sock, data)
