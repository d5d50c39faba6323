"""What `Runtime.session` gives: a session that is yet to be made or resumed, and its blocking twin."""

from __future__ import annotations

from collections.abc import (
    AsyncGenerator,
    Awaitable,
    Callable,
    Coroutine,
    Generator,
    Iterator,
    MutableMapping,
)
from types import TracebackType
from typing import Any, Protocol, TypedDict, TypeVar

from dspex._event_queue import END
from dspex.pool import Affinity
from dspex.sessions._handles import Handle, Restore
from dspex.sessions._history import History
from dspex.sessions._options import WhenBusy
from dspex.sessions._session import Session

__all__ = ["Blocking", "SessionKeywords", "SessionOpening", "SyncHandle", "SyncSession", "SyncState"]

T = TypeVar("T")


class SessionKeywords(TypedDict, total=False):
    """The options of a new session as keyword arguments; see `SessionOptions`."""

    pool: str
    affinity: Affinity
    user: str
    idle_ttl: float | None
    max_age: float | None
    when_busy: WhenBusy
    queue: int
    history_turns: int | None
    history_bytes: int


class Blocking(Protocol):
    """Runs a coroutine on the runtime's loop and waits for it, from a thread that has no loop."""

    def __call__(self, coroutine: Coroutine[Any, Any, T], /) -> T: ...


class SessionOpening:
    """A session to be: `await` it, or enter it by `async with` or `with`.

    `async with` and `with` commit what is staged when their block ends well, and park the session.

    Args:
        open_: Makes or resumes it.
        blocking: Waits for what the blocking twin asks for.
    """

    def __init__(self, open_: Callable[[], Coroutine[Any, Any, Session]], blocking: Blocking) -> None:
        self._open = open_
        self._blocking = blocking
        self._session: Session | None = None
        self._sync: SyncSession | None = None

    def __await__(self) -> Generator[Any, Any, Session]:
        return self._open().__await__()

    async def __aenter__(self) -> Session:
        self._session = await self._open()
        return self._session

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        if self._session is not None:
            await self._session.__aexit__(exc_type, exc, tb)

    def open(self) -> SyncSession:
        """Make or resume it, and wait for that, in a thread that has no event loop."""
        return SyncSession(self._blocking(self._open()), self._blocking)

    def __enter__(self) -> SyncSession:
        self._sync = self.open()
        return self._sync

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        if self._sync is not None:
            self._blocking(self._sync.session.__aexit__(exc_type, exc, tb))


class SyncSession:
    """A `Session` whose calls block; for threads without an event loop. Each does what its twin says.

    Attributes:
        session: The session.
    """

    def __init__(self, session: Session, blocking: Blocking) -> None:
        self.session = session
        self._blocking = blocking

    @property
    def id(self) -> str:
        """Its name."""
        return self.session.id

    @property
    def state(self) -> SyncState:
        """Its values by key."""
        return SyncState(self.session, self._blocking)

    @property
    def history(self) -> History:
        """Its turns."""
        return self.session.history

    @property
    def handles(self) -> dict[str, SyncHandle]:
        """Its objects by name."""
        return {name: SyncHandle(handle, self._blocking) for name, handle in self.session.handles.items()}

    def call(self, target: Any, /, **inputs: Any) -> Any:
        """See `Session.call`."""
        return self._blocking(self.session.call(target, **inputs))

    def stream(self, target: Any, /, **inputs: Any) -> Generator[Any, None, None]:
        """See `Session.astream`; close it to leave early (`contextlib.closing`)."""
        events = self.session.astream(target, **inputs)

        async def step() -> Any:
            return await anext(events, END)

        try:
            while (event := self._blocking(step())) is not END:
                yield event
        finally:
            self._blocking(_closed(events))

    def commit(self) -> None:
        """See `Session.commit`."""
        self._blocking(self.session.commit())

    def discard(self) -> None:
        """See `Session.discard`."""
        self.session.discard()

    def handle(
        self,
        target: str | Callable[..., Any],
        /,
        *args: Any,
        name: str | None = None,
        restore: Restore = "rebuild",
        **kwargs: Any,
    ) -> SyncHandle:
        """See `Session.handle`."""
        made = self._blocking(self.session.handle(target, *args, name=name, restore=restore, **kwargs))
        return SyncHandle(made, self._blocking)

    def park(self) -> None:
        """See `Session.park`."""
        self._blocking(self.session.park())

    def end(self) -> None:
        """See `Session.end`."""
        self._blocking(self.session.end())

    def __repr__(self) -> str:
        return repr(self.session)


class SyncState(MutableMapping[str, Any]):
    """A `State` whose commits block.

    Args:
        session: Whose state it is.
        blocking: Waits for a commit.
    """

    def __init__(self, session: Session, blocking: Blocking) -> None:
        self._state = session.state
        self._blocking = blocking

    def __getitem__(self, key: str) -> Any:
        return self._state[key]

    def __setitem__(self, key: str, value: Any) -> None:
        self._state[key] = value

    def __delitem__(self, key: str) -> None:
        del self._state[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._state)

    def __len__(self) -> int:
        return len(self._state)

    def version(self, key: str) -> int:
        """See `State.version`."""
        return self._state.version(key)

    def set(self, key: str, value: Any, *, expected: int | None = None) -> int:
        """See `State.set`."""
        return self._blocking(self._state.set(key, value, expected=expected))

    def update(  # type: ignore[override]
        self, key: str, function: Callable[[Any], Any | Awaitable[Any]], default: Any = None
    ) -> Any:
        """See `State.update`."""
        return self._blocking(self._state.update(key, function, default))


class SyncHandle:
    """A `Handle` whose calls block.

    Args:
        handle: The object.
        blocking: Waits for an answer.
    """

    def __init__(self, handle: Handle, blocking: Blocking) -> None:
        self._handle = handle
        self._blocking = blocking

    @property
    def name(self) -> str:
        """Its name in the session."""
        return self._handle.name

    def call(self, method: str, /, *args: Any, **kwargs: Any) -> Any:
        """See `Handle.call`."""
        return self._blocking(self._handle.call(method, *args, **kwargs))

    def get(self, attribute: str, /) -> Any:
        """See `Handle.get`."""
        return self._blocking(self._handle.get(attribute))

    def drop(self) -> None:
        """See `Handle.drop`."""
        self._blocking(self._handle.drop())

    def __repr__(self) -> str:
        return repr(self._handle)


async def _closed(events: AsyncGenerator[Any, None]) -> None:
    await events.aclose()
