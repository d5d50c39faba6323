"""Functions of the service that a call's work may call: tools, metrics, progress.

They run on the service's side, an async one on the pool's loop and any other in a thread, within the
context their call was made in. They end with their call: what still runs when it is answered, cancelled or
out of time is cancelled.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from typing import Any

from dspex.errors import ConfigError
from dspex.pool.call import Call
from dspex.wire import Kind, remote_error
from dspex.worker.channel import Channel

__all__ = ["Answerer", "describe_tool", "inside_callback"]

_inside: ContextVar[bool] = ContextVar("dspex_inside_callback", default=False)


def inside_callback() -> bool:
    """Whether this code runs for a worker that waits for it."""
    return _inside.get()


class Answerer:
    """Answers the calls that come back from one worker.

    Args:
        calls: The calls on the worker, by id.
        channel: Where answers go.
    """

    def __init__(self, calls: Mapping[int, Call], channel: Channel) -> None:
        self._calls = calls
        self._channel = channel
        self._running: dict[int, tuple[int, asyncio.Task[None]]] = {}

    def take(self, number: int, call_id: int, name: str, args: list[Any], kwargs: dict[str, Any]) -> None:
        """Run the function `name` for the call `call_id` and send the answer under `number`."""
        call = self._calls.get(call_id)
        function = (call.callbacks or {}).get(name) if call is not None else None
        if function is None:
            given = ", ".join((call.callbacks or {}) if call is not None else ()) or "none"
            error = ConfigError(
                f"the call has no call-back {name!r}", code="no-call-back", hint=f"it was made with: {given}"
            )
            self._channel.send_error(number, error)
            return
        task = asyncio.get_running_loop().create_task(self._run(number, function, args, kwargs))
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
        _inside.set(True)
        try:
            if inspect.iscoroutinefunction(function):
                result = await function(*args, **kwargs)
            else:
                result = await asyncio.to_thread(function, *args, **kwargs)
                if inspect.isawaitable(result):
                    result = await result
            self._channel.send(Kind.RESULT, number, result, alone=True)
        except Exception as err:  # noqa: BLE001 - whatever the user's function raises is an answer too
            self._channel.send_error(number, remote_error(err))


def describe_tool(function: Callable[..., Any], *, name: str | None = None) -> dict[str, Any]:
    """A function of the service, as a payload's `tools` names it.

    The LM is shown its docstring and the JSON schema of each argument.

    Args:
        function: The function; give it to the call as well, under the same name, in `callbacks`.
        name: Its name, if not its own.

    Raises:
        ConfigError: If an argument has no type, or one without a JSON schema.
    """
    from typing import get_type_hints

    from pydantic import PydanticUserError, TypeAdapter

    called = name or function.__name__
    hints = get_type_hints(function)
    args: dict[str, Any] = {}
    for parameter in inspect.signature(function).parameters:
        try:
            args[parameter] = TypeAdapter(hints[parameter]).json_schema()
        except (KeyError, PydanticUserError) as err:
            raise ConfigError(
                f"argument {parameter!r} of tool {called!r} has no type that JSON can carry",
                code="bad-tool",
                hint="annotate it with str, int, list[...] and the like",
            ) from err
    return {"callback": called, "name": called, "desc": inspect.getdoc(function) or "", "args": args}
