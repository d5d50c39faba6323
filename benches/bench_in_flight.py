"""A thousand calls at once, each of which the model takes a second for: `python benches/bench_in_flight.py`.

The server is a process of its own. Once with cold connections and then with warm ones, all calls are made
together, plain and over TLS; counted are the wall time until the last is answered and the memory that a call
in flight takes, whole `Predict` included. Another row has the first text of a stream: the server writes the
time into it.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import statistics
import subprocess
import sys
import time

import psutil
from served import Requests, http_servers, serve

import dspex
from dspex.events import TextDelta

CALLS = 1000
SECONDS = 1.0
STREAMS = 200
REPLY = "[[ ## answer ## ]]\nthe Black Sea\n\n[[ ## completed ## ]]"
QUESTION = "Where does the Danube end? " * 20


class Server(Requests):
    """Answers every request after a second, and a stream at once with the time."""

    def asked(self, path: bytes, body: bytes) -> None:
        loop = asyncio.get_running_loop()
        if b'"stream":true' in body:
            self.transport.write(
                b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
            )
            loop.call_later(0.02, self.stream)
            return
        answer = json.dumps({"choices": [{"message": {"content": REPLY}, "finish_reason": "stop"}]}).encode()
        start = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
        loop.call_later(SECONDS, self.transport.write, start % len(answer) + answer)

    def stream(self) -> None:
        text = f"[[ ## answer ## ]]\n{time.monotonic()} and "
        more = "so on\n\n[[ ## completed ## ]]"
        for part, reason in ((text, None), (more, "stop")):
            event = {"choices": [{"index": 0, "delta": {"content": part}, "finish_reason": reason}]}
            data = b"data: %b\n\n" % json.dumps(event).encode()
            self.transport.write(b"%x\r\n%b\r\n" % (len(data), data))
        self.transport.write(b"e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n")


async def all_at_once(qa: dspex.Predict) -> float:
    begun = time.perf_counter()
    for each in await asyncio.gather(*(qa.acall(question=QUESTION) for _ in range(CALLS))):
        assert each.answer == "the Black Sea"
    return time.perf_counter() - begun


async def first_text(qa: dspex.Predict) -> float:
    seconds = 0.0
    async for event in qa.astream(question=QUESTION):
        if isinstance(event, TextDelta) and not seconds:
            seconds = time.monotonic() - float(event.text.split()[0])
    return seconds


async def measure(base: str, authority: str) -> None:
    lm = dspex.LM("openai/m", api_base=base, api_key="k", tls=dspex.lm.TLS(ca_file=authority))
    qa = dspex.Predict("question -> answer")
    process = psutil.Process()
    async with lm, dspex.Runtime(lm, pools=0):
        await qa.acall(question=QUESTION)
        gc.collect()
        taken = []
        for _ in range(2):
            before = most = process.memory_info().rss
            calls = asyncio.ensure_future(all_at_once(qa))
            while not calls.done():
                await asyncio.sleep(0.05)
                most = max(most, process.memory_info().rss)
            taken.append((await calls, (most - before) / CALLS / 1e3))
        warm = [await all_at_once(qa) for _ in range(3)]
        firsts = [await first_text(qa) for _ in range(STREAMS)]
    (cold, with_connection), (_, alone) = taken
    print(f"{base.partition(':')[0]}: {CALLS} calls of {SECONDS:g} s at once")
    print(f"    cold {cold:.2f} s, warm {statistics.median(warm):.2f} s")
    print(f"    {with_connection:.0f} kB a call in flight with its connection, {alone:.0f} kB on a warm one")
    print(f"    first text of a stream {statistics.median(firsts) * 1e3:.2f} ms after the server wrote it")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    parser.add_argument("--measure", nargs=2, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.serve:
        asyncio.run(serve(Server, given.serve))
        return
    if given.measure:  # in a process that has held nothing before
        asyncio.run(measure(*given.measure))
        return
    with http_servers(__file__) as (plain, secure, authorities):
        for base in (f"http://127.0.0.1:{plain}/v1", f"https://127.0.0.1:{secure}/v1"):
            subprocess.run([sys.executable, __file__, "--measure", base, authorities], check=True)


if __name__ == "__main__":
    main()
