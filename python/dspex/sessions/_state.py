"""A session's state as its calls see it: what is committed, and over it what is staged.

A value is written as bytes when it is staged, so that a mistake is found where it is made, and read anew each
time: to change what was read changes nothing until it is staged again.
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Iterator, MutableMapping
from typing import TYPE_CHECKING, Any

from dspex.errors import StateConflict
from dspex.sessions._values import STATE, check_key
from dspex.stores import Changes

if TYPE_CHECKING:
    from dspex.sessions._session import Session

__all__ = ["Staged", "State"]

_TRIES = 16


class Staged:
    """What a commit is to write.

    Attributes:
        entries: Values by the store's keys; None removes one.
        expected: The versions that these had when they were staged.
        turns: Turns of the history.
    """

    __slots__ = ("entries", "expected", "turns")

    def __init__(self) -> None:
        self.entries: dict[str, bytes | None] = {}
        self.expected: dict[str, int] = {}
        self.turns: list[bytes] = []

    def __bool__(self) -> bool:
        return bool(self.entries or self.turns)

    def copy(self) -> Staged:
        """The same, which does not change with this one."""
        made = Staged()
        made.entries, made.expected = dict(self.entries), dict(self.expected)
        made.turns = list(self.turns)
        return made


class State(MutableMapping[str, Any]):
    """The values of a session by key.

    What is assigned or deleted is staged: the next call of the session that ends well commits it, or
    `await session.commit()`; a call that fails discards what was staged during it. `set` and `update` commit
    at once.

    Args:
        session: Whose state it is.
    """

    __slots__ = ("_session",)

    def __init__(self, session: Session) -> None:
        self._session = session

    def __getitem__(self, key: str) -> Any:
        session, name = self._session, STATE + check_key(key)
        if name in session._staged.entries:
            data = session._staged.entries[name]
            if data is None:
                raise KeyError(key)
            return session._values.load(data)
        return (
            session._values.load(session._entries[name].value) if name in session._entries else self._no(key)
        )

    def __setitem__(self, key: str, value: Any) -> None:
        name = STATE + check_key(key)
        self._stage(name, self._session._values.dump(value, f"state[{key!r}]", self._session.id))

    def __delitem__(self, key: str) -> None:
        self[key]  # raises if there is none
        self._stage(STATE + key, None)

    def __iter__(self) -> Iterator[str]:
        session = self._session
        committed = [name for name in session._entries if name.startswith(STATE)]
        staged = [name for name in session._staged.entries if name.startswith(STATE)]
        for name in dict.fromkeys([*committed, *staged]):
            if name not in session._staged.entries or session._staged.entries[name] is not None:
                yield name.removeprefix(STATE)

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __repr__(self) -> str:
        return f"<State of {self._session.id!r}: {len(self)} keys>"  # values may be secret

    def version(self, key: str) -> int:
        """The version of what is committed under a key: it grows with each write; 0 for none."""
        entry = self._session._entries.get(STATE + check_key(key))
        return 0 if entry is None else entry.version

    async def set(self, key: str, value: Any, *, expected: int | None = None) -> int:
        """Write a value and commit it, and nothing else.

        Args:
            key: The key.
            value: The value.
            expected: The version that must be there, 0 for none; None for any.

        Returns:
            The version that it has now.

        Raises:
            StateConflict: If another version is there; the error has both.
            SessionError: If the value cannot be kept, or the session is not this host's any more.
        """
        session, name = self._session, STATE + check_key(key)
        data = session._values.dump(value, f"state[{key!r}]", session.id)
        return await session._commit_alone(
            Changes({name: data}, {} if expected is None else {name: expected})
        )

    async def update(  # type: ignore[override]  # a dict's takes many at once, and commits nothing
        self, key: str, function: Callable[[Any], Any | Awaitable[Any]], default: Any = None
    ) -> Any:
        """Write what a function makes of a value, and commit it; if another wrote it meanwhile, once more.

        Args:
            key: The key.
            function: Makes the new value of the one that is committed. It may be async, and be called again.
            default: What it gets where there is none.

        Returns:
            The new value.

        Raises:
            StateConflict: If others wrote it each time.
            SessionError: As for `set`.
        """
        session, name = self._session, STATE + check_key(key)
        for tries in range(_TRIES):
            await session._ready()
            entry = session._entries.get(name)
            value = function(default if entry is None else session._values.load(entry.value))
            if inspect.isawaitable(value):
                value = await value
            try:
                await self.set(key, value, expected=0 if entry is None else entry.version)
            except StateConflict:
                if tries == _TRIES - 1:
                    raise
            else:
                break
        return value

    def _stage(self, name: str, data: bytes | None) -> None:
        staged = self._session._staged
        entry = self._session._entries.get(name)
        staged.expected.setdefault(name, 0 if entry is None else entry.version)
        staged.entries[name] = data

    @staticmethod
    def _no(key: str) -> Any:
        raise KeyError(key)
