"""Targets whose calls end when a test lets them."""

from __future__ import annotations

import asyncio
from typing import Any, Literal

from dspex import Prediction
from dspex.errors import DspexError
from dspex.router import AnyOperation, Operation
from dspex.signature import Signature

__all__ = ["Gate", "operation"]

SIGNATURE = Signature("question -> answer")


def operation(**options: Any) -> Operation:
    return Operation(**{"signature": SIGNATURE, "inputs": {"question": "q"}, **options})


class Gate:
    """A target that notes who came, and answers or fails when that call is let.

    Attributes:
        calls: A future for each call, in the order in which they came; set one to let it end.
        cancelled: How many ended because somebody cancelled them.
    """

    def __init__(self, name: str = "native", side: Literal["native", "python"] = "native") -> None:
        self.name = name
        self.side = side
        self.calls: list[asyncio.Future[Any]] = []
        self.came: list[Any] = []
        self.cancelled = 0

    def unable(self, operation: AnyOperation) -> DspexError | None:
        return None

    async def run(self, operation: AnyOperation, timeout: float) -> Prediction:
        go: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self.calls.append(go)
        self.came.append(operation.inputs["question"])
        try:
            answer = await go
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        finally:
            del go  # it holds the error, which holds this frame
        return Prediction.from_completions([{"answer": answer}])

    def let(self, number: int, answer: Any = "blue") -> None:
        """Let a call answer, or raise."""
        if isinstance(answer, BaseException):
            self.calls[number].set_exception(answer)
        else:
            self.calls[number].set_result(answer)
