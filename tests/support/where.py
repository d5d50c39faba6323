"""A program that says in which process it runs, and may end it."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import dspy


class Where(dspy.Module):
    def forward(self, dies: str = "", effects: str = "") -> Any:
        if effects:
            with Path(effects).open("a") as file:
                file.write("ran\n")
        if dies and not Path(dies).exists():
            Path(dies).touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return dspy.Prediction(pid=os.getpid())
