"""The loop of a worker: frames in, one task per call, frames out.

The loop owns everything; only heartbeats run beside it (`parent_watch`). Nothing is imported from DSPy
before the service has sent HELLO, so that a wrong version is refused while it is still cheap.
"""

from __future__ import annotations

import asyncio
import contextlib
import faulthandler
import inspect
import os
import signal
import socket
import sys
from collections.abc import AsyncGenerator
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Final, NoReturn, cast

from dspex._threads import MANY
from dspex.errors import ConfigError, DeadlineExceeded, DspexError, WireError
from dspex.protocol.channel import Channel
from dspex.protocol.deadlines import Deadlines
from dspex.protocol.errors import read_error
from dspex.protocol.frames import CODEC, MSGPACK, Kind
from dspex.protocol.handshake import CODECS, Greeting, Handshake, common_codec
from dspex.protocol.packing import available
from dspex.telemetry._trace import CURRENT, Trace
from dspex.wire import Classes
from dspex.wire._codec import names
from dspex.worker.host import RUNNING, connect
from dspex.worker.stages import STAGES
from dspex.worker.startup import apply_limits, import_preload, prepare_interpreter, start_error

if TYPE_CHECKING:
    from collections.abc import Coroutine, Mapping, Sequence

    from dspex.worker.operations.table import InstantOperation, Operation, WorkerContext
    from dspex.worker.parent_watch import Descriptors

__all__ = ["serve"]

# An enum's member costs a look-up, and these are asked for with every call.
_CALL: Final = int(Kind.CALL)
_RESULT: Final = int(Kind.RESULT)


def serve(descriptors: Descriptors) -> None:
    """Serve calls on the socket until the service sends STOP or closes it."""
    faulthandler.enable(all_threads=False)  # a crash in C leaves its stack in the captured standard error
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]  # a print before a crash is not lost
    with contextlib.suppress(ValueError):  # not the main thread, if another's process has become a worker
        # An interrupt ends a worker as any signal does; as an exception it would look like a cancelled call.
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    asyncio.run(_serve(descriptors))


async def _serve(descriptors: Descriptors) -> None:
    loop = asyncio.get_running_loop()
    memory = None if descriptors.memory is None else socket.socket(fileno=descriptors.memory)
    await loop.create_connection(lambda: Server(loop, memory), sock=socket.socket(fileno=descriptors.socket))
    await loop.create_future()  # for ever: it is the server that ends the process


