"""HTTP clients beside each other, in one run: `python benches/bench_http.py`.

Each asks a server in a process of its own, which answers at once with 1.5 kB of JSON, or a stream of 1,000
events that each come in a write of their own. Counted is the client's CPU time for a call: on asyncio and
uvloop, plain and TLS, one after the other and 64 in flight, whole and streamed. Every answer is compared
before anything is timed. Rounds take turns; figures are medians, and what counts are the ratios to aiohttp as
it is.

The designs that lost are here too, so that they can be measured again: aiohttp without cookies and unpacking,
and a protocol in Python over the parser of `httptools`.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import ssl
import statistics
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any

import aiohttp
import httptools
import uvloop
from served import Requests, http_servers, serve

from dspex.lm import TLS, NativeTransport
from dspex.lm._address import Address
from dspex.lm._http.transport import Post

QUESTION = json.dumps({"model": "m", "messages": [{"role": "user", "content": "where? " * 200}]}).encode()
TEXT = "the Black Sea " * 90
ANSWER = json.dumps({"choices": [{"message": {"content": TEXT}, "finish_reason": "stop"}]}).encode()
CHUNKS = 1000
EVENT = b'data: {"choices":[{"index":0,"delta":{"content":"word"},"finish_reason":null}]}\n\n'
CALLS = 400
ROUNDS = 5
IN_FLIGHT = 64

Call = Callable[[], Awaitable[bytes]]


class Server(Requests):
    """Answers every request, whole, or in many writes where the path says so."""

    def asked(self, path: bytes, body: bytes) -> None:
        if path == b"/stream":
            self.streaming = asyncio.ensure_future(self.stream())
            return
        start = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
        self.transport.write(start % len(ANSWER) + ANSWER)

    async def stream(self) -> None:
        self.transport.write(
            b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
        )
        for _ in range(CHUNKS):
            self.transport.write(b"%x\r\n%b\r\n" % (len(EVENT), EVENT))
            await asyncio.sleep(0)
        self.transport.write(b"0\r\n\r\n")


class OverHttptools(asyncio.Protocol):
    """The floor: a connection in Python whose parser calls back, without limits, errors or a pool."""

    def __init__(self) -> None:
        self.parser = httptools.HttpResponseParser(self)
        self.parts: list[bytes] = []
        self.waiter: asyncio.Future[bytes] | None = None

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.parser.feed_data(data)

    def on_body(self, body: bytes) -> None:
        self.parts.append(body)

    def on_message_complete(self) -> None:
        parts, self.parts = self.parts, []
        assert self.waiter is not None
        self.waiter.set_result(b"".join(parts))

    def ask(self, path: str) -> asyncio.Future[bytes]:
        self.waiter = asyncio.get_running_loop().create_future()
        start = (
            f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: "
        )
        self.transport.write(start.encode() + b"%d\r\n\r\n" % len(QUESTION) + QUESTION)
        return self.waiter


async def contenders(base: str, path: str, authority: str, stack: AsyncExitStack) -> dict[str, Call]:
    tls = TLS(ca_file=authority)
    context = ssl.create_default_context(cafile=authority)
    headers = {"Content-Type": "application/json"}
    session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0, ssl=context))
    await stack.enter_async_context(session)

    async def plain() -> bytes:
        async with session.post(base + path, data=QUESTION, headers=headers) as answer:
            if "stream" not in path:
                return await answer.read()
            return b"".join([part async for part in answer.content.iter_any()])

    tuned_session = aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0, ssl=context),
        cookie_jar=aiohttp.DummyCookieJar(),
        auto_decompress=False,
        skip_auto_headers=["User-Agent", "Accept", "Accept-Encoding"],
        timeout=aiohttp.ClientTimeout(total=None),
    )
    await stack.enter_async_context(tuned_session)

    async def tuned() -> bytes:
        async with tuned_session.post(
            base + path, data=QUESTION, headers=headers, allow_redirects=False
        ) as answer:
            if "stream" not in path:
                return await answer.read()
            return b"".join([part async for part in answer.content.iter_any()])

    idle: list[OverHttptools] = []
    loop = asyncio.get_running_loop()
    host, _, port = base.rpartition("/")[2].partition(":")
    secure = {"ssl": context, "server_hostname": "127.0.0.1"} if base.startswith("https") else {}

    async def over_httptools() -> bytes:
        if idle:
            connection = idle.pop()
        else:
            _, connection = await loop.create_connection(OverHttptools, host, int(port), **secure)
            stack.callback(connection.transport.abort)
        try:
            return await connection.ask(path)
        finally:
            idle.append(connection)

    transport = NativeTransport()
    stack.push_async_callback(transport.aclose)
    endpoint = Address.of("openai/m", base).endpoint(path, tls=tls)
    fields = (("Content-Type", "application/json"),)

    async def ours() -> bytes:
        now = loop.time()
        post = Post(endpoint, fields, QUESTION, 10.0, now + 60, now + 120)
        if "stream" not in path:
            return (await transport.fetch(post)).body
        answer = await transport.open(post)
        parts = []
        while part := await answer.chunk(loop.time() + 60, "chunk"):
            parts.append(part)
        answer.close()
        return b"".join(parts)

    return {
        "aiohttp": plain,
        "aiohttp, tuned": tuned,
        "httptools, bare": over_httptools,
        "dspex": ours,
    }


async def cpu(call: Call, calls: int, in_flight: int) -> float:
    left = iter(range(calls))

    async def caller() -> None:
        for _ in left:
            await call()

    begun = time.process_time()
    await asyncio.gather(*(caller() for _ in range(in_flight)))
    return (time.process_time() - begun) / calls * 1e6


async def compare(loop: str, ports: tuple[int, int], authority: str) -> list[tuple[str, dict[str, float]]]:
    rows = []
    for scheme, port in (("http", ports[0]), ("https", ports[1])):
        for path, calls in (("/whole", CALLS), ("/stream", 12)):
            async with AsyncExitStack() as stack:
                asked = await contenders(f"{scheme}://127.0.0.1:{port}", path, authority, stack)
                expected = ANSWER if path == "/whole" else EVENT * CHUNKS
                for name, call in asked.items():
                    assert await call() == expected, name
                for in_flight in (1, IN_FLIGHT if path == "/whole" else 4):
                    taken: dict[str, list[float]] = {name: [] for name in asked}
                    for _ in range(ROUNDS):
                        for name, call in asked.items():
                            taken[name].append(await cpu(call, calls, in_flight))
                    title = f"{loop:8} {scheme:6} {path[1:]:7} {in_flight:3} in flight"
                    rows.append((title, {name: statistics.median(times) for name, times in taken.items()}))
    return rows


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    serving = parser.parse_args().serve
    if serving:
        asyncio.run(serve(Server, serving))
        return
    with http_servers(__file__) as (plain, secure, authorities):
        print(f"client CPU per call in us, and beside aiohttp; medians of {ROUNDS} rounds")
        for name, run in (("asyncio", asyncio.run), ("uvloop", uvloop.run)):
            for title, times in run(compare(name, (int(plain), int(secure)), authorities)):
                shown = (f"{who} {t:8.1f} ({t / times['aiohttp']:4.2f})" for who, t in times.items())
                print(title, *shown, sep="   ", flush=True)


if __name__ == "__main__":
    main()
