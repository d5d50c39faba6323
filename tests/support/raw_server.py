"""A server that sends what a test says, byte for byte, and breaks where it says."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

__all__ = ["RawServer", "Script", "answer", "raw_server", "read_request", "reset"]


@dataclass
class RawServer:
    """What a test sees of the server.

    Attributes:
        port: Where it listens, on 127.0.0.1.
        requests: The heads and bodies that have come, in order.
        connections: How many connections there have been.
    """

    port: int = 0
    requests: list[tuple[str, bytes]] = field(default_factory=list)
    connections: int = 0
    open: set[asyncio.StreamWriter] = field(default_factory=set)


Script = Callable[[asyncio.StreamReader, asyncio.StreamWriter, RawServer], Awaitable[None]]


@asynccontextmanager
async def raw_server(script: Script, context: ssl.SSLContext | None = None) -> AsyncIterator[RawServer]:
    """A server whose every connection runs `script`, and is closed when that ends."""
    state = RawServer()
    tasks: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        state.connections += 1
        state.open.add(writer)
        try:
            await script(reader, writer, state)
            await writer.drain()
        except (OSError, asyncio.IncompleteReadError):
            pass  # the client has gone
        finally:
            state.open.discard(writer)
            writer.close()

    def accepted(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.ensure_future(serve(reader, writer))
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    server = await asyncio.start_server(accepted, "127.0.0.1", 0, ssl=context)
    state.port = server.sockets[0].getsockname()[1]
    try:
        yield state
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await server.wait_closed()


async def read_request(reader: asyncio.StreamReader, state: RawServer) -> tuple[str, bytes]:
    """The next request: its head and its body."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    fields = dict(line.lower().split(": ", 1) for line in head.split("\r\n")[1:] if ": " in line)
    body = await reader.readexactly(int(fields.get("content-length", 0)))
    state.requests.append((head, body))
    return head, body


def answer(body: bytes, *fields: str, status: str = "200 OK", kind: str = "application/json") -> bytes:
    """A whole answer."""
    head = [f"HTTP/1.1 {status}", f"Content-Type: {kind}", f"Content-Length: {len(body)}", *fields, "", ""]
    return "\r\n".join(head).encode() + body


def reset(writer: asyncio.StreamWriter) -> None:
    """Break the connection off so that the client is told by a reset."""
    transport = writer.transport
    assert isinstance(transport, asyncio.WriteTransport)
    transport.abort()
