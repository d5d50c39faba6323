"""`Target`: what can run an operation."""

from __future__ import annotations

from typing import Literal, Protocol

from dspex.errors import DspexError
from dspex.prediction import Prediction
from dspex.router._operation import AnyOperation

__all__ = ["Target"]


class Target(Protocol):
    """One way to run operations: the Rust core in this process, or a pool of workers."""

    @property
    def name(self) -> str:
        """What `prediction.route` says: `native`, `pool:general`."""
        ...

    @property
    def side(self) -> Literal["native", "python"]:
        """Which of the two sides this is."""
        ...

    def unable(self, operation: AnyOperation) -> DspexError | None:
        """Why this target cannot run the operation, as the error to raise; None where it can."""
        ...

    async def run(self, operation: AnyOperation, timeout: float) -> Prediction:
        """Run the operation within `timeout` seconds.

        Raises:
            DspexError: Whatever went wrong, typed; `DeadlineExceeded` when the time ran out.
        """
        ...
