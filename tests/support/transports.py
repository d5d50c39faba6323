"""What servers of models send, rightly and wrongly, and an LM that asks them over any transport."""

from __future__ import annotations

import asyncio
import gzip
import json
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from typing import Any

import pytest
from tests.support.raw_server import RawServer, Script, answer, read_request, reset

from dspex import LM
from dspex.lm import AiohttpTransport, LMRequest, NativeTransport

__all__ = [
    "ASKED",
    "EVENTS",
    "FAULTS",
    "KEY",
    "OVER",
    "SAID",
    "STREAM_FAULTS",
    "STREAM_HEAD",
    "TRANSPORTS",
    "Make",
    "asking",
    "broken_once",
    "chunked",
    "say_it",
    "streamed",
    "whole",
]

KEY = "sk-very-secret"
ASKED = LMRequest([{"role": "user", "content": "say it"}])
SAID = json.dumps({"choices": [{"message": {"content": "it is said"}, "finish_reason": "stop"}]}).encode()
EVENTS = (
    b'data: {"choices":[{"index":0,"delta":{"content":"it is "}}]}\n\n'
    b'data: {"choices":[{"index":0,"delta":{"content":"said"},"finish_reason":"stop"}]}\n\n'
    b"data: [DONE]\n\n"
)
STREAM_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"

Make = Callable[[], NativeTransport | AiohttpTransport]
TRANSPORTS: list[Make] = [NativeTransport, AiohttpTransport]
OVER = pytest.mark.parametrize("transport", TRANSPORTS, ids=["native", "aiohttp"])


def chunked(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


async def say_it(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, state: RawServer) -> None:
    """What a good server does."""
    while not reader.at_eof():
        _, body = await read_request(reader, state)
        if json.loads(body).get("stream"):
            writer.write(STREAM_HEAD + chunked(EVENTS) + b"0\r\n\r\n")
        else:
            writer.write(answer(SAID))
        await writer.drain()


def broken_once(sent: bytes, then: str = "hold") -> Script:
    """A server that answers the first request with `sent`, then breaks off or goes on; good from then on."""

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, state: RawServer) -> None:
        if state.connections > 1:
            return await say_it(reader, writer, state)
        await read_request(reader, state)
        writer.write(sent)
        await writer.drain()
        if then == "hold":
            await say_it(reader, writer, state)
        elif then == "reset":
            reset(writer)
        return None

    return script


@asynccontextmanager
async def asking(state: RawServer, transport: Make, **settings: Any) -> AsyncIterator[LM]:
    scheme, host = settings.pop("scheme", "http"), settings.pop("host", "127.0.0.1")
    base = f"{scheme}://{host}:{state.port}/v1"
    async with transport() as carrier:
        yield LM("openai/m", api_base=base, api_key=KEY, transport=carrier, **settings)


async def whole(lm: LM, request: LMRequest = ASKED) -> str:
    return (await lm.complete(request)).texts[0]


async def streamed(lm: LM, request: LMRequest = ASKED) -> str:
    async with aclosing(lm.stream(request)) as deltas:
        return "".join([delta.text async for delta in deltas])


BOMB = gzip.compress(b"x" * 30_000_000)
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
STALLS = 0.3

Fault = tuple[bytes, str, str, dict[str, Any]]
"""What the server sends, what it does then, the codes that may come of it, settings of the LM."""

