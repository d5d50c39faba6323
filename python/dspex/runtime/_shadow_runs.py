"""Runs the other side of a runtime for a sample of its calls, away from the callers.

States of one such run::

    offered --> skipped            too many run, the other side cannot, its breaker is open
       |
       v
    running --> same, different    what the two sides wrote, or answered, was compared
       |
       +------> failed             the other side has not answered, for a reason that passes
       +------> (gone)             the runtime closed

Data flow. The router hands over each call that it has answered. What falls into the share is copied, since
its caller may change it from then on: that, and nothing else, is done in the caller's time. The rest is a
task of its own on the runtime's loop, in an empty context, past the router: it counts for no breaker, no
histogram and no budget. Its calls are bounded by the shadow's own limits.

Whatever goes wrong here ends here: it is counted, and no caller hears of it. An error that the other side
raises is a difference where it says something about the call (it cannot be read, a setting is wrong), and a
failure where it passes (a time-out, a server that is down).

The messages. The native side renders them again, which asks nobody. A worker reports those that its DSPy
wrote; where it only has to write them, it stops before it asks the model.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Callable, Mapping, Sequence
from contextvars import Context
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from dspex.errors import ConfigError, DeadlineExceeded, DspexError
from dspex.prediction import Prediction
from dspex.router import AnyOperation, Operation, Shadow
from dspex.router._shadow import Work
from dspex.runtime._replies import adapter_of
from dspex.runtime._shadow_difference import (
    ShadowDifference,
    fields_that_differ,
    message_that_differs,
    text,
)
from dspex.runtime._shadow_store import DifferenceFile, ShadowReport, ShadowStore

if TYPE_CHECKING:
    from dspex.adapters import Adapter
    from dspex.runtime._borrowed import BorrowedModels
    from dspex.runtime._native_target import NativeTarget
    from dspex.runtime._pool_target import PoolTarget

__all__ = ["ShadowRuns"]

_log = logging.getLogger("dspex.router")

_PASSES: Final = frozenset({"transient", "timeout", "resource", "internal"})
"""Categories of errors that say nothing of the call."""

Messages = Sequence[Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class _Call:
    """A call that runs on the other side too: copies of what its caller may change."""

    operation: Operation
    work: Work
    rows: list[dict[str, Any]]
    live: NativeTarget | PoolTarget
    other: NativeTarget | PoolTarget


class ShadowRuns:
    """The runs on the other side, of one runtime.

    Args:
        shadow: For which calls, and how many at once.
        native: The native side.
        pools: The others.
        adapter: The runtime's.
        dialect: The version of DSPy whose prompts the native side writes.
        is_failing: Whether the breaker of the target of a name is open.
        borrowed: The models that calls have brought with them.
        chance: Gives numbers from 0 to 1, by which calls are chosen.

    Raises:
        ConfigError: If there is no other side (`shadow-one-side`).
    """

    def __init__(
        self,
        shadow: Shadow,
        native: NativeTarget,
        pools: Sequence[PoolTarget],
        adapter: Adapter,
        dialect: str | None,
        *,
        is_failing: Callable[[str], bool],
        borrowed: BorrowedModels,
        chance: Callable[[], float] = random.random,
    ) -> None:
        if not pools:
            raise ConfigError(
                "a shadow runs the other side of a call, and this runtime has only the native one",
                code="shadow-one-side",
                hint="give it a pool, pools=1, and a dspex.LM, or leave out shadow=",
            )
        self._shadow = shadow
        self._native = native
        self._pools = {pool.name: pool for pool in pools}
        self._adapter = adapter
        self._dialect = dialect
        self._is_failing = is_failing
        self._borrowed = borrowed
        self._chance = chance
        file = None if shadow.file is None else DifferenceFile(shadow.file, shadow.file_bytes)
        self._store = ShadowStore(shadow.keep, file)
        self._tasks: set[asyncio.Task[None]] = set()
        self._home: asyncio.AbstractEventLoop | None = None

    def open(self, home: asyncio.AbstractEventLoop) -> None:
        """Begin, with runs on this loop."""
        self._home = home

    async def aclose(self) -> None:
        """End all runs, and begin none from now on."""
        self._home = None
        ending = list(self._tasks)
        for task in ending:
            task.cancel()
        await asyncio.gather(*ending, return_exceptions=True)

    def report(self) -> ShadowReport:
        """What has been found."""
        return self._store.report(len(self._tasks))

    def offer(self, operation: AnyOperation, prediction: Prediction) -> None:
        """Run a call, which was answered so, on the other side too, if it is its turn.

        It raises nothing and waits for nothing; any thread may call it.
        """
        home, work = self._home, self._shadow.work(operation)
        if home is None or work is None or self._chance() >= self._shadow.share:
            return
        try:
            call = self._chosen(operation, work, prediction)
            if call is None:
                return
            if asyncio._get_running_loop() is home:
                self._begin(call)
            else:
                home.call_soon_threadsafe(self._begin, call, context=Context())
        except Exception:  # noqa: BLE001 - the caller's call has ended well, and stays so
            _log.warning("a call could not be run on the other side", exc_info=True)

    def _chosen(self, operation: AnyOperation, work: Work, prediction: Prediction) -> _Call | None:
        assert isinstance(operation, Operation)  # noqa: S101 - `Shadow.work` has looked
        if len(self._tasks) >= self._shadow.in_flight:
            self._store.skipped("busy")
            return None
        live: NativeTarget | PoolTarget | None
        other: NativeTarget | PoolTarget
        if prediction.route == self._native.name:
            live, other = self._native, next(iter(self._pools.values()))
        else:  # it may be another target, of the user's
            live, other = self._pools.get(prediction.route), self._native
        if live is None or any(side.unable(operation) is not None for side in (self._native, other)):
            self._store.skipped("no-other")
            return None
        if self._is_failing(other.name):
            self._store.skipped("failing")
            return None
        copied = replace(
            operation,
            inputs=_copied(dict(operation.inputs)),
            demos=[_copied(dict(demo)) for demo in operation.demos],
            config=_copied(dict(operation.config)),
            sink=None,
        )
        rows = [_copied(dict(row)) for row in prediction.completions]
        return _Call(copied, work, rows, live, other)

    def _begin(self, call: _Call) -> None:
        home = self._home
        if home is None:
            return
        if len(self._tasks) >= self._shadow.in_flight:  # another thread's was faster
            self._store.skipped("busy")
            return
        # What a context holds is the caller's: its stream, its request, its traces.
        task = home.create_task(self._run(call), name="dspex-shadow", context=Context())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _run(self, call: _Call) -> None:
        lm = call.operation.lm
        if lm is not None:
            self._borrowed.take(lm)
        try:
            async with asyncio.timeout(self._shadow.timeout):
                difference = await self._compared(call)
            if difference is None:
                self._store.same()
            else:
                # The disk may be slow, and the loop has callers.
                await asyncio.to_thread(self._store.different, difference)
        except TimeoutError:
            self._store.failed(DeadlineExceeded.code)
        except DspexError as error:
            self._store.failed(error.code)
        except Exception:  # noqa: BLE001 - nobody waits for it
            self._store.failed("internal")
            _log.warning("a run on the other side has failed", exc_info=True)
        finally:
            if lm is not None:
                await self._borrowed.give_back(lm)

    async def _compared(self, call: _Call) -> ShadowDifference | None:
        width, message, fields, code = self._shadow.width, None, {}, ""
        try:
            messages, rows = await self._other_side(call)
        except DspexError as error:
            if error.category in _PASSES:
                raise
            code = error.code
        else:
            if messages is not None:
                live, other = messages
                message = message_that_differs(live, other, width, texts=self._shadow.inputs)
            if rows is not None:
                fields = fields_that_differ(call.rows, rows, width)
        if message is None and not fields and not code:
            return None
        inputs = call.operation.inputs if self._shadow.inputs else {}
        return ShadowDifference(
            time=time.time(),
            signature=text(call.operation.signature.text, width),
            live=call.live.name,
            other=call.other.name,
            message=message,
            fields=fields,
            error=code,
            inputs={name: text(value, width) for name, value in inputs.items()},
        )

    async def _other_side(
        self, call: _Call
    ) -> tuple[tuple[Messages, Messages] | None, list[Mapping[str, Any]] | None]:
        """The messages of the live side and the other, and what that answers; None for what is not asked."""
        operation, work, seconds = call.operation, call.work, self._shadow.timeout
        if call.other is self._native:
            answer = await self._native.run(operation, seconds) if work.answers else None
            messages: tuple[Messages, Messages] | None = None
            if work.messages:
                told = await self._pools[call.live.name].told(operation, seconds, answers=False)
                messages = (told.messages, self._rendered(operation))
        else:
            pool = self._pools[call.other.name]
            if work.messages:
                told = await pool.told(operation, seconds, answers=work.answers)
                answer, messages = told.prediction, (self._rendered(operation), told.messages)
            else:
                answer, messages = await pool.run(operation, seconds), None
        return messages, None if answer is None else list(answer.completions)

    def _rendered(self, operation: Operation) -> Messages:
        """The messages that the native side writes."""
        adapter = adapter_of(operation, self._adapter)
        plan = adapter.compile(operation.signature, self._dialect)
        return plan.render(operation.inputs, operation.demos)


def _copied(value: Any) -> Any:
    """The value, with copies of the lists, dicts and sets in it; what else is in it is the same."""
    kind = type(value)
    if kind is dict:
        return {name: _copied(item) for name, item in value.items()}
    if kind is list or kind is tuple:
        return kind(map(_copied, value))
    return set(value) if kind is set else value
