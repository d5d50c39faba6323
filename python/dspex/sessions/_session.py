"""`Session`: a conversation's or an agent's state, as the service holds it.

A call takes its turn, runs with what is staged before it, and ends in one of two ways: what was staged is
committed, in one write, or what was staged during it is forgotten::

    enter --> call --ends well--> commit --> leave
                +----fails------> forget --> leave
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine, Mapping
from contextlib import aclosing, asynccontextmanager, suppress
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Self, TypeVar

from dspex._event_queue import END, EventQueue
from dspex._session_scope import SESSION
from dspex._threads import in_thread
from dspex.errors import ConfigError, SessionError, SessionMoved, WorkerDiedError
from dspex.protocol.handles import HandleRequest
from dspex.sessions._events import tell
from dspex.sessions._handles import Handle, Handles, Objects, Restore, name_of, plan_of, same_plan
from dspex.sessions._history import History, field_of, turn_of
from dspex.sessions._state import Staged, State
from dspex.sessions._values import HANDLE, OBJECT, Values, check_key
from dspex.stores import Changes, Entry, Turn

if TYPE_CHECKING:
    from dspex.pool import Place
    from dspex.sessions._core import Core
    from dspex.sessions._keeper import Keeper
    from dspex.sessions._options import SessionOptions

__all__ = ["Session", "current_session"]

T = TypeVar("T")


class _Scope:
    """A session's call, for what is called in it; see `SessionScope`."""

    __slots__ = ("core", "lasts", "outer", "session")

    def __init__(self, session: Session, core: Core, outer: Any) -> None:
        self.session = session
        self.core = core
        self.outer = outer  # the call of another session that this one is made in
        self.lasts = True  # tasks that a call started may outlive it

    def options_in(self, name: str, pool: Any) -> Mapping[str, Any]:
        if name.removeprefix("pool:") != self.core.options.pool:
            return {"session": self.session.id}
        return {"place": self.session._place(self.core, pool)}


def current_session() -> Session | None:
    """The session in whose call this code runs; None outside of one."""
    scope = SESSION.get()
    return scope.session if isinstance(scope, _Scope) and scope.lasts else None


