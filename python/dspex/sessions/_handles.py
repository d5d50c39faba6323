"""A session's objects in its worker, as the service holds them.

::

    made --its worker dies, the session moves or is parked--> gone --next use--> made again, or HandleLost

How an object is made is kept with the session: the path of its class, the arguments and `restore`. With
`restore="state"` what its `dump_state` gives is kept too, after each of its calls that ended well, in the
same commit as whatever else the call wrote. A call that failed may have left such an object half changed;
its next use makes it anew from what was kept.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final, Literal

from dspex import wire
from dspex._imports import path_of
from dspex.errors import ConfigError, HandleLost, SessionError, WorkerDiedError
from dspex.protocol.handles import HandleRequest
from dspex.sessions._events import tell
from dspex.sessions._values import HANDLE, OBJECT, Values, check_key

if TYPE_CHECKING:
    from dspex.sessions._core import Core
    from dspex.sessions._session import Session

__all__ = ["Handle", "Handles", "Restore"]

Restore = Literal["rebuild", "state", "none"]
"""What becomes of an object whose worker is gone: it is made again, or made again with its state, or lost."""

_RESTORES: Final = ("rebuild", "state", "none")
_TRIES: Final = 3
"""How often an object is looked for whose worker dies each time before the call reaches it."""


class Handle:
    """An object in a session's worker: what it is asked goes there, in the session's order.

    Attributes:
        name: Its name in the session.
        target: The path of what makes it.
        restore: What becomes of it when its worker is gone.
    """

    __slots__ = ("_session", "name", "restore", "target")

    def __init__(self, session: Session, name: str, target: str, restore: Restore) -> None:
        self._session = session
        self.name = name
        self.target = target
        self.restore = restore

    async def call(self, method: str, /, *args: Any, **kwargs: Any) -> Any:
        """Call a method: an async one on the worker's loop, any other in a thread.

        Args:
            method: Its name, which does not begin with an underscore.
            *args: Arguments by position: values that the wire carries.
            **kwargs: Arguments by name.

        Raises:
            HandleLost: If the object is gone and is not to be made again.
            WorkerDiedError: If the worker died during the call, which may have had its effect.
            DspexError: Whatever the method raised.
        """
        return await self._session._ask_object(self.name, "call", method, args, kwargs)

    async def get(self, attribute: str, /) -> Any:
        """Read an attribute; for what it raises see `call`."""
        return await self._session._ask_object(self.name, "get", attribute, (), {})

    async def drop(self) -> None:
        """Forget the object, in the worker and in the store; its `close` is called if it has one."""
        await self._session._drop_object(self.name)

    def __repr__(self) -> str:
        return f"<Handle {self.name!r} of {self._session.id!r}: {self.target}, restore={self.restore!r}>"


class Handles(Mapping[str, Handle]):
    """The objects of a session by name.

    Args:
        session: Whose objects they are.
    """

    __slots__ = ("_session",)

    def __init__(self, session: Session) -> None:
        self._session = session

    def __getitem__(self, name: str) -> Handle:
        session = self._session
        plan = session._values.load(session._data_of(HANDLE + name, name))
        return Handle(session, name, plan["target"], plan["restore"])

    def __iter__(self) -> Iterator[str]:
        return (name.removeprefix(HANDLE) for name in self._session._names() if name.startswith(HANDLE))

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __repr__(self) -> str:
        return f"<Handles of {self._session.id!r}: {', '.join(self) or 'none'}>"


def plan_of(target: Any, args: Any, kwargs: Any, restore: Any) -> dict[str, Any]:
    """How an object is made, as it is kept.

    Raises:
        ConfigError: If a worker cannot import the target (`bad-import-path`), or there is no such `restore`.
    """
    if restore not in _RESTORES:
        raise ConfigError(
            f"there is no restore={restore!r}", code="bad-session", hint=f"use {', '.join(_RESTORES)}"
        )
    return {"target": path_of(target), "args": list(args), "kwargs": dict(kwargs), "restore": restore}


def name_of(target: Any, name: str | None) -> str:
    """The name of an object: its own, or that of its class."""
    return check_key(path_of(target).rpartition(":")[2] if name is None else name)


class Objects:
    """Makes a session's objects where they are needed, and asks them.

    Args:
        session: The session; its turn is the caller's.
        core: What this runtime has of it.
    """

    def __init__(self, session: Session, core: Core) -> None:
        self._session = session
        self._core = core

    async def make(self, name: str, plan: Mapping[str, Any], state: bytes | None) -> bytes | None:
        """Make an object on the session's worker, which it gets if need be; gives its state if kept."""
        dumps = plan["restore"] == "state"
        request = HandleRequest(
            do="make",
            session=self._core.tag,
            handle=name,
            target=plan["target"],
            args=plan["args"],
            kwargs=plan["kwargs"],
            state=None if state is None else self._session._values.load(state),
            dumps=dumps and state is None,
        )
        answer, place = await self._session._in_pool(self._core, request, 0)
        self._core.live[name] = place.number
        return self._kept(name, answer["state"]) if "state" in answer else None

    async def ask(self, name: str, do: Literal["call", "get"], member: str, args: Any, kwargs: Any) -> Any:
        """Ask an object, which is made first where it is not there; its state is staged if it is kept."""
        core, session = self._core, self._session
        plan = session._values.load(session._data_of(HANDLE + name, name))
        keeps = plan["restore"] == "state" and do == "call"
        request = HandleRequest(
            do=do, session=core.tag, handle=name, member=member, args=args, kwargs=kwargs, dumps=keeps
        )
        for tries in range(1, _TRIES + 1):
            number = await self._there(name, plan)
            try:
                answer, _ = await session._in_pool(core, request, number)
            except WorkerDiedError as error:
                core.live.clear()
                if error.code != "place-lost" or tries == _TRIES:
                    raise
            except HandleLost:  # nothing was done: it is made again, or said to be lost, by how it was made
                core.live.pop(name, None)
                if tries == _TRIES:
                    raise
            except BaseException:
                if keeps:  # it may be half changed
                    core.live.pop(name, None)
                raise
            else:
                break
        if keeps:
            session._staged.entries[OBJECT + name] = self._kept(name, answer["state"])
        return answer["value"]

    async def _there(self, name: str, plan: Mapping[str, Any]) -> int:
        """The worker that has the object, by the number of the session's place."""
        core, session = self._core, self._session
        place = core.place
        number = core.live.get(name)
        if number is not None and place is not None and number == place.number and is_up(place):
            return number
        if plan["restore"] == "none":
            raise HandleLost(
                f"object {name!r} of session {session.id!r} is gone with its worker",
                hint='make it again, or make it with restore="rebuild" from the first',
                session_id=session.id,
                handle=name,
            )
        again = number is not None
        state = session._data_of(OBJECT + name, name) if plan["restore"] == "state" else None
        await self.make(name, plan, state)
        if again:
            tell("recovered", session.id, handle=name)
        return core.live[name]

    def _kept(self, name: str, state: Any) -> bytes:
        session = self._session
        try:
            return session._values.dump(state, f"the state of {name!r}", session.id)
        except SessionError:
            self._core.live.pop(name, None)  # it is ahead of what was kept
            raise


def is_up(place: Any) -> bool:
    """Whether a place has a worker that takes calls."""
    worker = place.worker
    return worker is not None and worker.life.state.value == "ready"


def would_lose(core: Core, values: Values) -> bool:
    """Whether a session has an object in its worker that could not be made again elsewhere."""
    kept = [core.entries[HANDLE + name].value for name in core.live if HANDLE + name in core.entries]
    return any(values.load(plan)["restore"] == "none" for plan in kept)


def same_plan(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether two objects are made alike, as it is kept."""
    return wire.dumps(dict(one)) == wire.dumps(dict(other))
