"""What a pool's settings say of the wire: compression, pickle, and whose classes may cross."""

from __future__ import annotations

import logging
import threading
from typing import Any

import numpy as np
import pytest
from tests.support import work
from tests.support.dialled import DialledProcesses
from tests.support.pools import OpenPool
from tests.support.wire_values import Colour, Point

from dspex import wire
from dspex.errors import ConfigError, WireError, WorkerStartError
from dspex.pool import FunctionRequest, PoolSpec, Restart
from dspex.pool._doctor import examine
from dspex.protocol.frames import JSON, MSGPACK, Frame, FrameReader, Kind, encode_frame, encode_head

WORK = "tests.support.work:"


class Odd:
    """A class of no kind that a codec knows."""

    def __init__(self, number: int) -> None:
        self.number = number

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Odd) and other.number == self.number

    __hash__ = None  # type: ignore[assignment]


@pytest.mark.parametrize("how", ["lz4", "zstd"])
async def test_a_pool_that_packs_gives_what_it_was_given(open_pool: OpenPool, how: str) -> None:
    pool = await open_pool(compression=how)
    value = {"zeros": np.zeros(200_000), "noise": np.random.default_rng(1).bytes(300_000), "text": "x"}
    back = await pool.run(work.give, value)
    assert (back.pop("zeros") == 0).all()
    assert back == {"noise": value["noise"], "text": "x"}


LARGE = {"zeros": bytes(3 * 2**20), "noise": np.random.default_rng(1).bytes(2**20), "text": "x"}


@pytest.mark.parametrize(
    ("elsewhere", "compression", "most"),
    [
        (False, "auto", 64 * 1024),  # by shared memory: the frames only name it
        (False, "off", 64 * 1024),
        (True, "auto", 2**20 + 64 * 1024),  # the noise as it is, the zeros as next to nothing
        (True, "off", 4 * 2**20 + 64 * 1024),
        (False, "zstd", 2**20 + 64 * 1024),
    ],
)
async def test_what_crosses_to_a_worker_here_or_elsewhere_is_as_long_as_its_pool_says(
    open_pool: OpenPool, monkeypatch: pytest.MonkeyPatch, elsewhere: bool, compression: str, most: int
) -> None:
    lengths: list[int] = []
    take = FrameReader.take

    def watched_encode(kind: int, call_id: int, length: int, form: int = MSGPACK) -> bytes:
        if kind in (Kind.CALL, Kind.RESULT):
            lengths.append(length)
        return encode_head(kind, call_id, length, form)

    def watched_frame(kind: int, call_id: int, body: bytes, form: int = MSGPACK) -> bytes:
        watched_encode(kind, call_id, len(body), form)
        return encode_frame(kind, call_id, body, form)

    def watched_take(reader: FrameReader, count: int) -> list[Frame]:
        frames = take(reader, count)
        lengths.extend(len(body) for kind, _, body, _ in frames if kind in (Kind.CALL, Kind.RESULT))
        return frames

    monkeypatch.setattr("dspex.protocol.channel.encode_head", watched_encode)
    monkeypatch.setattr("dspex.protocol.channel.encode_frame", watched_frame)
    monkeypatch.setattr(FrameReader, "take", watched_take)
    pool = await open_pool(backend=DialledProcesses() if elsewhere else None, compression=compression)
    lengths.clear()
    assert await pool.run(work.give, LARGE) == LARGE
    sent, heard = lengths
    for length in (sent, heard):
        assert most - 64 * 1024 < length <= most


async def test_a_shared_value_goes_over_the_socket_to_a_worker_elsewhere(open_pool: OpenPool) -> None:
    shared = wire.share(LARGE)
    pool = await open_pool(backend=DialledProcesses())
    assert await pool.run(work.give, [shared, 1]) == [LARGE, 1]


async def test_classes_cross_where_their_module_is_named_and_nowhere_else(open_pool: OpenPool) -> None:
    value = {"at": Point(1, 2.5), "in": [Colour.RED]}
    allowed = await open_pool(classes=["tests.support"])
    assert await allowed.run(work.give, value) == value

    refusing = await open_pool()
    with pytest.raises(WireError, match=r"\$\.args\[0\]\.at: tests\.support\.wire_values\.Point") as refused:
        await refusing.run(work.give, value)
    assert refused.value.code == "not-encodable"
    assert "PoolSpec(classes=" in refused.value.hint
    assert await refusing.run(work.add, 2, 3) == 5


