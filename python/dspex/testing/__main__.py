"""``python -m dspex.testing``: run a `ModelServer` until it is interrupted.

Prints the address to use as `api_base` on its first line of output.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from dspex.testing._answers import Answer
from dspex.testing._faults import (
    Cut,
    EmptyChoices,
    Fault,
    HttpError,
    MalformedJSON,
    NullContent,
    SlowDrip,
    Stall,
    WrongContentType,
)
from dspex.testing._model_server import ModelServer

__all__ = ["ModelServer", "main"]

FAULTS: dict[str, Fault | None] = {
    "ok": None,
    "429": HttpError(429, "slow down", "rate_limit_exceeded", retry_after=1),
    "500": HttpError(500, "the server has a problem"),
    "stall": Stall(),
    "stall-middle": Stall("middle"),
    "cut": Cut(),
    "cut-middle": Cut("middle"),
    "malformed": MalformedJSON(),
    "empty": EmptyChoices(),
    "null": NullContent(),
    "html": WrongContentType(),
    "drip": SlowDrip(),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the server until SIGINT or SIGTERM.

    Returns:
        The exit status: 0 after a signal, 1 if it could not listen, 2 for wrong arguments.
    """
    parser = _parser()
    args = parser.parse_args(argv)
    try:
        faults = [FAULTS[name] for name in args.faults.split(",")] if args.faults else []
    except KeyError as error:
        parser.error(f"no such fault: {error.args[0]!r}; there are {', '.join(FAULTS)}")
    try:
        answer = _table(args.answers) if args.answers else None
    except (OSError, ValueError) as error:
        parser.error(f"--answers: {error}")
    server = ModelServer(
        answer, models=[args.model], delay=args.delay / 1000, faults=faults, host=args.host, port=args.port
    )
    try:
        asyncio.run(_serve(server))
    except OSError as error:
        print(f"cannot listen on {args.host}:{args.port}: {error.strerror}", file=sys.stderr)
        return 1
    return 0


async def _serve(server: ModelServer) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    async with server:
        print(server.api_base, flush=True)
        await stop.wait()


def _table(path: Path) -> Answer:
    table = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(table, dict) or not all(isinstance(text, str) for text in table.values()):
        raise ValueError(f"{path} is no JSON object of texts")
    return table


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m dspex.testing",
        description="A local OpenAI-compatible server. It answers out of the prompt it is sent.",
    )
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    parser.add_argument("--port", type=int, default=0, help="port; 0 takes a free one (default: %(default)s)")
    parser.add_argument("--model", default="extractive-reader", help="name for /v1/models")
    parser.add_argument(
        "--delay", type=float, default=0.0, metavar="MS", help="milliseconds each answer takes"
    )
    parser.add_argument(
        "--answers",
        type=Path,
        metavar="FILE",
        help="JSON object: the first key found in the last user message gives the answer",
    )
    parser.add_argument(
        "--faults",
        metavar="NAME,...",
        help=f"faults of the first requests, one each: {', '.join(FAULTS)}",
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
