"""Is this machine fit for a pool? `python -m dspex.pool.doctor` looks, and says what to do if not."""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from dspex.errors import ConfigError, DspexError
from dspex.pool.pool import Pool
from dspex.pool.spec import PoolSpec

__all__ = ["Finding", "examine", "main"]

SUPPORTED_DSPY: Final = ("3.3", "3.4")
"""The versions of DSPy whose prompts dspex knows, by their first two numbers."""

_ROUND_TRIPS: Final = 200


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing looked at.

    Attributes:
        about: What was looked at.
        good: Whether a pool can live with it.
        seen: What there is.
        advice: What to do; empty where nothing is to be done.
    """

    about: str
    good: bool
    seen: str
    advice: str = ""


async def examine(spec: PoolSpec) -> list[Finding]:
    """Look at the system, start one worker with these settings, and have it answer.

    What is found does not raise; a pool that does not start is a finding like any other.
    """
    findings = [_system(spec)]
    if not findings[0].good:
        return findings
    findings += _limits(spec)
    pool = Pool(PoolSpec(**{**dict(spec), "workers": 1, "max_workers": None}))
    began = time.perf_counter()
    try:
        await pool.start()
    except DspexError as err:
        return [*findings, Finding("start", False, err.message, err.hint)]
    started = time.perf_counter() - began
    try:
        findings += _versions(pool.versions)
        slow = started > spec.start_timeout / 2
        advice = "raise start_timeout: a busy moment would be enough to miss it" if slow else ""
        findings.append(Finding("start", not slow, f"{started:.2f} s of {spec.start_timeout:g} s", advice))
        findings.append(await _round_trip(pool))
    finally:
        await pool.aclose()
    return findings


def _system(spec: PoolSpec) -> Finding:
    match sys.platform:
        case "linux":
            return Finding("system", True, "Linux: everything works")
        case "win32":
            return Finding("system", False, "Windows has no Unix sockets", "use route='native'")
        case other if spec.start == "zygote":
            return Finding("system", False, f"a zygote is not safe on {other}", "set start='spawn' or 'auto'")
        case other:
            return Finding("system", True, f"{other}: workers are spawned, no limits by the kernel")


def _limits(spec: PoolSpec) -> list[Finding]:
    import resource

    workers = max(spec.workers, spec.max_workers or 0)
    needed = 64 + 8 * workers
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    enough = soft == resource.RLIM_INFINITY or soft >= needed
    found = [
        Finding(
            "descriptors",
            enough,
            f"{soft} allowed, about {needed} needed here for {workers} workers",
            "" if enough else f"ulimit -n {needed * 2}",
        )
    ]
    inside = spec.max_inflight + 64  # a connection to the LM for each call, in each worker
    if soft != resource.RLIM_INFINITY and soft < inside:
        advice = f"ulimit -n {inside * 2}, or a smaller max_inflight"
        found.append(Finding("descriptors of a worker", False, f"{soft} allowed, {inside} needed", advice))
    if spec.memory_limit is not None:
        there = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        wanted = spec.memory_limit * workers
        fits = wanted <= there
        found.append(
            Finding(
                "memory",
                fits,
                f"{workers} workers may take {wanted / 2**30:.1f} of {there / 2**30:.1f} GiB",
                "" if fits else "lower memory_limit or the number of workers",
            )
        )
    return found


def _versions(versions: dict[str, str]) -> list[Finding]:
    version = versions["dspy"]
    known = ".".join(version.split(".")[:2]) in SUPPORTED_DSPY
    return [
        Finding("interpreter", True, f"Python {versions['python']}, dspex {versions['dspex']}"),
        Finding(
            "DSPy",
            known,
            version,
            "" if known else f"install a version that is supported: {', '.join(SUPPORTED_DSPY)}",
        ),
    ]


async def _round_trip(pool: Pool) -> Finding:
    times = []
    for _ in range(_ROUND_TRIPS):
        began = time.perf_counter()
        await pool.call("echo", "are you there?", timeout=10)
        times.append(time.perf_counter() - began)
    return Finding("round trip", True, f"{statistics.median(times) * 1e6:.0f} us")


def main(argv: Sequence[str] | None = None) -> int:
    """Examine a pool of the settings given, print what was found, and say by the exit status if it is good.

    Returns:
        0 if a pool can live here, 1 if not, 2 for wrong settings.
    """
    parser = argparse.ArgumentParser(
        prog="dspex doctor", description="Check whether worker pools can run here."
    )
    parser.add_argument("--workers", type=int, default=2, help="how many workers the pool would have")
    parser.add_argument("--python", help="the interpreter of the workers, if not this one")
    parser.add_argument(
        "--preload", action="append", default=[], metavar="MODULE", help="a module to preload"
    )
    parser.add_argument(
        "--start", choices=["auto", "zygote", "spawn"], default="auto", help="how workers start"
    )
    args = parser.parse_args(argv)
    try:
        spec = PoolSpec(workers=args.workers, python=args.python, preload=args.preload, start=args.start)
    except ConfigError as err:
        print(err, file=sys.stderr)
        return 2
    findings = asyncio.run(examine(spec))
    for finding in findings:
        print(f"{'ok ' if finding.good else 'BAD'}  {finding.about:24} {finding.seen}")
        if finding.advice:
            print(f"     {'':24} -> {finding.advice}")
    return 0 if all(finding.good for finding in findings) else 1


if __name__ == "__main__":
    sys.exit(main())
