"""The operation `handle`: objects that sessions have in this worker; see `HandleRequest`.

An object lives until its session drops it or leaves the worker, whose end is the end of all of them. Calls of
one session come one after the other, so nothing here is locked; those of different sessions run side by side.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from dspex._imports import find
from dspex._threads import in_thread
from dspex.errors import ConfigError, HandleLost
from dspex.protocol.handles import HandleAnswer, HandleRequest
from dspex.wire import Classes
from dspex.worker.operations.functions import refuse_arguments

__all__ = ["Handles"]


class Handles:
    """The objects of all sessions that live in this worker.

    Args:
        classes: The modules from which objects may be made.
    """

    def __init__(self, classes: Classes) -> None:
        self._classes = classes
        self._objects: dict[str, dict[str, Any]] = {}

    async def answer(self, request: HandleRequest) -> HandleAnswer:
        """Serve one call.

        Raises:
            ConfigError: If the path is not on the allow-list (`not-allowed`), nothing is there, or the object
                has no such member (`no-member`).
            InputError: If what is called takes no such arguments.
            HandleLost: If the session has no such object here.
        """
        if request.do == "end":
            for name in list(self._objects.get(request.session, ())):
                await self._drop(request.session, name)
            return {"value": None}
        if request.do == "drop":
            await self._drop(request.session, request.handle)
            return {"value": None}
        if request.do == "make":
            await self._drop(request.session, request.handle)  # of the name, from before
            made = await self._made(request)
            self._objects.setdefault(request.session, {})[request.handle] = made
            return await self._told(None, made, request)
        there = self._objects.get(request.session, {})
        if request.handle not in there:
            raise HandleLost(
                f"session {request.session!r} has no object {request.handle!r} in this worker",
                hint="make it again",
                session_id=request.session,
                handle=request.handle,
            )
        found = there[request.handle]
        member = _member(found, request.member)
        if request.do == "get":
            return await self._told(member, found, request)
        if not callable(member):
            raise _no_member(found, request.member, "is no method, and")
        return await self._told(await _called(member, request.args, request.kwargs), found, request)

    async def _made(self, request: HandleRequest) -> Any:
        module = request.target.partition(":")[0]
        if not self._classes.may_import(module):
            raise ConfigError(
                f"{request.target!r} is in no module of the pool's allow-list",
                code="not-allowed",
                hint=f"give the pool classes=({module!r},), if what is in there may be made by name",
            )
        made = await _called(find(request.target), request.args, request.kwargs)
        if request.dumps or request.state is not None:
            for name in ("dump_state", "load_state"):
                if not callable(getattr(made, name, None)):
                    raise _no_member(made, name, 'is needed for restore="state", and')
        if request.state is not None:
            await _called(made.load_state, (request.state,), {})
        return made

    async def _told(self, value: Any, found: Any, request: HandleRequest) -> HandleAnswer:
        if not request.dumps:
            return {"value": value}
        return {"value": value, "state": await _called(found.dump_state, (), {})}

    async def _drop(self, session: str, name: str) -> None:
        objects = self._objects.get(session, {})
        found = objects.pop(name, None)
        if not objects:
            self._objects.pop(session, None)
        close = getattr(found, "close", None)
        if callable(close):
            await _called(close, (), {})


async def _called(function: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    """What a call gives: of an async function on the loop, of any other in a thread."""
    try:
        if inspect.iscoroutinefunction(function):
            return await function(*args, **kwargs)
        return await in_thread(functools.partial(function, *args, **kwargs))
    except TypeError as error:
        refuse_arguments(function, args, kwargs, "$", error)
        raise


def _member(found: Any, name: str) -> Any:
    if name.startswith("_"):
        raise _no_member(found, name, "begins with an underscore, and")
    try:
        return getattr(found, name)
    except AttributeError:
        raise _no_member(found, name, "is not there, and") from None


def _no_member(found: Any, name: str, why: str) -> ConfigError:
    public = [each for each in dir(found) if not each.startswith("_")]
    return ConfigError(
        f"{name!r} {why} cannot be had of a {type(found).__name__}",
        code="no-member",
        hint=f"it has {', '.join(public[:20])}",
    )
