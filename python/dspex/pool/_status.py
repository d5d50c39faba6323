"""What a pool and its workers are doing at one moment."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from dspex.pool._lifecycle import State

__all__ = ["PoolStatus", "WorkerStatus"]


@dataclass(frozen=True, slots=True)
class WorkerStatus:
    """One worker now.

    Attributes:
        slot: Its place in the pool, from 0. While one is replaced, both are there, in the same place.
        pid: Its process id, None while it has none.
        state: Where it is in its life.
        age: Seconds since its start.
        inflight: Calls on it.
        sessions: Sessions that live on it.
        served: Calls it has answered.
        restarts: Workers its place had before it.
        resident: Bytes of memory, its own, at its last heartbeat.
        where: The machine it runs on: `"local"`, or a name or address.
    """

    slot: int
    pid: int | None
    state: State
    age: float
    inflight: int
    served: int
    restarts: int
    resident: int
    where: str
    sessions: int = 0


@dataclass(frozen=True, slots=True)
class PoolStatus:
    """A pool now.

    Attributes:
        name: Its name.
        state: Where it is in its life.
        waiting: Calls in the queue.
        deaths: Workers lost since the start, those that were asked to go not counted.
        wanted: Workers it is to have at the moment.
        workers: Those it has, by their places. A place without one is waiting to start another.
        backend: What its backend says of itself.
        pickle: Whether values may cross by pickle, which lets a worker run code in the service.
    """

    name: str
    state: State
    waiting: int
    deaths: int
    wanted: int
    workers: tuple[WorkerStatus, ...]
    backend: Mapping[str, str]
    pickle: bool = False
