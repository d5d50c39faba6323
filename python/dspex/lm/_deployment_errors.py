"""What an error means for the deployment that raised it, and whether another one tries.

::

    error                                            counts   left alone at once          another tries
    it asks to slow down (429), has no room (503,    failed   as long as it asks, or as   yes
      529), or is a group that takes no calls                   the breaker says
    it failed otherwise (5xx)                        failed   no                          yes
    no connection, or it broke                       failed   no                          yes
    it did not answer in time                        failed   no                          yes
    it refused the key (401, 403), knows no such     failed   a minute                    yes
      model (404), or is not paid for
    what came is no chat completion                  failed   no                          yes
    its own rate limit has no turn in time           refused  no                          yes
    the model refused, or said nothing that can      served   no                          no: it has answered
      be used
    a mistake in the request (400, 413, 422, ...)    refused  no                          no: it is one there
    a mistake of the caller's or the operator's      refused  no                          no
    the caller's time ran out                        failed   no                          no: none is left
      and it had had less than half of it            refused  no                          no
    the caller left                                  cancelled no                         no
    anything else                                    failed   no                          no

To ask another deployment is to ask a model once more, which changes nothing in the world; what it may cost is
the tokens of an answer that never came. That is why a group does it for broken connections too, where the
router, which may have run a whole program, asks for `idempotent=True`. A key or a model's name is one
deployment's own setting: a mistake in it must not be the caller's failure while others answer, and it is left
alone for longer, as waiting does not cure it.

A stream of which a piece has been given is not begun again, whatever happened.
"""

from __future__ import annotations

import asyncio
from typing import Final, Literal, NamedTuple

from dspex.errors import (
    DeadlineExceeded,
    DspexError,
    LMAuthError,
    LMConnectionError,
    LMError,
    LMRateLimitError,
    LMRequestError,
    LMResponseError,
    LMServerError,
    LMTimeoutError,
    LMUnavailable,
)

__all__ = ["Meaning", "meaning_of"]

Outcome = Literal["served", "failed", "refused", "cancelled"]

NO_ROOM: Final = frozenset({503, 529})
SETTING_SECONDS: Final = 60.0
"""For how long a deployment whose settings are wrong is left alone, at least."""

_OF_THE_SETTINGS: Final = frozenset({"lm-not-found", "lm-billing"})
_ANSWERS: Final = frozenset({"lm-refusal", "lm-no-content", "lm-tool-calls", "lm-few-choices"})
"""Codes of answers by the model, as against those of a proxy, a gateway or a wrong address."""


class Meaning(NamedTuple):
    """What an error means.

    Attributes:
        outcome: What the call counts as for the deployment.
        goes_on: Whether another one tries.
        cool: Seconds for which it is left alone from now on, at least; None for as its breaker's rates say.
        no_room: Whether it only had no room, so that the call may wait for it.
    """

    outcome: Outcome
    goes_on: bool = False
    cool: float | None = None
    no_room: bool = False


def meaning_of(error: BaseException, *, had_time: bool = True) -> Meaning:
    """What an error means for the deployment that raised it.

    Args:
        error: It.
        had_time: Whether the deployment had at least half of the call's time.
    """
    match error:
        case asyncio.CancelledError() | GeneratorExit() | KeyboardInterrupt() | SystemExit():
            return Meaning("cancelled")
        case DeadlineExceeded():
            return Meaning("failed" if had_time else "refused")
        case LMRateLimitError(code="lm-limit"):
            return Meaning("refused", goes_on=True, no_room=True)
        case LMRateLimitError():
            return Meaning("failed", goes_on=True, cool=error.retry_after or 0.0, no_room=True)
        case LMUnavailable():
            return Meaning("failed", goes_on=True, cool=error.retry_after or 0.0, no_room=True)
        case LMServerError(status=status) if status in NO_ROOM:
            return Meaning("failed", goes_on=True, cool=error.retry_after or 0.0, no_room=True)
        case LMServerError() | LMConnectionError() | LMTimeoutError():
            return Meaning("failed", goes_on=True)
        case LMAuthError():
            return Meaning("failed", goes_on=True, cool=SETTING_SECONDS)
        case LMRequestError(code=code) if code in _OF_THE_SETTINGS:
            return Meaning("failed", goes_on=True, cool=SETTING_SECONDS)
        case LMResponseError(code=code):
            return Meaning("served") if code in _ANSWERS else Meaning("failed", goes_on=True)
        case LMRequestError():
            return Meaning("refused")
        case LMError():  # of a model of the user's own
            return Meaning("failed", goes_on=error.retryable)
        case DspexError(category="caller" | "operator"):
            return Meaning("refused")
    return Meaning("failed")
