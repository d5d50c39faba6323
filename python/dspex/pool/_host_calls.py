"""Functions of the service that a call's work may call: tools, metrics, progress.

They run on the service's side, an async one on the pool's loop and any other in a thread, each in a copy of
the context their call was made in, and in its trace. They end with their call: what still runs when it is
answered, cancelled or out of time is cancelled.

A call that such a function makes to a pool is *nested*: it has no more time than the call that waits for it,
and it does not wait for a place, since its caller may hold the last one.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Mapping
from contextvars import ContextVar, copy_context
from functools import partial
from typing import Any

from dspex._threads import in_thread
from dspex.errors import ConfigError, DspexError
from dspex.pool._call import Call
from dspex.protocol.channel import Channel
from dspex.protocol.errors import remote_error
from dspex.protocol.frames import Kind
from dspex.telemetry._trace import CURRENT, Trace

__all__ = ["HostCalls", "outer_call"]

_outer: ContextVar[Call | None] = ContextVar("dspex_outer_call", default=None)


def outer_call() -> Call | None:
    """The call for whose work this code runs, None if it runs for nobody or that call is over."""
    call = _outer.get()
    return None if call is None or call.finished else call


class HostCalls:
    """Answers the calls that come back from one worker.

    Args:
        calls: The calls on the worker, by id.
        channel: Where answers go.
    """

    def __init__(self, calls: Mapping[int, Call], channel: Channel) -> None:
        self._calls = calls
        self._channel = channel
        self._running: dict[int, tuple[int, asyncio.Task[None]]] = {}

    def take(
        self,
        number: int,
        call_id: int,
        name: str,
        args: list[Any],
        kwargs: dict[str, Any],
        trace: Trace | None = None,
    ) -> None:
        """Run the function `name` for the call `call_id` and send the answer under `number`.

        Args:
            number: Under which the worker waits.
            call_id: The call whose work asks.
            name: The function.
            args: Its arguments by position.
            kwargs: Its arguments by name.
            trace: The trace the work is in by now, if it is not the call's own any more.
        """
        call = self._calls.get(call_id)
        function = (call.host_functions or {}).get(name) if call is not None else None
        if call is None or function is None:
            names = (call.host_functions or {}) if call is not None else ()
            given = ", ".join(name for name in names if name.isprintable()) or "none"
            error = ConfigError(
                f"the call has no host call {name!r}", code="no-host-call", hint=f"it was made with: {given}"
            )
            self._channel.send_error(number, error)
            return
        # A copy for each: two that run at once must not see what the other sets.
        context = call.context.copy() if call.context is not None else copy_context()
        context.run(_outer.set, call)
        context.run(CURRENT.set, trace or call.trace)
        running = self._run(number, function, args, kwargs)
        task = asyncio.get_running_loop().create_task(running, context=context)
        self._running[number] = call_id, task
        task.add_done_callback(lambda _: self._running.pop(number, None))

    def cancel(self, number: int) -> None:
        """The work no longer waits for `number`."""
        _, task = self._running.get(number, (0, None))
        if task is not None:
            task.cancel()

    def drop(self, call_id: int) -> None:
        """The call `call_id` is over; so is what runs for it."""
        for owner, task in list(self._running.values()):
            if owner == call_id:
                task.cancel()

    def drop_all(self) -> None:
        """The worker is gone."""
        for _, task in list(self._running.values()):
            task.cancel()

    async def _run(
        self, number: int, function: Callable[..., Any], args: list[Any], kwargs: dict[str, Any]
    ) -> None:
        try:
            if inspect.iscoroutinefunction(function):
                result = await function(*args, **kwargs)
            else:
                result = await in_thread(partial(function, *args, **kwargs), abandon=True)
                if inspect.isawaitable(result):
                    result = await result
            self._channel.send(Kind.RESULT, number, result, alone=True)
        except asyncio.CancelledError:
            # By its call's end, or by the function itself; the work must not wait for ever in either case.
            self._channel.send_error(number, DspexError("the host call was cancelled", code="cancelled"))
            raise
        except (Exception, SystemExit) as err:  # noqa: BLE001 - an answer too
            self._channel.send_error(number, remote_error(err))
