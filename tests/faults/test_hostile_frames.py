"""Frames that are whole and say what no worker says, or what no service says.

Each ends the worker that sent it, with the reason, and nothing else: no call of another worker, not the loop.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import pytest
from tests.support.backends import Processes
from tests.support.pools import OpenPool
from tests.support.processes import until

from dspex import errors
from dspex.pool import EchoRequest, FunctionRequest, Pool, Restart
from dspex.protocol.frames import PROTOCOL, Kind, encode_frame
from dspex.wire._msgpack import MessagePack

WORK = "tests.support.work:"
ERROR = {"class": "RemoteError", "message": "m", "code": "remote", "hint": "", "details": {}}
VERSIONS = {"protocol": PROTOCOL, "python": "3", "dspy": "3", "dspex": "1"}

# name, kind, call (None: the one that is running), body, what the error says
FRAMES: list[tuple[str, Kind, int | None, Any, str]] = [
    ("an answer to no call", Kind.RESULT, 999, 1, "an answer for a call 999 that it does not have"),
    ("an answer to a call of its own", Kind.RESULT, 2, 1, "an answer for a call 2"),
    ("an answer to nobody", Kind.RESULT, 0, 1, "does not take RESULT frames"),
    ("an error of no call", Kind.ERROR, 999, ERROR, "an answer for a call 999"),
    ("an error that is a number", Kind.ERROR, None, 5, "is no error"),
    ("an error that is a list", Kind.ERROR, None, ["class"], "is no error"),
    ("an error without anything", Kind.ERROR, None, {}, "is no error"),
    ("an error without details", Kind.ERROR, None, {**ERROR, "details": None}, "is no error"),
    ("an error whose class is a list", Kind.ERROR, None, {**ERROR, "class": []}, "is no error"),
    ("an error of the connection that is none", Kind.ERROR, 0, b"\xc1", "is not MessagePack"),
    ("a body that is none", Kind.RESULT, None, b"\xc1", "is not MessagePack"),
    ("a body that is cut off", Kind.RESULT, None, b"\xdc\xff\xff", "is not MessagePack"),
    ("a body of an unknown type", Kind.RESULT, None, b"\xd4\x63\x00", "no extension has the number 99"),
    ("a body that nests without end", Kind.RESULT, None, b"\x91" * 5000 + b"\xc0", "is not MessagePack"),
    ("a part of an answer that has none", Kind.ITEM, None, 1, "a part of an answer"),
    ("a part of no answer", Kind.ITEM, 999, 1, "a part of an answer that call 999"),
    ("a greeting that is a list", Kind.READY, 0, [1], "a greeting without versions"),
    ("a greeting without versions", Kind.READY, 0, {"protocol": PROTOCOL}, "a greeting without versions"),
    ("a greeting of another protocol", Kind.READY, 0, {**VERSIONS, "protocol": 99}, "speaks protocol 99"),
    ("a call back that is a number", Kind.CALL, 2, 5, "a malformed CALL frame"),
    ("a call back that is empty", Kind.CALL, 2, [], "a malformed CALL frame"),
    ("a call back of the wrong shape", Kind.CALL, 2, [1, ["f"], {}, []], "a malformed CALL frame"),
    ("a call back with a number of ours", Kind.CALL, 3, [1, "f", [], {}], "a malformed CALL frame"),
    ("a call back without a number", Kind.CALL, 0, [1, "f", [], {}], "a malformed CALL frame"),
    *(
        (f"a {kind.name} frame", kind, 0, None, f"does not take {kind.name} frames")
        for kind in (Kind.HELLO, Kind.STOP, Kind.FORK, Kind.FORKED, Kind.EXITED, Kind.CREDIT)
    ),
]


@contextlib.contextmanager
def quiet_loop() -> Any:
    """Nothing reaches the loop's handler: what it would log there, nobody has handled."""
    heard: list[dict[str, Any]] = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: heard.append(context))
    yield
    assert heard == []


async def frame(pool: Pool, *args: Any) -> Any:
    return await pool.with_options(timeout=20).run(f"{WORK}send_frame", *args)


