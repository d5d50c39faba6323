"""The LM over every transport, against servers that break in every way we know."""

from __future__ import annotations

import asyncio
import gzip
import json
import os
import zlib
from contextlib import aclosing
from typing import Any

import pytest
from tests.support.processes import until
from tests.support.raw_server import RawServer, Script, answer, raw_server, read_request
from tests.support.transports import (
    ASKED,
    EVENTS,
    FAULTS,
    KEY,
    OVER,
    SAID,
    STREAM_FAULTS,
    STREAM_HEAD,
    TRANSPORTS,
    Make,
    asking,
    broken_once,
    chunked,
    say_it,
    streamed,
    whole,
)

from dspex import LM, errors
from dspex.lm import LMRequest, NativeTransport
from dspex.lm._address import Address
from dspex.lm._http.transport import Post


async def meet(script: Script, transport: Make, ask: Any, codes: str, settings: Any) -> errors.LMError:
    """The call fails with one of the codes, the next one works, and nothing is left of either; its error."""
    before = asyncio.all_tasks()
    handles = len(os.listdir("/proc/self/fd"))
    async with raw_server(script) as state:
        async with asking(state, transport, **{"timeout": 60.0, **settings}) as lm:
            with pytest.raises(errors.LMError) as caught:
                await ask(lm)
            assert caught.value.code in codes.split(), caught.value
            for shown in (str(caught.value), repr(caught.value.__cause__), repr(caught.value.to_dict())):
                assert KEY not in shown
            # What ended the first call may be too short for a good one on a busy machine.
            patient = LM("openai/m", api_base=lm.api_base, api_key=KEY, transport=lm._transport)
            assert await ask(patient) == "it is said"
        assert all(b"other.invalid" not in head.encode() for head, _ in state.requests)
    await until(lambda: len(os.listdir("/proc/self/fd")) <= handles)
    await until(lambda: asyncio.all_tasks() <= before)
    return caught.value


@OVER
@pytest.mark.parametrize("name", FAULTS)
async def test_a_broken_answer_is_one_typed_error_and_the_next_call_works(transport: Make, name: str) -> None:
    sent, then, codes, settings = FAULTS[name]
    error = await meet(broken_once(sent, then), transport, whole, codes, settings)
    assert error.retry_after == (7 if b"Retry-After" in sent else None)


@OVER
@pytest.mark.parametrize("name", STREAM_FAULTS)
async def test_a_broken_stream_is_one_typed_error_and_the_next_stream_works(
    transport: Make, name: str
) -> None:
    sent, then, codes, settings = STREAM_FAULTS[name]
    error = await meet(broken_once(sent, then), transport, streamed, codes, settings)
    assert error.retry_after == (7 if b"Retry-After" in sent else None)


@OVER
async def test_the_time_that_a_reader_takes_between_two_pieces_is_not_the_servers(transport: Make) -> None:
    let = asyncio.Event()

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, state: RawServer) -> None:
        await read_request(reader, state)
        writer.write(STREAM_HEAD + chunked(EVENTS[:62]))
        await writer.drain()
        await let.wait()
        writer.write(chunked(EVENTS[62:]) + b"0\r\n\r\n")

    async with raw_server(script) as state, asking(state, transport, timeout=1.0) as lm:
        async with aclosing(lm.stream(ASKED)) as deltas:
            text = ""
            async for delta in deltas:
                text += delta.text
                if not let.is_set():
                    await asyncio.sleep(1.2)  # longer than the server may take
                    let.set()
        assert text == "it is said"


@OVER
async def test_a_byte_at_a_time_is_an_answer_and_never_longer_than_its_time(
    transport: Make,
) -> None:
    async def drip(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, state: RawServer) -> None:
        while True:
            await read_request(reader, state)
            for byte in answer(SAID):
                writer.write(bytes([byte]))
                await writer.drain()
                await asyncio.sleep(0.02 if len(state.requests) == 2 else 0)

    async with raw_server(drip) as state, asking(state, transport, timeout=60.0) as lm:
        assert await whole(lm) == "it is said"
        with pytest.raises(errors.DeadlineExceeded):
            await lm.complete(LMRequest(ASKED.messages, timeout=0.2))
        assert await whole(lm) == "it is said"


@pytest.mark.parametrize(
    ("transport", "packing"),
    [
        *((transport, packing) for transport in TRANSPORTS for packing in ("gzip", "deflate", "raw deflate")),
        (NativeTransport, "two members"),  # of which aiohttp reads the first
    ],
)
async def test_packed_answers_and_streams_are_unpacked(transport: Make, packing: str) -> None:
    def packed(data: bytes) -> bytes:
        if packing == "gzip":
            return gzip.compress(data)
        if packing == "deflate":
            return zlib.compress(data)
        if packing == "two members":
            return gzip.compress(data[:10]) + gzip.compress(data[10:])
        raw = zlib.compressobj(wbits=-15)
        return raw.compress(data) + raw.flush()

    field = "Content-Encoding: " + ("deflate" if "deflate" in packing else "gzip")

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, state: RawServer) -> None:
        while True:
            head, body = await read_request(reader, state)
            assert "gzip" in head
            if json.loads(body).get("stream"):
                whole = packed(EVENTS)
                writer.write(STREAM_HEAD[:-2] + field.encode() + b"\r\n\r\n")
                for at in range(0, len(whole), 7):
                    writer.write(chunked(whole[at : at + 7]))
                writer.write(b"0\r\n\r\n")
            else:
                writer.write(answer(packed(SAID), field))

    async with raw_server(script) as state, asking(state, transport) as lm:
        for _ in range(2):
            assert await whole(lm) == "it is said"
            assert await streamed(lm) == "it is said"


