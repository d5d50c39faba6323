"""`Target`: what can run an operation; `Steps`: how one does whose work can be split where it waits."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Any, Literal, Protocol, runtime_checkable

from dspex.errors import DspexError
from dspex.prediction import Prediction
from dspex.router._operation import AnyOperation

__all__ = ["Side", "SteppedTarget", "Steps", "Target", "Whole"]

Side = Literal["native", "python"]
"""Which side a target is of: strategies prefer one of them, and callers may ask for one."""


class Target(Protocol):
    """One way to run operations: the Rust core in this process, a pool of workers, or one of the user's.

    It may have three attributes more. `lacks` is a collection of codes: what it has not of what operations
    may need (`module-needs-dspy`, `lm-not-for-workers`, ...; see `docs/routing.md`); the decision knows these
    without asking. `unable(operation)` says why it cannot run one operation, as the error to raise, or None
    where it can; it is asked for each call. `steps` is for those whose work can be split; see
    `SteppedTarget`.
    """

    @property
    def name(self) -> str:
        """What `prediction.route` says: `native`, `pool:general`."""
        ...

    async def run(self, operation: AnyOperation, timeout: float) -> Prediction:
        """Run the operation within `timeout` seconds.

        Raises:
            DspexError: Whatever went wrong, typed; `DeadlineExceeded` when the time ran out.
        """
        ...


class Steps(Protocol):
    """One operation on its way through a target: `ask` gives what is to be waited for; nothing else waits.

    So a thread without an event loop can do the rest by itself, and a batch can do it for several rows at
    once.
    """

    def ask(self) -> Awaitable[Any]:
        """What gives the answer when it is awaited, which raises as `Target.run` does."""
        ...

    def ask_now(self) -> Any:
        """The answer, where it is there without waiting; else None.

        Raises:
            DspexError: As `Target.run`.
        """
        ...

    def error(self, error: DspexError) -> DspexError:
        """What the call is to raise for an error of `ask` or `ask_now`: that one, or another."""
        ...

    def finish(self, answer: Any, seconds: float) -> Prediction:
        """The prediction that the answer makes, which was waited for so long.

        Raises:
            DspexError: As `Target.run`.
        """
        ...


@runtime_checkable
class SteppedTarget(Protocol):
    """A target whose work has steps."""

    def steps(self, operation: AnyOperation, timeout: float) -> Steps:
        """Begin the operation, up to where it has to wait.

        Raises:
            DspexError: As `Target.run`.
        """
        ...

    def unable(self, operation: AnyOperation) -> DspexError | None:
        """Why this target cannot run the operation, as the error to raise; None where it can."""
        ...


class Whole:
    """The work of a target that has no steps: all of it is waited for."""

    __slots__ = ("_operation", "_target", "_timeout")

    def __init__(self, target: Target, operation: AnyOperation, timeout: float) -> None:
        self._target = target
        self._operation = operation
        self._timeout = timeout

    def ask(self) -> Awaitable[Prediction]:
        """Run it; see `Steps`."""
        return self._target.run(self._operation, self._timeout)

    def ask_now(self) -> None:
        """None: nobody knows whether it waits."""

    def error(self, error: DspexError) -> DspexError:
        """The error itself."""
        return error

    def finish(self, answer: Prediction, seconds: float) -> Prediction:
        """What it came to."""
        return answer
