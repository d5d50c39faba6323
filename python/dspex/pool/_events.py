"""Events of a pool, delivered to its observer."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

__all__ = ["EventName", "Events", "PoolEvent"]

EventName = Literal[
    "worker.starting",
    "worker.ready",
    "worker.draining",
    "worker.stopping",
    "worker.dead",
    "call.repeated",
    "pool.ready",
    "pool.draining",
    "pool.stopping",
    "pool.dead",
    "pool.resized",
    "pool.backing_off",
]


@dataclass(frozen=True, slots=True)
class PoolEvent:
    """One transition.

    Attributes:
        name: What happened. `call.repeated`: an idempotent call is run again, since its worker, which the
            event names, was ended for another call's fault. `pool.resized` is a change of the number wanted,
            `pool.backing_off` the end of the restart budget.
        pool: The pool's name.
        pid: The worker's process id; None where it has none yet, or the pool is meant.
        reason: Why, where there is more to say: what a worker drains or stops for, the cause of a death,
            which operation is run again and for what, the number wanted.
        slot: The worker's place in the pool, from 0; None where the pool is meant. The worker that replaces
            another has its place.
    """

    name: EventName
    pool: str
    pid: int | None = None
    reason: str = ""
    slot: int | None = None


class Events:
    """Tells a pool's listener what happens.

    Args:
        pool: The pool's name.
        listener: Called with every event; None if nobody listens.
    """

    def __init__(self, pool: str, listener: Callable[[PoolEvent], None] | None) -> None:
        self._pool = pool
        self._listener = listener

    def tell(
        self, name: EventName, reason: str = "", *, pid: int | None = None, slot: int | None = None
    ) -> None:
        """Tell of one event. What the listener raises goes to the loop's handler."""
        if self._listener is None:
            return
        try:
            self._listener(PoolEvent(name, self._pool, pid, reason, slot))
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as err:  # noqa: BLE001 - a listener's mistake must not end a pool
            message = f"the listener of pool {self._pool!r} failed on {name}"
            asyncio.get_running_loop().call_exception_handler({"message": message, "exception": err})