# --- cancellation and deadlines -------------------------------------------------------------------------

STAGES: dict[str, bytes] = {
    "before the head": b"",
    "in the head": b"HTTP/1.1 200 OK\r\nContent-",
    "in the body": answer(SAID)[:-5],
}
STREAM_STAGES: dict[str, bytes] = {
    **{name: STAGES[name] for name in ("before the head", "in the head")},
    "before the text": STREAM_HEAD,
    "in the text": STREAM_HEAD + chunked(EVENTS[:62]),
}


@OVER
@pytest.mark.parametrize(
    ("ask", "stage"),
    [*((whole, stage) for stage in STAGES), *((streamed, stage) for stage in STREAM_STAGES)],
    ids=lambda value: value if isinstance(value, str) else value.__name__,
)
@pytest.mark.parametrize("ended_by", ["cancel", "deadline"])
async def test_a_call_that_is_ended_at_any_stage_closes_its_connection(
    transport: Make, ask: Any, stage: str, ended_by: str
) -> None:
    sent = asyncio.Event()
    gone = asyncio.Event()

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, state: RawServer) -> None:
        if state.connections > 1:
            return await say_it(reader, writer, state)
        try:
            await read_request(reader, state)
            writer.write((STAGES if ask is whole else STREAM_STAGES)[stage])
            await writer.drain()
            sent.set()
            await reader.read()
        finally:
            gone.set()
        return None

    before = asyncio.all_tasks()
    async with raw_server(script) as state, asking(state, transport) as lm:
        if ended_by == "cancel":
            call = asyncio.ensure_future(ask(lm))
            await sent.wait()
            await asyncio.sleep(0.01)
            call.cancel()
            with pytest.raises(asyncio.CancelledError):
                await call
        else:
            request = LMRequest(ASKED.messages, timeout=0.2)
            with pytest.raises(errors.DeadlineExceeded):
                await ask(lm, request)
        async with asyncio.timeout(30):
            await gone.wait()
        assert await ask(lm) == "it is said"
    await until(lambda: asyncio.all_tasks() <= before)


@pytest.mark.parametrize("secure", [False, True], ids=["connecting", "in the handshake"])
async def test_a_call_that_is_cancelled_while_it_connects_leaves_nothing(secure: bool) -> None:
    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, state: RawServer) -> None:
        await reader.read()

    handles = len(os.listdir("/proc/self/fd"))
    scheme = "https" if secure else "http"
    async with raw_server(silent) as state, asking(state, NativeTransport, scheme=scheme) as lm:
        call = asyncio.ensure_future(whole(lm))
        await until(lambda: state.connections == 1)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        await until(lambda: not state.open)
    await until(lambda: len(os.listdir("/proc/self/fd")) <= handles)


# --- what is sent ---------------------------------------------------------------------------------------

BAD_FIELDS = [
    ("X-A", "1\r\nX-B: 2"),
    ("X-A", "1\n"),
    ("X-A", "1\0"),
    ("X-A\r\nX-B", "1"),
    ("X A", "1"),
    ("", "1"),
    ("X-A:", "1"),
    ("Host", "other"),
    ("content-length", "0"),
    ("Transfer-Encoding", "chunked"),
]


@pytest.mark.parametrize(("name", "value"), BAD_FIELDS)
async def test_a_header_that_would_be_another_request_is_refused_before_connecting(
    name: str, value: str
) -> None:
    async with raw_server(say_it) as state:
        endpoint = Address.of("openai/m", f"http://127.0.0.1:{state.port}/v1").endpoint("/chat/completions")
        transport = NativeTransport()
        with pytest.raises(errors.ConfigError) as caught:
            await transport.fetch(Post(endpoint, ((name, value),), b"{}"))
        assert caught.value.code == "lm-header"
        assert state.connections == 0
        await transport.aclose()


def test_a_request_shows_neither_its_key_nor_its_text() -> None:
    endpoint = Address.of("openai/m", "http://127.0.0.1/v1").endpoint("/x", "http://me:secret@proxy:80")
    shown = repr(Post(endpoint, (("Authorization", f"Bearer {KEY}"),), b"private"))
    assert not any(word in shown for word in (KEY, "private", "secret"))


@OVER
async def test_a_large_request_is_sent_whole_and_an_early_refusal_of_it_is_read(
    transport: Make,
) -> None:
    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, state: RawServer) -> None:
        if state.connections == 1:
            _, body = await read_request(reader, state)
            assert len(body) > 4_000_000
            writer.write(answer(SAID))
            await writer.drain()
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer(b"{}", "Connection: close", status="413 Too much"))
        await writer.drain()
        await asyncio.sleep(0.2)

    request = LMRequest([{"role": "user", "content": "x" * 4_000_000}])
    async with raw_server(script) as state, asking(state, transport) as lm:
        assert (await lm.complete(request)).texts == ("it is said",)
        with pytest.raises(errors.LMRequestError) as caught:
            await lm.complete(request)
        assert caught.value.code == "lm-request-too-large"
