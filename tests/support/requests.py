"""Requests as the tests write them."""

from __future__ import annotations

from typing import Any

from dspex.pool import EchoRequest


class Raw(EchoRequest):
    """Whatever is to arrive at a worker for an operation, right or wrong."""

    def __init__(self, operation: Any, wire: Any) -> None:
        super().__init__(wire)
        object.__setattr__(self, "operation", operation)
