"""How a runtime keeps sessions, and what one session may do."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Final, Literal

from dspex import wire
from dspex._timeouts import check_seconds, shown
from dspex.errors import ConfigError
from dspex.pool import Affinity
from dspex.stores import SessionStore

__all__ = ["SessionOptions", "SessionSettings", "WhenBusy"]

WhenBusy = Literal["wait", "fail"]
"""What becomes of a call while another of its session runs: it waits for its turn, or is refused."""

_REDIS: Final = ("redis://", "rediss://", "unix://")
_AFFINITIES: Final = ("hint", "strict", "fail_fast")
MAX_VALUE_BYTES: Final = 1024 * 1024
MAX_HISTORY_BYTES: Final = 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionSettings:
    """How a runtime keeps its sessions: `Runtime(sessions=SessionSettings(...))`.

    Attributes:
        store: Where they are kept: a `dspex.stores.SessionStore`, the path of a file for
            `dspex.stores.SQLite`, or a `redis://` address for `dspex.stores.Redis`. None for the file
            `sessions.sqlite3` in `DSPEX_STATE_DIR`, or else in `dspex` below `XDG_STATE_HOME` or
            `~/.local/state`.
        lease: Seconds for which a runtime that has died keeps its sessions from runtimes on other machines.
            It renews its leases three times as often.
        park_after: Seconds without a call after which a session leaves this runtime and its worker; it comes
            back with its next call, wherever that is made. None for never.
        most_of_pool: How many sessions a pool may have; None for any number.
        most_of_user: How many sessions a user may have; None for any number.
        classes: Modules whose classes values of the state may be of; see `docs/wire.md`.
        value_bytes: How large one value of a state, one turn and one object's state may be.

    Raises:
        ConfigError: If a setting is none (`bad-session`, `bad-timeout`).
    """

    store: SessionStore | str | os.PathLike[str] | None = None
    lease: float = 30.0
    park_after: float | None = 300.0
    most_of_pool: int | None = None
    most_of_user: int | None = None
    classes: Sequence[str] = ()
    value_bytes: int = MAX_VALUE_BYTES

    def __post_init__(self) -> None:
        store = self.store
        if store is not None and not isinstance(store, str | os.PathLike | SessionStore):
            raise _refused("store", store, "the path of a file, or a store")
        modules = [self.classes] if isinstance(self.classes, str) else list(self.classes)
        if isinstance(self.classes, str) or not all(isinstance(name, str) for name in modules):
            raise _refused("classes", self.classes, "a list of names of modules")
        object.__setattr__(self, "classes", tuple(modules))
        check_seconds(self.lease, "lease")
        if self.park_after is not None:
            check_seconds(self.park_after, "park_after")
        for name in ("most_of_pool", "most_of_user"):
            _check_count(name, getattr(self, name), optional=True)
        _check_count("value_bytes", self.value_bytes)

    def open_store(self) -> SessionStore:
        """The store that these settings name.

        Raises:
            ConfigError: If there is no directory for it (`bad-store`).
        """
        given = self.store
        if given is not None and not isinstance(given, str | os.PathLike):
            return given
        if isinstance(given, str) and given.startswith(_REDIS):
            from dspex.stores import Redis

            return Redis(given)
        from dspex.stores import SQLite  # a runtime with a store of another kind does without

        return SQLite(_default_file() if given is None else given)


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionOptions:
    """What one session may do; it keeps them, wherever it is resumed.

    Attributes:
        pool: The pool whose workers it lives with.
        affinity: What becomes of a call while its worker has no room; see `Pool.place`.
        user: For whom it is: quotas count by this; empty for nobody.
        idle_ttl: Seconds after its last use when it ends; None for never.
        max_age: Seconds after it was made when it ends; None for never.
        when_busy: What becomes of a call while another of its calls runs.
        queue: How many of its calls may wait for their turn.
        history_turns: How many turns its history keeps; None for any number.
        history_bytes: How many bytes its history keeps.
    """

    pool: str = "general"
    affinity: Affinity = "hint"
    user: str = ""
    idle_ttl: float | None = 24 * 3600.0
    max_age: float | None = None
    when_busy: WhenBusy = "wait"
    queue: int = 16
    history_turns: int | None = None
    history_bytes: int = MAX_HISTORY_BYTES

    def __post_init__(self) -> None:
        for name in ("pool", "user"):
            value = getattr(self, name)
            if not isinstance(value, str) or len(value) > 256:
                raise _refused(name, value, "a text of at most 256 characters")
        for name, choices in (("affinity", _AFFINITIES), ("when_busy", ("wait", "fail"))):
            if getattr(self, name) not in choices:
                raise _refused(name, getattr(self, name), f"one of {', '.join(choices)}")
        for name in ("idle_ttl", "max_age"):
            if getattr(self, name) is not None:
                check_seconds(getattr(self, name), name)
        _check_count("queue", self.queue, least=0)
        _check_count("history_turns", self.history_turns, optional=True, least=0)
        _check_count("history_bytes", self.history_bytes)

    def kept(self) -> bytes:
        """What the store keeps of them, besides what it has to know itself."""
        kept = {name: value for name, value in asdict(self).items() if name not in _OF_STORE}
        return wire.dumps(kept)

    @classmethod
    def restored(
        cls, kept: bytes, *, pool: str, user: str, idle_ttl: float | None, max_age: float | None
    ) -> SessionOptions:
        """The options of a session that a store has. What a newer version knows besides is left out."""
        known = {each.name for each in fields(cls)}
        read = {name: value for name, value in wire.loads(kept).items() if name in known}
        return cls(**read, pool=pool, user=user, idle_ttl=idle_ttl, max_age=max_age)


_OF_STORE: Final = frozenset({"pool", "user", "idle_ttl", "max_age"})


def _default_file() -> Path:
    directory = os.environ.get("DSPEX_STATE_DIR")
    if not directory:
        state = os.environ.get("XDG_STATE_HOME") or (
            os.path.join(os.environ["HOME"], ".local", "state") if os.environ.get("HOME") else ""
        )
        if not state:
            raise ConfigError(
                "there is no directory for sessions: no HOME, XDG_STATE_HOME or DSPEX_STATE_DIR",
                code="bad-store",
                hint='name a file, Runtime(sessions="sessions.sqlite3"), or another store',
            )
        directory = os.path.join(state, "dspex")
    path = Path(directory)
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    return path / "sessions.sqlite3"


def _check_count(name: str, value: Any, *, optional: bool = False, least: int = 1) -> None:
    if value is None and optional:
        return
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise _refused(name, value, f"a whole number from {least}" + (", or None" if optional else ""))


def _refused(name: str, value: Any, allowed: str) -> ConfigError:
    return ConfigError(
        f"{name}={shown(value)} is refused", code="bad-session", hint=f"{name} is {allowed}", path=name
    )
