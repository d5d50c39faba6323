"""`Hedge`: after which time a call that may be made twice is made a second time, beside the first."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from dspex._timeouts import check_seconds, shown
from dspex.errors import ConfigError

__all__ = ["Hedge"]

_QUANTILE: Final = re.compile(r"p(\d{1,2}(?:\.\d{1,3})?)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Hedge:
    """Make a call a second time where the first is late, and take the answer that comes first.

    Only calls are that were declared idempotent, and are no streams; see `docs/routing.md`. Where the runtime
    has a `Retry`, a second attempt counts against its budget.

    Attributes:
        after: `"p95"`: the time in which 95 of a hundred answers of the target came so far, once there have
            been some dozens; any other quantile is written alike. Or a number of seconds.
        at_most: The share of calls that may be made a second time, from 0 to 1, so that a target which has
            become slow as a whole is not asked twice as much.
        elsewhere: Whether the second goes to another target where there is one; else it goes where a new call
            would.

    Raises:
        ConfigError: If a value is none (`bad-hedge`).
    """

    after: str | float = "p95"
    at_most: float = 0.05
    elsewhere: bool = False

    def __post_init__(self) -> None:
        if isinstance(self.after, str):
            if self.quantile is None:
                raise _bad("after", self.after, 'a quantile such as "p95", or seconds')
        else:
            check_seconds(self.after, "after", zero=True)
        share = self.at_most
        if isinstance(share, bool) or not isinstance(share, int | float) or not 0 <= share <= 1:
            raise _bad("at_most", share, "a share from 0 to 1")
        if not isinstance(self.elsewhere, bool):
            raise _bad("elsewhere", self.elsewhere, "True or False")

    @property
    def quantile(self) -> float | None:
        """The share of answers, from 0 to 1; None where `after` is seconds."""
        found = _QUANTILE.fullmatch(self.after) if isinstance(self.after, str) else None
        share = None if found is None else float(found[1]) / 100
        return share if share else None


def _bad(name: str, value: object, what: str) -> ConfigError:
    return ConfigError(
        f"{name} of a hedge must be {what}, not {shown(value)}",
        code="bad-hedge",
        hint="see dspex.router.Hedge",
    )
