"""Ways for `ModelServer` to misbehave, one value for each request that shall meet it."""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import dataclass
from typing import Literal

__all__ = [
    "Cut",
    "Delay",
    "EmptyChoices",
    "Fault",
    "FaultSchedule",
    "HttpError",
    "MalformedJSON",
    "NullContent",
    "SlowDrip",
    "Stall",
    "WrongContentType",
]


@dataclass(frozen=True, slots=True)
class Delay:
    """Answer rightly, `seconds` late."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Stall:
    """Say nothing (`at="start"`), or stop half-way, and hold the connection until the client gives up."""

    at: Literal["start", "middle"] = "start"


@dataclass(frozen=True, slots=True)
class Cut:
    """Break the connection: before the first byte (`at="start"`), or half-way through the body or stream."""

    at: Literal["start", "middle"] = "start"


@dataclass(frozen=True, slots=True)
class HttpError:
    """Answer with an error status, in the API's form.

    Attributes:
        status: The HTTP status, such as 429 or 500.
        message: The server's words.
        code: The API's code for it, such as `"context_length_exceeded"`.
        retry_after: The `Retry-After` header: seconds, or an HTTP date; None leaves it out.
    """

    status: int
    message: str = "made to fail"
    code: str | None = None
    retry_after: float | str | None = None


@dataclass(frozen=True, slots=True)
class MalformedJSON:
    """Answer with a body that is not JSON; in a stream, with an event that is not."""

    body: str = '{"choices": [{"message": {"content": "x"'


@dataclass(frozen=True, slots=True)
class EmptyChoices:
    """Answer with `"choices": []`; in a stream, end without a piece."""


@dataclass(frozen=True, slots=True)
class NullContent:
    """Answer with `"content": null`, as models do that only call tools or refuse."""

    refusal: str | None = None


@dataclass(frozen=True, slots=True)
class WrongContentType:
    """Answer 200 with a web page, as gateways do that have lost their server."""

    content_type: str = "text/html"
    body: str = "<html><body>It works!</body></html>"


@dataclass(frozen=True, slots=True)
class SlowDrip:
    """Answer rightly, `size` bytes every `interval` seconds."""

    size: int = 16
    interval: float = 0.005


Fault = (
    Delay | Stall | Cut | HttpError | MalformedJSON | EmptyChoices | NullContent | WrongContentType | SlowDrip
)
"""What a `ModelServer` can do to a request."""


class FaultSchedule:
    """Which fault meets which request: the first pushed meets the next request. Safe across threads."""

    def __init__(self) -> None:
        self._waiting: deque[Fault | None] = deque()
        self._lock = threading.Lock()

    def push(self, *faults: Fault | None) -> None:
        """Line up faults, one request each; None lets one request pass unharmed."""
        with self._lock:
            self._waiting.extend(faults)

    def take(self) -> Fault | None:
        """The fault for the request that has just come; None when nothing is lined up."""
        with self._lock:
            return self._waiting.popleft() if self._waiting else None

    def clear(self) -> None:
        """Forget what is lined up."""
        with self._lock:
            self._waiting.clear()

    def __len__(self) -> int:
        return len(self._waiting)
