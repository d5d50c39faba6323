"""Objects that sessions have in their workers, and functions that they call."""

from __future__ import annotations

import os
import signal
from typing import Any


class Counter:
    """Counts; what it has counted is its state."""

    def __init__(self, start: int = 0, step: int = 1) -> None:
        self.value = start
        self.step = step

    def add(self) -> int:
        self.value += self.step
        return self.value

    async def add_async(self) -> int:
        return self.add()

    def add_and_fail(self) -> None:
        self.add()
        raise ValueError("it was added, and then it failed")

    def add_and_die(self) -> None:
        self.add()
        os.kill(os.getpid(), signal.SIGKILL)

    def pid(self) -> int:
        return os.getpid()

    def dump_state(self) -> dict[str, Any]:
        return {"value": self.value}

    def load_state(self, state: dict[str, Any]) -> None:
        self.value = state["value"]


class Closing:
    """Writes a line when it is closed."""

    def __init__(self, path: str) -> None:
        self.path = path

    def ping(self) -> str:
        return "pong"

    def close(self) -> None:
        with open(self.path, "a") as file:
            file.write("closed\n")


async def made_async(start: int) -> Counter:
    return Counter(start)


def fails() -> None:
    raise RuntimeError("it cannot be made")


def note(path: str, line: str) -> None:
    """Count an effect outside of everything that is kept."""
    with open(path, "a") as file:
        file.write(f"{line}\n")


class Plain:
    """Has no state that could be kept."""

    def add(self) -> int:
        return 1
