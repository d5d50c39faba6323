"""`captured_events`: what dspex tells of calls, for a test to look at."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from dspex.telemetry import Event, attach

__all__ = ["CapturedEvents", "captured_events"]


class CapturedEvents(list[Event]):
    """The events, in the order in which they were told."""

    def named(self, name: str) -> list[Event]:
        """Those of a name, or of all names that begin with it, word by word."""
        return [event for event in self if f"{event.name}.".startswith(f"{name}.")]

    @property
    def names(self) -> list[str]:
        """What happened, one name after another."""
        return [event.name for event in self]


@contextmanager
def captured_events(prefix: str = "dspex") -> Iterator[CapturedEvents]:
    """Collect the events that are told inside, from all threads.

    Args:
        prefix: Which: `"dspex.call"`, `"dspex.stage.lm"`; by default all.

    Yields:
        The events, as they come.

    Raises:
        ConfigError: If no event has such a name (`bad-handler`).

    Example:
        ```python
        with dspex.testing.captured_events("dspex.call") as events:
            predict(question="...")
        assert events.names == ["dspex.call.end"]
        ```
    """
    events = CapturedEvents()
    with attach(prefix, events.append):
        yield events
