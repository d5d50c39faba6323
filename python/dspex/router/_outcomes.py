"""What an error says of the target that raised it, whether another may try, and whether it may be made again.

::

    error                                         outcome     another target      again
    a mistake of the caller's or the operator's   refused     no                  no
    the model's server asks to slow down (429),   refused     no: it is the       yes: nothing has been done
      or has no room (503, 529), or no deployment             same model there
      of a group takes calls
    it failed otherwise, broke off, took too long refused     no                  where the call is idempotent
    its reply cannot be read                      refused     no                  no
    what the program itself raised                refused     no                  no
    the pool is full                              refused     yes: nothing has    yes
                                                                been done
    a worker did not start                        failed      yes                 yes
    a worker died, or the wire broke              failed      if idempotent       where the call is idempotent
    its time ran out                              failed      no                  no: none is left
    anything else                                 failed      no                  no

A call whose stream has given an event is not begun again, whatever it raised. A program, and an optimizer's
work, may have asked a model many times before the one that was refused, and used tools: for these, what a
model raises says nothing of what has been done.
"""

from __future__ import annotations

from typing import Final, Literal

from dspex.errors import (
    DspexError,
    LMConnectionError,
    LMError,
    LMRateLimitError,
    LMServerError,
    LMTimeoutError,
    LMUnavailable,
    PoolSaturated,
    RemoteError,
    ReplyError,
    WireError,
    WorkerDiedError,
    WorkerStartError,
)
from dspex.router._operation import AnyOperation, Operation

__all__ = ["Outcome", "may_be_made_again", "may_go_elsewhere", "outcome_of"]

Outcome = Literal["served", "failed", "refused", "cancelled"]

_OF_OTHERS: Final = (LMError, ReplyError, RemoteError, PoolSaturated)
_NOT_BEGUN: Final = (PoolSaturated, WorkerStartError)
_BROKEN: Final = (WorkerDiedError, WireError)
_PASSING: Final = (LMServerError, LMConnectionError, LMTimeoutError)

_NO_ROOM: Final = frozenset({503, 529})
"""Statuses by which a server says that it has not begun: too many requests at once."""


def outcome_of(error: BaseException) -> Outcome:
    """What an error counts as for the target that raised it."""
    if not isinstance(error, DspexError):
        return "failed"
    if error.category in ("caller", "operator") or isinstance(error, _OF_OTHERS):
        return "refused"
    return "failed"


def may_go_elsewhere(error: BaseException, operation: AnyOperation) -> bool:
    """Whether another target may try what one has failed at."""
    if operation.route is not None or _is_heard(operation):
        return False
    return isinstance(error, _NOT_BEGUN) or (operation.idempotent and isinstance(error, _BROKEN))


def may_be_made_again(error: BaseException, operation: AnyOperation) -> bool:
    """Whether the call may be made again as it is."""
    if _is_heard(operation):
        return False
    if isinstance(error, _NOT_BEGUN) or (isinstance(operation, Operation) and _has_no_room(error)):
        return True
    return operation.idempotent and isinstance(error, (*_BROKEN, *_PASSING, LMRateLimitError))


def _has_no_room(error: BaseException) -> bool:
    """Whether a model's server has said that it has not begun."""
    full = isinstance(error, LMServerError) and error.status in _NO_ROOM
    return full or isinstance(error, (LMRateLimitError, LMUnavailable))


def _is_heard(operation: AnyOperation) -> bool:
    return operation.sink is not None and operation.sink.told
