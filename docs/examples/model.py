"""The model of the demo, in a process of its own, so that what it costs is not counted as anybody else's.

It prints its address, and for each line it reads, one line of JSON: the requests since the last such
line. It ends when its standard input does. By default it reads its answers out of the prompt; with
`--lm` it passes each prompt on to a real model, and gives the same reply to whoever sends the same
prompt again: what the demo compares are ways to run a program, not two moods of a model.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from reader import find

import dspex
from dspex.lm import LMRequest
from dspex.testing import ChatRequest, ModelServer, read_prompt_and_answer

SECONDS = 0.1
"""What an answer of the stand-in takes: a quick model."""


class Forward:
    """Asks a real model, once for each prompt."""

    def __init__(self, upstream: dspex.LM) -> None:
        self._upstream = upstream
        self._replies: dict[str, asyncio.Task[str]] = {}

    async def __call__(self, request: ChatRequest) -> str:
        """The model's reply to the request's messages."""
        key = json.dumps(request.messages, sort_keys=True)
        if key not in self._replies:
            self._replies[key] = asyncio.create_task(self._ask(request))
        return await asyncio.shield(self._replies[key])

    async def _ask(self, request: ChatRequest) -> str:
        response = await self._upstream.complete(LMRequest(request.messages, request.settings))
        return response.texts[0]


def read(request: ChatRequest) -> str:
    """The stand-in's reply, found in the prompt itself."""
    return read_prompt_and_answer(request.messages, find)


@asynccontextmanager
async def serving(lm: str | None, api_base: str | None) -> AsyncIterator[ModelServer]:
    """The server, with a stand-in or the named model behind it."""
    if lm is None:
        async with ModelServer(read, delay=SECONDS) as server:
            yield server
        return
    async with dspex.LM(lm, api_base=api_base) as upstream, ModelServer(Forward(upstream)) as server:
        yield server


async def main(lm: str | None, api_base: str | None) -> None:
    """Serve until standard input ends."""
    lines: asyncio.StreamReader = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    async with serving(lm, api_base) as server:
        print(server.api_base, flush=True)
        seen = 0
        while await lines.readline():
            new = [request.messages for request in server.requests[seen:]]
            seen += len(new)
            print(json.dumps(new), flush=True)


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the demo's; this process ends with its input
    parser = argparse.ArgumentParser(prog="model")
    parser.add_argument("--lm")
    parser.add_argument("--api-base")
    given = parser.parse_args()
    asyncio.run(main(given.lm, given.api_base))
