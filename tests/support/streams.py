"""What tests of streams do with their events."""

from __future__ import annotations

from typing import Any

from dspex.streaming import TextDelta

__all__ = ["events_of", "tell", "texts_of"]


async def events_of(stream: Any) -> list[Any]:
    """All events of a stream."""
    return [event async for event in stream]


async def tell(stream: Any, told: list[Any]) -> None:
    """Put the events of a stream into a list as they come."""
    async for event in stream:
        told.append(event)


def texts_of(events: list[Any]) -> dict[tuple[str, str, int], str]:
    """The texts of all fields, by predictor, field and turn."""
    texts: dict[tuple[str, str, int], str] = {}
    for event in events:
        if isinstance(event, TextDelta):
            key = event.predictor, event.field, event.turn
            texts[key] = texts.get(key, "") + event.text
    return texts
