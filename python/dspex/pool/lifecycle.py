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
    # On the ladder: asked, then told, then made to go.
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
    """Holds a state and refuses a step that the drawing above does not have.

    Args:
        changed: Called after every step with the old state and the new one.
    """

    def __init__(self, changed: Callable[[State, State], None] | None = None) -> None:
        self.state = State.STARTING
        self._changed = changed

    def become(self, state: State) -> None:
        """Step to `state`.

        Raises:
            AssertionError: If there is no such step: a mistake in the pool, never in its use.
        """
        old = self.state
        if state not in _NEXT[old]:
            raise AssertionError(f"no step leads from {old.name} to {state.name}")
        self.state = state
        if self._changed is not None:
            self._changed(old, state)