FAULTS: dict[str, Fault] = {
    "nothing": (b"", "hold", "lm-timeout", {"timeout": STALLS}),
    "nothing, first byte": (b"", "hold", "lm-first-byte-timeout", {"first_byte_timeout": STALLS}),
    "half a head, held": (b"HTTP/1.1 200 OK\r\nContent-", "hold", "lm-timeout", {"timeout": STALLS}),
    "half a body, held": (answer(SAID)[:-5], "hold", "lm-timeout", {"timeout": STALLS}),
    "closed": (b"", "close", "lm-cut", {}),
    "reset": (b"", "reset", "lm-cut lm-connection", {}),
    "half a head": (b"HTTP/1.1 200 OK\r\nContent-", "close", "lm-cut", {}),
    "half a body": (answer(SAID)[:-5], "close", "lm-cut", {}),
    "half a body, reset": (answer(SAID)[:-5], "reset", "lm-cut", {}),
    "half a chunk": (HEAD + b"Transfer-Encoding: chunked\r\n\r\n50\r\nabc", "close", "lm-cut", {}),
    "no last chunk": (HEAD + b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n", "close", "lm-cut", {}),
    "another protocol": (b"SSH-2.0-OpenSSH_9.2\r\n", "close", "lm-not-http", {}),
    "no status": (b"HTTP/1.1 OK\r\n\r\n", "close", "lm-not-http", {}),
    "no length": (HEAD + b"Content-Length: many\r\n\r\n", "close", "lm-not-http", {}),
    "endless head": (b"HTTP/1.1 200 OK\r\nX: " + b"y" * 100_000, "hold", "lm-not-http", {}),
    "endless body": (
        HEAD + b"\r\n" + b" " * 3_000,
        "hold",
        "lm-response-too-large",
        {"max_response_bytes": 2_000},
    ),
    "huge body": (answer(b" " * 3_000), "hold", "lm-response-too-large", {"max_response_bytes": 2_000}),
    "gzip bomb": (answer(BOMB, "Content-Encoding: gzip"), "hold", "lm-response-too-large", {}),
    "no gzip": (answer(SAID, "Content-Encoding: gzip"), "hold", "lm-not-http lm-cut", {}),
    "half a gzip": (
        answer(gzip.compress(SAID)[:40], "Content-Encoding: gzip"),
        "hold",
        "lm-cut lm-not-json lm-not-http",
        {},
    ),
    "another packing": (answer(SAID, "Content-Encoding: br"), "hold", "lm-not-http lm-cut", {}),
    "no UTF-8": (answer(b'{"choices": "\xff"}'), "hold", "lm-not-json", {}),
    "no JSON": (answer(b"{"), "hold", "lm-not-json", {}),
    "a page": (answer(b"<html>", kind="text/html"), "hold", "lm-not-json lm-response", {}),
    "empty": (answer(b""), "hold", "lm-not-json lm-response", {}),
    "busy": (answer(b"{}", "Retry-After: 7", status="429 Busy"), "hold", "lm-rate-limit", {}),
    "no room": (answer(b"{}", "Retry-After: 7", status="503 Full"), "hold", "lm-server", {}),
    "failed": (answer(b"{}", status="500 Oh"), "hold", "lm-server", {}),
    "a redirect": (
        answer(b"", "Location: http://other.invalid/", status="307 There"),
        "hold",
        "lm-response",
        {},
    ),
}

STREAM_FAULTS: dict[str, Fault] = {
    **{
        name: FAULTS[name]
        for name in ("nothing", "nothing, first byte", "closed", "half a head", "busy", "failed")
    },
    "another protocol": FAULTS["another protocol"],
    "a page": FAULTS["a page"],
    "a redirect": FAULTS["a redirect"],
    "no text": (STREAM_HEAD, "hold", "lm-first-text-timeout", {"first_text_timeout": STALLS}),
    "a pause": (STREAM_HEAD + chunked(EVENTS[:62]), "hold", "lm-chunk-timeout", {"chunk_timeout": STALLS}),
    "too long": (STREAM_HEAD + chunked(EVENTS[:62]), "hold", "lm-timeout", {"stream_timeout": STALLS}),
    "cut": (STREAM_HEAD + chunked(EVENTS[:62]), "close", "lm-cut", {}),
    "reset": (STREAM_HEAD + chunked(EVENTS[:62]), "reset", "lm-cut", {}),
    "no end": (STREAM_HEAD + chunked(EVENTS[:62]) + b"0\r\n\r\n", "hold", "lm-cut", {}),
    "no JSON": (STREAM_HEAD + chunked(b"data: {\n\n"), "hold", "lm-not-json", {}),
    "no UTF-8": (STREAM_HEAD + chunked(b"data: \xff\n\n"), "hold", "lm-not-json", {}),
    "no choice": (STREAM_HEAD + chunked(b"data: [DONE]\n\n"), "hold", "lm-no-choices", {}),
    "a failure": (STREAM_HEAD + chunked(b'data: {"error": {"code": 503}}\n\n'), "hold", "lm-server", {}),
    "an endless line": (
        STREAM_HEAD + chunked(b"data: " + b"x" * 5_000),
        "hold",
        "lm-response-too-large",
        {"max_response_bytes": 2_000},
    ),
    "no chunk": (STREAM_HEAD + b"what?\r\n", "hold", "lm-not-http lm-cut", {}),
}
