"""The bar of a batch on a real terminal: rich's, or a plain one where rich is not installed."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
import threading
from typing import Any

import pytest

PROGRAM = """
import json, sys
if "without rich" in sys.argv:
    sys.modules["rich"] = None
import dspex
from dspex.testing import ScriptedLM

def reply(request):
    if "no 1" in str(request.messages[-1]):
        raise dspex.errors.LMError("refused")
    return "[[ ## answer ## ]]\\nblue\\n\\n[[ ## completed ## ]]"

streams = sys.stdout, sys.stderr
rows = [{"question": f"no {number}"} for number in range(4)]
with dspex.Runtime(ScriptedLM(reply)):
    qa = dspex.Predict("question -> answer")
    qa.batch(rows if "counted" in sys.argv else iter(rows))
assert streams == (sys.stdout, sys.stderr)
print(json.dumps(sorted(name for name in sys.modules if name.split(".")[0] == "rich" and sys.modules[name])))
"""


def run(*words: str, terminal: bool) -> tuple[str, Any]:
    """What a batch writes to its stderr, and the modules of rich that were imported."""
    command = [sys.executable, "-c", PROGRAM, *words]
    env = {**os.environ, "TERM": "xterm", "COLUMNS": "100"}
    if not terminal:
        done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=60, check=True)
        return done.stderr, json.loads(done.stdout)
    ours, its = pty.openpty()
    read: list[bytes] = []

    def reading() -> None:
        try:
            while piece := os.read(ours, 65536):
                read.append(piece)
        except OSError:  # nobody has the other end any more
            return

    reader = threading.Thread(target=reading)
    try:
        with subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=its, text=True) as process:
            os.close(its)
            reader.start()
            try:
                said, _ = process.communicate(timeout=60)
            finally:
                process.kill()
        reader.join(60)
    finally:
        os.close(ours)
    written = b"".join(read).decode()
    assert process.returncode == 0, written
    return written, json.loads(said)


def test_a_terminal_shows_rich_s_bar_and_has_its_cursor_back() -> None:
    written, imported = run("counted", terminal=True)
    assert "rich.progress" in imported
    assert "\u2501" * 30 in written
    assert "4/4 rows, " in written.rpartition("\r")[0]
    assert "/s, 1 failed" in written
    assert written.count("\x1b[?25l") == written.count("\x1b[?25h") == 1
    assert written.rindex("\x1b[?25h") > written.rindex("4/4 rows")


def test_rows_that_nobody_has_counted_have_no_bar_but_a_count() -> None:
    written, _ = run(terminal=True)
    assert "\u2501" not in written
    assert "4 rows, " in written


def test_a_terminal_shows_a_plain_bar_where_rich_is_not_installed() -> None:
    written, imported = run("counted", "without rich", terminal=True)
    assert imported == []
    assert "\x1b" not in written
    last = written.rstrip("\r\n ").rpartition("\r")[2]
    assert last.startswith(f"[{'#' * 30}] 4/4 rows, ")
    assert last.endswith("/s, 1 failed")


@pytest.mark.parametrize("words", [(), ("without rich",)])
def test_what_is_no_terminal_shows_nothing_and_imports_nothing(words: tuple[str, ...]) -> None:
    assert run("counted", *words, terminal=False) == ("", [])
