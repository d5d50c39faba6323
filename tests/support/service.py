"""A service to be killed: opens a pool, puts calls on it, prints its workers' ids, and waits."""

from __future__ import annotations

import asyncio
import ctypes
import os
import sys
from typing import Any

from dspex.pool import Pool, PoolSpec, State


async def main(kind: str, start: Any, *preload: str) -> None:
    function = {"busy": "tests.support.work:block", "greedy": "tests.support.work:hold_the_interpreter"}.get(
        kind
    )
    pool = Pool(PoolSpec(workers=2, start=start, preload=preload))
    await pool.start()
    while [worker.state for worker in pool.status().workers] != [State.READY, State.READY]:
        await asyncio.sleep(0.01)
    calls = [asyncio.ensure_future(pool.run(function)) for _ in range(4) if function]
    await asyncio.gather(*(pool.echo(None) for _ in range(4) if kind != "greedy"))
    if kind == "forked" and os.fork() == 0:
        sys.stdin.read()  # a child of the service that goes on without it
        os._exit(0)
    print(*(worker.pid for worker in pool.status().workers), flush=True)
    if kind == "forked-in-c":
        print(_fork_in_c(), flush=True)
    if kind == "careless":
        return
    await asyncio.gather(asyncio.Event().wait(), *calls)


def _fork_in_c() -> int:
    """Fork as a C library does: the child runs none of Python's handlers, and holds every descriptor."""
    libc = ctypes.PyDLL(None)
    child = libc.fork()
    while child == 0:
        libc.pause()
    return int(child)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
