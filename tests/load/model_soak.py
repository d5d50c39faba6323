"""A model's client through every fault: `python -m tests.load.model_soak [calls]`.

The server is a process of its own. It answers most calls, whole or as a stream, and breaks the others in each
way of the tests' table of faults: cut, reset, stalled, not HTTP, packed bombs. Some calls are cancelled,
some have too little time. Each answer has to be its own call's, each failure one of our errors; memory,
descriptors and tasks must be flat. Exits with 1 if a promise was broken.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from contextlib import aclosing
from pathlib import Path
from typing import Any

import psutil
from tests.support.certificates import Authority
from tests.support.raw_server import RawServer, answer, raw_server, read_request, reset
from tests.support.transports import FAULTS, STREAM_FAULTS, STREAM_HEAD, chunked

from dspex import LM, errors
from dspex.lm import TLS, LMRequest

AT_ONCE = 64
FAULT_SHARE = 0.1


async def serve(folder: str) -> None:
    chance = random.Random(7)

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, state: RawServer) -> None:
        while not reader.at_eof():
            _, raw = await read_request(reader, state)
            state.requests.clear()
            body = json.loads(raw)
            streams = bool(body.get("stream"))
            if chance.random() < FAULT_SHARE:
                faults = STREAM_FAULTS if streams else FAULTS
                sent, then, _, _ = faults[chance.choice(sorted(faults))]
                writer.write(sent)
                await writer.drain()
                if then == "hold":
                    continue
                return reset(writer) if then == "reset" else None
            said = body["messages"][0]["content"]
            if streams:
                writer.write(STREAM_HEAD)
                for part, reason in ((said[:3], None), (said[3:], "stop")):
                    event = {"choices": [{"index": 0, "delta": {"content": part}, "finish_reason": reason}]}
                    writer.write(chunked(b"data: %b\n\n" % json.dumps(event).encode()))
                writer.write(chunked(b"data: [DONE]\n\n") + b"0\r\n\r\n")
            else:
                choice = {"message": {"content": said}, "finish_reason": "stop"}
                writer.write(answer(json.dumps({"choices": [choice]}).encode()))
            await writer.drain()
        return None

    context = Authority(Path(folder)).server("127.0.0.1")
    async with raw_server(script) as plain, raw_server(script, context) as secure:
        print(plain.port, secure.port, flush=True)
        await asyncio.Event().wait()


async def one(lm: LM, number: int, chance: random.Random) -> str:
    said = f"answer {number}"
    # A stall takes all the time that there is; a few calls have nearly none.
    request = LMRequest(
        [{"role": "user", "content": said}], timeout=0.001 if chance.random() < 0.01 else 0.25
    )
    try:
        if chance.random() < 0.3:
            async with aclosing(lm.stream(request)) as deltas:
                got = ""
                async for delta in deltas:
                    got += delta.text
                    if chance.random() < 0.02:
                        return "left"
        else:
            asked = asyncio.ensure_future(lm.complete(request))
            if chance.random() < 0.02:
                await asyncio.sleep(chance.random() * 0.003)
                asked.cancel()
            got = (await asked).texts[0]
    except asyncio.CancelledError:
        return "cancelled"
    except errors.DspexError as error:
        return error.code
    return "answered" if got == said else f"WRONG: {got!r} for {said!r}"


async def main(calls: int, ports: list[int], ca_file: Path) -> int:
    chance = random.Random(11)
    process = psutil.Process()
    outcomes: Counter[str] = Counter()
    samples: list[tuple[int, float, int]] = []
    numbers = iter(range(calls))
    tls = TLS(ca_file=ca_file)
    bounds: Any = {"max_response_bytes": 100_000}
    lms = [
        LM("openai/m", api_base=f"{scheme}://127.0.0.1:{port}/v1", api_key="k", tls=tls, **bounds)
        for scheme, port in zip(("http", "https"), ports, strict=True)
    ]
    began = time.perf_counter()

    async def caller() -> None:
        for number in numbers:
            outcomes[await one(lms[number % 2], number, chance)] += 1
            if number % (calls // 20) == 0:
                samples.append((number, process.memory_info().rss / 2**20, process.num_fds()))

    await asyncio.gather(*(caller() for _ in range(AT_ONCE)))
    for lm in lms:
        await lm.aclose()
    await asyncio.sleep(0.5)
    seconds = time.perf_counter() - began
    print(
        f"{calls} calls in {seconds:.0f} s: " + ", ".join(f"{n} {what}" for what, n in outcomes.most_common())
    )
    for number, mebibytes, handles in samples:
        print(f"{number:9} {mebibytes:8.1f} MiB {handles:5} descriptors")
    grown = samples[-1][1] - samples[len(samples) // 3][1]
    left = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
    handles = process.num_fds()
    print(f"memory grew by {grown:.1f} MiB in the last two thirds; {handles} descriptors, {len(left)} tasks")
    wrong = [what for what in outcomes if what.startswith("WRONG") or what == "unexpected"]
    return 1 if wrong or grown > 12 or left or handles > 40 else 0


if __name__ == "__main__":
    if sys.argv[1:2] == ["--serve"]:
        asyncio.run(serve(sys.argv[2]))
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "tests.load.model_soak", "--serve", folder]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=os.environ) as server:
            try:
                assert server.stdout is not None
                ports = [int(port) for port in server.stdout.readline().split()]
                code = asyncio.run(main(int((sys.argv[1:] or ["200000"])[0]), ports, Path(folder) / "ca.pem"))
            finally:
                server.terminate()
    sys.exit(code)