async def test_without_pickle_a_class_of_no_kind_is_refused_and_with_it_crosses(
    open_pool: OpenPool, caplog: pytest.LogCaptureFixture
) -> None:
    careful = await open_pool()
    with pytest.raises(WireError, match="Odd"):
        await careful.run(work.give, Odd(3))
    assert not careful.status().pickle
    assert "pickle" not in caplog.text

    with caplog.at_level(logging.WARNING, "dspex.pool"):
        trusting = await open_pool(pickle=True, name="trusting")
    assert await trusting.run(work.give, {"odd": [Odd(3)], "plain": 1}) == {"odd": [Odd(3)], "plain": 1}
    assert trusting.status().pickle
    assert "'trusting' takes pickles" in caplog.text
    with pytest.raises(WireError, match=r"\$\.args\[0\]: _thread\.lock"):
        await trusting.run(work.give, threading.Lock())


async def test_the_doctor_says_that_a_pool_takes_pickles() -> None:
    told = {finding.about: finding for finding in await examine(PoolSpec(workers=1, pickle=True))}
    assert not told["pickle"].good
    assert "pickle" not in {finding.about for finding in await examine(PoolSpec(workers=1))}


async def test_a_codec_of_ones_own_carries_the_calls_of_a_pool_that_names_it(open_pool: OpenPool) -> None:
    import tests.support.own_codec as own

    pool = await open_pool(codec="squeezed", preload=[own.__name__])
    assert await pool.run(work.give, {"a": (1, {2})}) == {"a": (1, {2})}

    with pytest.raises(WorkerStartError, match="squeezed") as refused:
        await open_pool(codec="squeezed", restart=Restart(max=0))
    assert refused.value.code == "no-common-codec"


async def test_a_call_may_go_by_another_codec_than_its_pools(
    open_pool: OpenPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[tuple[int, int]] = []
    heard: list[tuple[int, int]] = []
    take = FrameReader.take

    def watched_encode(kind: int, call_id: int, length: int, form: int = MSGPACK) -> bytes:
        sent.append((kind, form))
        return encode_head(kind, call_id, length, form)

    def watched_frame(kind: int, call_id: int, body: bytes, form: int = MSGPACK) -> bytes:
        watched_encode(kind, call_id, len(body), form)
        return encode_frame(kind, call_id, body, form)

    def watched_take(reader: FrameReader, count: int) -> list[Frame]:
        frames = take(reader, count)
        heard.extend((kind, form) for kind, _, _, form in frames)
        return frames

    monkeypatch.setattr("dspex.protocol.channel.encode_head", watched_encode)
    monkeypatch.setattr("dspex.protocol.channel.encode_frame", watched_frame)
    monkeypatch.setattr(FrameReader, "take", watched_take)
    pool = await open_pool()
    value = {"a": (1, {2}), "rows": [{"n": n} for n in range(200)]}
    heard.clear()

    by_json = pool.with_options(codec="json")
    assert await by_json.run(work.give, value) == value
    request = FunctionRequest.of(WORK + "count_to", 3)
    assert [item async for item in by_json.stream(request)] == [0, 1, 2]
    assert {form for kind, form in sent if kind == Kind.CALL} == {JSON}
    assert {form for kind, form in heard if kind == Kind.ITEM} == {JSON}
    assert {form for kind, form in heard if kind == Kind.RESULT} == {JSON}

    assert await pool.run(work.give, value) == value
    assert sent[-1] == (Kind.CALL, MSGPACK)
    assert heard[-1] == (Kind.RESULT, MSGPACK)


async def test_a_codec_that_no_worker_reads_is_the_calls_own_mistake(open_pool: OpenPool) -> None:
    pool = await open_pool()
    with pytest.raises(ConfigError, match="reads 'smoke'") as refused:
        await pool.with_options(codec="smoke").run(work.give, 1)
    assert refused.value.code == "bad-call"
    with pytest.raises(ConfigError, match="named by a text"):
        await pool.with_options(codec=3).run(work.give, 1)  # type: ignore[arg-type]
    assert await pool.run(work.add, 2, 3) == 5


@pytest.mark.parametrize(
    ("name", "number"), [("json", 20), ("no name", 20), ("low", 3), ("high", 300), ("other", 77)]
)
def test_a_codec_that_would_be_taken_for_another_is_refused(name: str, number: int) -> None:
    import tests.support.own_codec as own

    with pytest.raises(ConfigError) as refused:
        wire.register(name, number, own.Squeezed)
    assert refused.value.code == "bad-codec"
    with pytest.raises(ConfigError, match="codec"):
        PoolSpec(codec="no_such_codec")


@pytest.mark.parametrize(
    "spec", [{"pickle": 1}, {"compression": "gzip"}, {"classes": ["no module"]}], ids=repr
)
def test_a_wrong_setting_is_refused(spec: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(spec))):
        PoolSpec(**spec)
