"""`dspex doctor`: whether pools of workers can live on this machine, and what to do if not."""

from __future__ import annotations

import argparse
import json
from typing import Any

__all__ = ["add"]


def add(commands: Any) -> None:
    """Declare the sub-command."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "doctor", help="check interpreter, DSPy, start, round trip and limits of a pool's workers"
    )
    parser.add_argument("--workers", type=int, default=2, help="how many workers the pool would have")
    parser.add_argument("--python", help="the interpreter of the workers, if not this one")
    parser.add_argument(
        "--command",
        type=_words,
        default=[],
        help="the program that serves as the worker, with its arguments, in one text",
    )
    parser.add_argument(
        "--preload",
        action="append",
        default=[],
        metavar="MODULE",
        help="a module to preload; may be repeated",
    )
    parser.add_argument(
        "--start", choices=["auto", "forkserver", "spawn"], default="auto", help="how workers start"
    )
    parser.add_argument("--json", action="store_true", help="print JSON for programs")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Examine a pool of these settings and print what was found.

    Returns:
        0 if a pool can live here, 1 if not.

    Raises:
        ConfigError: If a setting is wrong.
    """
    import asyncio
    from dataclasses import asdict

    from dspex.pool import PoolSpec
    from dspex.pool._doctor import examine

    spec = PoolSpec(
        workers=arguments.workers,
        python=arguments.python,
        preload=arguments.preload,
        start=arguments.start,
        command=arguments.command,
    )
    findings = asyncio.run(examine(spec))
    if arguments.json:
        print(json.dumps([asdict(finding) for finding in findings], ensure_ascii=False, indent=2))
    else:
        for finding in findings:
            print(f"{'ok ' if finding.good else 'BAD'}  {finding.about:24} {finding.seen}")
            if finding.advice:
                print(f"     {'':24} -> {finding.advice}")
    return 0 if all(finding.good for finding in findings) else 1


def _words(text: str) -> list[str]:
    import shlex

    return shlex.split(text)
