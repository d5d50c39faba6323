"""The states of a worker and of a pool, and the one way from one to the next.

::

    STARTING --> READY --> DRAINING --> STOPPING --> DEAD
        |          |           |            ^          ^
        |          +-----------|------------+          |
        +----------+-----------+------------+----------+   (death comes from anywhere)
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from typing import Final

__all__ = ["Lifecycle", "State"]


class State(Enum):
    """Where a worker, or a pool, is in its life."""

    # Made, not yet able to serve: the process is being started, DSPy imported.
    STARTING = "starting"
    # Serves: 0 to max_inflight calls are on it.
    READY = "ready"
    # Takes no new call and finishes those it has.
    DRAINING = "draining"
    # Being ended: asked, then TERM, then KILL.
    STOPPING = "stopping"
    # Gone and reaped. The end.
    DEAD = "dead"


_NEXT: Final = {
    State.STARTING: {State.READY, State.STOPPING, State.DEAD},
    State.READY: {State.DRAINING, State.STOPPING, State.DEAD},
    State.DRAINING: {State.STOPPING, State.DEAD},
    State.STOPPING: {State.DEAD},
    State.DEAD: set(),
}


class Lifecycle:
    """Holds a state and refuses a step that the drawing above does not have."""

    def __init__(self) -> None:
        self.state = State.STARTING
        self._watchers: list[Callable[[State], None]] = []

    def watch(self, changed: Callable[[State], None]) -> None:
        """Call `changed` with the new state after every step."""
        self._watchers.append(changed)

    def become(self, state: State) -> None:
        """Step to `state`.

        Raises:
            AssertionError: If there is no such step: a mistake in the pool, never in its use.
        """
        if state not in _NEXT[self.state]:
            raise AssertionError(f"no step leads from {self.state.name} to {state.name}")
        self.state = state
        for changed in self._watchers:
            changed(state)
