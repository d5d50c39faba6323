"""Durable runs by a user to whom a store's file may be closed.

    python -m tests.support.readonly_run STORE WARM

For each name of a run on a line of its input it prints a line of JSON: what came of the run, and what its
steps did. `WARM` is a store that it may write: a run there imports what a run needs, before it becomes a user
with no rights to the interpreter's own files either.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import threading

import dspex
from dspex.stores import SQLite

__all__: list[str] = []

NOBODY = 65534


async def main(path: str, warm: str) -> None:
    """Run what is asked for."""
    calls: list[int] = []

    async def count(x: int) -> int:
        calls.append(x)
        return x + 1

    async def run(store: SQLite, run_id: str) -> dict[str, object]:
        calls.clear()
        try:
            result = await pipeline.arun(x=1, run_id=run_id, store=store)
        except dspex.DspexError as error:
            outcome: object = [type(error).__name__, error.code]
        else:
            outcome = dict(result)
        return {"outcome": outcome, "calls": list(calls), "tasks": len(asyncio.all_tasks())}

    pipeline = dspex.pipeline(
        dspex.step(count, outputs="y", retry=3), dspex.step(count, inputs={"x": "y"}, outputs="z", name="z")
    )
    other = SQLite(warm)
    for _ in range(2):  # the second one fails: there is such a run
        await run(other, "r1")
    await other.close()
    if os.geteuid() == 0:  # to root rights mean nothing
        os.setgroups([])
        os.setgid(NOBODY)
        os.setuid(NOBODY)
    store = SQLite(path)
    for line in sys.stdin:
        print(json.dumps(await run(store, line.strip())), flush=True)
    await store.close()
    print(json.dumps([thread.name for thread in threading.enumerate()]), flush=True)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
