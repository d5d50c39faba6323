r"""The streams of modules: `ModuleStream` for `for`, `AsyncModuleStream` for `async for`.

::

    astream:  task on the reader's loop --awaits--> module.acall --\
    stream:   thread                    --calls---> module() -------+--> calls of predictors, each of which
                                                                   |    finds the Listener in its Scope
    reader <--take-- EventQueue <--put-- events of their replies <--/

So a stream is an ordinary call that tells what it hears: it is routed, counted, bounded and crosses to its
runtime's loop as any call does, and this package has no second way to do that. The reader waits only for
the queue.

A stream is NEW until its first step, which begins the call in the context in which the stream was made; then
RUNNING; and OVER when the prediction or the error has been read, or when the stream was closed or dropped.
Neither the task nor the thread knows the stream, so that one that nobody holds any longer is closed.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
from collections.abc import AsyncIterator, Iterator, Sequence
from contextvars import copy_context
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Self

from dspex._event_queue import END
from dspex._portal import refuse_blocking
from dspex._threads import start_in_thread
from dspex.errors import ConfigError
from dspex.modules import _scope
from dspex.modules._listening import Listener, cancel
from dspex.prediction import Prediction

if TYPE_CHECKING:
    from typing_extensions import TypeVar  # the one that has defaults in Python 3.11 too

    from dspex.events import Event
    from dspex.modules._module import Module

    E = TypeVar("E", covariant=True, default=Event)
    """Its events: those of any stream, or of a pipeline's."""
else:
    from typing import TypeVar

    E = TypeVar("E", covariant=True)

__all__ = ["AsyncModuleStream", "ModuleStream"]

CLOSE_SECONDS: Final = 5.0
"""How long a reader that leaves waits for the program to end. A call ends at once; a `forward` that is busy
with something else ends with its next call, and nobody waits for that any longer."""


class _Stream:
    """What both share."""

    def __init__(
        self, module: Module, args: tuple[Any, ...], inputs: dict[str, Any], fields: Sequence[str] | None
    ) -> None:
        self._name = type(module).__name__
        self._listener: Listener = module._listener(fields)
        self._call: tuple[Module, tuple[Any, ...], dict[str, Any]] | None = (module, args, inputs)
        self._context = copy_context()

    def _begin(self) -> tuple[Module, tuple[Any, ...], dict[str, Any]] | None:
        """What is to be called, the first time; None later, or if the stream has been closed."""
        call, self._call = self._call, None
        return None if self._listener.queue.closed else call

    def __repr__(self) -> str:
        queue = self._listener.queue
        state = "new" if self._call else "over" if queue.ended or queue.closed else "running"
        return f"<{type(self).__name__} of {self._name}, {state}>"


class AsyncModuleStream(_Stream, AsyncIterator[E]):
    """One call of a module, as events: what `astream` gives.

    Leave it early in one of three ways. `async with` closes it, and waits until the connection to the model
    is closed; so does `await stream.aclose()`. A stream that is dropped, as when a loop over
    `program.astream(...)` is left by `break` or by an error, is closed too, without waiting.

    A reader that does not read stops the reading of the model's answer, and the time of the call goes on.

    Example:
        ```python
        async with program.astream(question="Who wrote it?") as events:
            async for event in events:
                if isinstance(event, dspex.streaming.FieldEnd):
                    break
        ```
    """

    _task: asyncio.Task[None] | None = None

    async def __anext__(self) -> E:
        """The next event; see `Module.__call__` for what the call may raise."""
        if (call := self._begin()) is not None:
            running = _await(*call, self._listener)
            self._task = asyncio.get_running_loop().create_task(running, context=self._context)
            del call
        event: Any = await self._listener.queue.take()
        if event is END:
            raise StopAsyncIteration
        return event  # type: ignore[no-any-return]

    async def aclose(self) -> None:
        """End the call and close its connection. Safe to await twice."""
        self._call = None
        self._listener.close()
        task, self._task = self._task, None
        if task is None or task.done():
            return
        cancel([task])
        if task.get_loop() is asyncio.get_running_loop():
            await asyncio.wait([task], timeout=CLOSE_SECONDS)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    def __del__(self) -> None:
        listener = getattr(self, "_listener", None)
        if listener is not None:
            listener.close()
            if self._task is not None and not self._task.done():
                cancel([self._task])


class ModuleStream(_Stream, Iterator[E]):
    """One call of a module, as events, for code without an event loop: what `stream` gives.

    Leave it early in one of three ways. `with` closes it, and waits until the connection to the model is
    closed; so does `stream.close()`. A stream that is dropped, as when a loop over `program.stream(...)` is
    left by `break` or by an error, is closed too, without waiting.

    Example:
        ```python
        with program.stream(question="Who wrote it?") as events:
            for event in events:
                if isinstance(event, dspex.streaming.FieldEnd):
                    break
        ```
    """

    _running: concurrent.futures.Future[None] | None = None

    def __next__(self) -> E:
        """The next event; see `Module.__call__` for what the call may raise."""
        refuse_blocking(0, "`async for event in program.astream(...)`")
        if (call := self._begin()) is not None:
            self._running = self._context.run(start_in_thread, partial(_run, *call, self._listener))
            del call
        event: Any = self._listener.queue.take_blocking()
        if event is END:
            raise StopIteration
        return event  # type: ignore[no-any-return]

    def close(self) -> None:
        """End the call and close its connection. Safe to call twice."""
        self._call = None
        self._listener.close()
        running, self._running = self._running, None
        if running is not None and asyncio._get_running_loop() is None:
            concurrent.futures.wait([running], CLOSE_SECONDS)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        listener = getattr(self, "_listener", None)
        if listener is not None:
            listener.close()


async def _await(module: Module, args: Any, inputs: Any, listener: Listener) -> None:
    queue = listener.queue
    try:
        with _scope.enter(listener=listener):
            outcome = _prediction(module, await module.acall(*args, **inputs))
    except BaseException as error:
        queue.end(error=error)
        if not isinstance(error, Exception | asyncio.CancelledError):  # ends the loop too
            raise
    else:
        queue.end(outcome)


def _run(module: Module, args: Any, inputs: Any, listener: Listener) -> None:
    queue = listener.queue
    try:
        with _scope.enter(listener=listener):
            outcome = _prediction(module, module(*args, **inputs))
    except BaseException as error:  # noqa: BLE001 - whatever it is, the reader's thread raises it
        queue.end(error=error)
    else:
        queue.end(outcome)


def _prediction(module: Module, outcome: Any) -> Prediction:
    if not isinstance(outcome, Prediction):
        raise ConfigError(
            f"{type(module).__name__} answered with a {type(outcome).__name__}, and a stream ends with a "
            f"dspex.Prediction",
            code="not-a-prediction",
            hint="return dspex.Prediction(...), or call the program instead of streaming it",
        )
    return outcome
