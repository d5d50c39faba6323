"""Ratios beneath the tables of pytest-benchmark: absolute figures wander, ratios of one run do not."""

from __future__ import annotations

import pytest


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """For each case that was run on both sides, say how many times faster ours is."""
    session = getattr(config, "_benchmarksession", None)
    medians: dict[str, dict[str, float]] = {}
    for bench in getattr(session, "benchmarks", ()):
        if {"case", "side"} <= bench.extra_info.keys():
            case, side = bench.extra_info["case"], bench.extra_info["side"]
            # A round may be a batch of what the case is about.
            medians.setdefault(case, {})[side] = bench.stats.median / bench.extra_info.get("batch", 1)
    rows = {case: sides for case, sides in medians.items() if sides.keys() == {"theirs", "ours"}}
    if not rows:
        return
    terminalreporter.section("medians, and how many times faster ours is")
    for case, sides in rows.items():
        theirs, ours = sides["theirs"] * 1e6, sides["ours"] * 1e6
        terminalreporter.write_line(f"{case:40} {theirs:9.1f} us {ours:9.2f} us {theirs / ours:8.1f}")
