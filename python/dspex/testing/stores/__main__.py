"""What other processes do in the tests of stores: `python -m dspex.testing.stores SUITE FILE PLACE WORK ...`.

A process makes its store as the suite says, says that it is ready, waits for a line, and does its work. It
says each thing that the store has acknowledged, and only then. Lines of writers: `=3` after the write of
number 3.
"""

from __future__ import annotations

import asyncio
import importlib
import importlib.util
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Final

from dspex import errors
from dspex.stores import Changes, NewSession, RunStore, SessionStore, StepRow
from dspex.testing.stores import StoreSuite

ROWS: Final = 5
"""Rows or turns of one write."""
MOST_WRITES: Final = 100_000


def _say(what: object) -> None:
    sys.stdout.write(f"{what}\n")
    sys.stdout.flush()


async def _begin(using: Awaitable[object]) -> None:
    """Use the store once, so that it is open; then wait until all are ready."""
    await using
    _say("ready")
    sys.stdin.readline()


async def claim_run(store: RunStore, run_id: str, owner: str) -> None:
    """Try to become the owner, once."""
    await _begin(store.run(run_id))
    try:
        _, lease = await store.claim_run(run_id, owner=owner, lease=60.0)
        _say(lease.epoch)
    except errors.RunBusy:
        _say("busy")


async def record_steps(store: RunStore, run_id: str, first: str, owner: str) -> None:
    """Write rows until somebody kills it."""
    await _begin(store.run(run_id))
    _, lease = await store.claim_run(run_id, owner=owner, lease=60.0, take_over=True)
    for number in range(int(first), MOST_WRITES):
        value = bytes([number % 256]) * 10_000
        rows = [StepRow(f"{number}/{each}", "ok", b"d", b"f", value, 0.0) for each in range(ROWS)]
        await store.record_steps(lease, rows)
        _say(f"={number}")


async def take_over_run(store: RunStore, run_id: str, times: str, owner: str) -> None:
    """Take the run from whoever has it and write a row, so many times."""
    await _begin(store.run(run_id))
    for number in range(int(times)):
        _, lease = await store.claim_run(run_id, owner=owner, lease=60.0, take_over=True)
        row = StepRow(f"{owner}/{number}", "ok", b"d", b"f", b"out", 0.0)
        try:
            await store.record_steps(lease, [row])
        except errors.LeaseLost:
            continue
        _say(row.path)


async def claim_session(store: SessionStore, session_id: str, owner: str) -> None:
    """Try to become the owner, once."""
    await _begin(store.session(session_id))
    try:
        claimed = await store.claim_session(session_id, owner=owner, lease=60.0)
        _say(claimed.lease.epoch)
    except errors.SessionBusy:
        _say("busy")


async def commit_session(store: SessionStore, session_id: str, owner: str) -> None:
    """Write two entries and some turns, until somebody kills it."""
    await _begin(store.session(session_id))
    info, lease, _, _ = await store.claim_session(session_id, owner=owner, lease=60.0, take_over=True)
    for number in range(info.version + 1, MOST_WRITES):
        value = b"%d" % number
        changes = Changes(
            {"first": value, "second": value * 1_000, f"old {number - 1}": None, f"old {number}": value},
            turns=[b"%d/%d" % (number, each) for each in range(ROWS)],
        )
        await store.commit_session(lease, changes, seconds=60.0)
        _say(f"={number}")


async def take_over_session(store: SessionStore, session_id: str, times: str, owner: str) -> None:
    """Take the session from whoever has it and add one to a number in it, so many times."""
    await _begin(store.session(session_id))
    for number in range(int(times)):
        _, lease, entries, _ = await store.claim_session(session_id, owner=owner, lease=60.0, take_over=True)
        turn = f"{owner}/{number}"
        changes = Changes({"count": b"%d" % (int(entries["count"].value) + 1)}, turns=[turn.encode()])
        try:
            await store.commit_session(lease, changes, seconds=60.0)
        except errors.SessionMoved:
            continue
        _say(turn)


async def create_sessions(store: SessionStore, times: str, most: str, owner: str) -> None:
    """Make sessions in one pool, until it may have no more."""
    await _begin(store.sessions())
    for number in range(int(times)):
        new = NewSession(f"{owner}/{number}", pool="a")
        try:
            await store.create_session(new, owner=owner, lease=60.0, most_of_pool=int(most))
        except errors.SessionQuotaExceeded:
            continue
        _say(new.session_id)


WORK: Final[dict[str, Callable[..., Awaitable[None]]]] = {
    each.__name__: each
    for each in (
        *(claim_run, record_steps, take_over_run),
        *(claim_session, commit_session, take_over_session, create_sessions),
    )
}


def _suite(name: str, file: str) -> type[StoreSuite]:
    """The suite that a test named; of its file, where pytest gave the module a name that only it knows."""
    module_name, _, path = name.partition(":")
    try:
        found: Any = importlib.import_module(module_name)
    except ModuleNotFoundError:
        spec = importlib.util.spec_from_file_location(module_name, file)
        if spec is None or spec.loader is None:
            raise
        found = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(found)
    for part in path.split("."):
        found = getattr(found, part)
    if not (isinstance(found, type) and issubclass(found, StoreSuite)):
        raise SystemExit(f"{name} is no suite of stores")
    return found


async def _work(suite: type[StoreSuite], place: str, work: str, *arguments: str) -> None:
    store = suite().make(Path(place))
    try:
        await WORK[work](store, *arguments)
    finally:
        await store.close()


if __name__ == "__main__":
    asyncio.run(_work(_suite(*sys.argv[1:3]), *sys.argv[3:]))
