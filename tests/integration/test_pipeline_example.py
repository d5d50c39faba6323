"""The example of a pipeline that is killed and goes on, run as a newcomer runs it."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

EXAMPLE = Path(__file__).parents[2] / "docs" / "examples" / "pipeline.py"


def test_the_example_is_killed_goes_on_and_asks_nothing_twice_that_was_finished() -> None:
    done = subprocess.run(
        [sys.executable, str(EXAMPLE), "--limit", "8"], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.startswith("flowchart TD\n")
    first, before = re.findall(
        r"killed after (\d+) of 8 answers; the model had been asked (\d+) times", done.stdout
    )[0]
    again = re.findall(r"the second process asked (\d+) times, and has all 8 answers", done.stdout)[0]
    # Eight, one more for the run that is profiled, one for a check that fails, and what was in flight.
    assert int(first) >= 5
    assert 9 <= int(before) + int(again) <= 9 + 1 + 2 + 2
    assert re.search(r"[78] of 8 right", done.stdout)
    assert "loop[]/answer" in done.stdout
