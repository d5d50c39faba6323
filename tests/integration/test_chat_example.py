"""The example of a chat whose worker and service are killed, run as a newcomer runs it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

EXAMPLE = Path(__file__).parents[2] / "docs" / "examples" / "chat.py"


def test_the_chat_goes_on_when_its_worker_is_killed_and_when_it_is_itself() -> None:
    done = subprocess.run([sys.executable, str(EXAMPLE)], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    said = [line.strip() for line in done.stdout.splitlines()]
    assert said[-1] == "4 turns, 4 questions counted: nothing was lost"
    assert "Zephyr. There is a note of it." in said  # by the history, and by the object in the worker
    assert "3 so far." in said
