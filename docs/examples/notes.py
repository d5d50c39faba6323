"""What the chat keeps in its worker: an index of notes, as a service might load one."""

from __future__ import annotations

import os
from typing import Any


class Notes:
    """Notes of one conversation, found by their words."""

    def __init__(self) -> None:
        self._notes: list[str] = []

    def add(self, note: str) -> int:
        """Keep a note; returns how many there are."""
        self._notes.append(note)
        return len(self._notes)

    def search(self, text: str) -> list[str]:
        """The notes that have a word of the text."""
        words = {word.strip("?.,").lower() for word in text.split()}
        return [note for note in self._notes if words & {word.strip("?.,").lower() for word in note.split()}]

    def worker(self) -> int:
        """The process that it lives in."""
        return os.getpid()

    def dump_state(self) -> dict[str, Any]:
        """See `restore="state"` in docs/sessions.md."""
        return {"notes": self._notes}

    def load_state(self, state: dict[str, Any]) -> None:
        """See `dump_state`."""
        self._notes = list(state["notes"])
