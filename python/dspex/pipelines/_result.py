"""What a run comes to: its result, and how each of its steps ended."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple, Self

from dspex.prediction import Prediction

__all__ = ["DONE", "RunResult", "Status", "StepContext", "StepRun"]

Status = Literal["ok", "failed", "timed_out", "skipped", "cancelled", "cached", "resumed"]
"""How a step ended: each ends in exactly one of these."""

DONE = frozenset({"ok", "cached", "resumed"})
"""Those of steps that gave what they give."""


class StepRun(NamedTuple):
    """One step of one run.

    Attributes:
        path: Where in the plan it is, with its number in a `map` or a `loop`: `map[17]/answer`.
        status: How it ended.
        seconds: How long it took.
    """

    path: str
    status: Status
    seconds: float


class StepContext(NamedTuple):
    """What a function is given that has a parameter `ctx`.

    Attributes:
        run_id: The run.
        path: The step's path.
        attempt: Which attempt it is, from 1.
        deadline: When the run's time is over, by `time.monotonic`; None where it has no limit.
    """

    run_id: str
    path: str
    attempt: int
    deadline: float | None

    @property
    def key(self) -> str:
        """The same for every attempt at this step of this run, also after a crash, and for no other.

        Hand it to what the step calls, as its idempotency key: then it happens once, however often it is
        tried.
        """
        return f"{self.run_id}/{self.path}"


class RunResult(Prediction):
    """The outputs of a pipeline, as those of any module, and how its steps ended.

    Attributes:
        run_id: The run.
        timings: `total`, the seconds that the run took.
        errors: What failed where the pipeline goes on after a failure (`on_error="continue"`), by path.
    """

    __slots__ = ("_steps", "errors", "run_id")

    run_id: str
    errors: Mapping[str, Exception]
    _steps: Sequence[tuple[str, Status, float]]

    def __init__(self, fields: Mapping[str, Any] | None = None, /, **more: Any) -> None:
        super().__init__(fields, **more)
        self.run_id, self._steps, self.errors = "", (), {}

    @classmethod
    def of_run(
        cls,
        outputs: dict[str, Any],
        run_id: str,
        usage: dict[str, Any],
        steps: Sequence[tuple[str, Status, float]],
        errors: Mapping[str, Exception],
        seconds: float | None = None,
    ) -> Self:
        """What a run came to that took so many seconds; None where it had ended before."""
        result = cls.of_rows([outputs], None, usage, {} if seconds is None else {"total": seconds}, ())
        result.run_id, result._steps, result.errors = run_id, steps, errors
        return result

    @property
    def steps(self) -> tuple[StepRun, ...]:
        """Every step that was run, in the order in which they ended."""
        return tuple(StepRun._make(step) for step in self._steps)