class Session:
    """Calls that belong together, and what they keep. `Runtime.session` makes one.

    Attributes:
        id: Its name, by which it is resumed, here or elsewhere.
        state: Its values by key; see `State`.
        history: Its turns; see `History`.
        handles: Its objects in its worker, by name.
    """

    def __init__(
        self, session_id: str, options: SessionOptions, keeper: Keeper, core: Core, values: Values
    ) -> None:
        self.id = session_id
        self.options = options
        self.state = State(self)
        self.history = History(self)
        self.handles = Handles(self)
        self._keeper = keeper
        self._core = core  # the last that was seen: what it has can be read when the session is parked
        self._values = values
        self._staged = Staged()
        self._commits = 0  # those of this object: what is staged before one is not staged after it

    async def call(self, target: Any, /, **inputs: Any) -> Any:
        """Call something in this session: its turn comes, it runs, and what it staged is committed.

        Args:
            target: A module, a remote, a program or a pipeline, or a function, async or not. One that has an
                input of type `dspy.History` gets this session's history, and the call becomes a turn of it.
            **inputs: Its inputs.

        Returns:
            What it returned, once everything is committed.

        Raises:
            SessionBusy: If another call runs and this one is not to wait, or too many wait.
            SessionMoved: If another host has taken the session; nothing was written.
            SessionNotFound: If the session's time is over.
            StateConflict: If something that the call staged was written by another meanwhile; nothing was.
            WorkerDiedError: If its worker died during the call; nothing was written, and what the call did
                elsewhere may have been done. One that was declared idempotent is made once more.
            DspexError: Whatever the target raised; nothing was written.
        """
        return await self._at_home(self._called(target, inputs))

    async def astream(self, target: Any, /, **inputs: Any) -> AsyncGenerator[Any, None]:
        """Call a module in this session, and yield its events as they come; see `Module.astream`.

        The prediction, which is the last, comes when everything is committed, which is done when all events
        before it have been taken. To leave earlier ends the call, which writes nothing; close the generator
        for that (`contextlib.aclosing`).

        Args:
            target: A module, a remote, a program or a pipeline.
            **inputs: Its inputs.

        Raises:
            ConfigError: If the target has no streams (`bad-session`).
            DspexError: As for `call`.
        """
        if not callable(getattr(target, "astream", None)):
            raise ConfigError(
                f"a {type(target).__name__} has no events to be streamed",
                code="bad-session",
                hint="stream a module or a pipeline; a function is called: `await s.call(function)`",
            )
        queue = EventQueue()
        # In a task of its own: a generator's context is that of whoever takes its next event.
        running = asyncio.create_task(self._at_home(self._streamed(target, inputs, queue)))
        running.add_done_callback(partial(_end, queue))
        try:
            while (event := await queue.take()) is not END:
                yield event
        finally:
            queue.close()
            running.cancel()
            await asyncio.wait([running])
            del running  # it holds the exception, which holds this frame

    async def commit(self) -> None:
        """Commit what is staged.

        Raises:
            StateConflict: If something was written by another meanwhile; what was staged is forgotten.
            SessionMoved: If another host has taken the session.
            SessionNotFound: If the session's time is over.
        """
        await self._at_home(self._committed())

    def discard(self) -> None:
        """Forget what is staged."""
        self._staged = Staged()

    async def handle(
        self,
        target: str | Callable[..., Any],
        /,
        *args: Any,
        name: str | None = None,
        restore: Restore = "rebuild",
        **kwargs: Any,
    ) -> Handle:
        """An object in the session's worker. One that is there already is not made again.

        Args:
            target: A class, or a function that makes the object, at the top of a module of the pool's
                allow-list (`PoolSpec.classes`), or its path, `"package.module:name"`.
            *args: Its arguments: values that the wire carries.
            name: Its name in the session; by default that of the class.
            restore: What becomes of it when its worker is gone. `"rebuild"`: it is made again with the same
                arguments. `"state"`: the same, and its `load_state` gets what its `dump_state` gave after its
                last call. `"none"`: it is lost, and says so.
            **kwargs: Its arguments by name.

        Raises:
            ConfigError: If the path is not on the allow-list (`not-allowed`) or a worker cannot import it, or
                the session has another object of the name (`handle-exists`).
            DspexError: Whatever making it raised.
        """
        plan = plan_of(target, args, kwargs, restore)
        return await self._at_home(self._handled(name_of(target, name), plan))

    async def park(self) -> None:
        """Give the session up for now: it leaves its worker and this host, and any host may resume it.

        What is staged stays staged in this object. The next call takes the session up again.
        """
        self._refuse_inside("parked")
        await self._at_home(self._keeper.park(self.id))

    async def end(self) -> None:
        """End the session for good, with all that it has, in the worker and in the store."""
        self._refuse_inside("ended")
        await self._at_home(self._keeper.end(self.id))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        try:
            if exc_type is None and self._staged:
                await self.commit()
        finally:
            await self.park()

    def __repr__(self) -> str:
        return f"<Session {self.id!r} in pool {self.options.pool!r}, {self._core.state}>"

    # -- a call -------------------------------------------------------------------------------------

    def _refuse_inside(self, what: str) -> None:
        if current_session() is self:
            raise ConfigError(
                f"session {self.id!r} cannot be {what} in a call of its own",
                code="bad-session",
                hint="do it when the call is over",
            )

    async def _called(self, target: Any, inputs: dict[str, Any]) -> Any:
        async with self._transaction():
            history = field_of(target)
            result = await self._made(target, self._with_history(inputs, history))
            self._remember(inputs, result, history)
            return result

    async def _streamed(self, target: Any, inputs: dict[str, Any], queue: EventQueue) -> Any:
        """Put all events but the last in the queue, and give that when everything is committed."""
        last: Any = None
        async with self._transaction():
            history = field_of(target)
            with self._keeper.host.in_use():
                events = target.astream(**self._with_history(inputs, history))
                async with aclosing(events):
                    async for event in events:
                        if last is not None:
                            await queue.put([last])
                        last = event
            await queue.taken()  # who leaves before that wants nothing of it
            self._remember(inputs, last, history)
        return last

    def _with_history(self, inputs: dict[str, Any], history: tuple[str, type[Any]] | None) -> dict[str, Any]:
        if history is None or history[0] in inputs:
            return inputs
        name, kind = history
        return {**inputs, name: kind(messages=self.history.messages)}

    def _remember(self, inputs: dict[str, Any], result: Any, history: tuple[str, type[Any]] | None) -> None:
        if history is not None and (turn := turn_of(inputs, result, history[0])) is not None:
            self.history.append(turn)

    async def _made(self, target: Any, inputs: Mapping[str, Any]) -> Any:
        before = self._staged.copy()
        with self._keeper.host.in_use():
            try:
                return await _call_of(target, inputs)
            except WorkerDiedError:
                # Of the target itself: what it calls may be declared so, and the rest of it need not be.
                if getattr(target, "_options", {}).get("idempotent") is not True:
                    raise
            self._staged = before
            return await _call_of(target, inputs)

    async def _committed(self) -> None:
        async with self._turn() as (core, _):
            try:
                await self._commit(core)
            except SessionError:
                self.discard()
                raise

    async def _commit(self, core: Core) -> None:
        staged = self._staged
        if not staged:
            return
        changes = Changes(staged.entries, staged.expected, staged.turns, core.forget_to(staged.turns))
        await self._keeper.commit(core, changes)
        self.discard()
        self._commits += 1

    async def _commit_alone(self, changes: Changes) -> int:
        return await self._at_home(self._committed_alone(changes))

    async def _committed_alone(self, changes: Changes) -> int:
        while True:
            core = await self._ready()
            self._keeper.used(core)  # before it could be parked as idle
            try:
                return await self._keeper.commit(core, changes)
            except SessionMoved:
                if core.gone is None:
                    raise
                # It was parked meanwhile: nothing was written, and it is taken up again.

    @asynccontextmanager
    async def _transaction(self) -> AsyncIterator[Core]:
        """A call: what is staged in it is committed at its end, or forgotten if it fails."""
        async with self._turn() as (core, inside):
            before, commits = self._staged.copy(), self._commits
            try:
                yield core
                if not inside:  # else the call around it commits
                    await self._commit(core)
            except BaseException:
                for key, data in self._staged.entries.items():
                    if key.startswith(OBJECT) and before.entries.get(key) is not data:
                        core.live.pop(key.removeprefix(OBJECT), None)  # it is ahead of what is kept
                self._staged = before if commits == self._commits else Staged()
                raise

    @asynccontextmanager
    async def _turn(self) -> AsyncIterator[tuple[Core, bool]]:
        """Wait for this session's turn, unless this code is inside of a call of it; says which."""
        outer = around = SESSION.get()
        while isinstance(around, _Scope):
            if around.lasts and around.session is self:
                yield around.core, True
                return
            around = around.outer
        core = await self._entered()
        scope, number = _Scope(self, core, outer), 0 if core.place is None else core.place.number
        token = SESSION.set(scope)
        try:
            yield core, False
        finally:
            scope.lasts = False
            SESSION.reset(token)
            self._moved(core, number)
            self._keeper.used(core)
            core.order.leave()

    async def _entered(self) -> Core:
        while True:
            core = await self._ready()
            await core.order.enter(self._keeper.host.timeout)
            if core.state == "active" and not core.doubtful:
                return core
            core.order.leave()  # it was parked or lost while this call waited

    async def _ready(self) -> Core:
        self._core = core = await self._keeper.active(self.id)
        return core

    # -- objects ------------------------------------------------------------------------------------

    async def _handled(self, name: str, plan: dict[str, Any]) -> Handle:
        async with self._transaction() as core:
            handle = Handle(self, name, plan["target"], plan["restore"])
            there = self._peek(HANDLE + name)
            if there is not None:
                if same_plan(self._values.load(there), plan):
                    return handle
                raise ConfigError(
                    f"session {self.id!r} has an object {name!r} that is made otherwise",
                    code="handle-exists",
                    hint=f"give the new one a name=, or drop the other: await s.handles[{name!r}].drop()",
                )
            kept = self._values.dump(plan, f"how {name!r} is made", self.id)
            state = await Objects(self, core).make(name, plan, None)
            self._staged.entries[HANDLE + name] = kept
            if state is not None:
                self._staged.entries[OBJECT + name] = state
            return handle

    async def _ask_object(
        self, name: str, do: Literal["call", "get"], member: str, args: Any, kwargs: Any
    ) -> Any:
        return await self._at_home(self._asked_object(name, do, member, args, kwargs))

    async def _asked_object(
        self, name: str, do: Literal["call", "get"], member: str, args: Any, kwargs: Any
    ) -> Any:
        check_key(name)
        async with self._transaction() as core:
            return await Objects(self, core).ask(name, do, member, args, kwargs)

    async def _drop_object(self, name: str) -> None:
        await self._at_home(self._dropped_object(name))

    async def _dropped_object(self, name: str) -> None:
        async with self._transaction() as core:
            self._data_of(HANDLE + name, name)
            if core.live.pop(name, None) is not None:
                request = HandleRequest(do="drop", session=core.tag, handle=name)
                place = core.place
                with suppress(WorkerDiedError):  # then it is gone all the same
                    await self._in_pool(core, request, 0 if place is None else place.number)
            self._staged.entries[HANDLE + name] = None
            if self._peek(OBJECT + name) is not None:
                self._staged.entries[OBJECT + name] = None

    async def _in_pool(self, core: Core, request: HandleRequest, number: int) -> tuple[Any, Place]:
        pool = await self._keeper.host.pool_of(core.options.pool)
        place = self._place(core, pool)
        answer = await pool.call(request, place=place, pinned=number, timeout=self._keeper.host.timeout)
        return answer, place

    def _moved(self, core: Core, before: int) -> None:
        """Tell of it if a call has brought the session to another worker."""
        place = core.place
        if place is not None and before and place.number != before:
            tell("moved", self.id, pid=place.pid or 0)

    def _place(self, core: Core, pool: Any) -> Place:
        if core.place is None:
            core.place = pool.place(self.id, core.options.affinity)
        return core.place

    # -- what is there ------------------------------------------------------------------------------

    @property
    def _entries(self) -> Mapping[str, Entry]:
        return self._core.entries

    @property
    def _turns(self) -> list[Turn]:
        return self._core.turns

    def _names(self) -> list[str]:
        staged = self._staged.entries
        names = dict.fromkeys([*self._entries, *staged])
        return [name for name in names if name not in staged or staged[name] is not None]

    def _peek(self, key: str) -> bytes | None:
        if key in self._staged.entries:
            return self._staged.entries[key]
        entry = self._entries.get(key)
        return None if entry is None else entry.value

    def _data_of(self, key: str, name: str) -> bytes:
        data = self._peek(key)
        if data is None:
            raise KeyError(name)
        return data

    async def _at_home(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return await self._keeper.host.at_home(coroutine)


async def _call_of(target: Any, inputs: Mapping[str, Any]) -> Any:
    acall = getattr(target, "acall", None)
    if callable(acall):
        return await acall(**inputs)
    if not callable(target):
        raise ConfigError(
            f"a {type(target).__name__} cannot be called in a session",
            code="bad-session",
            hint="give a module, a pipeline or a function",
        )
    if inspect.iscoroutinefunction(target) or inspect.iscoroutinefunction(type(target).__call__):
        return await target(**inputs)
    result = await in_thread(partial(target, **inputs))
    return await result if inspect.isawaitable(result) else result


def _end(queue: EventQueue, running: asyncio.Task[Any]) -> None:
    """The call of a stream has ended: its reader gets what comes last, or what it raised."""
    if running.cancelled():
        queue.close()
    elif (error := running.exception()) is not None:
        queue.end(error=error)
    else:
        queue.end(running.result())
