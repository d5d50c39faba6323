"""What a process pays before its first call, in fresh interpreters: `python benches/bench_import.py`.

Each row is the median of interleaved rounds: wall time as a user waits it, and CPU time, which a busy machine
moves less. The ratio is to a bare interpreter, `python -c pass`, of the same rounds. Modules have their
bytecode, as pip makes it when it installs a wheel. The interpreters end without taking themselves apart,
which takes longer the more there is, and is nothing that a first call waits for.
"""

from __future__ import annotations

import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time

from dspex import _core

ROUNDS = int(os.environ.get("ROUNDS", "15"))

FIRST_USE = """
import dspex
qa = dspex.Predict("question -> answer")
runtime = dspex.Runtime(dspex.LM("openai/x", api_base="http://127.0.0.1:1/v1", api_key="k"))
"""
PROGRAMS = {
    "python -c pass": "pass",
    "import asyncio": "import asyncio",
    "import dspex": "import dspex",
    "dspex: Predict, Runtime, LM made": FIRST_USE,
    "dspex: the same, and a PoolSpec": FIRST_USE + "dspex.PoolSpec(workers=4)",
    "import dspy": "import dspy",
    "dspy: Predict, LM made": "import dspy; dspy.LM('openai/x', api_key='k'); dspy.Predict('q -> a')",
}


_BYTECODE = tempfile.TemporaryDirectory()


def main() -> None:
    if _core._debug_build:
        raise SystemExit("build the release extension first: make build")
    wall: dict[str, list[float]] = {name: [] for name in PROGRAMS}
    cpu: dict[str, list[float]] = {name: [] for name in PROGRAMS}
    for round_ in range(ROUNDS + 1):
        for name, code in PROGRAMS.items():
            seconds, busy = run(code)
            if round_:  # the first reads everything from the disk
                wall[name].append(seconds * 1e3)
                cpu[name].append(busy * 1e3)
    bare = statistics.median(wall["python -c pass"])
    print(f"fresh interpreters; medians of {ROUNDS} interleaved rounds")
    print(f"{'':36}{'wall':>10}{'CPU':>10}{'x bare':>10}")
    for name in PROGRAMS:
        seconds, busy = statistics.median(wall[name]), statistics.median(cpu[name])
        print(f"{name:36}{seconds:7.0f} ms{busy:7.0f} ms{seconds / bare:10.1f}")


def run(code: str) -> tuple[float, float]:
    """The wall time and the CPU time of one interpreter, in seconds."""
    environment = {**os.environ, "LITELLM_LOCAL_MODEL_COST_MAP": "True"}
    if environment.pop("PYTHONDONTWRITEBYTECODE", None):
        environment["PYTHONPYCACHEPREFIX"] = _BYTECODE.name
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run([sys.executable, "-c", f"{code}\nimport os; os._exit(0)"], check=True, env=environment)
    seconds, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    return seconds, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


if __name__ == "__main__":
    main()
