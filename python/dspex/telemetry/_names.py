"""The names of all events: one vocabulary, in one table.

A name is made of words with dots between them, so that a prefix selects what belongs together: `dspex.call`
is all that is told of calls, `dspex` is everything. The names of events of pools are those that
`dspex.pool.PoolEvent` has, behind `dspex.`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from dspex._timeouts import shown
from dspex.errors import ConfigError

__all__ = ["EVENTS", "check_prefix"]

EVENTS: Final[Mapping[str, str]] = {
    "dspex.call.end": "a call of a runtime has its prediction",
    "dspex.call.error": "a call ended with an error",
    "dspex.call.cancelled": "the caller left before there was an answer",
    "dspex.call.retry": "a call waits before it is made again",
    "dspex.call.repeated": "a pool runs an idempotent call again: its worker was ended for another's fault",
    "dspex.attempt.end": "a target has answered a call",
    "dspex.attempt.error": "a target raised an error; another may try",
    "dspex.attempt.cancelled": "an attempt was cancelled",
    "dspex.stage.render": "the messages were written",
    "dspex.stage.lm": "the language model answered, here or in a worker",
    "dspex.stage.parse": "the replies were read",
    "dspex.stage.worker": "a worker did its work",
    "dspex.breaker.change": "a circuit breaker opened, closed or probes",
    "dspex.worker.starting": "a worker starts",
    "dspex.worker.ready": "a worker takes calls",
    "dspex.worker.draining": "a worker finishes its calls and takes no more",
    "dspex.worker.stopping": "a worker is told to end",
    "dspex.worker.dead": "a worker has ended",
    "dspex.pool.ready": "a pool takes calls",
    "dspex.pool.draining": "a pool finishes its calls",
    "dspex.pool.stopping": "a pool ends its workers",
    "dspex.pool.dead": "a pool has ended",
    "dspex.pool.resized": "a pool is to have another number of workers",
    "dspex.pool.backing_off": "so many workers ended that a pool waits before it starts another",
    "dspex.session.created": "a session was made",
    "dspex.session.resumed": "a session was taken up from its store",
    "dspex.session.moved": "a session lives on another worker than before",
    "dspex.session.recovered": "an object of a session was made again",
    "dspex.session.parked": "a session left its worker and its host, until it is called again",
    "dspex.session.expired": "a session's time was over",
    "dspex.session.ended": "a session was ended for good",
    "dspex.session.lost": "another host has taken a session over",
    "dspex.telemetry.detached": "a handler raised, and gets no more events",
}
"""What each event says has happened."""


def check_prefix(prefix: str) -> str:
    """The prefix, if there are events that begin with it, word by word.

    Raises:
        ConfigError: If there are none (`bad-handler`).
    """
    if isinstance(prefix, str) and any(_covers(prefix, name) for name in EVENTS):
        return prefix
    from difflib import get_close_matches  # a mistake needs it

    near = get_close_matches(str(prefix), EVENTS, 1)
    raise ConfigError(
        f"no event is named {shown(prefix)}, or begins so",
        code="bad-handler",
        hint=f"did you mean {near[0]!r}?" if near else "dspex.telemetry.EVENTS lists all names",
    )


def _covers(prefix: str, name: str) -> bool:
    return name == prefix or name.startswith(f"{prefix}.")
