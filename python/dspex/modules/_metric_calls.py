"""The metric's calls, which come back from a worker, and what they tell of the work there."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

from dspex.errors import RemoteError
from dspex.protocol.host_functions import is_async
from dspex.protocol.optimization import pack_result, unpack_argument

__all__ = ["MetricCalls", "OptimizerProgress"]

_log = logging.getLogger("dspex.modules")


@dataclass(frozen=True, slots=True, kw_only=True)
class OptimizerProgress:
    """How far an optimizer is.

    Attributes:
        metric_calls: Calls of the metric that have ended.
        metric_errors: Those of them that raised.
        evaluations: Candidates that have been evaluated as a whole, on a set of examples.
        score: The last candidate's, as DSPy counts it; None before the first.
        best_score: The highest so far.
        usage: Tokens that the whole work used, with the last report.
        done: Whether this is the last report.
    """

    metric_calls: int = 0
    metric_errors: int = 0
    evaluations: int = 0
    score: float | None = None
    best_score: float | None = None
    usage: Mapping[str, Any] = field(default_factory=dict)
    done: bool = False


class MetricCalls:
    """Answers a worker's calls of the metric, and counts them.

    Args:
        rows: The examples as the metric gets them, training ones first.
        made_again: Makes outputs of the program's own types of what crossed for them.
        on_progress: Hears of each step.
    """

    def __init__(
        self,
        rows: Sequence[Any],
        made_again: Callable[[dict[str, Any]], dict[str, Any]],
        on_progress: Callable[[OptimizerProgress], Any] | None,
    ) -> None:
        self._rows = rows
        self._made_again = made_again
        self._on_progress = on_progress
        self._progress = OptimizerProgress()
        self._failure: Exception | None = None
        self._lock = threading.Lock()  # metrics run in many threads

    def answering(self, function: Callable[..., Any], *, counted: bool) -> Callable[..., Any]:
        """What answers a worker's calls of a function; `counted` if it is the metric."""

        def unpacked(args: Sequence[Any], kwargs: Mapping[str, Any]) -> tuple[list[Any], dict[str, Any]]:
            return [*map(self._unpacked, args)], {name: self._unpacked(arg) for name, arg in kwargs.items()}

        if is_async(function):

            async def awaited(args: Sequence[Any], kwargs: Mapping[str, Any]) -> list[Any]:
                with self._counting(counted):
                    given, named = unpacked(args, kwargs)
                    return pack_result(await function(*given, **named))

            return awaited

        def called(args: Sequence[Any], kwargs: Mapping[str, Any]) -> list[Any]:
            with self._counting(counted):
                given, named = unpacked(args, kwargs)
                return pack_result(function(*given, **named))

        return called

    def _unpacked(self, packed: Any) -> Any:
        return unpack_argument(packed, self._rows, self._made_again)

    @contextmanager
    def _counting(self, counted: bool) -> Iterator[None]:
        if not counted:
            yield
            return
        try:
            yield
        except Exception as error:
            self._failure = error
            self._report(metric_calls=1, metric_errors=1)
            raise
        self._report(metric_calls=1)

    def evaluated(self, score: float) -> None:
        """A worker tells of a candidate's score."""
        self._report(score, evaluations=1)

    def finish(self, usage: Mapping[str, Any]) -> None:
        """The work is done."""
        self._report(usage=usage)

    def _report(
        self, score: float | None = None, usage: Mapping[str, Any] | None = None, **more: int
    ) -> None:
        with self._lock:
            now = self._progress
            now = replace(now, **{name: getattr(now, name) + count for name, count in more.items()})
            if score is not None:
                best = score if now.best_score is None else max(score, now.best_score)
                now = replace(now, score=score, best_score=best)
            if usage is not None:
                now = replace(now, usage=usage, done=True)
            self._progress = now
            if self._on_progress is None:
                return
            try:
                self._on_progress(now)
            except Exception:  # noqa: BLE001 - the work is worth more than a report of it
                _log.exception("on_progress has failed; the optimizer goes on")

    @contextmanager
    def explaining(self) -> Iterator[None]:
        """Let an error that is the metric's have what the metric raised as its cause.

        Raises:
            RemoteError: In its place (`metric-failed`).
        """
        try:
            yield
        except RemoteError as error:
            failure = self._failure
            if failure is None or error.type not in (type(failure).__name__, type(failure).__qualname__):
                raise
            progress = self._progress
            raise RemoteError(
                f"the optimizer gave up: {progress.metric_errors} of {progress.metric_calls} calls of the "
                f"metric failed, the last with {type(failure).__name__}: {failure}",
                code="metric-failed",
                hint="the metric's own error is the cause of this one (`__cause__`)",
                type=error.type,
                traceback=error.traceback,
            ) from failure
        finally:
            self._failure = None  # its frames know this object
