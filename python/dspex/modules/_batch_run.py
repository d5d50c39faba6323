"""One batch on an event loop: it reads rows, keeps so many under way, and says what became of each.

::

    rows --next--> worker --call--> outcome --deliver--> whoever asked
                   (up to `concurrency` of them, each a task)

A worker reads a row only when it is free to run it, and starts the next worker when it has one: a batch of
three rows has four tasks at most, whatever its concurrency. Rows of an async source come by a `ReadAhead`,
which has at most half as many ready as may run at once. Where outcomes are taken as they come, each row takes
a place of a `Room`, and a worker waits while there is none.

Where a row is one call of a model, the batch begins and finishes it itself, and a worker only asks::

    rows --next--> begun (a group of them) --ask--> answered --finish (a group of them)--> outcome

To lay out several prompts one after the other, and to read several replies, takes half the time that it takes
one by one between the work of an HTTP client, which drives each other's code out of the processor's caches.
So up to a group of rows more is read ahead, a quarter of those that run, and an answer waits for its group,
or `READING_SECONDS`. Few rows at once make groups of one. Groups of 8 and 24 fell into step with the server
and left it idle now and then (benches/bench_batch.py); those of 16 and 32 did not.

A row of several calls, one after the other, as a pipeline of predictors has, goes round: when its answer has
been read, its next call has been begun with those of its group, and it stands before the rows that are new.
One worker at a time reads rows. The others end when nothing has been begun, rather than wait behind it for
rows or for room: else nobody would ask for the rows that go round, which may be what the source, or whoever
takes the outcomes, is waiting for.

What a row's call raises is the row's outcome. The batch ends early, and all that is under way with it, when

- a row has failed and `errors="raise"`, or `max_errors` have,
- its time has run out,
- its runtime has been closed, or there is none: no other row could be run either,
- the source of its rows, or the function that is told of the progress, raises,
- it is cancelled.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import suppress
from itertools import islice
from typing import TYPE_CHECKING, Any, Final

from dspex._read_ahead import ReadAhead
from dspex._room import Room
from dspex._timeouts import without_frames
from dspex.errors import BatchError, DeadlineExceeded, DspexError
from dspex.modules import _scope
from dspex.modules._batch_plan import Plan
from dspex.modules._progress import Progress
from dspex.modules._row_call import GOES_ON

if TYPE_CHECKING:
    from dspex.modules._batch import Calls
    from dspex.modules._row_call import RowCall
    from dspex.router._backstop import Watch

__all__ = ["BatchRun"]

LARGEST_GROUP: Final = 16
READING_SECONDS: Final = 0.002
"""How long an answer waits for others to be read with."""

_log = logging.getLogger("dspex.modules")
_END: Final = object()
_SHOWN: Final = 5
"""Errors that are named when there were too many."""

_FOR_ALL: Final = frozenset(
    {"blocking-in-loop", "no-forward", "no-runtime", "runtime-closed", "runtime-forked"}
)
"""Codes of errors that every other row would have too."""


class BatchRun:
    """Runs the rows of one batch, once.

    Args:
        calls: How rows are run.
        rows: The rows.
        plan: What was asked for.
        total: How many rows there are, where that is known.
        deliver: Is told of each row's number and outcome, in the order in which they end.
        room: Has a place for each row, taken before it is read; None where whoever is told of the outcomes
            keeps them all.
    """

    def __init__(
        self,
        calls: Calls,
        rows: Iterator[Any] | AsyncIterator[Any],
        plan: Plan,
        total: int | None,
        deliver: Callable[[int, Any], None],
        room: Room | None = None,
    ) -> None:
        self._call = calls.run
        self._begin = calls.begin
        self._group = min(LARGEST_GROUP, max(1, plan.concurrency // 4))
        self._begun: deque[tuple[int, Any, RowCall | None]] = deque()
        self._answered: deque[tuple[int, RowCall]] = deque()
        self._asking = 0
        self._is_reading_rows = self._has_read_all = False
        self._reading: asyncio.TimerHandle | None = None
        self._plan = plan
        self._deliver = deliver
        self._room = room
        self._rows = rows if isinstance(rows, Iterator) else None
        self._ahead = None if isinstance(rows, Iterator) else ReadAhead(rows, max(1, plan.concurrency // 2))
        self._progress = Progress.of(plan.progress, total)
        self._tasks: set[asyncio.Task[None]] = set()
        self._read = self._done = self._failed = 0
        self._first: list[tuple[int, Exception]] = []
        self._scope = _scope.Scope()

    async def run(self) -> None:
        """Run all rows.

        Raises:
            BatchError: If too many failed.
            DeadlineExceeded: If the time ran out.
            Exception: What else ends a batch early: see the top of this file.
        """
        self._ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        limit = asyncio.timeout(self._plan.timeout)
        try:
            with _scope.enter(timeout=self._plan.timeout) as self._scope:
                async with limit:
                    self._start_worker()
                    await self._ended
        except TimeoutError as error:
            if not limit.expired():
                raise
            raise self._ran_out() from without_frames(error)
        finally:
            del limit  # it holds the task and by that the exception: see `Router.dispatch`
            await self._clean_up()

    async def _clean_up(self) -> None:
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
        self._tasks.clear()
        with suppress(Exception):  # the batch has ended, and says why by itself
            self._read_answers()
        for _, call in self._answered:
            call.abandon()
        for _, _, begun in self._begun:
            if begun is not None:
                begun.abandon()
        self._answered.clear()
        self._begun.clear()
        if self._ended.done() and not self._ended.cancelled():
            self._ended.exception()  # of a row that failed in the moment in which the time ran out
        del self._ended
        if self._ahead is not None:
            await self._ahead.close()
        self._progress.close()

    # -- workers ----------------------------------------------------------------------------------

    def _start_worker(self) -> None:
        task = asyncio.create_task(self._work() if self._begin is None else self._ask())
        self._tasks.add(task)
        task.add_done_callback(self._worker_ended)

    def _worker_ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        ended = getattr(self, "_ended", None)
        error = None if task.cancelled() else task.exception()
        if ended is None or ended.done():
            return
        if task.cancelled():  # by the row's own code: nobody else cancels one while the batch goes on
            ended.cancel()
        elif error is not None:
            ended.set_exception(error)
        else:
            if self._begin is not None:  # while it was on its way out there may have come something to do
                self._call_another()
            if not self._tasks:
                self._read_the_last(ended)

    async def _work(self) -> None:
        while True:
            if self._room is not None:
                await self._room.take()
            row = next(self._rows, _END) if self._rows is not None else await self._take_one()
            if row is _END:
                return
            number = self._read
            self._read += 1
            if len(self._tasks) < self._plan.concurrency:
                self._start_worker()
            try:
                outcome = await self._call(row, number)
            except Exception as error:  # noqa: BLE001 - whatever a program of the user's raises
                outcome = self._count_failure(number, error)
            finally:
                row = None
            self._deliver_one(number, outcome)
            outcome = None

    async def _ask(self) -> None:
        """A worker of rows that are begun and finished in groups."""
        watch: Watch | None = None
        outcome: Any = None
        begun, concurrency = self._begun, self._plan.concurrency
        try:
            while self._asking < concurrency:
                if not begun:
                    if self._is_reading_rows or self._has_read_all:
                        return
                    await self._begin_some()
                    continue
                number, row, call = begun.popleft()
                self._asking += 1
                if len(self._tasks) < concurrency:
                    self._call_another()
                try:
                    if call is None:
                        outcome = await self._call(row, number)
                    else:
                        watch = call.watched(watch)
                        await call.ask(watch)
                except Exception as error:  # noqa: BLE001 - as in `_work`
                    call, outcome = None, self._count_failure(number, error)
                finally:
                    self._asking -= 1
                    row = None
                if call is None:
                    self._deliver_one(number, outcome)
                    outcome = None
                else:
                    self._has_answered(number, call)
        finally:
            if watch is not None:
                watch.end()
            del watch  # it holds this task

    def _call_another(self) -> None:
        """Start a worker if there is something for it to do."""
        if self._asking < self._plan.concurrency and (
            self._begun or not (self._is_reading_rows or self._has_read_all)
        ):
            self._start_worker()

    def _has_answered(self, number: int, call: RowCall) -> None:
        self._answered.append((number, call))
        if len(self._answered) >= self._group:
            self._read_answers()
        elif self._reading is None:
            loop = asyncio.get_running_loop()
            self._reading = loop.call_later(READING_SECONDS, self._read_in_time)

    async def _begin_some(self) -> None:
        """Read and begin a group of rows, or see that there are no more."""
        self._is_reading_rows = True
        try:
            while not self._begun and not self._has_read_all:
                await self._begin_group()
        finally:
            self._is_reading_rows = False

    async def _begin_group(self) -> None:
        assert self._begin is not None  # noqa: S101 - else nobody asks
        most, room = self._group, self._room
        if room is not None:
            most = await room.take(most)
        rows = list(islice(self._rows, most)) if self._rows is not None else await self._take(most)
        self._has_read_all = len(rows) < most if self._rows is not None else not rows
        if room is not None and len(rows) < most:
            room.give_back(most - len(rows))
        for row in rows:
            number = self._read
            self._read += 1
            try:
                call = self._begin(row)
            except Exception as error:  # noqa: BLE001 - as in `_work`
                self._deliver_one(number, self._count_failure(number, error))
            else:
                self._begun.append((number, row if call is None else None, call))

    def _read_answers(self) -> None:
        """Finish the calls that have been answered."""
        if self._reading is not None:
            self._reading.cancel()
            self._reading = None
        while self._answered:
            number, call = self._answered.popleft()
            try:
                outcome: Any = call.finish()
            except Exception as error:  # noqa: BLE001 - as in `_work`
                outcome = self._count_failure(number, error)
            if outcome is GOES_ON:
                self._begun.appendleft((number, None, call))
            else:
                self._deliver_one(number, outcome)

    def _read_in_time(self) -> None:
        self._reading = None
        try:
            self._read_answers()
        except Exception as error:  # noqa: BLE001 - the batch ends with it, whatever it is
            if not self._ended.done():
                self._ended.set_exception(error)
        else:
            if self._begun:
                self._call_another()

    def _read_the_last(self, ended: asyncio.Future[None]) -> None:
        self._read_in_time()
        if not ended.done() and not self._tasks:
            ended.set_result(None)

    def _deliver_one(self, number: int, outcome: Any) -> None:
        self._done += 1
        self._deliver(number, outcome)
        if self._progress.shows:
            self._progress.show(self._done, self._failed)

    async def _take_one(self) -> Any:
        taken = await self._take(1)
        return taken[0] if taken else _END

    async def _take(self, most: int) -> list[Any]:
        assert self._ahead is not None  # noqa: S101 - one of the two is there
        return await self._ahead.take(most)

    # -- failures ---------------------------------------------------------------------------------

    def _count_failure(self, number: int, error: Exception) -> Exception:
        """The error as the row's outcome.

        Raises:
            Exception: Where the batch ends with it.
        """
        if self._scope.deadline is not None and time.monotonic() >= self._scope.deadline:
            raise self._ran_out() from without_frames(error)
        if isinstance(error, DspexError) and error.code in _FOR_ALL:
            raise error
        if self._plan.tracebacks:
            _log.warning("row %d of a batch failed", number, exc_info=error)
        if self._plan.raises:
            error.add_note(f"row {number} of the batch")
            raise error
        self._failed += 1
        # Nobody raises it; its traceback would hold the row for as long as the error lives.
        without_frames(error)
        if len(self._first) < _SHOWN:
            self._first.append((number, error))
        if self._failed == self._plan.max_errors:
            self._done += 1
            raise self._too_many() from self._first[0][1]
        return error

    def _too_many(self) -> BatchError:
        first = [f"row {number}: {type(error).__name__}: {error}" for number, error in self._first]
        return BatchError(
            f"{self._failed} of {self._done} rows failed, the first {first[0]}",
            hint="correct the cause, or allow more: max_errors=; batch_as_completed keeps what was done",
            done=self._done,
            failed=self._failed,
            first=first,
        )

    def _ran_out(self) -> DeadlineExceeded:
        seconds = self._plan.timeout
        if seconds is None or seconds != self._scope.seconds:  # of a program that the batch is a part of
            return self._scope.ran_out()
        return DeadlineExceeded(
            f"the {seconds:g} s of the batch ran out after {self._done} rows",
            hint="allow it more time; batch_as_completed keeps what was done",
            timeout=seconds,
            stage="batch",
        )
