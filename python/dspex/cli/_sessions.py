"""`dspex sessions list | show | drop`: the sessions that a store has."""

from __future__ import annotations

import argparse
import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, TypeVar

from dspex.errors import ConfigError, WireError
from dspex.sessions._options import SessionSettings
from dspex.sessions._values import HANDLE, STATE, Values

if TYPE_CHECKING:
    from dspex.stores import SessionInfo, SessionStore

__all__ = ["add"]

T = TypeVar("T")

_TURNS = 20
"""Turns that are shown, the last ones."""


def add(commands: Any) -> None:
    """Declare the sub-command."""
    parser: argparse.ArgumentParser = commands.add_parser("sessions", help="look at, or drop, sessions")
    actions = parser.add_subparsers(metavar="ACTION", required=True)
    listed = actions.add_parser("list", help="the sessions, those that were used last first")
    listed.add_argument("--pool", help="those of this pool alone")
    listed.add_argument("--user", help="those of this user alone")
    listed.add_argument("--limit", type=int, default=50, help="how many, at most (default: 50)")
    listed.set_defaults(run=show_all)
    shown = actions.add_parser("show", help="one session: what it keeps, and who has it")
    shown.add_argument("id", help="the session")
    shown.add_argument("--values", action="store_true", help="its values and turns too, which may be private")
    shown.set_defaults(run=show_one)
    dropped = actions.add_parser("drop", help="forget a session with all that it has")
    dropped.add_argument("id", nargs="+", help="the sessions")
    dropped.set_defaults(run=drop)
    for action in (listed, shown, dropped):
        action.add_argument("--json", action="store_true", help="print JSON for programs")
        action.add_argument(
            "--store",
            metavar="WHERE",
            help="a file, or redis://... (default: where a runtime keeps them by default)",
        )
        action.add_argument(
            "--classes",
            metavar="MODULE",
            action="append",
            default=[],
            help="a module whose classes the values may be of; may be repeated",
        )


def show_all(arguments: argparse.Namespace) -> int:
    """Print the sessions.

    Returns:
        0.
    """

    async def read(store: SessionStore) -> list[SessionInfo]:
        return await store.sessions(pool=arguments.pool, user=arguments.user, limit=arguments.limit)

    found = _run(arguments, read)
    if arguments.json:
        print(json.dumps([_described(info) for info in found], ensure_ascii=False, indent=2))
        return 0
    if not found:
        print("there are no sessions")
        return 0
    rows = [("id", "pool", "user", "used", "ends in", "turns", "bytes", "owner")]
    now = time.time()
    for info in found:
        ends = "never" if info.expires is None else f"{info.expires - now:,.0f} s"
        owner = (info.owner or "none").partition(" ")[0]
        rows.append(
            (
                info.session_id,
                info.pool,
                info.user or "-",
                f"{now - info.used:,.0f} s ago",
                ends,
                f"{info.turns}",
                f"{info.size:,}",
                owner,
            )
        )
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        print("  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip())
    return 0


def show_one(arguments: argparse.Namespace) -> int:
    """Print one session.

    Returns:
        0, or 1 if there is none.
    """

    async def read(store: SessionStore) -> tuple[SessionInfo | None, dict[str, Any], list[Any]]:
        info = await store.session(arguments.id)
        return info, dict(await store.session_entries(arguments.id)), await store.session_turns(arguments.id)

    info, entries, turns = _run(arguments, read)
    if info is None:
        print(f"there is no session {arguments.id!r}")
        return 1
    values = Values(tuple(arguments.classes), 1)
    keys = {
        name.removeprefix(STATE): _entry(entry, values, arguments.values)
        for name, entry in entries.items()
        if name.startswith(STATE)
    }
    objects = {
        name.removeprefix(HANDLE): _loaded(values, entry.value)
        for name, entry in entries.items()
        if name.startswith(HANDLE)
    }
    described: dict[str, Any] = {**_described(info), "state": keys, "objects": objects}
    if arguments.values:
        described["last_turns"] = [_loaded(values, turn.value) for turn in turns[-_TURNS:]]
    if arguments.json:
        print(json.dumps(described, ensure_ascii=False, indent=2, default=repr))
        return 0
    for name, value in described.items():
        if isinstance(value, dict):
            print(f"{name}:")
            for key, item in value.items():
                print(f"  {key}: {item}")
        elif isinstance(value, list):
            print(f"{name}:")
            for item in value:
                print(f"  {item}")
        else:
            print(f"{name}: {value}")
    return 0


def drop(arguments: argparse.Namespace) -> int:
    """Forget sessions.

    Returns:
        0, or 1 if one of them was not there.
    """

    async def dropped(store: SessionStore) -> dict[str, bool]:
        return {name: await store.drop_session(name) for name in arguments.id}

    found = _run(arguments, dropped)
    if arguments.json:
        print(json.dumps(found, ensure_ascii=False, indent=2))
    else:
        for name, there in found.items():
            print(f"{name}: {'dropped' if there else 'there is no such session'}")
    return 0 if all(found.values()) else 1


def _run(arguments: argparse.Namespace, ask: Callable[[SessionStore], Awaitable[T]]) -> T:
    async def run() -> T:
        store = _store(arguments.store)
        try:
            return await ask(store)
        finally:
            await store.close()

    return asyncio.run(run())


def _store(where: str | None) -> SessionStore:
    scheme, is_address, _ = (where or "").partition("://")
    if is_address and scheme not in ("redis", "rediss", "unix"):
        raise ConfigError(f"{scheme}:// names no store", code="bad-store", hint="give a file or redis://...")
    return SessionSettings(store=where).open_store()


def _described(info: SessionInfo) -> dict[str, Any]:
    described = info._asdict()
    del described["settings"]
    return described


def _entry(entry: Any, values: Values, is_shown: bool) -> str:
    said = f"version {entry.version}, {len(entry.value):,} bytes"
    return f"{said}: {_loaded(values, entry.value)!r}" if is_shown else said


def _loaded(values: Values, data: bytes) -> Any:
    try:
        return values.load(data)
    except WireError as error:
        return f"<{error.message}>"
