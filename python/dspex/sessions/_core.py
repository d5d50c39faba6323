"""A session while this runtime has it: what the store has of it, its turn, and where it lives.

States::

    active --nothing calls it--> releasing --the store knows--> gone
       |                                                         ^
       +---- another host took it, its time is over, it ended ---+

Whoever finds it releasing waits until it is gone, and takes the session up again from the store.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from itertools import count
from typing import TYPE_CHECKING, Literal

from dspex.sessions._options import SessionOptions
from dspex.sessions._order import Order
from dspex.stores import Changes, Entry, SessionLease, Turn

if TYPE_CHECKING:
    from dspex.pool import Place

__all__ = ["Core"]


_tags = count(1)


class Core:
    """What a runtime knows of a session that it has.

    Args:
        lease: The right to write it.
        options: What it may do.
        entries: Its values, by the store's keys.
        turns: Its history.
        version: How many commits it has had.
        last_turn: The number of its last turn.
        now: The loop's time.
    """

    __slots__ = (
        "created",
        "doubtful",
        "entries",
        "gone",
        "last_turn",
        "lease",
        "live",
        "options",
        "order",
        "place",
        "state",
        "tag",
        "turns",
        "used",
        "version",
    )

    def __init__(
        self,
        lease: SessionLease,
        options: SessionOptions,
        entries: Mapping[str, Entry],
        turns: Sequence[Turn],
        *,
        version: int,
        last_turn: int,
        age: float,
        now: float,
    ) -> None:
        self.lease = lease
        self.options = options
        self.entries = dict(entries)
        self.turns = list(turns)
        self.version = version
        self.last_turn = last_turn
        self.created = now - age
        self.used = now
        self.order = Order(lease.session_id, options.when_busy, options.queue)
        self.place: Place | None = None  # once something of it runs in a worker
        # By which workers know its objects: whoever had the session before may still be dropping theirs.
        self.tag = f"{lease.session_id}#{next(_tags)}"
        self.live: dict[str, int] = {}  # its objects, and the worker that has each: the number of the place
        self.state: Literal["active", "releasing", "gone"] = "active"
        self.doubtful = False  # whether the last write has happened is not known
        self.gone: asyncio.Event | None = None  # while it is releasing

    @property
    def session_id(self) -> str:
        """The session's name."""
        return self.lease.session_id

    @property
    def size(self) -> int:
        """Bytes of its history."""
        return sum(len(turn.value) for turn in self.turns)

    def ends_in(self, now: float) -> float:
        """Seconds until its time is over, unless it is used before; by this host's clock."""
        idle, age = self.options.idle_ttl, self.options.max_age
        return min(
            float("inf") if idle is None else self.used + idle - now,
            float("inf") if age is None else self.created + age - now,
        )

    def forget_to(self, added: Sequence[bytes]) -> int:
        """Up to which turn the history is to be forgotten if these are added; 0 for none."""
        sizes = [(turn.number, len(turn.value)) for turn in self.turns]
        sizes += [(self.last_turn + number, len(value)) for number, value in enumerate(added, 1)]
        most, left, forget = self.options.history_turns, sum(size for _, size in sizes), 0
        for index, (number, size) in enumerate(sizes):
            count = len(sizes) - index
            too_many = most is not None and count > most
            too_large = (
                left > self.options.history_bytes and count > 1
            )  # the last one stays, whatever its size
            if not (too_many or too_large):
                break
            forget, left = number, left - size
        return forget

    def written(self, changes: Changes, version: int) -> None:
        """The store has written these changes."""
        for key, value in changes.entries.items():
            there = self.entries.get(key)
            if there is not None and there.version > version:
                continue  # of two writes at once the later one
            if value is None:
                self.entries.pop(key, None)
            else:
                self.entries[key] = Entry(version, value)
        self.turns += [Turn(number, value) for number, value in enumerate(changes.turns, self.last_turn + 1)]
        self.last_turn += len(changes.turns)
        if changes.forget_to:
            self.turns = [turn for turn in self.turns if turn.number > changes.forget_to]
        self.version = max(self.version, version)
