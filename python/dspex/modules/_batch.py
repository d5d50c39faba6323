"""Many rows through one module: `batch`, `batch_as_completed`, and the same awaited.

`BatchRun` does the work, on an event loop. What awaits it runs it where it is, and reads the rows there. What
blocks runs the whole of it on the loop of the module's runtime, so that a row costs no way between threads::

    the caller's thread                              the runtime's loop
    submit(run)            ------------------------>  run: workers
    inbox.get()            <---- rows are wanted ---
    reads some rows        ----- those rows ------->
    inbox.get()            <---- number, outcome ---  (batch_as_completed)
    inbox.get()            <---- the end -----------

A list or a tuple is read on the loop. All else is read on the caller's thread, some rows at a time: what
makes the rows may block, or belong to its thread, as a cursor of a database does.

A program that has only a `forward` runs in threads, each row in one.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    AsyncIterator,
    Awaitable,
    Callable,
    Generator,
    Iterable,
    Iterator,
    Mapping,
    Sized,
)
from concurrent.futures import CancelledError, Future
from contextlib import aclosing, closing, suppress
from itertools import islice
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from dspex._portal import Portal, cross, refuse_blocking
from dspex._room import Room
from dspex.errors import ConfigError, InputError
from dspex.modules._batch_plan import Plan
from dspex.modules._batch_run import BatchRun
from dspex.modules._row_call import begin_of
from dspex.modules._tree import PredictorNode, predictors_of
from dspex.router import Dispatcher, current_dispatcher

if TYPE_CHECKING:
    from dspex.modules._module import Module
    from dspex.modules._row_call import RowCall

__all__ = [
    "Calls",
    "Plan",
    "abatch",
    "abatch_as_completed",
    "batch",
    "batch_as_completed",
    "begin_there",
    "failed_rows",
    "inputs_of",
]

ROOM: Final = 3
"""Rows for each that may run at once, whose outcomes nobody has taken yet: those that run, those that wait to
be read with others, and those that ended since whoever takes them came last. Two for each were too few: quick
rows that ended together waited for room."""

_READING_SECONDS: Final = 0.005
"""How long rows are read before those that are there go on their way."""


class Calls(NamedTuple):
    """How the rows of a batch are run: by a module, or as whoever makes the batch says.

    Attributes:
        run: Runs one row, whose number it is given too.
        dispatcher: Whose loop the batch is to run on, where it may choose; None for one of its own.
        begin: Begins one row, which the batch then asks and finishes, or gives None where the row is to be
            run as a whole; None where all are.
    """

    run: Callable[[Any, int], Awaitable[Any]]
    dispatcher: Callable[[], Dispatcher | None]
    begin: Callable[[Any], RowCall | None] | None = None

    @classmethod
    def of(cls, module: Module) -> Calls:
        """The calls of a module, whose rows are its inputs."""
        call = module.acall
        if getattr(module, "aforward", None) is None:
            begin = begin_of(module)
            return cls(
                lambda row, _: call(**inputs_of(row)),
                lambda: _dispatcher_of(module),
                None if begin is None else lambda row: begin({**inputs_of(row)}),
            )
        # What a program sets in its context is seen by no other row.
        return cls(lambda row, _: asyncio.create_task(call(**inputs_of(row))), lambda: _dispatcher_of(module))


def inputs_of(row: Any) -> dict[str, Any]:
    """The inputs that a row says: a mapping's items, of an example of DSPy's those that it marks as inputs.

    Raises:
        InputError: If it says none (`bad-row`).
    """
    if type(row) is dict:
        for name in row:
            if type(name) is not str:
                break
        else:
            return row
    if getattr(row, "_input_keys", None) is not None and callable(getattr(row, "inputs", None)):
        row = row.inputs()
    if not (hasattr(row, "keys") and hasattr(row, "__getitem__")) or isinstance(row, type):
        raise _bad_row(f"a row must map names of inputs to values, not be {type(row).__name__}")
    inputs = {name: row[name] for name in row.keys()}  # noqa: SIM118 - an example yields no keys by itself
    if not all(isinstance(name, str) for name in inputs):
        raise _bad_row("a row has a name that is no text")
    return inputs


def _bad_row(message: str) -> InputError:
    return InputError(message, code="bad-row", hint='write rows such as {"question": "..."}')


def failed_rows(outcomes: list[Any], rows: list[Any]) -> tuple[list[Any], list[Any], list[Exception]]:
    """DSPy's form of what a batch came to: None in the place of what failed, those rows, and their errors."""
    failed = [(row, outcome) for row, outcome in zip(rows, outcomes, strict=True) if _is_error(outcome)]
    return (
        [None if _is_error(outcome) else outcome for outcome in outcomes],
        [row for row, _ in failed],
        [error for _, error in failed],
    )


def _is_error(outcome: Any) -> bool:
    return isinstance(outcome, Exception)


