"""A storm over sessions: workers and hosts are killed while every session counts its own calls.

    python -m tests.load.session_storm [SECONDS]

Some hosts, each a process with a runtime and two workers, share one file. A caller for each session adds one
to its state and to an object in its worker, one call after the other, wherever a host is up; now and then it
takes the session to another host. Every 300 ms a worker or a host dies by SIGKILL. What a caller was told is
counted here: calls that were acknowledged, and calls of which nothing is known, since their host died or said
that their worker did. At the end each session's counts are read: they lie between the first number and both.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
SESSIONS = 200
HOSTS = 3
EVERY = 0.3
UNKNOWN = {"worker-died", "host-died", "store", "store-locked"}
"""What leaves open whether the call was done."""
AGAIN = {
    "session-busy",
    "session-moved",
    "session-not-found",
    "place-lost",
    "worker-start",
    "restart-budget",
    "pool-closed",
    "runtime-closed",
}


# --- a host --------------------------------------------------------------------------------------------


async def host(path: str) -> None:
    import dspex
    from dspex.errors import DspexError
    from dspex.pool import PoolSpec, Restart
    from dspex.sessions import SessionSettings

    lm = dspex.LM("openai/test", api_base="http://127.0.0.1:1/v1", api_key="none")
    spec = PoolSpec(workers=2, classes=("tests.support",), restart=Restart(max=10_000))
    settings = SessionSettings(store=path, lease=5.0, park_after=1.0)
    async with dspex.Runtime(lm, pools=spec, sessions=settings, timeout=20) as runtime:

        async def count(name: str, take_over: bool) -> dict[str, Any]:
            try:
                if take_over:
                    s = await runtime.session(id=name, take_over=True)
                else:
                    s = await runtime.session(id=name, create=True)
                counter = await s.handle("tests.support.objects:Counter", restore="state")

                async def add() -> list[int]:
                    s.state["n"] = s.state.get("n", 0) + 1
                    return [s.state["n"], await counter.call("add")]

                return {"ok": await s.call(add)}
            except DspexError as error:
                return {"error": error.code, "said": str(error)[:200]}

        async def read(name: str) -> dict[str, Any]:
            s = await runtime.session(id=name, take_over=True)
            return {"ok": [s.state["n"], await s.handles["Counter"].get("value")]}

        def workers() -> list[int]:
            return [each.pid for pool in runtime.pools().values() for each in pool.workers if each.pid]

        async def answer(number: int, do: str, *args: Any) -> None:
            if do == "workers":
                said: dict[str, Any] = {"ok": workers()}
            else:
                said = await count(*args) if do == "count" else await read(*args)
            print(json.dumps({"number": number, **said}), flush=True)

        loop = asyncio.get_running_loop()
        reader = asyncio.StreamReader()
        await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
        async with asyncio.TaskGroup() as group:
            while line := await reader.readline():
                group.create_task(answer(*json.loads(line)))


class Host:
    """A host as its callers see it."""

    def __init__(self) -> None:
        self.process: asyncio.subprocess.Process | None = None
        self.waiting: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self.number = 0
        self.reading: asyncio.Task[None] | None = None

    async def start(self, path: str) -> None:
        self.process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "tests.load.session_storm",
            "host",
            path,
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        self.reading = asyncio.create_task(self.read())

    async def read(self) -> None:
        assert self.process is not None
        assert self.process.stdout is not None
        while line := await self.process.stdout.readline():
            said = json.loads(line)
            answer = self.waiting.pop(said.pop("number"), None)
            if answer is not None and not answer.done():
                answer.set_result(said)
        await self.process.wait()
        waiting, self.waiting, self.process = self.waiting, {}, None
        for answer in waiting.values():
            if not answer.done():
                answer.set_result({"error": "host-died"})

    async def ask(self, *request: Any) -> dict[str, Any]:
        process = self.process
        if process is None or process.stdin is None:
            return {"error": "host-away"}
        self.number += 1
        answer = self.waiting[self.number] = asyncio.get_running_loop().create_future()
        try:
            process.stdin.write(json.dumps([self.number, *request]).encode() + b"\n")
            await process.stdin.drain()
        except OSError:
            pass  # it dies: `read` says so
        return await asyncio.wait_for(answer, 60)

    def kill(self) -> None:
        if self.process is not None:
            with contextlib.suppress(ProcessLookupError):
                self.process.kill()

    async def stop(self) -> None:
        if self.process is not None and self.process.stdin is not None:
            self.process.stdin.close()
        if self.reading is not None:
            await asyncio.wait_for(self.reading, 30)


# --- the storm -----------------------------------------------------------------------------------------


async def storm(seconds: float) -> int:
    rng = random.Random(18)
    acknowledged, unknown, errors, killed = Counter[str](), Counter[str](), Counter[str](), Counter[str]()
    with tempfile.TemporaryDirectory() as directory:
        path = os.path.join(directory, "sessions.sqlite3")
        hosts = [Host() for _ in range(HOSTS)]
        await asyncio.gather(*(each.start(path) for each in hosts))
        stop = time.monotonic() + seconds

        async def call(name: str) -> None:
            home = rng.randrange(HOSTS)
            while time.monotonic() < stop:
                take_over = rng.random() < 0.02
                if take_over:
                    home = rng.randrange(HOSTS)
                said = await hosts[home].ask("count", name, take_over and acknowledged[name] > 0)
                if "ok" in said:
                    acknowledged[name] += 1
                    continue
                errors[said["error"]] += 1
                if said["error"] in UNKNOWN:
                    unknown[name] += 1
                elif said["error"] not in AGAIN | {"host-away"}:
                    raise AssertionError(f"{name}: {said}")
                if said["error"] != "worker-died":
                    home = rng.randrange(HOSTS)
                await asyncio.sleep(0.01)

        async def kill() -> None:
            while time.monotonic() < stop:
                await asyncio.sleep(EVERY)
                victim = rng.choice(hosts)
                if victim.process is None:
                    continue
                if rng.random() < 0.2:
                    victim.kill()
                    killed["hosts"] += 1
                    assert victim.reading is not None
                    await victim.reading
                    await victim.start(path)
                    continue
                said = await victim.ask("workers")
                if said.get("ok"):
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(rng.choice(said["ok"]), signal.SIGKILL)
                    killed["workers"] += 1

        names = [f"s{number}" for number in range(SESSIONS)]
        await asyncio.gather(kill(), *(call(name) for name in names))
        wrong = 0
        for name in names:
            if not acknowledged[name] and not unknown[name]:
                continue
            said = await hosts[0].ask("read", name)
            least, most = acknowledged[name], acknowledged[name] + unknown[name]
            state, counted = said.get("ok", [0, 0])
            if not (least <= state <= most and state == counted):
                wrong += 1
                print(
                    f"{name}: acknowledged {least}, unknown {unknown[name]}, state {state}, object {counted}"
                )
        for each in hosts:
            await each.stop()
    print(
        f"{seconds:.0f} s, {SESSIONS} sessions on {HOSTS} hosts: {sum(acknowledged.values()):,} calls "
        f"acknowledged, {sum(unknown.values()):,} of which nothing is known, {killed['workers']} workers and "
        f"{killed['hosts']} hosts killed; {wrong} sessions wrong"
    )
    print("errors:", dict(errors.most_common()))
    return 1 if wrong else 0


if __name__ == "__main__":
    if sys.argv[1:2] == ["host"]:
        asyncio.run(host(sys.argv[2]))
    else:
        sys.exit(asyncio.run(storm(float(sys.argv[1]) if sys.argv[1:] else 60.0)))
