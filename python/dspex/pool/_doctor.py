"""Is this machine fit for a pool, and what is to be done if not? `dspex doctor` shows what is found here."""

from __future__ import annotations

import os
import statistics
import sys
import time
from dataclasses import dataclass
from typing import Final

from dspex.dialects import KNOWN, dialect_of
from dspex.errors import DspexError
from dspex.pool._pool import Pool
from dspex.pool._spec import PoolSpec
from dspex.protocol.requests import EchoRequest

__all__ = ["Finding", "examine"]

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
    if spec.pickle:
        advice = "turn pickle off, and name the modules of your classes in `classes`"
        findings.append(Finding("pickle", False, "values may cross by pickle, which runs code", advice))
    pool = Pool(spec.replace(workers=1, max_workers=None))
    began = time.perf_counter()
    try:
        await pool.start()
    except DspexError as err:
        return [*findings, Finding("start", False, err.message, err.hint)]
    started = time.perf_counter() - began
    try:
        findings += _versions(pool.versions)
        slow = started > spec.timeouts.start / 2
        advice = "raise timeouts.start: a busy moment would be enough to miss it" if slow else ""
        findings.append(Finding("start", not slow, f"{started:.2f} s of {spec.timeouts.start:g} s", advice))
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
        case other if spec.start == "forkserver":
            return Finding(
                "system", False, f"a forkserver is not safe on {other}", "set start='spawn' or 'auto'"
            )
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
    if spec.limits.memory is not None:
        there = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        wanted = spec.limits.memory * workers
        fits = wanted <= there
        found.append(
            Finding(
                "memory",
                fits,
                f"{workers} workers may take {wanted / 2**30:.1f} of {there / 2**30:.1f} GiB",
                "" if fits else "lower limits.memory or the number of workers",
            )
        )
    return found


def _versions(versions: dict[str, str]) -> list[Finding]:
    if "worker" in versions:
        return [Finding("worker", True, versions["worker"])]
    version = versions["dspy"]
    known = dialect_of(version) is not None
    return [
        Finding("interpreter", True, f"Python {versions['python']}, dspex {versions['dspex']}"),
        Finding(
            "DSPy",
            known,
            version,
            "" if known else f"install a version whose prompts dspex knows: {', '.join(KNOWN)}",
        ),
    ]


async def _round_trip(pool: Pool) -> Finding:
    times = []
    for _ in range(_ROUND_TRIPS):
        began = time.perf_counter()
        try:
            await pool.call(EchoRequest("are you there?"), timeout=10)
        except DspexError as err:
            if err.code == "unknown-operation":
                return Finding("round trip", True, "not measured: the worker does not serve `echo`")
            return Finding("round trip", False, err.message, err.hint)
        times.append(time.perf_counter() - began)
    return Finding("round trip", True, f"{statistics.median(times) * 1e6:.0f} us")