async def test_a_frame_that_no_worker_sends_ends_its_sender_alone_and_says_why(open_pool: OpenPool) -> None:
    pool = await open_pool(workers=2, max_inflight=1, restart=Restart(max=1000))
    witness = asyncio.ensure_future(pool.run(f"{WORK}wait_for_ever"))
    with quiet_loop():
        for name, kind, number, body, says in FRAMES:
            assert await pool.call(EchoRequest(name), timeout=20) == name
            with pytest.raises(errors.WorkerDiedError) as caught:
                await frame(pool, int(kind), number, body)
            assert caught.value.reason.startswith("it sent what is not a frame: "), name
            assert says in caught.value.reason, f"{name}: {caught.value.reason}"
        with pytest.raises(errors.WorkerDiedError, match="no frame has the codec 9"):
            await frame(pool, int(Kind.RESULT), None, 1, 9)
        assert not witness.done()
        witness.cancel()
    assert await pool.call(EchoRequest("still"), timeout=20) == "still"


async def test_a_flood_of_parts_ends_its_sender_before_it_fills_the_memory(open_pool: OpenPool) -> None:
    pool = await open_pool(workers=1)
    request = FunctionRequest.of(f"{WORK}send_frame_and_yield", int(Kind.ITEM), 1, 500)
    with quiet_loop():
        parts = pool.stream(request, timeout=20)
        await anext(parts)
        await until(lambda: pool.status().deaths)  # nobody takes parts meanwhile
        with pytest.raises(errors.WorkerDiedError, match="has room for"):
            await _take(parts, [])
    assert await pool.call(EchoRequest(5), timeout=20) == 5


async def test_what_changes_nothing_is_let_pass(open_pool: OpenPool) -> None:
    """A second greeting, the end of a call back that is not running, an error of a connection that stands."""
    pool = await open_pool(workers=1)
    pid = pool.status().workers[0].pid
    for kind, number, body in ((Kind.READY, 0, VERSIONS), (Kind.CANCEL, 8, None), (Kind.ERROR, 0, ERROR)):
        sent = pool.with_options(timeout=20).run(f"{WORK}send_frame", int(kind), number, body, wait=False)
        assert await sent is None  # the answer comes behind the frame, on the same socket
    assert await pool.call(EchoRequest(5), timeout=20) == 5
    assert pool.status().workers[0].pid == pid


# What the service says, which a worker does not take: the worker leaves, with its last words.
SERVICE: list[tuple[str, Kind, int | None, Any]] = [
    ("a call that is a number", Kind.CALL, 91, 5),
    ("a call of an operation that is a list", Kind.CALL, 91, [["x"], None, 1.0, 0]),
    ("a call without a time", Kind.CALL, 91, ["echo"]),
    ("a call whose time is a text", Kind.CALL, 91, ["function", None, "soon", 0]),
    ("credit that is no number", Kind.CREDIT, None, "many"),
    ("a frame of a worker's", Kind.READY, 0, None),
    ("a greeting that is none", Kind.HELLO, 0, 5),
]


@pytest.mark.parametrize(
    ("kind", "number", "body"), [row[1:] for row in SERVICE], ids=[r[0] for r in SERVICE]
)
async def test_a_frame_that_no_service_sends_ends_the_worker_and_nothing_else(
    open_pool: OpenPool, kind: Kind, number: int | None, body: Any
) -> None:
    here = Processes()
    pool = await open_pool(workers=1, backend=here)
    parts: list[Any] = []
    call = asyncio.ensure_future(
        _take(pool.stream(FunctionRequest.of(f"{WORK}yield_and_wait"), timeout=20), parts)
        if number is None
        else pool.call(FunctionRequest.of(f"{WORK}wait_for_ever"), timeout=20)
    )
    with quiet_loop():
        # Before its first part a stream has no use for credit.
        await until(lambda: parts if number is None else pool.status().workers[0].inflight)
        first_call = 1
        call_id = first_call if number is None else number
        frame = encode_frame(kind, call_id, MessagePack().encode(body))
        here.handles[0].socket.sendall(frame)
        with pytest.raises(errors.WorkerDiedError):
            await call
        assert await pool.call(EchoRequest(5), timeout=20) == 5


async def _take(parts: Any, into: list[Any]) -> None:
    async for part in parts:
        into.append(part)