class Server(asyncio.BufferedProtocol):
    """The worker's end of the socket.

    Args:
        loop: The loop it is on.
        memory: The worker's end of the socket for shared memory, if there is one.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, memory: socket.socket | None = None) -> None:
        self._loop = loop
        self._channel = Channel(loop)
        if memory is not None:
            self._channel.share_memory(memory, shares=False)
        self._calls: dict[int, asyncio.Task[None]] = {}
        self._asked: dict[int, tuple[int, asyncio.Future[Any]]] = {}  # calls back to the service, by whom
        self._traces: dict[int, Trace] = {}  # of the calls that brought one
        self._credits: dict[int, asyncio.Semaphore] = {}  # of the calls that answer in parts
        self._last_asked = 0  # even: the service's own calls are odd
        self._deadlines = Deadlines(loop, self._overdue)
        self._late: set[int] = set()  # calls being cancelled because their time is over
        self._operations: Mapping[str, Operation] = {}  # none before the hand-shake
        self._instant: Mapping[str, InstantOperation] = {}
        self._streams: Mapping[str, Operation] = {}  # those that answer in parts
        self._context: WorkerContext

    # --- the connection ---

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The socket is ours."""
        self._channel.attach(transport)

    def connection_lost(self, exc: Exception | None) -> None:
        """The service is gone, or has had enough of us; what still runs is of no use to anybody."""
        self._leave()

    def get_buffer(self, sizehint: int) -> memoryview:
        """Where what arrives is to be written."""
        return self._channel.room()

    def buffer_updated(self, nbytes: int) -> None:
        """Take what arrived, frame by frame."""
        channel = self._channel
        try:
            for kind, number, body, form in channel.take(nbytes):
                value = channel.read(body) if form == MSGPACK else channel.decode(body, form)
                if kind == _CALL:
                    self._begin(number, value, form & CODEC)
                else:
                    self._take(kind, number, value)
        except (WireError, LookupError, TypeError, ValueError) as err:
            # Neither the stream nor the content of a frame can be trusted now; the service sees the end of it
            # and our last words.
            print(f"dspex.worker: {err}", file=sys.stderr)
            self._leave()

    def _leave(self) -> NoReturn:
        # Ending the loop is not enough: a thread of the work could keep the process alive for ever.
        self._channel.flush()
        with contextlib.suppress(OSError, ValueError):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(0)

    # --- frames ---

    def _take(self, kind: int, number: int, value: Any) -> None:
        if kind in (Kind.RESULT, Kind.ERROR):
            _, answer = self._asked.pop(number, (0, None))
            if answer is not None and not answer.done():  # else the work has stopped waiting
                if kind == Kind.RESULT:
                    answer.set_result(value)
                else:
                    answer.set_exception(read_error(value))
        elif kind == Kind.CANCEL:
            self._cancel(number)
        elif kind == Kind.CREDIT:
            credit = self._credits.get(number)
            if credit is not None:  # else the work has ended
                for _ in range(value):
                    credit.release()
        elif kind == Kind.HELLO:
            self._greet(value)
        elif kind == Kind.RELEASE:
            self._channel.released(value)
        elif kind == Kind.GONE:
            self._channel.gone(value)
        elif kind == Kind.STOP:
            self._leave()
        else:
            raise WireError(f"a worker does not take {Kind(kind).name} frames", code="bad-frame")

    # --- hand-shake ---

    def _greet(self, wire: Any) -> None:
        try:
            handshake = Handshake.from_wire(wire)
            prepare_interpreter(handshake)
            apply_limits(handshake.limits)
            # DSPy's async path goes through the default executor for parts of every call, and its size of
            # cores + 4 would be the number of calls that make progress. Nor is any other bound right: a
            # program may call its predictors in there, each of which waits for a part of its call.
            self._loop.set_default_executor(
                ThreadPoolExecutor(max_workers=MANY, thread_name_prefix="dspex-dspy")
            )
            from dspex.worker.operations.table import INSTANT, OPERATIONS, STREAMS, WorkerContext

            for module in handshake.preload:
                import_preload(module)
            codec = common_codec(handshake.codecs, (*CODECS, *names()))  # which a preload may have added to
            classes = Classes(handshake.classes)
            self._channel.allow(classes, pickle=handshake.pickle)
            if handshake.packing and available():
                self._channel.pack(handshake.packing)
            self._context = WorkerContext(handshake.lm, classes)
            self._operations, self._instant = OPERATIONS, INSTANT
            self._streams = STREAMS
            connect(self._loop, self._call_back, self._deadlines.left)
        except Exception as err:  # noqa: BLE001 - whatever it was, the service must hear of it
            self._channel.send_error(0, start_error(err))
            self._leave()
        self._channel.send(Kind.READY, 0, Greeting.of_this_process().to_wire())
        self._channel.use(codec)

    # --- calls ---

    def _begin(self, call_id: int, value: Any, form: int) -> None:
        if not self._operations:
            raise WireError("a call came before the hand-shake", code="bad-frame")
        op, payload, timeout, window, *trace = value
        operation = (self._streams if window else self._operations).get(op)
        if operation is None:
            instant = self._instant.get(op)
            if instant is not None:
                self._answer_at_once(call_id, instant, payload, window, form)
                return
            known = ", ".join(sorted({*self._operations, *self._instant}))
            error = WireError(
                f"the worker has no operation {op!r}", code="unknown-operation", hint=f"there are: {known}"
            )
            self._channel.send_error(call_id, error)
            return
        running = self._run(call_id, operation, payload, window, form, *trace)
        self._calls[call_id] = asyncio.Task(running, loop=self._loop)
        self._deadlines.set(call_id, self._loop.time() + timeout)

    def _answer_at_once(
        self, call_id: int, operation: InstantOperation, payload: Any, window: int, form: int
    ) -> None:
        """A task would cost several times what such an operation does."""
        try:
            if window:
                raise _not_a_stream()
            answer = operation(self._context, payload)
            self._channel.send(_RESULT, call_id, answer, alone=not self._calls, form=form)
        except Exception as err:  # noqa: BLE001 - whatever it was, the caller must hear of it
            self._send_error(call_id, err)

    async def _run(
        self,
        call_id: int,
        operation: Operation,
        payload: Any,
        window: int,
        form: int,
        trace: Trace | None = None,
    ) -> None:
        RUNNING.set(call_id)
        if trace is not None:
            CURRENT.set(trace)
            self._traces[call_id] = trace
        try:
            result = await operation(self._context, payload)
            if window:
                await self._send_items(call_id, result, window, form)
                result = None
            self._channel.send(_RESULT, call_id, result, alone=len(self._calls) == 1, form=form)
        except asyncio.CancelledError:
            self._send_cancelled(call_id)
        except BaseException as err:  # noqa: BLE001 - sys.exit() in a program must not end the worker
            self._send_error(call_id, err)
        finally:
            del self._calls[call_id]
            self._late.discard(call_id)
            self._deadlines.discard(call_id)
            if trace is not None:
                del self._traces[call_id]
            if self._asked:
                self._stop_asking(call_id)

    async def _send_items(self, call_id: int, source: Any, window: int, form: int) -> None:
        """Send what `source` yields, never more than `window` items ahead of whoever takes them."""
        if not isinstance(source, AsyncGenerator):
            raise _not_a_stream()
        credit = self._credits[call_id] = asyncio.Semaphore(window)
        try:
            async with contextlib.aclosing(source):
                async for item in source:
                    await credit.acquire()
                    self._channel.send(Kind.ITEM, call_id, item, form=form)
        finally:
            del self._credits[call_id]

    async def _call_back(self, call_id: int, name: str, args: list[Any], kwargs: dict[str, Any]) -> Any:
        """Call a function of the service for the call `call_id`."""
        if call_id not in self._calls:
            raise DspexError(f"the call whose work asks for {name!r} is over", code="cancelled")
        self._last_asked += 2
        number = self._last_asked
        body = [call_id, name, args, kwargs]
        if (trace := CURRENT.get()) is not self._traces.get(call_id):
            body.append(trace)  # the work has begun a part of its own
        self._channel.send(Kind.CALL, number, body, alone=True)
        answer = self._loop.create_future()
        self._asked[number] = call_id, answer
        try:
            return await answer
        except asyncio.CancelledError:
            if self._asked.pop(number, None) is not None:
                self._channel.send(Kind.CANCEL, number, None)
            raise

    def _stop_asking(self, call_id: int) -> None:
        """Fail the pending host calls of a finished call, which a thread of it may still wait for."""
        for number, (owner, answer) in list(self._asked.items()):
            if owner == call_id:
                del self._asked[number]
                self._channel.send(Kind.CANCEL, number, None)
                if not answer.done():
                    answer.set_exception(DspexError("the call is over or is to stop", code="cancelled"))
                    answer.exception()  # whoever asked may be gone

    def _cancel(self, call_id: int) -> None:
        task = self._calls.get(call_id)
        if task is None:  # the answer is on its way already
            return
        coroutine = cast("Coroutine[Any, Any, None]", task.get_coro())
        if inspect.getcoroutinestate(coroutine) == inspect.CORO_CREATED:
            # A task that is cancelled before its first step never enters `_run`.
            del self._calls[call_id]
            self._deadlines.discard(call_id)
            self._send_cancelled(call_id)
        task.cancel()
        if self._asked:
            self._stop_asking(call_id)

    def _overdue(self, call_id: int) -> None:
        self._late.add(call_id)
        self._cancel(call_id)

    def _send_cancelled(self, call_id: int) -> None:
        if call_id in self._late:
            self._late.remove(call_id)
            error: DspexError = DeadlineExceeded("the work was not done within its time", stage="worker")
        else:
            error = DspexError("the call was cancelled", code="cancelled")
        self._channel.send_error(call_id, error, _stages())

    def _send_error(self, call_id: int, err: BaseException) -> None:
        from dspex.worker.failures import to_dspex_error

        error = to_dspex_error(err, secrets=self._context.models.secrets)
        self._channel.send_error(call_id, error, _stages())


def _stages() -> Sequence[Any]:
    """What the work of the running call has done, as it goes over the wire."""
    done = STAGES.get()
    return () if done is None else done.rows


def _not_a_stream() -> ConfigError:
    return ConfigError("what was asked for does not answer in parts", code="not-a-stream")
