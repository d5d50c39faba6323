"""`Shadow`: for which calls the other side runs too, and how much of that there may be.

::

    a call was answered
      |
      v
    is it one that both sides can run, with no `route=` of its own?   no --> left alone
      |
      v
    does it fall into the share?                                      no --> left alone
      |
      v
    idempotent, or `even_if_not_idempotent`?   yes --> the other side runs it, and asks the model again
      |
      no --> both sides write its messages, and nobody asks a model; with compare="fields" it is left alone

What is compared then is in `dspex.runtime._shadow_difference`, how it runs in `dspex.runtime._shadow_runs`.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Literal

from dspex._timeouts import check_seconds, shown
from dspex.errors import ConfigError
from dspex.router._operation import AnyOperation, Operation

__all__ = ["Compared", "Shadow", "Work"]

Compared = Literal["messages", "fields", "both"]
"""What of a call is compared."""

_COMPARED = ("messages", "fields", "both")
_MOST = 100_000
_LEAST_FILE_BYTES = 10_000


@dataclass(frozen=True, slots=True)
class Work:
    """What is done for one call.

    Attributes:
        messages: Whether the messages are compared.
        answers: Whether the other side answers the call too, for which it asks the model.
    """

    messages: bool
    answers: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Shadow:
    """Run the other side for a sample of the calls, and report where it differs; see `docs/routing.md`.

    Attributes:
        share: The share of calls, from 0 to 1: 0.01 is every hundredth, by chance.
        compare: `"messages"`, which asks no model; `"fields"`, the outputs; or `"both"`.
        even_if_not_idempotent: Whether calls are answered twice that were not declared idempotent. Unless it
            is so, these have their messages compared and no more.
        in_flight: How many may run at once; a call beyond them is left alone.
        timeout: Seconds that one may take.
        keep: How many differences are kept in memory, the last ones.
        width: Characters that are kept of a text, those around the first difference.
        inputs: Whether differences have the inputs of the call, and of messages what differs in them. Both
            may be what a user has written.
        file: A file to which each difference is added as a line of JSON, readable by its owner alone.
        file_bytes: What it may grow to. At half of that it becomes `<file>.1`, in the place of an earlier
            one, and begins again.

    Raises:
        ConfigError: If a value is none (`bad-shadow`).
    """

    share: float
    compare: Compared = "both"
    even_if_not_idempotent: bool = False
    in_flight: int = 4
    timeout: float = 60.0
    keep: int = 100
    width: int = 200
    inputs: bool = False
    file: str | os.PathLike[str] | None = None
    file_bytes: int = 10_000_000

    def __post_init__(self) -> None:
        share = self.share
        if isinstance(share, bool) or not isinstance(share, int | float) or not 0 <= share <= 1:
            raise _bad("share", share, "a number from 0 to 1")
        if self.compare not in _COMPARED:
            raise _bad("compare", self.compare, f"one of {', '.join(map(repr, _COMPARED))}")
        for name in ("even_if_not_idempotent", "inputs"):
            if not isinstance(getattr(self, name), bool):
                raise _bad(name, getattr(self, name), "True or False")
        check_seconds(self.timeout)
        for name, least, most in (
            ("in_flight", 1, 1_000),
            ("keep", 1, _MOST),
            ("width", 10, _MOST),
            ("file_bytes", _LEAST_FILE_BYTES, 10**12),
        ):
            value = getattr(self, name)
            if type(value) is not int or not least <= value <= most:
                raise _bad(name, value, f"a whole number from {least:,} to {most:,}")
        if self.file is not None and not isinstance(self.file, str | os.PathLike):
            raise _bad("file", self.file, "a path")

    def work(self, operation: AnyOperation) -> Work | None:
        """What is done for a call that has fallen into the share; None where it is left alone."""
        if not isinstance(operation, Operation) or operation.route is not None:
            return None
        answers = self.compare != "messages" and (operation.idempotent or self.even_if_not_idempotent)
        messages = self.compare != "fields"
        return Work(messages, answers) if messages or answers else None


def _bad(name: str, value: object, what: str) -> ConfigError:
    return ConfigError(
        f"{name} of a shadow must be {what}, not {shown(value)}",
        code="bad-shadow",
        hint="see dspex.router.Shadow",
    )
