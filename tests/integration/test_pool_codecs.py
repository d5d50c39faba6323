"""What a pool and its workers write: the best codec of both, or the one that the pool's settings name."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any, ClassVar, Final

import pytest
from tests.support.pools import OpenPool
from tests.support.wire_same import same
from tests.support.wire_values import one_of_each

from dspex import errors
from dspex.pool import FunctionRequest, LocalProcesses, PoolSpec
from dspex.pool._backends.local import make_handshake
from dspex.protocol.channel import Channel
from dspex.protocol.frames import HEADER_SIZE, JSON, MSGPACK, FrameReader, Kind, encode_frame
from dspex.protocol.handshake import Greeting, Handshake, common_codec
from dspex.wire._json import Json

WORK: Final = "tests.support.work:"

OF_CLASSES: Final = {"enum", "dataclass", "model", "named_tuple"}
"""Rows for classes, which both ends have to allow."""

VALUES: Final = {name: value for name, value in one_of_each().items() if name not in OF_CLASSES}


class _Wire(asyncio.Transport):
    """Keeps what is written."""

    def __init__(self) -> None:
        super().__init__()
        self.written = b""

    def is_closing(self) -> bool:
        return False

    def write(self, data: Any) -> None:
        self.written += data


async def test_a_connection_writes_json_until_it_is_told_what_to_use() -> None:
    wire = _Wire()
    channel = Channel(asyncio.get_running_loop())
    channel.attach(wire)

    channel.send(Kind.HELLO, 0, {"a": (1,)}, alone=True)
    channel.use("msgpack")
    channel.send(Kind.CALL, 1, (1,), alone=True)
    channel.use("json")
    channel.send(Kind.CALL, 3, None, alone=True)

    frames = [(bytes(body), form) for _, _, body, form in FrameReader().feed(wire.written)]
    assert frames == [
        (b'{"a":{"$":"tuple","v":[1]}}', JSON),
        (b"\xd5\x02\x91\x01", MSGPACK),
        (b"null", JSON),
    ]


async def test_a_connection_reads_whatever_a_frame_says_it_is() -> None:
    channel = Channel(asyncio.get_running_loop())
    frame = encode_frame(Kind.CALL, 1, b"[1.0]", JSON)

    assert channel.decode(memoryview(frame[HEADER_SIZE:]), JSON) == [1.0]
    assert channel.decode(memoryview(b"\x91\x01"), MSGPACK) == [1]
    with pytest.raises(errors.WireError, match="reads no frames of the form 0x7"):
        channel.decode(memoryview(b""), 7)


def test_the_first_codec_of_the_service_that_a_worker_has_is_used() -> None:
    assert common_codec(["msgpack", "json"], ["json", "msgpack"]) == "msgpack"
    assert common_codec(["msgpack", "json"], ["other", "json"]) == "json"
    with pytest.raises(errors.WorkerStartError, match="reads json, the service writes msgpack") as refused:
        common_codec(["msgpack"], ["json"])
    assert refused.value.code == "no-common-codec"


def test_a_greeting_without_codecs_is_of_a_worker_with_messagepack() -> None:
    old = {"protocol": 1, "python": "3", "dspy": "3", "dspex": "1"}
    assert Greeting.from_wire(old).codecs == ("msgpack",)


def test_a_hand_shake_always_names_its_codecs() -> None:
    assert Handshake(max_inflight=1).to_wire()["codecs"] == ["msgpack", "json"]


@pytest.mark.parametrize("codec", ["msgpack", "json"])
async def test_every_type_survives_a_real_worker_with_each_codec(open_pool: OpenPool, codec: str) -> None:
    pool = await open_pool(codec=codec)
    for name, value in VALUES.items():
        back = await pool.echo(value)
        assert same(back, value), name


@pytest.mark.parametrize("codec", ["msgpack", "json"])
async def test_calls_streams_errors_and_host_functions_work_with_each_codec(
    open_pool: OpenPool, codec: str
) -> None:
    pool = await open_pool(codec=codec)
    assert [part async for part in pool.stream(FunctionRequest.of(f"{WORK}count", 40))] == list(range(40))
    asking = pool.with_options(host_functions={"ask": lambda value: (value, "answered")})
    assert await asking.run(f"{WORK}ask", 3) == (3, "answered")
    with pytest.raises(errors.WireError, match="the worker has no operation") as refused:
        await pool.call(_Unknown())
    assert refused.value.code == "unknown-operation"
    with pytest.raises(errors.ConfigError):
        await pool.run("no.such.module:function")


class _Unknown:
    operation: ClassVar[str] = "ecko"
    idempotent: ClassVar[bool] = True

    def to_wire(self) -> Any:
        return None

    def with_input_streams(self, names: Any) -> Any:
        return self


async def test_a_worker_that_writes_json_to_a_pool_of_messagepack_is_understood(open_pool: OpenPool) -> None:
    """Each frame says how it is read; the worker goes behind its own back here."""
    pool = await open_pool()
    sent = pool.with_options(timeout=20).run(
        f"{WORK}send_frame", int(Kind.RESULT), None, b'{"$":"tuple","v":[1]}', JSON
    )
    assert await sent == (1,)


@pytest.mark.parametrize("codec", ["msgpack", "json"])
async def test_what_cannot_be_sent_is_refused_by_name_and_place(open_pool: OpenPool, codec: str) -> None:
    pool = await open_pool(codec=codec)
    with pytest.raises(errors.WireError, match=r"\$\.rows\[1\]: object") as refused:
        await pool.echo({"rows": [1, object()]})
    assert refused.value.code == "not-encodable"
    assert await pool.echo(1) == 1


FIRST = [(["msgpack", "json"], MSGPACK), (["json", "msgpack"], JSON), (["json"], JSON)]


@pytest.mark.parametrize(("codecs", "first"), FIRST)
async def test_a_worker_answers_hello_in_json_and_then_writes_the_services_first(
    codecs: list[str], first: int
) -> None:
    """An answer is written as its call; an error, which names no call's codec, as the service's first."""
    spec = PoolSpec(workers=1)
    launcher = LocalProcesses().launcher(spec)
    loop = asyncio.get_running_loop()
    reader = FrameReader()
    try:
        async with asyncio.timeout(60):
            handle = await launcher.launch()
            hello = replace(make_handshake(spec), codecs=codecs).to_wire()
            forms = []
            asked = [
                (Kind.HELLO, 0, hello),
                (Kind.CALL, 1, ["echo", 1, 9, 0]),
                (Kind.CALL, 3, ["no", 1, 9, 0]),
            ]
            for kind, number, body in asked:
                await loop.sock_sendall(handle.socket, encode_frame(kind, number, Json().encode(body), JSON))
                frames: list[Any] = []
                while not frames:
                    frames = reader.feed(await loop.sock_recv(handle.socket, 65536))
                forms.append((frames[0][0], frames[0][3]))
            assert forms == [(Kind.READY, JSON), (Kind.RESULT, JSON), (Kind.ERROR, first)]
            handle.kill()
            await handle.exited
            handle.release()
    finally:
        await launcher.aclose()
