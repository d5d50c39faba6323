"""One of three model servers goes wrong: `python -m tests.load.deployments [seconds] [calls a second]`.

For each way of going wrong and each strategy: so many seconds while all is well, so many while the first
server is wrong, and then until it answers again. No caller may see an error, the traffic has to leave that
server and come back to it, and the group's counts have to be what the servers saw. Prints a row for each, and
exits with 1 if a promise was broken.
"""

from __future__ import annotations

import asyncio
import logging
import sys
import time

from tests.support.deployments import BREAKER, WRONGS, servers

AT_ONCE = 64


async def run(name: str, strategy: str, seconds: float, per_second: float) -> list[str]:
    wrong, calls = WRONGS[name], int(seconds * per_second)
    began = time.perf_counter()
    async with servers(strategy) as found:
        report = await found.run(wrong, calls, AT_ONCE, per_second)
        counts = found.group.counts()
        saw = [len(server.requests) for server in found.three]
    took = time.perf_counter() - began
    done = [row.served + row.failed + row.refused + row.cancelled for row in counts]
    well, bad, again = report.to_first
    print(
        f"{name:40} {strategy:9} {report.answered:7} answered, {sum(report.errors.values())} errors; "
        f"to the first server {well} well, {bad} wrong, {again} again; {took:.1f} s"
    )
    broken = [f"{name}, {strategy}: {count} x {what}" for what, count in report.errors.items()]
    if done != saw:
        broken.append(f"{name}, {strategy}: counted {done}, the servers saw {saw}")
    most = AT_ONCE + seconds * 4 + (0 if wrong.at_once else BREAKER.window_calls or 0)
    if bad > most:
        broken.append(f"{name}, {strategy}: {bad} calls went to the server while it was wrong")
    if any(row.in_flight for row in counts):
        broken.append(f"{name}, {strategy}: a call was left behind")
    return broken


async def main(seconds: float, per_second: float) -> int:
    # Its complaints about connections that break are what this is about.
    logging.getLogger("aiohttp.server").setLevel(logging.CRITICAL)
    logging.getLogger("dspex.lm").setLevel(logging.CRITICAL)
    broken: list[str] = []
    for strategy in ("weighted", "ordered", "fastest"):
        for name in WRONGS:
            broken += await run(name, strategy, seconds, per_second)
    for what in broken:
        print(f"BROKEN: {what}")
    return 1 if broken else 0


if __name__ == "__main__":
    arguments = [float(argument) for argument in sys.argv[1:]]
    sys.exit(asyncio.run(main(*[*arguments, *(5.0, 300.0)[len(arguments) :]])))
