"""The loop of a worker: frames in, one task per call, frames out.

The loop owns everything; only heartbeats run beside it (`guard`). Nothing is imported from DSPy before the
service has said HELLO, so that a wrong version is refused while it is still cheap.
"""

from __future__ import annotations

import asyncio
import contextlib
import faulthandler
import os
import socket
import sys
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, Any

from dspex.errors import DeadlineExceeded, DspexError, WireError
from dspex.wire import MSGPACK, Frame, FrameReader, Kind, MessagePack, encode_frame
from dspex.worker.hello import check_versions, import_preload, prepare_interpreter, start_error, versions

if TYPE_CHECKING:
    from dspex.worker.guard import Descriptors
    from dspex.worker.operations import Bench

__all__ = ["serve"]


def serve(descriptors: Descriptors) -> None:
    """Serve calls on the socket until the service says STOP or closes it."""
    faulthandler.enable(all_threads=False)  # a crash in C leaves its stack in the captured standard error
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]  # a print before a crash is not lost
    asyncio.run(_serve(descriptors))


async def _serve(descriptors: Descriptors) -> None:
    loop = asyncio.get_running_loop()
    _, server = await loop.create_connection(
        lambda: Server(loop), sock=socket.socket(fileno=descriptors.socket)
    )
    await server.closed


class Server(asyncio.Protocol):
    """The worker's end of the socket."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.closed: asyncio.Future[None] = loop.create_future()
        self._loop = loop
        self._reader = FrameReader()
        self._codec = MessagePack()
        self._calls: dict[int, asyncio.Task[None]] = {}
        self._bench: Bench | None = None
        self._out: list[bytes] = []
        self._transport: Any = None

    # --- the connection ---

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The socket is ours."""
        self._transport = transport

    def connection_lost(self, exc: Exception | None) -> None:
        """The service is gone, or has had enough of us; what still runs is of no use to anybody."""
        self._leave()

    def data_received(self, data: bytes) -> None:
        """Take what arrived, frame by frame."""
        try:
            for frame in self._reader.feed(data):
                self._take(frame)
        except WireError as err:
            # The stream cannot be trusted any further; the service sees the end of it and our last words.
            print(f"dspex.worker: {err}", file=sys.stderr)
            self._leave()

    def _leave(self) -> None:
        # Ending the loop is not enough: a thread of the work could keep the process alive for ever.
        self._flush()
        with contextlib.suppress(OSError, ValueError):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(0)

    # --- frames ---

    def _take(self, frame: Frame) -> None:
        if frame.kind == Kind.CALL:
            if self._bench is None:
                raise WireError("a call came before the hand-shake", code="bad-frame")
            op, payload, timeout = self._codec.decode(frame.body)
            task = self._loop.create_task(self._run(frame.id, op, payload, timeout))
            self._calls[frame.id] = task
            task.add_done_callback(partial(self._settle, frame.id))
        elif frame.kind == Kind.CANCEL:
            if frame.id in self._calls:  # else the answer is on its way already
                self._calls[frame.id].cancel()
        elif frame.kind == Kind.HELLO:
            self._greet(self._codec.decode(frame.body))
        elif frame.kind == Kind.STOP:
            self._leave()
        else:
            raise WireError(f"a worker does not take {Kind(frame.kind).name} frames", code="bad-frame")

    def _send(self, kind: Kind, call_id: int, value: Any) -> None:
        self._out.append(encode_frame(kind, call_id, self._codec.encode(value), codec=MSGPACK))
        if len(self._out) == 1:  # the answers of one turn of the loop leave in one write
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        if self._out and not self._transport.is_closing():
            self._transport.write(b"".join(self._out))
        self._out.clear()

    # --- hand-shake ---

    def _greet(self, hello: dict[str, Any]) -> None:
        try:
            check_versions(hello)
            prepare_interpreter(hello)
            # DSPy's async path goes through the default executor for parts of every call, and its size of
            # cores + 4 would be the number of calls that make progress.
            threads = ThreadPoolExecutor(max_workers=hello["max_inflight"], thread_name_prefix="dspex-work")
            self._loop.set_default_executor(threads)
            from dspex.worker.operations import Bench

            for module in hello["preload"]:
                import_preload(module)
            self._bench = Bench(hello["lm"], threads)
        except Exception as err:  # noqa: BLE001 - whatever it was, the service must hear of it
            self._send(Kind.ERROR, 0, start_error(err).to_dict())
            self._leave()
        self._send(Kind.READY, 0, versions())

    # --- calls ---

    async def _run(self, call_id: int, op: str, payload: Any, timeout: float | None) -> None:
        from dspex.worker.failures import to_dspex_error
        from dspex.worker.operations import OPERATIONS

        bench = self._bench
        assert bench is not None  # noqa: S101 - `_take` refuses calls before the hand-shake
        try:
            operation = OPERATIONS.get(op)
            if operation is None:
                raise WireError(f"the worker has no operation {op!r}", code="unknown-operation")
            async with asyncio.timeout(timeout) as limit:
                result = await operation(bench, payload)
            self._send(Kind.RESULT, call_id, result)
        except asyncio.CancelledError:
            raise
        except BaseException as err:  # noqa: BLE001 - sys.exit() in a program must not end the worker
            if isinstance(err, TimeoutError) and limit.expired():
                err = DeadlineExceeded(f"the work was not done after {timeout:.3g} s", where="worker")
            self._send(Kind.ERROR, call_id, to_dspex_error(err, secrets=bench.models.secrets).to_dict())

    def _settle(self, call_id: int, task: asyncio.Task[None]) -> None:
        del self._calls[call_id]
        # Here and not in `_run`: a task that is cancelled before its first step never enters it.
        if task.cancelled():
            self._send(Kind.ERROR, call_id, DspexError("the call was cancelled", code="cancelled").to_dict())
