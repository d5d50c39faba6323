"""`Router`: the Rust router with the targets it chooses between."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import NamedTuple

from dspex._core import Router as _CoreRouter
from dspex._timeouts import without_frames
from dspex.errors import DeadlineExceeded, RouteError
from dspex.prediction import Prediction
from dspex.router._backstop import Backstop
from dspex.router._operation import AnyOperation
from dspex.router._target import Target

__all__ = ["Router", "TargetCounts"]

BACKSTOP_SECONDS = 0.5
"""How much longer than its own limit a target may take before the router ends it. A target's error says
where the time went, so it gets the chance to fire first."""


class TargetCounts(NamedTuple):
    """What one target has done since the router was made."""

    name: str
    in_flight: int
    served: int
    failed: int
    cancelled: int


class Router:
    """Sends each operation to one of the targets and keeps count.

    Args:
        targets: In order of preference among those of one side; native is preferred to python.
    """

    def __init__(self, targets: Sequence[Target]) -> None:
        self._targets = tuple(targets)
        self._native = next((target for target in targets if target.side == "native"), None)
        self._core = _CoreRouter([(target.name, target.side) for target in targets])
        self._backstop = Backstop()

    async def dispatch(self, operation: AnyOperation, timeout: float) -> Prediction:
        """Run the operation on the target that fits it, within `timeout` seconds.

        Raises:
            RouteError: If no target can serve the call as it was asked for; where the native side cannot, the
                error says why.
            DeadlineExceeded: If the time ran out.
            DspexError: Whatever the target raised.
        """
        unable = None if self._native is None else self._native.unable(operation)
        try:
            index = self._core.decide(operation.route, unable is None)
        except RouteError as error:
            # "It cannot" is not as good as why it cannot.
            if unable is None or error.code == "unknown-route":
                raise
            try:
                raise unable from error
            finally:
                unable = None  # or it would hold itself, by the frame in its traceback, and the operation
        target = self._targets[index]
        outcome = "failed"
        watch = self._backstop.begin(timeout + BACKSTOP_SECONDS)
        try:
            prediction = await target.run(operation, timeout)
            outcome = "served"
        except asyncio.CancelledError as error:
            if not watch.ended_it():
                outcome = "cancelled"
                raise
            raise DeadlineExceeded(
                f"{target.name} gave no answer within {timeout:g} s and did not end by itself",
                hint="allow more time with `timeout=`, or look at what the target is doing",
                retryable=operation.idempotent,
                timeout=timeout,
                stage=target.name,
            ) from without_frames(error)
        except BaseException:
            watch.ended_it()
            raise
        else:
            watch.ended_it()
        finally:
            self._backstop.end(watch)
            self._core.record(index, outcome)
            # It holds the task, which holds its exception, which holds this frame and the operation: a
            # circle that keeps the inputs until somebody collects it.
            del watch
        prediction.route = target.name
        if unable is not None and operation.route is None:
            prediction.route_reason = unable.message
        return prediction

    def counts(self) -> list[TargetCounts]:
        """What each target has done, in order of registration."""
        return [TargetCounts(*row) for row in self._core.counts()]
