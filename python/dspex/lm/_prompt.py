"""The messages of a call as the core writes them: JSON, of which objects are made only for who looks."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, overload

__all__ = ["Prompt"]


class Prompt(Sequence[Mapping[str, Any]]):
    """Chat messages, each a mapping with `role` and `content`; equal to a list of the same messages.

    Args:
        json: The messages as a JSON array, encoded in UTF-8.
    """

    __slots__ = ("_messages", "json")

    def __init__(self, json: bytes) -> None:
        self.json = json
        self._messages: list[dict[str, Any]] | None = None

    @property
    def messages(self) -> list[dict[str, Any]]:
        """The messages as a list."""
        if self._messages is None:
            self._messages = json.loads(self.json)
        return self._messages

    @overload
    def __getitem__(self, index: int) -> Mapping[str, Any]: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Mapping[str, Any]]: ...
    def __getitem__(self, index: int | slice) -> Mapping[str, Any] | Sequence[Mapping[str, Any]]:
        return self.messages[index]

    def __len__(self) -> int:
        return len(self.messages)

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Prompt):
            return self.json == other.json or self.messages == other.messages
        return self.messages == other if isinstance(other, list) else NotImplemented

    __hash__ = None  # type: ignore[assignment]  # a list has none either

    def __repr__(self) -> str:
        return repr(self.messages)
