"""`RateLimit`: how much may be asked of one server."""

from __future__ import annotations

import math
from dataclasses import dataclass

from dspex._timeouts import shown
from dspex.errors import ConfigError

__all__ = ["RateLimit"]

MOST_CALLS = 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class RateLimit:
    """How much may be asked of a language model's server: `dspex.LM(..., limits=RateLimit(...))`.

    Calls that have to wait do so within their time; see `docs/deployments.md`.

    Attributes:
        requests_per_minute: Requests; None for any number.
        tokens_per_minute: Tokens of prompts and answers; None for any number.
        concurrency: Calls at once; None for any number.
        burst: The share of a minute's limit that may go at once after a quiet time. Over any time there is no
            more than that share and what the limit says of the time, so that a minute may have 1.1 times the
            limit by default.

    Raises:
        ConfigError: If a value is none, or nothing is limited (`bad-rate-limit`).
    """

    requests_per_minute: float | None = None
    tokens_per_minute: float | None = None
    concurrency: int | None = None
    burst: float = 0.1

    def __post_init__(self) -> None:
        for name in ("requests_per_minute", "tokens_per_minute"):
            value = getattr(self, name)
            if value is not None and not (_is_number(value) and 0 < value < math.inf):
                raise _bad(f"{name} must be a number above 0, not {shown(value)}")
        most = self.concurrency
        if most is not None and not (type(most) is int and 1 <= most <= MOST_CALLS):
            raise _bad(f"concurrency must be a count from 1 to {MOST_CALLS:,}, not {shown(most)}")
        if not (_is_number(self.burst) and 0 < self.burst <= 1):
            raise _bad(f"burst must be a share above 0, at most 1, not {shown(self.burst)}")
        if self.requests_per_minute is None and self.tokens_per_minute is None and most is None:
            raise _bad("a RateLimit limits requests, tokens or calls at once, and this one limits nothing")


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _bad(message: str) -> ConfigError:
    return ConfigError(message, code="bad-rate-limit", hint="see dspex.lm.RateLimit")
