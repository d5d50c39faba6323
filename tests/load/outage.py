"""A pool that dies and comes back under 500 calls a second: `make outage`, `python -m tests.load.outage`.

Every fifth call prefers the Python side, the others the native one; all are idempotent. While the native side
can serve, no caller may get an error; the breaker opens, probes, and closes; afterwards the pool has its part
of the calls again. Prints what happened and exits with 1 if a promise was broken.
"""

from __future__ import annotations

import asyncio
import sys

from tests.support.outage import Outage, broken

PACE = 500.0
"""Calls a second."""


async def main(enough: int) -> int:
    told = await Outage(pace=PACE, python=5, enough=enough).run(seconds=120)
    pace = told.calls / told.seconds
    print(f"{told.calls} calls in {told.seconds:.1f} s, {pace:.0f}/s; {told.killed} workers killed")
    for (phase, route), count in sorted(told.by.items()):
        print(f"  {count:8}  {phase}: {route}")
    for row in told.counts:
        print(f"  {row.name}: {row.served} served, {row.failed} failed, {row.cancelled} cancelled")
    print("  " + ", ".join(f"{before} -> {after}" for before, after in told.changes))
    failed = broken(told)
    for what in failed:
        print(f"BROKEN: {what}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(asyncio.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else 1_000)))