# -- awaited ----------------------------------------------------------------------------------------


async def abatch(calls: Calls, rows: Iterable[Any] | AsyncIterable[Any], plan: Plan) -> list[Any]:
    """Run all rows and give their outcomes, in the order of the rows."""
    outcomes: dict[int, Any] = {}
    source, total = _source(rows)
    await _hosted(calls.dispatcher(), BatchRun(calls, source, plan, total, outcomes.__setitem__))
    return [outcomes[number] for number in range(len(outcomes))]


async def abatch_as_completed(
    calls: Calls, rows: Iterable[Any] | AsyncIterable[Any], plan: Plan
) -> AsyncGenerator[tuple[int, Any]]:
    """Run all rows and yield each one's number and outcome when it has ended."""
    ready: deque[tuple[int, Any]] = deque()
    changed = asyncio.Event()
    room = Room(ROOM * plan.concurrency)

    def deliver(number: int, outcome: Any) -> None:
        ready.append((number, outcome))
        changed.set()

    source, total = _source(rows)
    run = BatchRun(calls, source, plan, total, deliver, room)
    running = asyncio.create_task(_hosted(calls.dispatcher(), run))
    running.add_done_callback(lambda _: changed.set())
    taken, step = 0, max(1, plan.concurrency // 4)
    try:
        while ready or not running.done():
            while ready:
                taken += 1
                if taken == step or len(ready) == 1:
                    room.give_back(taken)
                    taken = 0
                yield ready.popleft()
            if not running.done():
                changed.clear()
                await changed.wait()
        await running
    finally:
        running.cancel()
        await asyncio.wait([running])
        if not running.cancelled():
            running.exception()
        del running  # it holds the exception, which holds this frame


async def _hosted(dispatcher: Dispatcher | None, run: BatchRun) -> None:
    host = getattr(dispatcher, "host", None)
    await (run.run() if host is None else host(run.run()))


def _source(rows: Any) -> tuple[Iterator[Any] | AsyncIterator[Any], int | None]:
    """The rows one by one, and how many there are where that can be known."""
    total = len(rows) if isinstance(rows, Sized) else None
    if isinstance(rows, AsyncIterable):
        return aiter(rows), total
    return _iterator(rows), total


def _iterator(rows: Any) -> Iterator[Any]:
    # What has items by number is an iterable too, as a data set often is.
    ways = hasattr(rows, "__iter__") or hasattr(rows, "__getitem__")
    if isinstance(rows, str | bytes | Mapping) or not ways:
        raise InputError(
            f"the rows of a batch must be an iterable of mappings, not {type(rows).__name__}",
            code="bad-row",
            hint='write program.batch([{"question": "..."}, ...])',
        )
    return iter(rows)


# -- blocking ---------------------------------------------------------------------------------------


def batch(calls: Calls, rows: Iterable[Any], plan: Plan) -> list[Any]:
    """The blocking twin of `abatch`."""
    outcomes: dict[int, Any] = {}

    def work(source: Iterable[Any] | AsyncIterable[Any], total: int | None, _: _Inbox) -> BatchRun:
        return BatchRun(calls, _source(source)[0], plan, total, outcomes.__setitem__)

    with closing(_served(calls, rows, plan, work)) as served:
        for _ in served:
            pass
    return [outcomes[number] for number in range(len(outcomes))]


def batch_as_completed(calls: Calls, rows: Iterable[Any], plan: Plan) -> Generator[tuple[int, Any]]:
    """The blocking twin of `abatch_as_completed`."""

    def work(source: Iterable[Any] | AsyncIterable[Any], total: int | None, inbox: _Inbox) -> BatchRun:
        inbox.room = Room(ROOM * plan.concurrency)
        inbox.step = max(1, plan.concurrency // 2)

        def deliver(number: int, outcome: Any) -> None:
            inbox.messages.put((number, outcome))

        return BatchRun(calls, _source(source)[0], plan, total, deliver, inbox.room)

    return _served(calls, rows, plan, work)


class _Wanted(NamedTuple):
    """The loop's wish for rows, and what waits there for them."""

    waiter: asyncio.Future[tuple[list[Any], bool, Exception | None]]


class _Inbox:
    """What the loop has for the caller's thread, and that thread's way back."""

    def __init__(self, loop_of: Callable[[], asyncio.AbstractEventLoop]) -> None:
        self.messages: SimpleQueue[Any] = SimpleQueue()
        self.room: Room | None = None
        self.step = 1
        self._loop_of = loop_of
        self._taken = 0

    def took(self) -> None:
        """An outcome has been taken. The loop is told of several at once: each word to it costs a wake-up."""
        self._taken += 1
        if self._taken >= self.step:
            count, self._taken = self._taken, 0
            self._tell(self._release, count)

    def _release(self, count: int) -> None:
        assert self.room is not None  # noqa: S101 - there is one where outcomes are taken
        self.room.give_back(count)

    def send(self, wanted: _Wanted, rows: Iterator[Any], most: int) -> None:
        """Read rows, no more than so many and no longer than an instant beyond the first, and send them."""
        read: list[Any] = []
        ended, error = False, None
        until = time.monotonic() + _READING_SECONDS
        try:
            for row in islice(rows, most):
                read.append(row)
                if time.monotonic() > until:
                    break
            else:
                ended = len(read) < most
        except Exception as raised:  # noqa: BLE001 - whatever makes the rows raises it
            error = raised
        self._tell(_settle, wanted.waiter, (read, ended, error))

    def _tell(self, function: Callable[..., None], *arguments: Any) -> None:
        with suppress(RuntimeError):  # the loop has closed, and the end is on its way
            self._loop_of().call_soon_threadsafe(function, *arguments)


def _settle(waiter: asyncio.Future[Any], value: Any) -> None:
    if not waiter.done():
        waiter.set_result(value)


async def _fed(inbox: _Inbox) -> AsyncGenerator[Any]:
    """The rows that the caller's thread reads."""
    loop = asyncio.get_running_loop()
    while True:
        waiter: asyncio.Future[tuple[list[Any], bool, Exception | None]] = loop.create_future()
        inbox.messages.put(_Wanted(waiter))
        rows, ended, error = await waiter
        for row in rows:
            yield row
        if error is not None:
            raise error
        if ended:
            return


def _served(
    calls: Calls,
    rows: Iterable[Any],
    plan: Plan,
    work: Callable[[Iterable[Any] | AsyncIterable[Any], int | None, _Inbox], BatchRun],
) -> Generator[tuple[int, Any]]:
    """Run a batch on a loop of another thread, and serve it from this one: its rows go there, outcomes come.

    What is wrong is refused now; the batch begins when the first outcome is asked for.
    """
    refuse_blocking(0, "`await abatch(...)`, or `async for` over `abatch_as_completed(...)`")
    if isinstance(rows, AsyncIterable):
        raise InputError(
            "a batch that blocks cannot read an async iterable",
            code="bad-row",
            hint="write `await program.abatch(rows)`",
        )
    return _serve(calls, rows, _iterator(rows), plan, work)


def _serve(
    calls: Calls,
    rows: Iterable[Any],
    iterator: Iterator[Any],
    plan: Plan,
    work: Callable[[Iterable[Any] | AsyncIterable[Any], int | None, _Inbox], BatchRun],
) -> Generator[tuple[int, Any]]:
    total = len(rows) if isinstance(rows, Sized) else None
    loops: list[asyncio.AbstractEventLoop] = []
    inbox = _Inbox(lambda: loops[0])
    at_hand = type(rows) is list or type(rows) is tuple
    most = max(1, plan.concurrency // 2)

    async def run() -> None:
        loops.append(asyncio.get_running_loop())
        if at_hand:
            await work(rows, total, inbox).run()
            return
        async with aclosing(_fed(inbox)) as source:
            await work(source, total, inbox).run()

    portal, future = begin_there(calls.dispatcher(), run)
    end = object()
    future.add_done_callback(lambda _: inbox.messages.put(end))
    try:
        while (message := inbox.messages.get()) is not end:
            if isinstance(message, _Wanted):
                inbox.send(message, iterator, most)
            else:
                yield message
                inbox.took()
        future.result()
    except CancelledError:
        raise ConfigError(
            "the runtime of the batch was closed", code="runtime-closed", hint="keep it open while one runs"
        ) from None
    finally:
        future.cancel()  # nothing when it is done; on Ctrl-C it ends the batch with its caller
        del future  # it holds the exception, which holds this frame
        if portal is not None:
            portal.close()


def begin_there(
    dispatcher: Dispatcher | None, run: Callable[[], Any], name: str = "dspex-batch"
) -> tuple[Portal | None, Future[Any]]:
    """Begin work on the loop of a runtime, or, where there is none, of a portal that its caller closes."""
    submit = getattr(dispatcher, "submit", None)
    if submit is not None:
        return None, submit(run())
    portal = Portal(name)
    return portal, cross(run(), portal.loop, lambda: ConfigError(f"the loop of {name} has closed"))


def _dispatcher_of(module: Module) -> Dispatcher | None:
    """The runtime of a module: its first predictor's own, or else the current one; None if there is none.

    Raises:
        ConfigError: If it is a predictor, which cannot do without (`no-runtime`).
    """
    runtimes = (found._runtime for _, found in predictors_of(module, frozen=True))
    own: Dispatcher | None = next((runtime for runtime in runtimes if runtime is not None), None)
    if own is not None:
        return own
    try:
        return current_dispatcher()
    except ConfigError:
        if isinstance(module, PredictorNode):
            raise
        return None
